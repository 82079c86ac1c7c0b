//! Places for items, addressed by number. They come in fixed blocks, so that growing copies nothing and never stalls a shard.

use super::policy::{Queue, READS_MAX};
use super::record::Record;
use super::time::Deadline;

/// "No place": ends chains and lists.
pub const NIL: u32 = u32::MAX;
/// 7 KiB a block: little for an empty shard, few blocks for a full one.
const BLOCK: usize = 128;

/// One place.
#[derive(Debug, Default)]
pub struct Slot {
    /// Vacant while the place is free.
    pub record: Record,
    pub deadline: Deadline,
    pub cas: u64,
    /// Low half of the key's hash.
    pub hash: u32,
    pub flags: u32,
    /// Next in the hash chain, or next free place.
    pub chain: u32,
    /// Neighbours in the queue.
    pub newer: u32,
    pub older: u32,
    usage: Usage,
}

/// The second of the last use, and above it the mark.
#[derive(Clone, Copy, Debug, Default)]
struct Usage(u32);

/// Seconds are counted round; who was not used for two years seems to have been used lately.
const SECONDS_BITS: u32 = 26;
const SECONDS: u32 = (1 << SECONDS_BITS) - 1;

/// What is noted about an item in a few bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub queue: Queue,
    /// Reads since it entered its queue, up to `policy::READS_MAX`.
    pub reads: u8,
    /// Was read at least once.
    pub is_fetched: bool,
    /// Marked by a meta delete or a late meta set: may be used, should be made anew.
    pub is_stale: bool,
    /// Somebody was told to make it anew.
    pub has_winner: bool,
}

impl Mark {
    pub const NEW: Mark = Mark {
        queue: Queue::Small,
        reads: 0,
        is_fetched: false,
        is_stale: false,
        has_winner: false,
    };
}

impl Slot {
    pub fn mark(&self) -> Mark {
        let bits = self.usage.0 >> SECONDS_BITS;
        Mark {
            queue: if bits & 1 == 0 { Queue::Small } else { Queue::Main },
            reads: u8::try_from(bits >> 1 & 3).unwrap_or(READS_MAX),
            is_fetched: bits & 8 != 0,
            is_stale: bits & 16 != 0,
            has_winner: bits & 32 != 0,
        }
    }

    pub fn set_mark(&mut self, mark: Mark) {
        let bits = u32::from(mark.queue == Queue::Main)
            | u32::from(mark.reads & 3) << 1
            | u32::from(mark.is_fetched) << 3
            | u32::from(mark.is_stale) << 4
            | u32::from(mark.has_winner) << 5;
        self.usage.0 = self.usage.0 & SECONDS | bits << SECONDS_BITS;
    }

    /// Changes the mark.
    pub fn note(&mut self, change: impl FnOnce(&mut Mark)) {
        let mut mark = self.mark();
        change(&mut mark);
        self.set_mark(mark);
    }

    /// Notes a use at that second of the store's life.
    pub fn use_at(&mut self, second: u32) {
        self.usage.0 = self.usage.0 & !SECONDS | second & SECONDS;
    }

    /// Seconds since the last use.
    pub fn idle(&self, second: u32) -> u32 {
        second.wrapping_sub(self.usage.0) & SECONDS
    }

    fn free(chain: u32) -> Self {
        Slot {
            chain,
            ..Slot::default()
        }
    }
}

#[derive(Debug)]
pub struct Slab {
    blocks: Vec<Box<[Slot; BLOCK]>>,
    free: u32,
}

impl Slab {
    pub fn new() -> Self {
        Slab {
            blocks: Vec::new(),
            free: NIL,
        }
    }

    /// A free place, with the fields of its default.
    pub fn take(&mut self) -> u32 {
        if self.free == NIL {
            self.grow();
        }
        let place = self.free;
        let slot = &mut self[place];
        let next = std::mem::replace(&mut slot.chain, NIL);
        self.free = next;
        place
    }

    pub fn give_back(&mut self, place: u32) {
        let free = self.free;
        self[place] = Slot::free(free);
        self.free = place;
    }

    /// Places, free ones included.
    pub fn len(&self) -> u32 {
        u32::try_from(self.blocks.len() * BLOCK).expect("a shard has fewer than 2^32 places")
    }

    pub fn bytes(&self) -> usize {
        self.blocks.len() * size_of::<[Slot; BLOCK]>()
    }

    fn grow(&mut self) {
        let first = self.len();
        self.blocks.push(Box::new(std::array::from_fn(|_| Slot::free(NIL))));
        for place in (first..self.len()).rev() {
            self[place].chain = std::mem::replace(&mut self.free, place);
        }
    }
}

impl std::ops::Index<u32> for Slab {
    type Output = Slot;

    fn index(&self, place: u32) -> &Slot {
        &self.blocks[place as usize / BLOCK][place as usize % BLOCK]
    }
}

impl std::ops::IndexMut<u32> for Slab {
    fn index_mut(&mut self, place: u32) -> &mut Slot {
        &mut self.blocks[place as usize / BLOCK][place as usize % BLOCK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_is_seven_words() {
        assert_eq!(size_of::<Slot>(), 56);
    }

    #[test]
    fn mark_and_second_do_not_touch_each_other() {
        let mut slot = Slot::default();
        let mark = Mark {
            queue: Queue::Main,
            reads: READS_MAX,
            is_fetched: true,
            is_stale: false,
            has_winner: true,
        };
        slot.set_mark(mark);
        slot.use_at(u32::MAX);
        assert_eq!((slot.mark(), slot.idle(u32::MAX), slot.idle(4)), (mark, 0, 5));
        slot.note(|mark| *mark = Mark::NEW);
        assert_eq!((slot.mark(), slot.idle(u32::MAX)), (Mark::NEW, 0));
    }

    #[test]
    fn places_are_used_again() {
        let mut slab = Slab::new();
        let places: Vec<u32> = (0..BLOCK).map(|_| slab.take()).collect();
        assert_eq!(slab.len() as usize, BLOCK);
        slab.give_back(places[7]);
        assert_eq!(slab.take(), places[7]);
        slab.take();
        assert_eq!(slab.len() as usize, 2 * BLOCK);
    }
}
