//! What files there are and which of them changed, for a replica that catches up by pulling files, and for the scrub.
//!
//! Two replicas that have the same inode, generation and content index have the same content, or one of them is damaged.

use std::path::Path;

use rusqlite::{Connection, params};

use super::Failure;
use super::inode::{self, kind_number};
use super::machine::Machine;
use super::schema::{self, loaded, stored};
use crate::storage::call::{Inode, Kind};

/// One file's content as the metadata tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFact {
    pub inode: Inode,
    pub generation: u32,
    pub size: u64,
    /// Log index of the last change of the content.
    pub content_index: u64,
}

/// What the disk has of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    pub fact: FileFact,
    /// Bytes found, at most the size; fewer say that the content is cut or missing.
    pub found: u64,
    /// BLAKE3 of the bytes found.
    pub checksum: [u8; 32],
}

impl Machine {
    /// Up to `limit` files with numbers above `after`, in the order of their numbers; fewer at the end.
    pub fn manifest(&self, after: Inode, limit: usize) -> Result<Vec<FileFact>, Failure> {
        self.look(|rows| list(rows, after, limit))
    }

    /// The same of a snapshot's metadata.
    pub fn snapshot_manifest(snapshot: &Path, after: Inode, limit: usize) -> Result<Vec<FileFact>, Failure> {
        list(&schema::reader(snapshot)?, after, limit)
    }

    /// Reads a file's content from the disk. `None`: it is no file, or it changed meanwhile; ask again later.
    pub fn verify(&self, inode: Inode) -> Result<Option<Checked>, Failure> {
        let Some(fact) = self.fact(inode)? else {
            return Ok(None);
        };
        let (checksum, found) = match self.contents.checksum(inode, fact.size) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (*blake3::hash(&[]).as_bytes(), 0),
            other => other?,
        };
        let is_same = self.fact(inode)? == Some(fact) && !self.is_torn(inode);
        Ok(is_same.then_some(Checked { fact, found, checksum }))
    }

    /// With no batch under way that changes the content.
    fn fact(&self, inode: Inode) -> Result<Option<FileFact>, Failure> {
        let _turn = self.contents.turn(inode);
        let record = self.look(|rows| inode::load(rows, inode))?;
        Ok(record
            .filter(|record| record.attributes.kind == Kind::File)
            .map(|record| FileFact {
                inode,
                generation: record.attributes.generation,
                size: record.attributes.size,
                content_index: record.content_index,
            }))
    }
}

fn list(rows: &Connection, after: Inode, limit: usize) -> Result<Vec<FileFact>, Failure> {
    let mut statement = rows.prepare_cached(
        "SELECT id, generation, size, content_index FROM inode WHERE kind = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
    )?;
    let found = statement.query_map(
        params![
            kind_number(Kind::File),
            stored(after.0),
            i64::try_from(limit).unwrap_or(i64::MAX)
        ],
        |row| {
            Ok(FileFact {
                inode: Inode(loaded(row.get(0)?)),
                generation: row.get(1)?,
                size: loaded(row.get(2)?),
                content_index: loaded(row.get(3)?),
            })
        },
    )?;
    Ok(found.collect::<Result<_, _>>()?)
}
