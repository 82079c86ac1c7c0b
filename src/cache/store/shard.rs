//! One shard: a hash table over a slab, the two queues of the eviction policy, and what they weigh. Knows no commands.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::policy::{self, Ghosts, Queue, Verdict};
use super::record::Record;
use super::slab::{Mark, NIL, Slab, Slot};
use super::table::Table;
use super::time::Deadline;

/// What an item takes besides its record: its slot and its share of the hash table.
pub const ITEM_OVERHEAD: usize = size_of::<Slot>() + size_of::<u32>();

/// Counters of one shard; a sum over all shards is what `stats` shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    pub get_hits: u64,
    pub get_misses: u64,
    pub get_expired: u64,
    pub set_commands: u64,
    pub too_large: u64,
    pub touch_hits: u64,
    pub touch_misses: u64,
    pub delete_hits: u64,
    pub delete_misses: u64,
    pub increment_hits: u64,
    pub increment_misses: u64,
    pub decrement_hits: u64,
    pub decrement_misses: u64,
    pub cas_hits: u64,
    pub cas_misses: u64,
    pub cas_mismatches: u64,
    pub stored: u64,
    pub evictions: u64,
    pub evicted_unread: u64,
    /// Expired items removed by the sweep or on being met.
    pub reclaimed: u64,
    pub expired_unread: u64,
}

impl Counters {
    pub fn add(&mut self, mut other: Counters) {
        for (sum, number) in self.all().into_iter().zip(other.all()) {
            *sum += *number;
        }
    }

    fn all(&mut self) -> [&mut u64; 21] {
        [
            &mut self.get_hits,
            &mut self.get_misses,
            &mut self.get_expired,
            &mut self.set_commands,
            &mut self.too_large,
            &mut self.touch_hits,
            &mut self.touch_misses,
            &mut self.delete_hits,
            &mut self.delete_misses,
            &mut self.increment_hits,
            &mut self.increment_misses,
            &mut self.decrement_hits,
            &mut self.decrement_misses,
            &mut self.cas_hits,
            &mut self.cas_misses,
            &mut self.cas_mismatches,
            &mut self.stored,
            &mut self.evictions,
            &mut self.evicted_unread,
            &mut self.reclaimed,
            &mut self.expired_unread,
        ]
    }
}

/// Items to be put in; the shard adds the cas unique unless one is given.
#[derive(Debug)]
pub struct Fresh {
    pub record: Record,
    pub flags: u32,
    pub deadline: Deadline,
    pub cas: Option<u64>,
}

#[derive(Debug)]
struct List {
    newest: u32,
    oldest: u32,
    bytes: usize,
}

const EMPTY: List = List {
    newest: NIL,
    oldest: NIL,
    bytes: 0,
};

#[derive(Debug)]
pub struct Shard {
    slab: Slab,
    table: Table,
    small: List,
    main: List,
    ghosts: Ghosts,
    /// The next cas unique of the store: no two items have the same. Outlives `clear`, so that none is given twice for one key.
    uniques: Arc<AtomicU64>,
    /// Where the sweep goes on.
    swept: u32,
    pub counters: Counters,
}

impl Shard {
    /// `ghosts`: how many dropped items it remembers.
    pub fn new(ghosts: usize, uniques: Arc<AtomicU64>) -> Self {
        Shard {
            slab: Slab::new(),
            table: Table::new(),
            small: EMPTY,
            main: EMPTY,
            ghosts: Ghosts::new(ghosts),
            uniques,
            swept: 0,
            counters: Counters::default(),
        }
    }

    /// All memory of the shard: records as the allocator rounds them, slots (free ones too), table, ghosts.
    pub fn bytes(&self) -> usize {
        self.small.bytes + self.main.bytes + self.slab.bytes() + self.table.bytes() + self.ghosts.bytes()
    }

    pub fn items(&self) -> usize {
        self.table.len()
    }

    /// The live item of that key. One that is past its deadline is removed.
    pub fn find(&mut self, hash: u32, key: &[u8], now: u64) -> Option<u32> {
        let place = self.table.find(&self.slab, hash, key)?;
        if self.slab[place].deadline > now {
            return Some(place);
        }
        self.reclaim(place);
        None
    }

    pub fn slot(&mut self, place: u32) -> &mut Slot {
        &mut self.slab[place]
    }

    /// A place below `places`, used or free.
    pub fn peek(&self, place: u32) -> Option<&Slot> {
        (place < self.slab.len()).then(|| &self.slab[place])
    }

    pub fn record(&self, place: u32) -> &Record {
        &self.slab[place].record
    }

    /// Notes a read for the policy and for `mg` with `h` and `l`.
    pub fn note_read(&mut self, place: u32, now: u64) {
        let slot = &mut self.slab[place];
        slot.use_at(seconds(now));
        slot.note(|mark| {
            mark.is_fetched = true;
            mark.reads = (mark.reads + 1).min(policy::READS_MAX);
        });
    }

