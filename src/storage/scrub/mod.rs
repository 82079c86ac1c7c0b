//! Scrub: reads every content of this replica, compares its BLAKE3 with that of the other replicas, and mends what the
//! majority says is wrong. Each replica mends its own; what cannot be decided is only reported.
//!
//! Works in units: some files, then as long a rest as they took, so that calls do not notice. A content may change at any time:
//! only replicas with the same fact are compared, and a content is exchanged only while its fact is still the one that was
//! judged. A content that is ahead of its rows, as after a crash, may be exchanged for that of the rows: the log changes it again.

mod judge;
mod mend;
mod remote;
mod worker;

#[cfg(test)]
mod mend_tests;

use std::io;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::call::Inode;
use super::state::{Checked, Failure, Machine};
use super::types::NodeId;
use crate::base::BoxFuture;
pub use remote::{Remote, ScrubHandler};
pub use worker::Scrub;

/// Most files and bytes of a unit; one file may be larger.
pub const UNIT_FILES: usize = 64;
const UNIT_BYTES: u64 = 64 << 20;
/// Bytes fetched at once, and the most that `answer_fetch` gives.
pub const FETCH: usize = 256 * 1024;

/// The other data replicas.
pub trait Replicas: Send + Sync + 'static {
    /// Those that can be asked now.
    fn others(&self) -> Vec<NodeId>;
    /// What `answer_checksums` says there about up to `UNIT_FILES` inodes. It reads their contents: give it minutes.
    fn checksums(&self, node: NodeId, inodes: Vec<Inode>) -> BoxFuture<'_, io::Result<Vec<Checked>>>;
    /// What `answer_fetch` says there: bytes of a content, fewer at its end, `None` when it is gone.
    fn fetch(&self, node: NodeId, inode: Inode, offset: u64) -> BoxFuture<'_, io::Result<Option<Bytes>>>;
}

/// Answers another replica's `checksums`; files that are gone or change are left out. Blocks.
pub fn answer_checksums(machine: &Machine, inodes: &[Inode]) -> Result<Vec<Checked>, Failure> {
    let checked = inodes.iter().take(UNIT_FILES).map(|inode| machine.verify(*inode));
    checked.filter_map(Result::transpose).collect()
}

/// Answers another replica's `fetch`. Blocks.
pub fn answer_fetch(machine: &Machine, inode: Inode, offset: u64) -> Result<Option<Bytes>, Failure> {
    Ok(machine.peek(inode, offset, FETCH)?.map(Bytes::from))
}

/// What was found since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub passes: u64,
    pub files: u64,
    pub bytes: u64,
    /// Wrong here and mended.
    pub mended: u64,
    /// Wrong here, and it could not be fetched or had changed by then; the next pass tries again.
    pub unmended: u64,
    /// Replicas differ, and nobody can say who is right.
    pub undecided: u64,
}
