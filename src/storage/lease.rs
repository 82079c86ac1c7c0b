//! The read lease: until when no other node can lead, judged by the times at which this leader *sent* what was answered.
//!
//! A voter that took an append at time t grants no vote before t + the longest election time-out. Times are CLOCK_BOOTTIME,
//! so a machine that slept wakes without its lease. Check after reading the data and before answering. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::types::{NodeId, Vote};

/// Clocks of two machines may run apart, and an answer takes a moment to leave.
const MARGIN: Duration = Duration::from_millis(150);

/// When voters were last heard, under one vote.
#[derive(Clone, Debug, Default)]
pub struct Contacts {
    vote: Option<Vote>,
    sent: BTreeMap<NodeId, Duration>,
    /// When each was first sent something.
    first: BTreeMap<NodeId, Duration>,
}

impl Contacts {
    /// `peer` took an append of `vote` that was sent at `sent`. A new vote forgets all of the old one.
    pub fn record(&mut self, vote: Vote, peer: NodeId, sent: Duration) {
        if self.is_current(vote) {
            let last = self.sent.entry(peer).or_default();
            *last = sent.max(*last);
        }
    }

    /// How long `peer` has taken nothing of `vote`, which is about to be sent something; the first time counts as an answer.
    pub fn silence(&mut self, vote: Vote, peer: NodeId, now: Duration) -> Duration {
        if !self.is_current(vote) {
            return Duration::ZERO;
        }
        let first = *self.first.entry(peer).or_insert(now);
        now.saturating_sub(self.last(peer).unwrap_or(first))
    }

    /// Whether `vote` is the newest; an answer to an older one comes late and says nothing of now.
    fn is_current(&mut self, vote: Vote) -> bool {
        if self.vote < Some(vote) {
            *self = Contacts {
                vote: Some(vote),
                ..Contacts::default()
            };
        }
        self.vote == Some(vote)
    }

    /// When `peer` was last sent something that it took, under any vote this leader had last.
    pub fn last(&self, peer: NodeId) -> Option<Duration> {
        self.sent.get(&peer).copied()
    }

    /// Since when the leader `me` of `vote` knows a majority behind it; `voters` has two sets while membership changes.
    /// `None`: no majority has answered yet. It hears itself now.
    pub fn majority(&self, vote: Vote, me: NodeId, voters: &[BTreeSet<NodeId>], now: Duration) -> Option<Duration> {
        if self.vote != Some(vote) && voters.iter().any(|voters| voters.len() > 1) {
            return None;
        }
        voters
            .iter()
            .map(|voters| self.majority_of(me, voters, now))
            .min()
            .flatten()
    }

    /// The latest time by which a majority was heard. Voters are few: counting needs no memory, and reads ask often.
    fn majority_of(&self, me: NodeId, voters: &BTreeSet<NodeId>, now: Duration) -> Option<Duration> {
        let time = |voter: &NodeId| if *voter == me { Some(now) } else { self.last(*voter) };
        let is_by_majority = |since: &Duration| {
            let heard = voters.iter().filter_map(time).filter(|heard| heard >= since);
            heard.count() > voters.len() / 2
        };
        voters.iter().filter_map(time).filter(is_by_majority).max()
    }
}

/// Until when a lease of `length` holds that a majority gave at `heard`.
pub fn end(heard: Duration, length: Duration) -> Duration {
    (heard + length).saturating_sub(MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn heard(times: &[(NodeId, u64)]) -> Contacts {
        let mut contacts = Contacts::default();
        times
            .iter()
            .for_each(|(peer, time)| contacts.record(Vote::new_committed(2, 1), *peer, at(*time)));
        contacts
    }

    fn majority(contacts: &Contacts, voters: &[&[NodeId]], now: u64) -> Option<Duration> {
        let voters: Vec<_> = voters.iter().map(|voters| voters.iter().copied().collect()).collect();
        contacts.majority(Vote::new_committed(2, 1), 1, &voters, at(now))
    }

    #[test]
    fn the_lease_runs_from_the_send_time_of_the_majority() {
        let contacts = heard(&[(2, 1000), (3, 5000)]);
        assert_eq!(majority(&contacts, &[&[1, 2, 3]], 9000), Some(at(5000)), "1 and 3");
        assert_eq!(
            majority(&contacts, &[&[1, 2, 3, 4, 5]], 9000),
            Some(at(1000)),
            "1, 2 and 3"
        );
        assert_eq!(majority(&heard(&[(2, 1000)]), &[&[1, 2, 3, 4, 5]], 9000), None);
        assert_eq!(
            majority(&heard(&[]), &[&[1]], 9000),
            Some(at(9000)),
            "a lone voter asks nobody"
        );
    }

    #[test]
    fn both_sets_must_agree_while_membership_changes() {
        let contacts = heard(&[(2, 5000), (4, 1000)]);
        assert_eq!(majority(&contacts, &[&[1, 2, 3], &[1, 4, 5]], 9000), Some(at(1000)));
        assert_eq!(majority(&contacts, &[&[1, 2, 3], &[1, 5, 6]], 9000), None);
    }

    #[test]
    fn another_votes_contacts_count_nothing() {
        let mut contacts = heard(&[(2, 5000), (3, 5000)]);
        let voters = [[1, 2, 3].into()];
        assert_eq!(contacts.majority(Vote::new_committed(3, 1), 1, &voters, at(5000)), None);
        contacts.record(Vote::new_committed(3, 1), 2, at(6000));
        assert_eq!(
            majority(&contacts, &[&[1, 2, 3]], 6000),
            None,
            "and the old vote's are gone"
        );
    }

    #[test]
    fn a_lease_ends_before_another_can_lead() {
        assert_eq!(end(at(1000), at(800)), at(1650));
        assert_eq!(end(at(0), at(100)), at(0), "shorter than what clocks may differ by");
    }

    #[test]
    fn an_answer_to_an_older_vote_forgets_nothing() {
        let mut contacts = heard(&[(2, 5000)]);
        contacts.record(Vote::new_committed(1, 1), 3, at(4000));
        assert_eq!(majority(&contacts, &[&[1, 2, 3]], 6000), Some(at(5000)));
        assert_eq!(contacts.last(3), None);
    }

    #[test]
    fn silence_counts_from_the_last_answer_or_the_first_attempt() {
        let mut contacts = heard(&[(2, 5000)]);
        let mut silence = |peer, now| contacts.silence(Vote::new_committed(2, 1), peer, at(now));
        assert_eq!(silence(2, 5400), at(400));
        assert_eq!((silence(3, 5400), silence(3, 5900)), (at(0), at(500)));
        assert_eq!(
            contacts.silence(Vote::new_committed(3, 1), 2, at(9000)),
            at(0),
            "a new vote"
        );
    }

    #[test]
    fn late_answers_do_not_turn_time_back() {
        assert_eq!(heard(&[(2, 5000), (2, 1000)]).last(2), Some(at(5000)));
    }
}
