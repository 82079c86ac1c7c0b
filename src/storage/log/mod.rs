//! The Raft log on disk: segment files of records, and three small marks (vote, purged, committed).
//!
//! Contract: what `append` has acknowledged is on the disk, or `LogReader::synced` says when it is (`ahead`); what is reported at open
//! was synced before. The first write or
//! sync error poisons the log for good: a failed fsync leaves nobody knowing what is on the disk, so the process must end,
//! and opening writes the last append anew before it believes it.
//!
//! Files: `<first index>.log` (one segment), `vote`, `purged`, `committed`, `*.tmp` (half made, removed at open).
//! `record` and `segment` are the formats, `ahead`, `blocks`, `scan` and `cache` decide without I/O, `open` and `writer` do the I/O on one
//! thread of their own, `store` is the face to openraft.

mod ahead;
mod blocks;
mod cache;
mod index;
mod marks;
mod open;
mod record;
mod scan;
mod segment;
mod store;
mod writer;

#[cfg(test)]
mod ahead_tests;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod suite_tests;

pub use ahead::Members;
pub use open::amend;
pub use store::{LogReader, LogStore};

/// The last entry that the log in `disk` has purged, for who must know before it is opened.
pub fn purged(disk: &dyn super::disk::Disk) -> std::io::Result<Option<super::types::LogId>> {
    marks::load_purged(disk)
}

/// Sizes of the log; tests make them small.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// A segment is sealed before it grows beyond this.
    pub segment: u64,
    /// And before it holds more records than this: the footer stays near 256 KiB.
    pub records: usize,
    /// Entries kept in memory for replication and apply, in bytes.
    pub cache: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Sizes {
            segment: 64 << 20,
            records: 65_536,
            cache: 16 << 20,
        }
    }
}
