//! `Store`: the shards together, their one budget, and flushes.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::copy::{self, State};
use super::record::Record;
use super::shard::{Counters, Shard};
use super::time::FOREVER;
use super::verb::{self, Situation};
use crate::cache::command::{Command, Hit, Reply};

/// Enough that four to sixteen threads seldom meet. A power of two; also the classes that `stats items` lists.
pub const SHARDS: usize = 32;
/// One ghost for so many bytes of budget: about as many as there are items of usual size, 0.4 % of the memory.
const BYTES_PER_GHOST: usize = 1024;
/// Places that a sweep looks at under one lock: some microseconds.
const SWEEP_STEP: u32 = 512;
/// The whole store is swept in about so many calls of `sweep`.
pub const SWEEP_ROUND: u32 = 30;
/// No flush is due.
const NO_FLUSH: u64 = u64::MAX;

#[derive(Debug)]
pub struct Store {
    shards: Vec<Mutex<Shard>>,
    /// The next cas unique.
    pub(super) uniques: Arc<AtomicU64>,
    hasher: RandomState,
    budget: usize,
    max_item: usize,
    used: AtomicUsize,
    /// The shard that gives up the next item.
    victim: AtomicUsize,
    /// When a delayed flush falls due.
    flush_at: AtomicU64,
}

impl Store {
    /// `budget` and `max_item` in bytes; an item may take a quarter of the budget at most.
    pub fn new(budget: usize, max_item: usize) -> Self {
        Self::with_hasher(budget, max_item, RandomState::new())
    }

