//! What another node needs to hold the same: the state of a key after a change, put in there; walks over all items.
//!
//! States are whole, not steps: putting one in twice does nothing more.

use std::sync::atomic::Ordering;

use super::record::Record;
use super::shard::{Fresh, Shard};
use super::sharded::{SHARDS, Store};
use super::time::{Deadline, FOREVER};
use super::verb::{self, Situation};
use crate::cache::command::{Command, Reply};

/// Places that a walk looks at under one lock: some microseconds.
const STEP: u32 = 256;

/// A key and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Present(Copy),
    Absent(Box<[u8]>),
}

/// An item without what only concerns the node that it lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    pub record: Record,
    pub flags: u32,
    pub cas: u64,
    /// Milliseconds left; `None` for an item without end.
    pub left: Option<u64>,
    pub is_stale: bool,
    pub has_winner: bool,
}

impl State {
    pub fn key(&self) -> &[u8] {
        match self {
            State::Present(copy) => copy.record.key(),
            State::Absent(key) => key,
        }
    }

    /// Bytes that it takes on the way, about.
    pub fn size(&self) -> usize {
        match self {
            State::Present(copy) => 64 + copy.record.key().len() + copy.record.value().len(),
            State::Absent(key) => 16 + key.len(),
        }
    }
}

/// How far a walk has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    shard: usize,
    place: u32,
}

impl Store {
    /// Puts a state in, whatever was there.
    pub fn put(&self, state: State, now: u64) {
        // The key lies in the record, which moves into the shard: a second handle keeps it readable meanwhile.
        let key = match &state {
            State::Present(copy) => copy.record.clone(),
            State::Absent(key) => Record::new(key, b"", b""),
        };
        self.with(key.key(), now, |shard, at| put(shard, key.key(), state, at));
    }

    /// Shows the state of a key under the lock of its shard.
    pub fn show(&self, key: &[u8], now: u64, visit: impl FnOnce(State)) {
        self.with(key, now, |shard, at| visit(self::state(shard, key, at)));
    }

    /// Executes a command on a key that has this state elsewhere. Tells the reply and the state after it; nothing stays here but what the
    /// counters say.
    pub fn execute_on(&self, state: State, command: Command<'_>, now: u64) -> (Reply, State) {
        let key: Box<[u8]> = state.key().into();
        self.with(&key, now, |shard, at| {
            put(shard, &key, state, at);
            let reply = verb::execute(shard, command, at);
            let after = self::state(shard, &key, at);
            put(shard, &key, State::Absent(key.clone()), at);
            (reply, after)
        })
    }

    /// One step of a walk over all items. Each is shown under the lock of its shard, so that what the caller sends on is
    /// in order with changes. `None`: that was the last step.
    pub fn walk(&self, from: Cursor, now: u64, mut visit: impl FnMut(State)) -> Option<Cursor> {
        let shard = self.lock(from.shard);
        let (end, places) = (from.place.saturating_add(STEP), shard.places());
        for place in from.place..end.min(places) {
            if let Some(copy) = copy(&shard, place, now) {
                visit(State::Present(copy));
            }
        }
        match (end < places, from.shard + 1 < SHARDS) {
            (true, _) => Some(Cursor { place: end, ..from }),
            (false, true) => Some(Cursor {
                shard: from.shard + 1,
                place: 0,
            }),
            (false, false) => None,
        }
    }

    /// Removes all items whose key does not please; returns how many.
    pub fn retain(&self, keep: impl Fn(&[u8]) -> bool) -> usize {
        let mut removed = 0;
        for index in 0..SHARDS {
            let mut from = 0u32;
            loop {
                let places = self.adjusted(index, |shard| {
                    let end = from.saturating_add(STEP).min(shard.places());
                    for place in from..end {
                        if shard
                            .peek(place)
                            .is_some_and(|slot| !slot.record.is_vacant() && !keep(slot.record.key()))
                        {
                            shard.remove(place);
                            removed += 1;
                        }
                    }
                    shard.places()
                });
                from = from.saturating_add(STEP);
                if from >= places {
                    break;
                }
            }
        }
        removed
    }

    /// Removes at once all items whose key pleases; a flush that was due later is off.
    pub fn flush_where(&self, pleases: impl Fn(&[u8]) -> bool) {
        self.put_flush_off();
        self.retain(|key| !pleases(key));
    }

    /// Removes everything at once; a flush that was due later is off.
    pub fn empty(&self) {
        self.flush(None, 0);
    }

    /// From here on uniques are counted from `first`: nodes that take shards over from one another must not give one
    /// unique to two states of a key.
    pub fn count_uniques_from(&self, first: u64) {
        self.uniques.store(first, Ordering::Relaxed);
    }
}

