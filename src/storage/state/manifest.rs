//! What files there are and which of them changed, for a replica that catches up by pulling files, and for the scrub.
//!
//! Two replicas of one history that have the same inode, generation and content index have the same content, or one of them is
//! damaged.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::Failure;
use super::contents::path_in;
use super::inode::{self, Record};
use super::machine::Machine;
use super::progress::Progress;
use super::schema::{self, stored};
use crate::storage::call::{Inode, Kind};

/// One file's content as the metadata tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFact {
    pub inode: Inode,
    pub generation: u32,
    pub size: u64,
    /// Log index of the last change of the content.
    pub content_index: u64,
}

/// What the disk has of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    pub fact: FileFact,
    /// Bytes found, at most the size; fewer say that the content is cut, missing, or not to be read from there on.
    pub found: u64,
    /// BLAKE3 of the bytes found.
    pub checksum: [u8; 32],
}

/// A copy of this machine's metadata for another replica. The file goes with it; what a crash leaves goes when the machine opens.
pub struct Outgoing {
    pub path: PathBuf,
    pub snapshot: Snapshot,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        for beside in ["", "-wal", "-shm"] {
            let mut path = self.path.clone().into_os_string();
            path.push(beside);
            let _ = fs::remove_file(path);
        }
    }
}

/// Numbers the copies of one process.
static COPIES: AtomicU64 = AtomicU64::new(0);

/// A copy of some machine's metadata that lies in a file and changes no more.
pub struct Snapshot {
    rows: Connection,
}

impl Snapshot {
    pub fn open(path: &Path) -> Result<Snapshot, Failure> {
        let rows = schema::reader(path)?;
        // Refuses a version that is not known here.
        Progress::load(&rows)?;
        Ok(Snapshot { rows })
    }

    pub fn applied(&self) -> Result<Option<u64>, Failure> {
        Ok(Progress::load(&self.rows)?.applied)
    }

    pub fn note(&self) -> Result<Vec<u8>, Failure> {
        Ok(Progress::load(&self.rows)?.note)
    }

    /// As `Machine::manifest`.
    pub fn page(&self, after: Inode, limit: usize) -> Result<Vec<FileFact>, Failure> {
        list(&self.rows, after, limit)
    }

    pub fn fact(&self, inode: Inode) -> Result<Option<FileFact>, Failure> {
        fact(&self.rows, inode)
    }

    /// How many files there are, and their bytes.
    pub fn total(&self) -> Result<(u64, u64), Failure> {
        let mut statement = self.rows.prepare_cached("SELECT record FROM inode")?;
        let mut found = statement.query([])?;
        let (mut files, mut bytes) = (0, 0_u64);
        while let Some(row) = found.next()? {
            if let Some(of) = inode::read_attributes(row, 0)?
                && of.kind == Kind::File
            {
                files += 1;
                bytes = bytes.saturating_add(of.size);
            }
        }
        Ok((files, bytes))
    }
}

impl Machine {
    /// Up to `limit` files with numbers above `after`, in the order of their numbers; fewer at the end.
    pub fn manifest(&self, after: Inode, limit: usize) -> Result<Vec<FileFact>, Failure> {
        self.look(|rows| list(rows, after, limit))
    }

    /// Copies the metadata as they are now into a file of its own.
    pub fn outgoing(&self) -> Result<Outgoing, Failure> {
        let folder = self.folder.join("outgoing");
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{}.db", COPIES.fetch_add(1, Ordering::Relaxed)));
        self.snapshot_meta(&path)?;
        let snapshot = Snapshot::open(&path)?;
        Ok(Outgoing { path, snapshot })
    }

    /// What it knows of these files, in one view and in their order.
    pub fn facts(&self, inodes: impl Iterator<Item = Inode>) -> Result<Vec<Option<FileFact>>, Failure> {
        self.look(|rows| inodes.map(|inode| fact(rows, inode)).collect())
    }

    /// Reads a file's content from the disk. `None`: it is no file, or it changed meanwhile; ask again later.
    pub fn verify(&self, inode: Inode) -> Result<Option<Checked>, Failure> {
        let Some(fact) = self.fact(inode)? else {
            return Ok(None);
        };
        let (checksum, found) = match self.contents.checksum(inode, fact.size) {
            Err(error) if error.kind() == ErrorKind::NotFound => (*blake3::hash(&[]).as_bytes(), 0),
            other => other?,
        };
        let is_same = self.fact(inode)? == Some(fact) && !self.is_torn(inode);
        Ok(is_same.then_some(Checked { fact, found, checksum }))
    }

    /// Bytes of a content as they are at this moment, whatever is being applied; fewer at the end of the file, `None` when it is gone.
    /// `Failure::Io` may be of these bytes alone (`disk::is_unreadable`).
    pub fn peek(&self, inode: Inode, offset: u64, count: usize) -> Result<Option<Vec<u8>>, Failure> {
        let data = match self.contents.peek(inode, offset, count) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            other => Some(other?),
        };
        match self.is_retired() {
            true => Err(Failure::Stopped),
            false => Ok(data),
        }
    }

    /// A folder for contents that are to be exchanged, on the same file system.
    pub fn mending(&self) -> PathBuf {
        self.folder.join("mending")
    }

    /// Where the content lies, for who links it.
    pub fn content_path(&self, inode: Inode) -> PathBuf {
        path_in(&self.layout().data, inode)
    }

    /// With no batch under way that changes the content.
    fn fact(&self, inode: Inode) -> Result<Option<FileFact>, Failure> {
        let _turn = self.contents.turn(inode);
        self.fact_now(inode)
    }

    pub(super) fn fact_now(&self, inode: Inode) -> Result<Option<FileFact>, Failure> {
        self.look(|rows| fact(rows, inode))
    }
}

fn fact(rows: &Connection, inode: Inode) -> Result<Option<FileFact>, Failure> {
    Ok(inode::load(rows, inode)?.and_then(|record| file_fact(&record)))
}

/// `None`: it is no file.
fn file_fact(record: &Record) -> Option<FileFact> {
    let of = &record.attributes;
    (of.kind == Kind::File).then_some(FileFact {
        inode: of.inode,
        generation: of.generation,
        size: of.size,
        content_index: record.content_index,
    })
}

fn list(rows: &Connection, after: Inode, limit: usize) -> Result<Vec<FileFact>, Failure> {
    let mut statement = rows.prepare_cached("SELECT record FROM inode WHERE id > ?1 ORDER BY id")?;
    let mut found = statement.query([stored(after.0)])?;
    let mut facts = Vec::new();
    while facts.len() < limit
        && let Some(row) = found.next()?
    {
        facts.extend(file_fact(&inode::read(row, 0)?));
    }
    Ok(facts)
}
