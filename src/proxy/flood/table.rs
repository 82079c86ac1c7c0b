//! The buckets of all clients, in fixed memory: like a processor's cache, many small sets of which a key has one.
//!
//! A set that is full of buckets in use gives up the one that owes least: a client is then forgiven a little, never charged for
//! another. Two keys with the same 64 bits share a bucket, which happens to one in 2^48 of a full table.

use std::sync::Mutex;
use std::time::Duration;

use super::bucket::{self, nanos};
use crate::config::Quota;

/// 65536 buckets in all, some 2 MiB.
const SETS: usize = 8192;
const WAYS: usize = 8;

/// A client that goes on is told of in the log so often.
const TELL: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    key: u64,
    /// `bucket`'s state; 0 is a slot that was never used.
    full_at: u64,
    /// When it was last told of; 0: never.
    told_at: u64,
}

pub struct Table {
    sets: Box<[Mutex<[Slot; WAYS]>]>,
}

/// A request beyond the quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    pub wait: Duration,
    /// The first of this client in a while.
    pub is_news: bool,
}

impl Table {
    pub fn new() -> Self {
        Table {
            sets: (0..SETS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Takes a token out of a key's bucket. `now`: time of a clock that only goes on.
    pub fn take(&self, key: u64, quota: Quota, now: Duration) -> Result<(), Excess> {
        let place = usize::try_from(key % SETS as u64).unwrap_or_default();
        let Some(set) = self.sets.get(place) else { return Ok(()) };
        // One later than the clock: 0 means never.
        let now = nanos(now).saturating_add(1);
        let mut slots = set.lock().expect("nothing panics under this lock");
        let own = slots.iter().position(|slot| slot.key == key && slot.full_at > 0);
        let place = own.or_else(|| (0..WAYS).min_by_key(|place| slots.get(*place).map(|slot| slot.full_at)));
        let Some(slot) = place.and_then(|place| slots.get_mut(place)) else {
            return Ok(());
        };
        if own.is_none() {
            *slot = Slot { key, ..Slot::default() };
        }
        match bucket::take(slot.full_at, now, quota) {
            Ok(full_at) => {
                slot.full_at = full_at;
                Ok(())
            }
            Err(wait) => {
                let is_news = slot.told_at == 0 || now - slot.told_at >= nanos(TELL);
                if is_news {
                    slot.told_at = now;
                }
                Err(Excess { wait, is_news })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Quota = Quota {
        interval: Duration::from_secs(10),
        burst: 1,
    };

    #[test]
    fn a_client_is_told_of_once_a_minute() {
        let table = Table::new();
        let often = Quota {
            interval: Duration::from_secs(1000),
            ..ONE
        };
        let news = |second| {
            let excess = table.take(7, often, Duration::from_secs(second)).expect_err("beyond");
            excess.is_news
        };
        table.take(7, often, Duration::ZERO).expect("first");
        assert_eq!(
            [0, 1, 59, 60, 61, 121].map(news),
            [true, false, false, true, false, true]
        );
    }

    #[test]
    fn a_flood_of_clients_forgives_those_that_owe_least() {
        let table = Table::new();
        let start = Duration::from_secs(1);
        let heavy = Quota {
            interval: Duration::from_secs(100),
            burst: 1,
        };
        table.take(5, heavy, start).expect("first");
        // All of the same set, and ten times as many as it holds.
        for client in 1..=80 {
            let key = 5 + client * SETS as u64;
            table.take(key, ONE, start).expect("new");
        }
        table
            .take(5, heavy, start)
            .expect_err("the one that owes most is remembered");
    }

    #[test]
    fn buckets_that_are_full_again_make_room_first() {
        let table = Table::new();
        for client in 0..7 {
            table.take(client * SETS as u64, ONE, Duration::ZERO).expect("new");
        }
        let later = Duration::from_secs(11);
        table.take(7 * SETS as u64, ONE, later).expect("new");
        for client in 8..15 {
            table.take(client * SETS as u64, ONE, later).expect("new");
        }
        table.take(7 * SETS as u64, ONE, later).expect_err("remembered");
    }
}
