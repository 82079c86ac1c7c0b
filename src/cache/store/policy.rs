//! Which item goes when memory is full: S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023).
//!
//! New items enter a small queue, a tenth of the bytes; who was read twice before leaving it moves to the main queue, the rest
//! go. A scan of keys that nobody reads again therefore never pushes out the hot ones, a hit costs a counter and no list
//! surgery, and an item that comes back soon after it was dropped enters the main queue at once (the ghosts).
//! Both queues are measured in bytes: one large item leaves for many small ones.

/// The small queue's share of all bytes is one part in this many.
const SMALL_SHARE: usize = 10;
/// Reads are counted up to here (two bits in the paper, too).
pub const READS_MAX: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    Small,
    Main,
}

/// What to do with the item at a queue's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Evict,
    /// Moves to the head of the main queue with that count of reads.
    Keep {
        reads: u8,
    },
}

/// The queue that must give something up.
pub fn source(small_bytes: usize, main_bytes: usize) -> Queue {
    let all = small_bytes.saturating_add(main_bytes);
    if main_bytes == 0 || small_bytes >= all / SMALL_SHARE && small_bytes > 0 {
        Queue::Small
    } else {
        Queue::Main
    }
}

/// Judges the item at the end of a queue by its reads since it entered.
pub fn verdict(queue: Queue, reads: u8) -> Verdict {
    match (queue, reads) {
        (Queue::Small, 0..=1) | (Queue::Main, 0) => Verdict::Evict,
        (Queue::Small, _) => Verdict::Keep { reads: 0 },
        (Queue::Main, reads) => Verdict::Keep { reads: reads - 1 },
    }
}

/// Remembers hashes of items that left the small queue; each forgets an older one.
#[derive(Debug)]
pub struct Ghosts {
    /// Direct-mapped; 0 is an empty place.
    places: Box<[u32]>,
}

impl Ghosts {
    /// `count` is rounded up to a power of two.
    pub fn new(count: usize) -> Self {
        Ghosts {
            places: vec![0; count.max(1).next_power_of_two()].into_boxed_slice(),
        }
    }

    pub fn remember(&mut self, hash: u32) {
        if let Some(place) = self.place(hash) {
            *place = hash;
        }
    }

    /// Whether the hash was remembered; it is no more.
    pub fn recall(&mut self, hash: u32) -> bool {
        self.place(hash)
            .is_some_and(|place| hash != 0 && std::mem::replace(place, 0) == hash)
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.places)
    }

    fn place(&mut self, hash: u32) -> Option<&mut u32> {
        let mask = self.places.len() - 1;
        self.places.get_mut(hash as usize & mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_queue_gives_first_once_it_has_its_share() {
        assert_eq!(source(10, 90), Queue::Small);
        assert_eq!(source(9, 91), Queue::Main);
        assert_eq!(source(0, 5), Queue::Main);
        assert_eq!(source(5, 0), Queue::Small);
        assert_eq!(source(0, 1), Queue::Main);
    }

    #[test]
    fn reads_decide() {
        assert_eq!(verdict(Queue::Small, 1), Verdict::Evict);
        assert_eq!(verdict(Queue::Small, 2), Verdict::Keep { reads: 0 });
        assert_eq!(verdict(Queue::Main, 0), Verdict::Evict);
        assert_eq!(verdict(Queue::Main, READS_MAX), Verdict::Keep { reads: READS_MAX - 1 });
    }

    #[test]
    fn ghost_is_recalled_once() {
        let mut ghosts = Ghosts::new(8);
        ghosts.remember(42);
        assert!(ghosts.recall(42));
        assert!(!ghosts.recall(42));
        ghosts.remember(1);
        ghosts.remember(9);
        assert!(!ghosts.recall(1), "9 took its place");
        assert!(!ghosts.recall(0), "an empty place is no memory");
    }
}
