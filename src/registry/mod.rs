//! The registry: the shared facts of the cluster, a SQLite database that lies on the replicated files.
//!
//! SQLite's locks do not work over NFS, so nobody opens the database in place. A version is a whole image `v<N>` that never
//! changes. A commit loads the newest one, changes it in memory, writes a temporary file, fsyncs it, and publishes it by
//! LINK as `v<N+1>`: whoever comes second finds the name taken and starts over from what the first one made.
//!
//! What holds:
//! - Version N+1 has one author and derives from N (I6). `verdict` decides who it was from what is on the files, never from a status code.
//! - A `Change` happens whole or not at all, and only if all its guards hold in the version that it derives from.
//! - `commit` waits a bounded time. `Stale` and `Invalid`: it did not happen. `Unreachable`: it may have happened, or may yet.
//!   A change that must not happen twice needs a guard that its own success breaks.
//! - No wall clock takes part in a decision (I13); times are for people.
//! - The registry never goes back: an older or another one than was seen before is `Damaged`.
//!
//! ```text
//! Registry ─ publish ─┬─ image (SQLite in memory), schema, seal (checksum)
//!                     ├─ names, verdict, change, view: pure
//!                     └─ Files ─┬─ NfsFiles: the storage's unix door, or an NFS server
//!                               └─ PathFiles: a mounted cluster file system
//! ```
//!
//! Not here: who holds which role (`record::Role` is only where that is written down), and how the modules get the view.

mod beat;
mod change;
mod files;
mod hearts;
mod image;
mod last_seen;
mod memory;
mod names;
mod nfs_client;
mod nfs_files;
mod nfs_server;
mod open;
mod path_files;
#[cfg(test)]
mod property_tests;
mod publish;
mod record;
mod schema;
mod seal;
#[cfg(test)]
mod sim;
mod verdict;
mod view;

use std::sync::Arc;

use crate::base::BoxFuture;

pub use beat::{Beat, INTERVAL, Pulse, SILENCE, holds_until, may_hold};
pub use change::{Change, Guard, Key, Write};
pub use files::{Failure, File, FileId, Files, Found, Link};
pub use hearts::Hearts;
pub use image::{resealed_with_schema, view as read_image};
pub use last_seen::LastSeen;
pub use memory::MemoryRegistry;
pub use nfs_files::NfsFiles;
pub use nfs_server::{Program, Server, Transport};
pub use open::{author, files, folder};
pub use path_files::PathFiles;
pub use publish::{Publish, VERSIONS_KEPT, Version, random};
pub use record::{Cluster, Node, NodeState, Record, Role, Setting, Token};
pub use view::{Commit, Event, View};

/// Number of a version: 1 is the first one, 0 says that nothing was committed yet.
pub type Revision = u64;

/// The registry as its users know it.
pub trait Registry: Send + Sync {
    /// Number of the newest version.
    fn revision(&self) -> BoxFuture<'_, Result<Revision, Error>>;

    /// The newest version.
    fn read(&self) -> BoxFuture<'_, Result<Arc<View>, Error>>;

    /// Makes the change, over the changes of others where its guards allow that; returns the version that it made.
    /// Cancel safe for the registry, but a dropped commit may have happened or may yet, as after `Unreachable`.
    fn commit(&self, change: Change) -> BoxFuture<'_, Result<Arc<View>, Error>>;
}

/// Why there is no answer, or no new version.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Within the time that may be waited. A commit may have happened.
    #[error("the registry cannot be reached: {0}")]
    Unreachable(String),
    /// A guard does not hold, or others were quicker again and again. Nothing happened.
    #[error("the registry has changed: {0}")]
    Stale(String),
    /// Somebody must look at it.
    #[error("the registry is damaged: {0}")]
    Damaged(String),
    /// A newer bitrix-node has changed the tables.
    #[error(
        "the registry has schema {found}, this bitrix-node knows up to {known}; update bitrix-node on this machine"
    )]
    Newer { found: u32, known: u32 },
    /// The change breaks a rule of the registry. Nothing happened.
    #[error("not a valid change: {0}")]
    Invalid(String),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Error::Unreachable(failure.0)
    }
}
