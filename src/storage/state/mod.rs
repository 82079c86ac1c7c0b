//! The state machine of one replica: what the operations of the log make of the files. No Raft and no network here.
//!
//! ```text
//! meta.db      SQLite: inodes, names, sessions with their replies, opens, locks, applied index: the truth
//! data/xx/ID   contents, one ordinary file per inode; ids are never reused
//! tree/        the portal's tree under its real names, hard links of data/, for admins and for rescue
//! checkpoint   index of the last checkpoint and how far it got
//! incoming/    a state that comes from another replica (`install`)
//! outgoing/    copies of the metadata on their way to others
//! ```
//!
//! # Order of effects
//! An entry of the log is applied in one SQLite transaction. For each of its operations in turn the content (create, write,
//! cut) is changed in the page cache, then the rows; nothing is synced. Then COMMIT. After it come the effects that must
//! not happen if it fails: the mirror, and the removal of contents whose inode is gone.
//!
//! # Durability
//! Only `checkpoint` makes anything durable, and `open` always goes back to the last one: the main database file is the state
//! of the last checkpoint and SQLite's write-ahead log is everything since, so `open` throws that log away. It could be newer
//! than the contents: after a power cut each of them is as old as it likes. From the checkpoint's index on the
//! Raft log is applied again. That is exact, because
//! - an operation's outcome, the offset of an append too, follows from the rows and the operation alone, and the rows start from
//!   the checkpoint;
//! - contents are redone physically (this inode, this offset, this length) and in order. Each byte of a file is either as it was at
//!   the checkpoint or was changed after it, and then it is changed again; a content that is not there is made anew;
//! - contents removed after the checkpoint belong to inodes that the log removes again;
//! - the mirror's names are brought to their state, not moved by steps (`tree`).
//!
//! Until the log has been applied up to where it was before, contents may be ahead of the rows: nobody may read them then.
//! A leader does not, for it serves only after its own first entry is applied; who answers without a leader asks before (`exact`
//! beside this folder). Only after `close` they are not ahead. The log must keep every entry above `durable()`.
//!
//! The kernel tells of a page that it could not write back once to each who holds the file system open then, and not at all to who opens it
//! afterwards. So the machine holds it open from the start, and only what it is told there counts (`Machine::sync`).
//!
//! A checkpoint is: sync the file system · mark "settling at N" · carry SQLite's log over into the main file · mark "settled at N".
//! While it is settling nothing is applied, so whatever lies in SQLite's log then is N and was synced, and `open` keeps it.
//!
//! # Failures
//! A full disk: the transaction is rolled back and the entry counts as not applied; the same entry is to be applied again. Its
//! changes of contents stay and are repeated then; those inodes answer no read until that. Anything else that the
//! disk or SQLite says: the same, and the machine takes no entry any more until it is opened anew. A replica must never skip an entry.

mod access;
mod apply;
mod buffer;
mod checkpoint;
mod contents;
pub mod disk;
mod entry;
mod inode;
mod install;
mod layout;
mod lock_rows;
mod locks;
mod machine;
mod manifest;
mod progress;
mod query;
mod recall;
mod reply;
mod schema;
mod sessions;
mod shared;
mod transaction;
mod tree;

#[cfg(test)]
pub(super) mod tests;

use std::io;

pub use apply::LOCKS_MAX;
pub use contents::path_in as content_in;
pub use install::{Incoming, admit_incoming};
pub use machine::{Done, Entry, Machine};
pub use manifest::{Checked, FileFact, Outgoing, Snapshot};
pub use recall::{LockTrace, Traces};
pub use reply::{decode as decode_reply, encode as encode_reply};
pub use sessions::WINDOW;
pub use shared::Shared;

/// Largest file: half of what ext4 takes with blocks of 4 KiB. The same on every replica, whatever its disk.
pub const FILE_MAX: u64 = 8 << 40;
/// Most names of one file. ext4 takes 65 000, and each name has its twin in the mirror only once, beside the content.
pub const LINKS_MAX: u32 = 32_000;

/// A panic while a lock is held ends the process: half-done state must not serve.
const HELD: &str = "no panic while the lock was held";

/// Why this replica cannot do what every replica must.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing was applied; try the same again when there is room.
    #[error("the disk is full")]
    NoSpace,
    #[error("input or output failed")]
    Io(#[source] io::Error),
    #[error("the metadata database failed")]
    Database(#[source] rusqlite::Error),
    /// The files contradict one another; this replica must be made anew.
    #[error("damaged: {0}")]
    Damaged(String),
    /// An earlier failure; open the machine anew.
    #[error("stopped after an earlier failure")]
    Stopped,
    /// Entries come in the order of the log.
    #[error("entry {given} does not follow {applied:?}")]
    Order { given: u64, applied: Option<u64> },
    #[error("the folder is in use by another process")]
    InUse,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::NoSpace,
            _ => Failure::Io(error),
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Failure::NoSpace,
            _ => Failure::Database(error),
        }
    }
}