/// The state that a key has now; under the lock of its shard.
pub(super) fn state(shard: &mut Shard, key: &[u8], at: Situation) -> State {
    let found = shard.find(at.hash, key, at.now);
    match found.and_then(|place| copy(shard, place, at.now)) {
        Some(copy) => State::Present(copy),
        None => State::Absent(key.into()),
    }
}

fn copy(shard: &Shard, place: u32, now: u64) -> Option<Copy> {
    let slot = shard.peek(place)?;
    let mark = slot.mark();
    let is_live = !slot.record.is_vacant() && slot.deadline > now;
    is_live.then(|| Copy {
        record: slot.record.clone(),
        flags: slot.flags,
        cas: slot.cas,
        left: (slot.deadline != FOREVER).then(|| slot.deadline - now),
        is_stale: mark.is_stale,
        has_winner: mark.has_winner,
    })
}

fn put(shard: &mut Shard, key: &[u8], state: State, at: Situation) {
    let found = shard.find(at.hash, key, at.now);
    let copy = match (state, found) {
        (State::Present(copy), _) => copy,
        (State::Absent(_), Some(place)) => return shard.remove(place),
        (State::Absent(_), None) => return,
    };
    let deadline: Deadline = copy.left.map_or(FOREVER, |left| at.now.saturating_add(left));
    let fresh = Fresh {
        record: copy.record,
        flags: copy.flags,
        deadline,
        cas: Some(copy.cas),
    };
    let place = match found {
        Some(place) => {
            shard.replace(place, fresh, at.now);
            place
        }
        None => shard.insert(at.hash, fresh, at.now),
    };
    shard.slot(place).note(|mark| {
        mark.is_stale = copy.is_stale;
        mark.has_winner = copy.has_winner;
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::time::Expiry;
    use super::*;
    use crate::cache::command::{Command, Delete, Get, Mode, Reply, Set, Terms};

    fn set(store: &Store, key: &[u8], value: &[u8], expiry: Expiry) -> State {
        let terms = Terms {
            mode: Mode::Set,
            flags: 7,
            expiry,
            compare: None,
            new_cas: None,
            invalidate: false,
            vivify: None,
        };
        let record = Record::new(key, value, b"");
        let mut seen = None;
        store.execute_noting(Command::Set(Set { terms, record }), 1000, |_, state| seen = Some(state));
        seen.expect("a change is noted")
    }

    fn get(store: &Store, key: &[u8], now: u64) -> Option<(Vec<u8>, u64)> {
        match store.execute(Command::Get(Get::plain(key)), now) {
            Some(Reply::Hit(hit)) => Some((hit.record.value().to_vec(), hit.cas)),
            _ => None,
        }
    }

    #[test]
    fn a_copy_has_value_unique_and_end() {
        let (first, second) = (Store::new(8 << 20, 1 << 20), Store::new(8 << 20, 1 << 20));
        first.count_uniques_from(5_000);
        let state = set(&first, b"k", b"v", Expiry::In(500));
        for _ in 0..2 {
            second.put(state.clone(), 9_000);
        }
        assert_eq!(get(&second, b"k", 9_499), get(&first, b"k", 1_000));
        assert_eq!(get(&second, b"k", 9_500), None);
        let delete = Delete {
            key: b"k",
            compare: None,
            new_cas: None,
            invalidate: None,
            keep_item: false,
        };
        second.put(state, 1_000);
        let mut gone = None;
        first.execute_noting(Command::Delete(delete), 1_000, |_, state| gone = Some(state));
        assert_eq!(gone, Some(State::Absent(b"k"[..].into())));
        second.put(gone.expect("noted"), 1_000);
        assert_eq!(get(&second, b"k", 1_000), None);
    }

    #[test]
    fn a_walk_shows_every_item_once_and_retain_leaves_what_pleases() {
        let store = Store::new(8 << 20, 1 << 20);
        let empty = store.used();
        let keys: BTreeSet<Vec<u8>> = (0..20_000).map(|number| format!("k{number}").into_bytes()).collect();
        for key in &keys {
            set(&store, key, b"v", Expiry::Never);
        }
        let walk = || {
            let (mut seen, mut cursor) = (Vec::new(), Some(Cursor::default()));
            while let Some(at) = cursor {
                cursor = store.walk(at, 1_000, |state| seen.push(state.key().to_vec()));
            }
            seen
        };
        let seen = walk();
        assert_eq!(
            (seen.len(), seen.into_iter().collect::<BTreeSet<_>>()),
            (keys.len(), keys.clone())
        );
        let pleases = |key: &[u8]| key.ends_with(b"7");
        assert_eq!(store.retain(pleases), 18_000);
        assert_eq!(
            walk().into_iter().collect::<BTreeSet<_>>(),
            keys.into_iter().filter(|key| pleases(key)).collect()
        );
        store.empty();
        assert_eq!((walk().len(), store.used() <= empty), (0, true));
    }
}