    /// Adds an item whose key is not there.
    pub fn insert(&mut self, hash: u32, fresh: Fresh, now: u64) -> u32 {
        let place = self.slab.take();
        let queue = if self.ghosts.recall(hash) {
            Queue::Main
        } else {
            Queue::Small
        };
        let cas = fresh.cas.unwrap_or_else(|| self.take_cas());
        let slot = &mut self.slab[place];
        slot.hash = hash;
        slot.flags = fresh.flags;
        slot.deadline = fresh.deadline;
        slot.cas = cas;
        slot.use_at(seconds(now));
        slot.set_mark(Mark { queue, ..Mark::NEW });
        slot.record = fresh.record;
        self.table.insert(&mut self.slab, place);
        self.link(place);
        self.counters.stored += 1;
        place
    }

    /// Puts another item in the place of one with the same key; it keeps its rank.
    pub fn replace(&mut self, place: u32, fresh: Fresh, now: u64) {
        let cas = fresh.cas.unwrap_or_else(|| self.take_cas());
        let weight = fresh.record.footprint();
        let slot = &mut self.slab[place];
        let before = slot.record.footprint();
        slot.flags = fresh.flags;
        slot.deadline = fresh.deadline;
        slot.cas = cas;
        slot.use_at(seconds(now));
        slot.record = fresh.record;
        slot.note(|mark| {
            mark.is_fetched = false;
            mark.is_stale = false;
            mark.has_winner = false;
        });
        let queue = slot.mark().queue;
        let list = self.list(queue);
        list.bytes = list.bytes - before + weight;
        self.counters.stored += 1;
    }

    pub fn remove(&mut self, place: u32) {
        self.unlink(place);
        self.table.remove(&mut self.slab, place);
        self.slab.give_back(place);
    }

    pub fn take_cas(&mut self) -> u64 {
        self.uniques.fetch_add(1, Ordering::Relaxed)
    }

    /// Drops one item by the policy; expired ones at the queues' ends go first. `false`: nothing is left.
    /// Ends, because each item it keeps loses a read or leaves the small queue.
    pub fn evict(&mut self, now: u64) -> bool {
        loop {
            let queue = policy::source(self.small.bytes, self.main.bytes);
            let place = self.list(queue).oldest;
            if place == NIL {
                return false;
            }
            let slot = &self.slab[place];
            if slot.deadline <= now {
                self.reclaim(place);
                return true;
            }
            match policy::verdict(queue, slot.mark().reads) {
                Verdict::Evict => {
                    if queue == Queue::Small {
                        self.ghosts.remember(slot.hash);
                    }
                    self.counters.evictions += 1;
                    self.counters.evicted_unread += u64::from(!slot.mark().is_fetched);
                    self.remove(place);
                    return true;
                }
                Verdict::Keep { reads } => {
                    self.unlink(place);
                    self.slab[place].note(|mark| {
                        mark.reads = reads;
                        mark.queue = Queue::Main;
                    });
                    self.link(place);
                }
            }
        }
    }

    /// Looks at the next `count` places and removes what has expired there. Returns whether it came round to the start.
    pub fn sweep(&mut self, count: u32, now: u64) -> bool {
        let end = self.slab.len().min(self.swept.saturating_add(count));
        for place in self.swept..end {
            let slot = &self.slab[place];
            if !slot.record.is_vacant() && slot.deadline <= now {
                self.reclaim(place);
            }
        }
        let is_round = end == self.slab.len();
        self.swept = if is_round { 0 } else { end };
        is_round
    }

    /// Places to sweep, free ones included.
    pub fn places(&self) -> u32 {
        self.slab.len()
    }

    /// Takes everything out at once; the caller drops it outside the lock.
    pub fn clear(&mut self) -> (Slab, Table) {
        self.small = EMPTY;
        self.main = EMPTY;
        self.swept = 0;
        (
            std::mem::replace(&mut self.slab, Slab::new()),
            std::mem::replace(&mut self.table, Table::new()),
        )
    }

    /// Calls `visit` for live items until it answers `false`.
    pub fn visit(&self, now: u64, mut visit: impl FnMut(&Record, Deadline) -> bool) {
        for place in 0..self.slab.len() {
            let slot = &self.slab[place];
            if !slot.record.is_vacant() && slot.deadline > now && !visit(&slot.record, slot.deadline) {
                return;
            }
        }
    }

    fn reclaim(&mut self, place: u32) {
        self.counters.reclaimed += 1;
        self.counters.expired_unread += u64::from(!self.slab[place].mark().is_fetched);
        self.remove(place);
    }

    fn list(&mut self, queue: Queue) -> &mut List {
        match queue {
            Queue::Small => &mut self.small,
            Queue::Main => &mut self.main,
        }
    }

