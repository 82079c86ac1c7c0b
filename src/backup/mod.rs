//! Backups: what one is made of, where it is kept, which ones stay, and which are needed to go back to a moment.
//!
//! ```text
//! STORE/20261127T031500Z-full/    manifest.json, and the parts: database, files, registry, identity
//! STORE/20261127T033000Z-log/     manifest.json, and the database's binary logs since the backup before
//! ```
//!
//! - A backup without a manifest is none: the manifest is written last, and removed first. Of which cluster it will be says `owner`,
//!   which is written first.
//! - A part is a stream: zstd, then age (X25519, the format of the tool `age`), then its SHA-256 is taken. It is never whole in
//!   memory, and can be opened without this program: `age -d -i KEY PART | zstd -d`.
//! - Without the private half of the key there is no way back. It also signs the manifests (HMAC): whoever else can write to the store
//!   cannot pass off anything as a backup.
//! - A log continues the full backup that it names, without a gap, or is not made.
//!
//! ```text
//! manifest  what a backup says of itself     part       one stream, packed and sealed
//! key       the private half                 store      where backups lie: `Folder`, `s3`
//! chain     which backups lead to a moment   retention  which ones may go
//! schedule  when the next one is due        tree       a folder of this machine as a tar archive, and back
//! ```
//!
//! Where the parts come from and go to is not known here: `db::backup`, `storage::archive`, and the commands.

pub mod chain;
pub mod key;
pub mod manifest;
pub mod part;
pub mod retention;
pub mod s3;
pub mod schedule;
pub mod store;
pub mod tree;

pub use key::Key;
pub use manifest::{Kind, Manifest};
pub use store::{Folder, Store, Upload};

/// A backup as it lies in a store.
#[derive(Clone, Debug, PartialEq)]
pub struct Backup {
    /// Begins with its time: names sort by it.
    pub id: String,
    pub manifest: Manifest,
}
