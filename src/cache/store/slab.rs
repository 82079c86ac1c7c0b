//! Places for items, addressed by number. They come in fixed blocks, so that growing copies nothing and never stalls a shard.

use super::policy::Queue;
use super::record::Record;
use super::time::Deadline;

/// "No place": ends chains and lists.
pub const NIL: u32 = u32::MAX;
/// 8 KiB a block: little for an empty shard, few blocks for a full one.
const BLOCK: usize = 128;

/// One place. 64 bytes, a cache line, when it holds an item.
#[derive(Debug)]
pub struct Slot {
    /// `None` while the place is free.
    pub record: Option<Record>,
    pub deadline: Deadline,
    pub cas: u64,
    /// Low half of the key's hash.
    pub hash: u32,
    pub flags: u32,
    /// Seconds since the store was made.
    pub accessed: u32,
    /// Next in the hash chain, or next free place.
    pub chain: u32,
    /// Neighbours in the queue.
    pub newer: u32,
    pub older: u32,
    pub mark: Mark,
}

/// What is noted about an item in a few bits.
#[derive(Clone, Copy, Debug)]
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

const FREE: Slot = Slot {
    record: None,
    deadline: 0,
    cas: 0,
    hash: 0,
    flags: 0,
    accessed: 0,
    chain: NIL,
    newer: NIL,
    older: NIL,
    mark: Mark::NEW,
};

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

    /// A free place, with the fields of `FREE`.
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
        self[place] = Slot { chain: free, ..FREE };
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
        self.blocks.push(Box::new([const { FREE }; BLOCK]));
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
    fn slot_is_one_cache_line() {
        assert_eq!(size_of::<Slot>(), 64);
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
