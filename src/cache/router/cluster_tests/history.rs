//! What clients did and saw, judged as it happens: no value older than one that was confirmed or seen, no lock held twice, no
//! addition counted twice.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

/// A read that took so long was given up.
pub const GIVEN_UP: Duration = Duration::from_millis(890);

/// One key that one client writes with growing numbers and all clients read.
#[derive(Debug, Default)]
pub struct Register {
    pub key: String,
    /// A miss says nothing about it.
    pub is_bulk: bool,
    /// The last number that was tried, and the last that was confirmed.
    tried: u64,
    confirmed: u64,
    /// The highest that any finished read has seen.
    seen: u64,
    /// Numbers whose write was a removal.
    removals: BTreeSet<u64>,
    pub reads: usize,
    pub misses: usize,
}

/// A read under way.
pub struct Reading {
    floor: u64,
    began: Instant,
}

impl Register {
    pub fn new(key: String, is_bulk: bool) -> Self {
        Register {
            key,
            is_bulk,
            ..Register::default()
        }
    }

    /// The number of the next write.
    pub fn write(&mut self, is_removal: bool) -> u64 {
        self.tried += 1;
        if is_removal {
            self.removals.insert(self.tried);
        }
        self.tried
    }

    pub fn confirm(&mut self, number: u64) {
        self.confirmed = self.confirmed.max(number);
    }

    pub fn read(&self) -> Reading {
        Reading {
            floor: self.confirmed.max(self.seen),
            began: Instant::now(),
        }
    }

    pub fn judge(&mut self, reading: &Reading, value: Option<u64>) {
        self.reads += 1;
        match value {
            Some(number) => {
                let is_new = (reading.floor..=self.tried).contains(&number) && !self.removals.contains(&number);
                assert!(is_new, "{}: {number} after {} ({self:?})", self.key, reading.floor);
                self.seen = self.seen.max(number);
            }
            None => {
                self.misses += 1;
                let may_be_removed =
                    reading.floor == 0 || self.removals.range(reading.floor..=self.tried).next().is_some();
                let is_excused = self.is_bulk || may_be_removed || reading.began.elapsed() >= GIVEN_UP;
                assert!(is_excused, "{}: lost after {} ({self:?})", self.key, reading.floor);
            }
        }
    }
}

/// A counter that everybody adds to.
#[derive(Debug, Default)]
pub struct Counter {
    tried: u64,
    told: BTreeSet<u64>,
}

impl Counter {
    pub fn attempt(&mut self) {
        self.tried += 1;
    }

    pub fn told(&mut self, value: u64) {
        assert!(self.told.insert(value), "{value} was told twice");
        assert!(value <= self.tried, "{value} after {} additions", self.tried);
    }

    pub fn end(&self, value: u64) {
        assert!(
            (self.told.len() as u64..=self.tried).contains(&value),
            "{value}: {self:?}"
        );
        assert!(self.told.last().is_none_or(|last| *last <= value));
    }

    pub fn confirmed(&self) -> usize {
        self.told.len()
    }
}

/// A lock: who has it, as far as the clients know.
#[derive(Debug, Default)]
pub struct Lock {
    holder: Option<usize>,
    pub grants: usize,
    /// After an answer that says nothing the lock is left alone and another one is used.
    pub generation: usize,
}

impl Lock {
    pub fn granted(&mut self, generation: usize, client: usize) {
        if generation == self.generation {
            assert_eq!(self.holder, None, "granted to {client} while it was held");
            self.holder = Some(client);
            self.grants += 1;
        }
    }

    /// Before the release is asked for.
    pub fn releasing(&mut self, generation: usize) {
        if generation == self.generation {
            self.holder = None;
        }
    }

    pub fn unknown(&mut self, generation: usize) {
        if generation == self.generation {
            self.generation += 1;
            self.holder = None;
        }
    }
}
