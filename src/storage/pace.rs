//! How soon a follower hears that an entry is committed. Pure.
//!
//! openraft 0.9 lets each entry be followed by an append of none that says so: a second call, and for each entry a transaction of the
//! follower's state. But nobody waits for that state. So while entries come one after another, followers hear it with some of them
//! only, and apply what came in between in one transaction. An earlier commit than the leader knows is never wrong (Raft, 5.3), and
//! the next heartbeat says the latest.

use std::time::Duration;

use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};

use super::entry;
use super::types::{LogId, NodeId, Types, Vote};

/// What is committed is said once in this time.
const PAUSE: Duration = Duration::from_millis(20);
/// And once in so many bytes of entries: the follower has them still in memory.
const BYTES: usize = 1 << 20;

/// What one follower was told.
#[derive(Debug, Default)]
pub struct Pace {
    /// By which leader. Nothing is known of the follower before it has taken something of this one.
    vote: Option<Vote>,
    /// The last entry that it has, as it said.
    matched: Option<LogId>,
    /// The last commit that it has heard, and when that was sent.
    told: Option<LogId>,
    at: Duration,
    /// Of entries that it was sent since.
    bytes: usize,
}

/// What becomes of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// It goes out, and says that so much is committed.
    Committed(Option<LogId>),
    /// It would say only what can wait; the follower has taken all else that is in it.
    Nothing,
}

impl Pace {
    pub fn say(&self, append: &AppendEntriesRequest<Types>, now: Duration) -> Say {
        let is_soon = now.saturating_sub(self.at) < PAUSE && self.bytes < BYTES;
        if self.vote != Some(append.vote) || append.leader_commit <= self.told || !is_soon {
            return Say::Committed(append.leader_commit);
        }
        match append.entries.is_empty() && append.prev_log_id == self.matched {
            true => Say::Nothing,
            false => Say::Committed(self.told),
        }
    }

    /// The follower has answered an append that was sent at `sent`.
    pub fn answered(
        &mut self,
        append: &AppendEntriesRequest<Types>,
        response: &AppendEntriesResponse<NodeId>,
        sent: Duration,
    ) {
        if !matches!(response, AppendEntriesResponse::Success) {
            *self = Pace::default();
            return;
        }
        if self.vote != Some(append.vote) {
            *self = Pace {
                vote: Some(append.vote),
                ..Pace::default()
            };
        }
        self.matched = append.entries.last().map(|entry| entry.log_id).or(append.prev_log_id);
        self.bytes += append
            .entries
            .iter()
            .map(|entry| entry::size(&entry.payload))
            .sum::<usize>();
        if self.told < append.leader_commit {
            (self.told, self.at, self.bytes) = (append.leader_commit, sent, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use openraft::EntryPayload;

    use super::*;
    use crate::storage::entry::Body;
    use crate::storage::types::{Entry, log_id};

    const TAKEN: AppendEntriesResponse<u64> = AppendEntriesResponse::Success;

    fn id(index: u64) -> Option<LogId> {
        Some(log_id(1, 1, index))
    }

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// An append of `count` entries of `length` bytes behind entry `prev`.
    fn append(prev: u64, count: u64, length: usize, committed: u64) -> AppendEntriesRequest<Types> {
        let entry = |index| Entry {
            log_id: log_id(1, 1, index),
            payload: EntryPayload::Normal(Body::Operations(vec![Bytes::from(vec![0; length]).into()])),
        };
        AppendEntriesRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: id(prev),
            leader_commit: id(committed),
            entries: (prev + 1..=prev + count).map(entry).collect(),
        }
    }

    /// A follower that has entry 10 and heard at 1000 ms that 10 is committed.
    fn told() -> Pace {
        let mut pace = Pace::default();
        pace.answered(&append(9, 1, 100, 10), &TAKEN, millis(1000));
        pace
    }

    #[test]
    fn a_lone_entry_is_followed_at_once_and_many_are_not() {
        let mut pace = told();
        let (entry, news) = (append(10, 1, 100, 10), append(11, 0, 0, 11));
        assert_eq!(pace.say(&entry, millis(2000)), Say::Committed(id(10)));
        pace.answered(&entry, &TAKEN, millis(2000));
        assert_eq!(
            pace.say(&news, millis(2001)),
            Say::Committed(id(11)),
            "nothing was said for long"
        );
        pace.answered(&news, &TAKEN, millis(2001));
        let next = append(11, 1, 100, 11);
        pace.answered(&next, &TAKEN, millis(2003));
        assert_eq!(pace.say(&append(12, 0, 0, 12), millis(2004)), Say::Nothing);
        assert_eq!(
            pace.say(&append(12, 1, 100, 12), millis(2005)),
            Say::Committed(id(11)),
            "said later"
        );
        assert_eq!(pace.say(&append(12, 1, 100, 12), millis(2021)), Say::Committed(id(12)));
        assert_eq!(pace.say(&append(12, 0, 0, 12), millis(2021)), Say::Committed(id(12)));
    }

    #[test]
    fn a_heartbeat_always_goes_out() {
        assert_eq!(told().say(&append(10, 0, 0, 10), millis(1001)), Say::Committed(id(10)));
    }

    #[test]
    fn only_what_the_follower_is_known_to_have_is_answered_for_it() {
        let news = append(10, 0, 0, 11);
        assert_eq!(told().say(&news, millis(1001)), Say::Nothing);
        assert_eq!(told().say(&append(9, 0, 0, 11), millis(1001)), Say::Committed(id(10)));
        assert_eq!(Pace::default().say(&news, millis(1001)), Say::Committed(id(11)));
        let later = AppendEntriesRequest {
            vote: Vote::new_committed(2, 1),
            ..append(10, 0, 0, 11)
        };
        assert_eq!(told().say(&later, millis(1001)), Say::Committed(id(11)), "another term");
        let mut pace = told();
        pace.answered(&later, &AppendEntriesResponse::Conflict, millis(1001));
        assert_eq!(
            pace.say(&news, millis(1002)),
            Say::Committed(id(11)),
            "it lacks something"
        );
    }

    #[test]
    fn many_bytes_are_not_kept_waiting() {
        let mut pace = told();
        pace.answered(&append(10, 1, BYTES, 10), &TAKEN, millis(1001));
        assert_eq!(pace.say(&append(11, 1, 100, 11), millis(1002)), Say::Committed(id(11)));
    }
}
