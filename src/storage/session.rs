//! The calls of one session: their numbers, and which request each belongs to. No I/O.
//!
//! A call is open until its outcome is known; a request that comes again meanwhile joins the call that it has. The outcome is kept
//! until it was fetched or for `KEPT`, for a caller that gave up and asks again. When the session is begun anew, open
//! calls are numbered again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::watch;

use super::door::RequestKey;
use super::operation;
use super::request::Answer;
use super::state::WINDOW;

/// An outcome that nobody fetches is forgotten after this long: the door's patience is 10 s.
const KEPT: Duration = Duration::from_secs(60);

/// `None` until the outcome is known.
pub type Outcome = watch::Receiver<Option<Answer>>;

/// Memory: an entry for each open call, and for each that ended within `KEPT` and was not fetched, which callers do.
#[derive(Default)]
pub struct Session {
    /// `None` before it was begun.
    id: Option<operation::Session>,
    last: u64,
    open: BTreeSet<u64>,
    last_call: u64,
    /// Calls whose outcome is not known.
    under_way: u64,
    requests: HashMap<RequestKey, (u64, Outcome)>,
    ended: VecDeque<(Duration, RequestKey, u64)>,
}

/// Where a call stands in the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    pub session: operation::Session,
    pub sequence: u64,
    /// All outcomes up to this one are known.
    pub acknowledged: u64,
}

/// A call that has just been opened.
pub struct Opened {
    /// Which one of this table; its number may change.
    pub call: u64,
    pub sender: watch::Sender<Option<Answer>>,
    pub outcome: Outcome,
}

impl Session {
    /// The session is begun under `id`, its calls are numbered from `next` on. What was numbered before is to be numbered again.
    pub fn begin(&mut self, id: operation::Session, next: u64) {
        self.id = Some(id);
        self.last = next.saturating_sub(1);
        self.open.clear();
    }

    /// The call that the request has already.
    pub fn find(&self, key: RequestKey) -> Option<Outcome> {
        self.requests.get(&key).map(|(_, outcome)| outcome.clone())
    }

    /// Opens a call for a request; `None` when there are too many.
    pub fn open(&mut self, key: RequestKey) -> Option<Opened> {
        if self.under_way >= WINDOW {
            return None;
        }
        self.under_way += 1;
        self.last_call += 1;
        let (sender, outcome) = watch::channel(None);
        self.requests.insert(key, (self.last_call, outcome.clone()));
        Some(Opened {
            call: self.last_call,
            sender,
            outcome,
        })
    }

    /// Numbers a call. `None`: the session has not begun, or it would be too far ahead of the oldest open one.
    pub fn number(&mut self) -> Option<Number> {
        let sequence = self.last + 1;
        let acknowledged = self.open.first().map_or(self.last, |oldest| oldest - 1);
        if sequence - acknowledged > WINDOW {
            return None;
        }
        let session = self.id?;
        self.last = sequence;
        self.open.insert(sequence);
        Some(Number {
            session,
            sequence,
            acknowledged,
        })
    }

    /// The outcome of a number is known.
    pub fn settle(&mut self, number: Number) {
        if self.id == Some(number.session) {
            self.open.remove(&number.sequence);
        }
    }

    /// The outcome of the call is known at `now`.
    pub fn end(&mut self, key: RequestKey, call: u64, now: Duration) {
        self.under_way -= 1;
        self.ended.push_back((now, key, call));
        while let Some((at, key, call)) = self.ended.front().copied() {
            if now.saturating_sub(at) < KEPT {
                break;
            }
            self.forget(key, call);
            self.ended.pop_front();
        }
    }

    /// The outcome reached who asked.
    pub fn fetched(&mut self, key: RequestKey) {
        self.requests.remove(&key);
    }

    fn forget(&mut self, key: RequestKey, call: u64) {
        if self.requests.get(&key).is_some_and(|(known, _)| *known == call) {
            self.requests.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: operation::Session = operation::Session(5);

    fn key(xid: u32) -> RequestKey {
        RequestKey {
            client: 1,
            xid,
            checksum: 2,
        }
    }

    fn begun(next: u64) -> Session {
        let mut session = Session::default();
        session.begin(ID, next);
        session
    }

    #[test]
    fn all_before_the_oldest_open_call_is_acknowledged() {
        let mut session = begun(8);
        let first = session.number().unwrap();
        let second = session.number().unwrap();
        assert_eq!((first.sequence, second.sequence, second.acknowledged), (8, 9, 7));
        session.settle(second);
        assert_eq!(session.number().unwrap().acknowledged, 7, "the first is open");
        session.settle(first);
        assert_eq!(session.number().unwrap().acknowledged, 9);
    }

    #[test]
    fn no_call_goes_beyond_the_window_of_kept_replies() {
        let mut session = begun(1);
        let first = session.number().unwrap();
        for _ in 2..=WINDOW {
            let number = session.number().unwrap();
            session.settle(number);
        }
        assert!(session.number().is_none());
        session.settle(first);
        assert!(session.number().is_some());
        assert!(Session::default().number().is_none(), "not begun");
    }

    #[test]
    fn a_session_that_begins_anew_numbers_open_calls_again() {
        let mut session = begun(1);
        let old = session.number().unwrap();
        session.begin(operation::Session(6), 40);
        let new = session.number().unwrap();
        assert_eq!((new.sequence, new.acknowledged), (40, 39));
        session.settle(old);
        assert_eq!(
            session.number().unwrap().acknowledged,
            39,
            "the old number is another session's"
        );
    }

    #[test]
    fn a_repeated_request_finds_its_call_until_it_is_fetched_or_old() {
        let mut session = begun(1);
        let opened = session.open(key(1)).unwrap();
        assert!(session.find(key(1)).is_some() && session.find(key(2)).is_none());
        session.end(key(1), opened.call, Duration::ZERO);
        assert!(session.find(key(1)).is_some(), "it is known, but has reached nobody");
        session.fetched(key(1));
        assert!(session.find(key(1)).is_none());
        // The same request in a later call must not be forgotten with the first one.
        let again = session.open(key(1)).unwrap();
        let other = session.open(key(2)).unwrap();
        session.end(key(2), other.call, KEPT);
        assert!(session.find(key(1)).is_some());
        session.end(key(1), again.call, KEPT * 2);
        assert!(session.find(key(2)).is_none(), "too old");
    }
}
