//! Whether this replica's contents are those of its rows, so that they may be read though nobody leads. Pure.
//!
//! After a crash contents may be ahead of the rows (head of `state`), by no more than the log holds; those of a received state are
//! ahead by what its sender applied while it sent them. All of that was committed before. So the contents are exact once what a
//! leader has told since to be committed is applied, if that is of its own term: then all that was committed before is in it. So
//! they are once an entry of a later term is applied. After a crash the group wants the log as it was found applied too, for a
//! leader that goes on in its term may have forgotten how far it had come.

use super::types::{LogId, Vote};

#[derive(Clone, Copy, Debug)]
pub enum Exact {
    /// No leader has told yet; the last one before, or the sender of the state, led in this term.
    Untold(u64),
    /// Once this is applied.
    From(LogId),
}

impl Exact {
    /// At a start, or for a state that comes from a leader with this vote.
    pub fn after(vote: Option<&Vote>) -> Self {
        Exact::Untold(vote.map_or(0, |vote| vote.leader_id.term))
    }

    /// A leader that is followed has told what is committed.
    pub fn hear(&mut self, vote: &Vote, committed: Option<LogId>) {
        let own = committed.filter(|id| id.leader_id.term == vote.leader_id.term);
        if let (Exact::Untold(_), Some(id)) = (*self, own) {
            *self = Exact::From(id);
        }
    }

    pub fn is_so(&self, applied: Option<LogId>) -> bool {
        applied.is_some_and(|applied| match self {
            Exact::Untold(term) => applied.leader_id.term > *term,
            Exact::From(id) => applied >= *id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::types::log_id;

    fn leader(term: u64) -> Vote {
        Vote::new_committed(term, 1)
    }

    #[test]
    fn contents_are_exact_when_what_a_leader_told_is_applied() {
        let mut exact = Exact::after(Some(&leader(4)));
        assert!(
            !exact.is_so(None) && !exact.is_so(Some(log_id(4, 1, 90))),
            "nobody told"
        );
        exact.hear(&leader(5), None);
        exact.hear(&leader(5), Some(log_id(4, 1, 70)));
        assert!(
            !exact.is_so(Some(log_id(4, 1, 90))),
            "a new leader may not know yet how far the one before had come"
        );
        exact.hear(&leader(5), Some(log_id(5, 1, 92)));
        assert!(!exact.is_so(Some(log_id(4, 1, 91))));
        assert!(exact.is_so(Some(log_id(5, 1, 92))) && exact.is_so(Some(log_id(6, 2, 95))));
        exact.hear(&leader(5), Some(log_id(5, 1, 99)));
        assert!(exact.is_so(Some(log_id(5, 1, 92))), "the first one is enough");
    }

    #[test]
    fn an_entry_of_a_later_term_says_it_too() {
        let exact = Exact::after(Some(&leader(4)));
        assert!(exact.is_so(Some(log_id(5, 3, 10))));
        let new = Exact::after(None);
        assert!(!new.is_so(None) && new.is_so(Some(log_id(1, 1, 0))));
    }
}
