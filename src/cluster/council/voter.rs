//! `Voter`: whom this node follows and whom it may vote for. Pure.
//!
//! Its promise is what makes leaders exclusive: a leader leads no longer than a majority has promised to vote for nobody else.

use std::time::Duration;

use super::table::Term;
use super::timing::Timing;
use crate::net::mesh::Name;

#[derive(Clone, Debug)]
pub struct Voter {
    timing: Timing,
    /// A process that has just started has forgotten what it promised before.
    silent_until: Duration,
    /// The highest term that was seen anywhere.
    pub seen: Term,
    promise: Option<Promise>,
}

#[derive(Clone, Debug)]
struct Promise {
    term: Term,
    to: Name,
    until: Duration,
    /// Whom it followed or voted for before.
    former: Option<(Term, Name)>,
}

impl Voter {
    pub fn new(timing: Timing, now: Duration) -> Self {
        Voter {
            timing,
            silent_until: now + timing.silence,
            seen: Term::default(),
            promise: None,
        }
    }

    /// The only voter of its cluster has promised nothing to others.
    pub fn end_silence(&mut self) {
        self.silent_until = Duration::ZERO;
    }

    pub fn is_silent(&self, now: Duration) -> bool {
        now < self.silent_until
    }

    /// The highest term that was followed or voted for. Nothing of an older one is listened to any more.
    pub fn term(&self) -> Term {
        self.promise.as_ref().map(|promise| promise.term).unwrap_or_default()
    }

    /// Whom it followed or voted for last, before that term.
    pub fn last_before(&self, term: Term) -> Option<(Term, Name)> {
        match &self.promise {
            Some(promise) if promise.term == term => promise.former.clone(),
            _ => self.last(),
        }
    }

    fn last(&self) -> Option<(Term, Name)> {
        self.promise.as_ref().map(|promise| (promise.term, promise.to.clone()))
    }

    pub fn observe(&mut self, term: Term) {
        self.seen = self.seen.max(term);
    }

    /// From when on it may vote for that node.
    pub fn free_at(&self, candidate: &Name) -> Duration {
        let promised = self.promise.as_ref().filter(|promise| promise.to != *candidate);
        self.silent_until
            .max(promised.map_or(Duration::ZERO, |promise| promise.until))
    }

    /// Whether it would vote for it now.
    pub fn would(&self, candidate: &Name, now: Duration) -> bool {
        now >= self.free_at(candidate)
    }

    /// Votes, if it may.
    pub fn vote(&mut self, term: Term, candidate: &Name, now: Duration) -> bool {
        self.observe(term);
        let is_again = self.last().as_ref() == Some(&(term, candidate.clone()));
        let may = self.would(candidate, now) && (term > self.term() || is_again);
        if may {
            self.promise(term, candidate, now);
        }
        may
    }

    /// Listens to an order, unless it is of a leader that was followed by another one.
    pub fn follow(&mut self, term: Term, leader: &Name, now: Duration) -> bool {
        self.observe(term);
        let may = term >= self.term();
        if may {
            self.promise(term, leader, now);
        }
        may
    }

    fn promise(&mut self, term: Term, to: &Name, now: Duration) {
        self.promise = Some(Promise {
            term,
            to: to.clone(),
            until: now + self.timing.promise,
            former: self.last_before(term),
        });
    }

    /// That leader leads no more; it says so itself.
    pub fn release(&mut self, leader: &Name) {
        if let Some(promise) = self.promise.as_mut().filter(|promise| promise.to == *leader) {
            promise.until = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::fixture::name;
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn term(number: u64) -> Term {
        Term { number, mark: 0 }
    }

    #[test]
    fn a_vote_binds_for_longer_than_a_lease_and_only_against_others() {
        let timing = Timing::default();
        let mut voter = Voter::new(timing, MS);
        assert!(!voter.vote(term(1), &name("n1"), 2 * MS), "it has just started");
        let start = MS + timing.silence;
        assert!(voter.vote(term(1), &name("n1"), start));
        assert!(!voter.vote(term(2), &name("n2"), start + timing.lease));
        assert!(voter.vote(term(3), &name("n1"), start + timing.lease));
        assert!(
            !voter.vote(term(3), &name("n2"), start + 10 * timing.lease),
            "once in a term"
        );
        assert!(voter.vote(term(4), &name("n2"), start + 10 * timing.lease));
        assert!(!voter.follow(term(3), &name("n1"), start + 10 * timing.lease));
        assert_eq!(voter.seen, term(4));
        let former = Some((term(3), name("n1")));
        assert_eq!(
            (voter.last_before(term(4)), voter.last_before(term(5))),
            (former, Some((term(4), name("n2"))))
        );
        voter.release(&name("n2"));
        assert!(voter.vote(term(5), &name("n3"), start + 10 * timing.lease));
    }
}
