//! Dropping items without a word to the server, which frees them when it needs the room.

use std::sync::atomic::Ordering;

use super::Backend;
use crate::cache::class::Class;
use crate::cache::council::Shard;

/// No flush is due.
pub const NO_FLUSH: u64 = u64::MAX;

impl Backend {
    /// Drops items, by their shards and classes.
    pub fn void(&self, pleases: impl Fn(Shard, Class) -> bool) {
        self.server.stamps.void(pleases);
    }

    /// Drops the items of shards that please, now, or all after some milliseconds.
    pub fn flush(&self, after: Option<u64>, pleases: impl Fn(Shard) -> bool) {
        let due = after.map_or(NO_FLUSH, |after| self.now().saturating_add(after));
        self.flush_at.store(due, Ordering::SeqCst);
        if after.is_none() {
            self.void(|shard, _| pleases(shard));
        }
    }

    fn flush_if_due(&self) {
        let due = self.flush_at.load(Ordering::SeqCst);
        let is_ours = due != NO_FLUSH
            && due <= self.now()
            && self
                .flush_at
                .compare_exchange(due, NO_FLUSH, Ordering::SeqCst, Ordering::Relaxed)
                .is_ok();
        if is_ours {
            self.void(|_, _| true);
        }
    }

    /// What items of that key carry that count.
    pub(super) fn stamp(&self, key: &[u8]) -> u64 {
        self.flush_if_due();
        self.server.stamps.of(self.rules.shard(key), self.rules.class(key))
    }
}
