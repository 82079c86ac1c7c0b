//! The calls of this node's session: their numbers, and which request each belongs to. No I/O.
//!
//! A call is open until its outcome is known; a request that comes again meanwhile joins the call that it has. The outcome is kept
//! until it was fetched or for `KEPT`, for a caller that gave up and asks again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::watch;

use super::call::{Error, Reply};
use super::door::RequestKey;
use super::state::WINDOW;

/// An outcome that nobody fetches is forgotten after this long: the door's patience is 10 s.
const KEPT: Duration = Duration::from_secs(60);

pub type Answer = Result<Reply, Error>;
/// `None` until the outcome is known.
pub type Outcome = watch::Receiver<Option<Answer>>;

/// Memory: an entry for each open call, and for each that ended within `KEPT` and was not fetched, which callers do.
#[derive(Default)]
pub struct Session {
    last: u64,
    open: BTreeSet<u64>,
    requests: HashMap<RequestKey, (u64, Outcome)>,
    ended: VecDeque<(Duration, RequestKey, u64)>,
}

/// A call that was just numbered.
pub struct Numbered {
    pub sequence: u64,
    /// All outcomes up to this one are known.
    pub acknowledged: u64,
    pub sender: watch::Sender<Option<Answer>>,
    pub outcome: Outcome,
}

impl Session {
    /// The call that the request has already.
    pub fn find(&self, key: RequestKey) -> Option<Outcome> {
        self.requests.get(&key).map(|(_, outcome)| outcome.clone())
    }

    /// Numbers a new call; `None` when it would be too far ahead of the oldest open one.
    pub fn begin(&mut self, key: RequestKey) -> Option<Numbered> {
        let sequence = self.last + 1;
        let acknowledged = self.open.first().map_or(self.last, |oldest| oldest - 1);
        if sequence - acknowledged > WINDOW {
            return None;
        }
        self.last = sequence;
        self.open.insert(sequence);
        let (sender, outcome) = watch::channel(None);
        self.requests.insert(key, (sequence, outcome.clone()));
        Some(Numbered {
            sequence,
            acknowledged,
            sender,
            outcome,
        })
    }

    /// The outcome of the call is known at `now`.
    pub fn end(&mut self, key: RequestKey, sequence: u64, now: Duration) {
        self.open.remove(&sequence);
        self.ended.push_back((now, key, sequence));
        while let Some((at, key, sequence)) = self.ended.front().copied() {
            if now.saturating_sub(at) < KEPT {
                break;
            }
            self.forget(key, sequence);
            self.ended.pop_front();
        }
    }

    /// The outcome reached who asked.
    pub fn fetched(&mut self, key: RequestKey) {
        self.requests.remove(&key);
    }

    fn forget(&mut self, key: RequestKey, sequence: u64) {
        if self.requests.get(&key).is_some_and(|(known, _)| *known == sequence) {
            self.requests.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(xid: u32) -> RequestKey {
        RequestKey {
            client: 1,
            xid,
            checksum: 2,
        }
    }

    #[test]
    fn all_before_the_oldest_open_call_is_acknowledged() {
        let mut session = Session::default();
        let first = session.begin(key(1)).unwrap();
        let second = session.begin(key(2)).unwrap();
        assert_eq!((first.sequence, second.sequence, second.acknowledged), (1, 2, 0));
        session.end(key(2), 2, Duration::ZERO);
        assert_eq!(session.begin(key(3)).unwrap().acknowledged, 0, "the first is open");
        session.end(key(1), 1, Duration::ZERO);
        assert_eq!(session.begin(key(4)).unwrap().acknowledged, 2);
    }

    #[test]
    fn no_call_goes_beyond_the_window_of_kept_replies() {
        let mut session = Session::default();
        session.begin(key(1)).unwrap();
        for sequence in 2..=WINDOW {
            let begun = session.begin(key(sequence as u32)).unwrap();
            session.end(key(sequence as u32), begun.sequence, Duration::ZERO);
        }
        assert!(session.begin(key(0)).is_none());
        session.end(key(1), 1, Duration::ZERO);
        assert!(session.begin(key(0)).is_some());
    }

    #[test]
    fn a_repeated_request_finds_its_call_until_it_is_fetched_or_old() {
        let mut session = Session::default();
        let begun = session.begin(key(1)).unwrap();
        assert!(session.find(key(1)).is_some() && session.find(key(2)).is_none());
        session.end(key(1), begun.sequence, Duration::ZERO);
        assert!(session.find(key(1)).is_some(), "it is known, but has reached nobody");
        session.fetched(key(1));
        assert!(session.find(key(1)).is_none());
        // The same request in a later call must not be forgotten with the first one.
        let again = session.begin(key(1)).unwrap();
        let other = session.begin(key(2)).unwrap();
        session.end(key(2), other.sequence, KEPT);
        assert!(session.find(key(1)).is_some());
        session.end(key(1), again.sequence, KEPT * 2);
        assert!(session.find(key(2)).is_none(), "too old");
    }
}