    /// Like `new`; stores with the same hasher put every key into the same shard.
    pub fn with_hasher(budget: usize, max_item: usize, hasher: RandomState) -> Self {
        let ghosts = budget / SHARDS / BYTES_PER_GHOST;
        let uniques = Arc::new(AtomicU64::new(1));
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard::new(ghosts, uniques.clone())));
        let store = Store {
            shards: shards.collect(),
            uniques,
            hasher,
            budget,
            max_item: max_item.min(budget / 4),
            used: AtomicUsize::new(0),
            victim: AtomicUsize::new(0),
            flush_at: AtomicU64::new(NO_FLUSH),
        };
        let empty = (0..SHARDS).map(|index| store.lock(index).bytes()).sum();
        store.used.store(empty, Ordering::Relaxed);
        store
    }

    /// Executes a command on one key, or a flush. The others are not the store's: `None`.
    pub fn execute(&self, command: Command<'_>, now: u64) -> Option<Reply> {
        if let Command::Flush { after } = command {
            self.flush(after, now);
            return Some(Reply::Done);
        }
        self.on_key(command, now, |_, _, _, _| {})
    }

    /// Executes a command on one key, and tells its reply and the state of the key then to `note`, before anybody else
    /// can change it. `note` must not come back to this store.
    pub fn execute_noting(&self, command: Command<'_>, now: u64, note: impl FnOnce(&Reply, State)) -> Option<Reply> {
        self.on_key(command, now, |reply, shard, key, at| {
            note(reply, copy::state(shard, key, at));
        })
    }

    fn on_key(
        &self,
        command: Command<'_>,
        now: u64,
        then: impl FnOnce(&Reply, &mut Shard, &[u8], Situation),
    ) -> Option<Reply> {
        self.flush_if_due(now);
        let mut room = [0; u8::MAX as usize];
        let key = match &command {
            Command::Set(set) => {
                // The key lies in the record, which moves into the shard.
                let key = set.record.key();
                let (place, _) = room.split_at_mut(key.len());
                place.copy_from_slice(key);
                &*place
            }
            Command::Get(get) => get.key,
            Command::Delete(delete) => delete.key,
            Command::Arithmetic(sum) => sum.key,
            Command::Touch { key, .. } => *key,
            _ => return None,
        };
        Some(self.with(key, now, |shard, at| {
            let reply = verb::execute(shard, command, at);
            then(&reply, shard, key, at);
            reply
        }))
    }

    /// Executes a plain `get`, and shows the item in its place before anybody else can change it. `see` must not come back to this store.
    pub fn look<T>(&self, key: &[u8], now: u64, see: impl FnOnce(Option<Hit<&Record>>) -> T) -> T {
        self.flush_if_due(now);
        self.with(key, now, |shard, at| verb::look(shard, key, at, see))
    }

    /// Whether an item of that size may be stored.
    pub fn fits(&self, key_len: usize, value_len: usize) -> bool {
        verb::fits(key_len, value_len, self.max_item)
    }

    /// Counts a refused store and removes the item that it would have replaced, if it was to be replaced.
    pub fn refuse_too_large(&self, key: &[u8], forget: bool, now: u64) {
        self.with(key, now, |shard, at| {
            shard.counters.too_large += 1;
            if forget && let Some(place) = shard.find(at.hash, key, now) {
                shard.remove(place);
            }
        });
    }

    /// One unit of background work: frees a part of what has expired. Call about once a second.
    pub fn sweep(&self, now: u64) {
        self.flush_if_due(now);
        for index in 0..SHARDS {
            let mut left = self.lock(index).places().div_ceil(SWEEP_ROUND);
            while left > 0 {
                let step = left.min(SWEEP_STEP);
                self.adjusted(index, |shard| shard.sweep(step, now));
                left -= step;
            }
        }
    }

    /// Bytes held, overhead included.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub fn budget(&self) -> usize {
        self.budget
    }

    pub fn max_item(&self) -> usize {
        self.max_item
    }

    /// Items and counters, shard by shard.
    pub fn shards(&self) -> impl Iterator<Item = (usize, Counters)> {
        (0..SHARDS).map(|index| {
            let shard = self.lock(index);
            (shard.items(), shard.counters)
        })
    }

    /// Bytes of one shard.
    pub fn shard_bytes(&self, index: usize) -> usize {
        self.lock(index % SHARDS).bytes()
    }

    /// Shows live items of one shard with the milliseconds they have left, until `visit` answers `false`.
    /// The shard is locked meanwhile.
    pub fn visit(&self, index: usize, now: u64, mut visit: impl FnMut(&Record, Option<u64>) -> bool) {
        self.lock(index % SHARDS).visit(now, |record, deadline| {
            visit(record, (deadline != FOREVER).then(|| deadline - now))
        });
    }

    /// Sets all counters to zero.
    pub fn reset_counters(&self) {
        for index in 0..SHARDS {
            self.lock(index).counters = Counters::default();
        }
    }

    /// A flush replaces one that was due later, as in memcached.
    pub(super) fn flush(&self, after: Option<u64>, now: u64) {
        let due = after.map_or(NO_FLUSH, |after| now.saturating_add(after));
        self.flush_at.store(due, Ordering::Release);
        if after.is_none() {
            self.clear();
        }
    }

    pub(super) fn put_flush_off(&self) {
        self.flush_at.store(NO_FLUSH, Ordering::Release);
    }

    /// The first caller past the time clears; others may read on for the moment that this takes.
    fn flush_if_due(&self, now: u64) {
        let due = self.flush_at.load(Ordering::Acquire);
        let is_ours = due <= now
            && self
                .flush_at
                .compare_exchange(due, NO_FLUSH, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
        if is_ours {
            self.clear();
        }
    }

    fn clear(&self) {
        for index in 0..SHARDS {
            drop(self.adjusted(index, Shard::clear));
        }
    }

    pub(super) fn with<T>(&self, key: &[u8], now: u64, verb: impl FnOnce(&mut Shard, Situation) -> T) -> T {
        let hash = self.hasher.hash_one(key);
        // The upper half chooses the shard, the lower half the chain in it.
        let index = (hash >> 32) as usize % SHARDS;
        let situation = Situation {
            hash: hash as u32,
            now,
            max_item: self.max_item,
        };
        let result = self.adjusted(index, |shard| verb(shard, situation));
        if self.used() > self.budget {
            self.make_room(now);
        }
        result
    }

    /// Drops items of the shards in turn until the budget holds.
    fn make_room(&self, now: u64) {
        let mut fruitless = 0;
        while self.used() > self.budget && fruitless < SHARDS {
            let index = self.victim.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let has_dropped = self.adjusted(index, |shard| shard.evict(now));
            fruitless = if has_dropped { 0 } else { fruitless + 1 };
        }
    }

    /// Runs `work` on a shard and books what its weight has become.
    pub(super) fn adjusted<T>(&self, index: usize, work: impl FnOnce(&mut Shard) -> T) -> T {
        let mut shard = self.lock(index);
        let before = shard.bytes();
        let result = work(&mut shard);
        let after = shard.bytes();
        drop(shard);
        if after > before {
            self.used.fetch_add(after - before, Ordering::Relaxed);
        } else if after < before {
            self.used.fetch_sub(before - after, Ordering::Relaxed);
        }
        result
    }

    pub(super) fn lock(&self, index: usize) -> MutexGuard<'_, Shard> {
        self.shards[index].lock().expect("no verb panics under the lock")
    }
}