    fn link(&mut self, place: u32) {
        let slot = &self.slab[place];
        let (queue, weight) = (slot.mark().queue, slot.record.footprint());
        let list = self.list(queue);
        list.bytes += weight;
        let older = std::mem::replace(&mut list.newest, place);
        if older == NIL {
            list.oldest = place;
        } else {
            self.slab[older].newer = place;
        }
        self.slab[place].older = older;
        self.slab[place].newer = NIL;
    }

    fn unlink(&mut self, place: u32) {
        let slot = &self.slab[place];
        let (queue, weight) = (slot.mark().queue, slot.record.footprint());
        let (newer, older) = (slot.newer, slot.older);
        let list = self.list(queue);
        list.bytes -= weight;
        if newer == NIL {
            list.newest = older;
        }
        if older == NIL {
            list.oldest = newer;
        }
        if newer != NIL {
            self.slab[newer].older = older;
        }
        if older != NIL {
            self.slab[older].newer = newer;
        }
    }
}

/// Seconds of a store's life; a u32 lasts 136 years.
pub fn seconds(now: u64) -> u32 {
    u32::try_from(now / 1000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::time::FOREVER;
    use super::*;

    fn fresh(key: &[u8], size: usize, deadline: Deadline) -> Fresh {
        Fresh {
            record: Record::new(key, &vec![b'x'; size], b""),
            flags: 0,
            deadline,
            cas: None,
        }
    }

    fn put(shard: &mut Shard, number: u32, size: usize) {
        shard.insert(number, fresh(&number.to_le_bytes(), size, FOREVER), 0);
    }

    fn read_twice(shard: &mut Shard, number: u32) {
        let place = shard.find(number, &number.to_le_bytes(), 0).expect("put");
        shard.note_read(place, 0);
        shard.note_read(place, 0);
    }

    fn holds(shard: &mut Shard, number: u32) -> bool {
        shard.find(number, &number.to_le_bytes(), 0).is_some()
    }

    #[test]
    fn a_scan_does_not_push_out_what_is_read() {
        let mut shard = Shard::new(64, Arc::default());
        for number in 1..=100 {
            put(&mut shard, number, 100);
            read_twice(&mut shard, number);
        }
        let full = shard.bytes();
        for number in 1000..3000 {
            put(&mut shard, number, 100);
            while shard.items() > 110 {
                assert!(shard.evict(0));
            }
        }
        let kept = (1..=100).filter(|number| holds(&mut shard, *number)).count();
        assert!(kept >= 95, "{kept} of 100 hot items are left");
        assert!(shard.bytes() >= full);
    }

    #[test]
    fn one_large_item_leaves_before_many_hot_small_ones() {
        let mut shard = Shard::new(64, Arc::default());
        for number in 1..=50 {
            put(&mut shard, number, 50);
        }
        put(&mut shard, 99, 100_000);
        for number in 1..=50 {
            read_twice(&mut shard, number);
        }
        assert!(shard.evict(0));
        assert!(!holds(&mut shard, 99));
        assert_eq!(shard.items(), 50);
    }

    #[test]
    fn returning_item_enters_the_main_queue() {
        let mut shard = Shard::new(64, Arc::default());
        put(&mut shard, 7, 10);
        assert!(shard.evict(0));
        put(&mut shard, 7, 10);
        assert_eq!((shard.small.bytes, shard.main.bytes > 0), (0, true));
    }

    #[test]
    fn weight_returns_to_what_it_was() {
        let mut shard = Shard::new(8, Arc::default());
        let empty = {
            put(&mut shard, 1, 10);
            shard.evict(0);
            shard.bytes()
        };
        for number in 2..=100 {
            put(&mut shard, number, 1000);
        }
        let place = shard.find(2, &2u32.to_le_bytes(), 0).expect("put");
        shard.replace(place, fresh(&2u32.to_le_bytes(), 5000, FOREVER), 0);
        while shard.evict(0) {}
        assert_eq!(shard.items(), 0);
        let table = shard.table.bytes() - Table::new().bytes();
        assert_eq!(shard.bytes(), empty + table, "only the table has grown");
    }

    #[test]
    fn sweep_removes_what_has_expired_and_comes_round() {
        let mut shard = Shard::new(8, Arc::default());
        for number in 1..=200u32 {
            let deadline = if number % 2 == 0 { 1000 } else { FOREVER };
            shard.insert(number, fresh(&number.to_le_bytes(), 1, deadline), 0);
        }
        assert!(!shard.sweep(100, 999));
        assert_eq!(shard.items(), 200);
        while !shard.sweep(100, 1000) {}
        while !shard.sweep(100, 1000) {}
        assert_eq!(shard.items(), 100);
        assert_eq!(shard.counters.reclaimed, 100);
    }
}
