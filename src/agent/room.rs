//! Whether the disk under the database is full. Pure.
//!
//! It counts as full while it still takes writes: the one that is written to can be another one then, in order. And before the storage
//! takes nothing new (`RESERVE`), for a move is written into the registry, which lies there. It has room again only when there is much
//! more: what is freed is used up soon, and nothing shall go back and forth.

use crate::storage::RESERVE;

/// Below the first it becomes full, from the second on it is not any more.
const FULL: u64 = RESERVE + (256 << 20);
const ROOM: u64 = 2 * FULL;

/// `was`: as it was judged last. `free`: bytes; `None`: not known, and nothing changes.
pub fn is_full(was: bool, free: Option<u64>) -> bool {
    match free {
        Some(free) if was => free < ROOM,
        Some(free) => free < FULL,
        None => was,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_until_there_is_much_more_room() {
        let mut full = false;
        for (free, expected) in [
            (Some(ROOM), false),
            (Some(FULL), false),
            (Some(FULL - 1), true),
            (Some(FULL), true),
            (None, true),
            (Some(ROOM - 1), true),
            (Some(ROOM), false),
            (Some(FULL), false),
            (None, false),
            (Some(0), true),
        ] {
            full = is_full(full, free);
            assert_eq!(full, expected, "{free:?}");
        }
    }

    /// A disk that fills and is emptied by a little, again and again, is judged once.
    #[test]
    fn what_is_freed_and_used_up_changes_nothing() {
        let free = (0..100).map(|step| FULL - 1 + (step % 2) * (ROOM - FULL));
        let judged: Vec<bool> = free
            .scan(false, |was, free| {
                *was = is_full(*was, Some(free));
                Some(*was)
            })
            .collect();
        assert!(judged.iter().all(|full| *full));
    }
}
