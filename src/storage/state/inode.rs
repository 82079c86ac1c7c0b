//! Inode records: attributes and what belongs to an inode alone.
//!
//! A row holds a record as one value, in postcard's encoding: reading twenty columns costs many times what decoding it does.
//! Fields are encoded in their order, so any change of `Record` or `Attributes` raises `schema::VERSION`.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use super::Failure;
use super::schema::stored;
use crate::storage::call::{Attributes, Inode, Kind, Time};

/// Cookies below are the doors': `.` and `..`.
pub const FIRST_COOKIE: u64 = 3;
/// Blocks in which `used` counts.
const BLOCK: u64 = 4096;

/// One inode as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The first, for who wants nothing else.
    pub attributes: Attributes,
    /// Root of the tree that it was made in.
    pub tree: Inode,
    /// Of a folder: where it lies; `None` for a root and for one that was removed.
    pub place: Option<Place>,
    /// Of a folder: how many names it has, and the cookie of the next.
    pub entries: u64,
    pub next_cookie: u64,
    /// Of an exclusive creation, until the object is changed.
    pub verifier: Option<u64>,
    /// Of a symbolic link.
    pub target: Option<Vec<u8>>,
    /// Log index of the last change of the content.
    pub content_index: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub parent: Inode,
    pub name: Vec<u8>,
}

/// Bytes of whole blocks that `size` bytes take.
pub fn blocks(size: u64) -> u64 {
    size.div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// `used` after bytes from `offset` to `end` were written into a file of `size` bytes: what lies beyond the old end counts,
/// the hole before it does not. Every replica must say the same, so the disk is not asked; holes filled later are not counted.
pub fn used_after_write(used: u64, size: u64, offset: u64, end: u64) -> u64 {
    let before_start = offset.max(size) / BLOCK * BLOCK;
    let added = blocks(end).saturating_sub(before_start.max(blocks(size)));
    (used + added).min(blocks(size.max(end)))
}

impl Record {
    pub fn id(&self) -> Inode {
        self.attributes.inode
    }

    pub fn is_folder(&self) -> bool {
        self.attributes.kind == Kind::Folder
    }

    pub fn touch(&mut self, time: Time) {
        self.attributes.modified = time;
        self.attributes.changed = time;
    }
}

/// The record in a column.
pub fn read(row: &Row<'_>, column: usize) -> Result<Record, Failure> {
    postcard::from_bytes(blob(row.get_ref(column)?)).map_err(damaged)
}

/// The attributes of the record in a column; `None`: there is no such inode, in a row of something else.
pub fn read_attributes(row: &Row<'_>, column: usize) -> Result<Option<Attributes>, Failure> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        record => {
            let (attributes, _) = postcard::take_from_bytes(blob(record)).map_err(damaged)?;
            Ok(Some(attributes))
        }
    }
}

fn blob(value: ValueRef<'_>) -> &[u8] {
    value.as_blob().unwrap_or_default()
}

fn damaged(error: postcard::Error) -> Failure {
    Failure::Damaged(format!("an inode's record cannot be read: {error}"))
}

pub fn load(rows: &Connection, inode: Inode) -> Result<Option<Record>, Failure> {
    let mut statement = rows.prepare_cached("SELECT record FROM inode WHERE id = ?1")?;
    let mut found = statement.query([stored(inode.0)])?;
    found.next()?.map(|row| read(row, 0)).transpose()
}

/// Inserts or replaces.
pub fn save(rows: &Connection, record: &Record) -> Result<(), Failure> {
    let encoded =
        postcard::to_extend(record, Vec::with_capacity(128)).expect("a vector takes all, and lengths are known");
    rows.prepare_cached("INSERT OR REPLACE INTO inode (id, record) VALUES (?1, ?2)")?
        .execute(params![stored(record.id().0), encoded])?;
    Ok(())
}

pub fn delete(rows: &Connection, inode: Inode) -> Result<(), Failure> {
    rows.prepare_cached("DELETE FROM inode WHERE id = ?1")?
        .execute([stored(inode.0)])?;
    Ok(())
}

/// Where a folder lies.
pub fn place(rows: &Connection, folder: Inode) -> Result<Option<Place>, Failure> {
    Ok(load(rows, folder)?.and_then(|record| record.place))
}

/// Does `folder` lie in `above`, or is it the same?
pub fn lies_in(rows: &Connection, folder: Inode, above: Inode) -> Result<bool, Failure> {
    let mut at = folder;
    while at != above {
        match place(rows, at)? {
            Some(place) => at = place.parent,
            None => return Ok(false),
        }
    }
    Ok(true)
}

pub fn kind_number(kind: Kind) -> u8 {
    match kind {
        Kind::File => 1,
        Kind::Folder => 2,
        Kind::Link => 3,
        Kind::Fifo => 4,
        Kind::Socket => 5,
        Kind::Character => 6,
        Kind::Block => 7,
    }
}

/// The inverse; only numbers that `kind_number` gave are ever stored.
pub fn kind_from(number: u8) -> Kind {
    match number {
        2 => Kind::Folder,
        3 => Kind::Link,
        4 => Kind::Fifo,
        5 => Kind::Socket,
        6 => Kind::Character,
        7 => Kind::Block,
        _ => Kind::File,
    }
}
