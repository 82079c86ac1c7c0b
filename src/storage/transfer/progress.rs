//! How far a transfer is, for who shows it.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Counters of one transfer, on either side.
#[derive(Debug, Default)]
pub struct Progress {
    files_total: AtomicU64,
    bytes_total: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
    sent: AtomicU64,
}

/// `Progress` at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Of the whole state.
    pub files_total: u64,
    pub bytes_total: u64,
    /// Settled so far: sent, linked, or there before.
    pub files: u64,
    pub bytes: u64,
    /// Bytes of contents and metadata that crossed the network.
    pub sent: u64,
}

impl Progress {
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            files_total: read(&self.files_total),
            bytes_total: read(&self.bytes_total),
            files: read(&self.files),
            bytes: read(&self.bytes),
            sent: read(&self.sent),
        }
    }

    pub(super) fn begin(&self, files: u64, bytes: u64) {
        self.files_total.store(files, Ordering::Relaxed);
        self.bytes_total.store(bytes, Ordering::Relaxed);
        for counter in [&self.files, &self.bytes, &self.sent] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn file(&self, bytes: u64) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
