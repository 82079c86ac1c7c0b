//! Which items on a server count: each carries the stamp that its shard and class had when it was stored, and is nothing once they have
//! another one.
//!
//! So whatever shall be dropped is dropped at once, without a word to the server.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::cache::class::Class;
use crate::cache::council::{SHARDS, Shard};

#[derive(Debug)]
pub struct Stamps {
    /// Of `Sync`, then of `Bulk`.
    of: Vec<[AtomicU64; 2]>,
    next: AtomicU64,
}

impl Stamps {
    /// `first`: any number, far from those of other processes that use the server.
    pub fn new(first: u64) -> Self {
        Stamps {
            of: (0..SHARDS).map(|_| [first.into(), first.into()]).collect(),
            next: AtomicU64::new(first.wrapping_add(1)),
        }
    }

    pub fn of(&self, shard: Shard, class: Class) -> u64 {
        self.of[shard.index()][place(class)].load(Ordering::SeqCst)
    }

    /// What was stored in these shards until now is nothing any more.
    pub fn void(&self, pleases: impl Fn(Shard, Class) -> bool) {
        let stamp = self.next.fetch_add(1, Ordering::SeqCst);
        for shard in Shard::all() {
            for class in [Class::Sync, Class::Bulk] {
                if pleases(shard, class) {
                    self.of[shard.index()][place(class)].store(stamp, Ordering::SeqCst);
                }
            }
        }
    }
}

fn place(class: Class) -> usize {
    match class {
        Class::Sync => 0,
        Class::Bulk => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_shall_go_gets_another_stamp() {
        let stamps = Stamps::new(u64::MAX);
        let [one, other] = [3, 4].map(|index| Shard::new(index).expect("there are more"));
        stamps.void(|shard, class| shard == one && class == Class::Bulk);
        assert_eq!(
            (stamps.of(one, Class::Sync), stamps.of(one, Class::Bulk)),
            (u64::MAX, 0)
        );
        stamps.void(|_, class| class == Class::Bulk);
        assert_eq!(
            (stamps.of(one, Class::Bulk), stamps.of(other, Class::Sync)),
            (1, u64::MAX)
        );
    }
}
