//! Inode records: attributes and what belongs to an inode alone.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Failure;
use super::schema::{loaded, stored};
use crate::storage::call::{Attributes, Inode, Kind, Time};

/// Cookies below are the doors': `.` and `..`.
pub const FIRST_COOKIE: u64 = 3;
/// Blocks in which `used` counts.
const BLOCK: u64 = 4096;

/// One inode as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub parent: Inode,
    pub name: Vec<u8>,
}

/// Columns of `Attributes`, the first of those of a record.
macro_rules! attribute_columns {
    () => {
        "inode.id, generation, kind, mode, links, uid, gid, size, used, major, minor, accessed, accessed_ns,
         modified, modified_ns, changed, changed_ns"
    };
}
pub(super) use attribute_columns;

/// How many these are.
pub const ATTRIBUTES: usize = 17;

const LOAD: &str = concat!(
    "SELECT ",
    attribute_columns!(),
    ", tree, parent, name, entries, next_cookie, verifier, target, content_index FROM inode WHERE id = ?1"
);
const SAVE: &str = "INSERT OR REPLACE INTO inode (id, generation, kind, mode, links, uid, gid, size, used, major, minor,
    accessed, accessed_ns, modified, modified_ns, changed, changed_ns, tree, parent, name, entries, next_cookie, verifier, target,
    content_index) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22,
    ?23, ?24, ?25)";

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

    fn read(row: &Row<'_>) -> rusqlite::Result<Record> {
        let parent: Option<i64> = row.get(18)?;
        let name: Option<Vec<u8>> = row.get(19)?;
        Ok(Record {
            attributes: attributes(row)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?,
            tree: Inode(loaded(row.get(17)?)),
            place: parent.zip(name).map(|(parent, name)| Place {
                parent: Inode(loaded(parent)),
                name,
            }),
            entries: loaded(row.get(20)?),
            next_cookie: loaded(row.get(21)?),
            verifier: row.get::<_, Option<i64>>(22)?.map(loaded),
            target: row.get(23)?,
            content_index: loaded(row.get(24)?),
        })
    }
}

/// From the first columns of a row; `None`: there is no such inode, in a row of something else.
pub fn attributes(row: &Row<'_>) -> rusqlite::Result<Option<Attributes>> {
    let time = |at: usize| -> rusqlite::Result<Time> {
        Ok(Time {
            seconds: row.get(at)?,
            nanoseconds: row.get(at + 1)?,
        })
    };
    let Some(inode) = row.get::<_, Option<i64>>(0)? else {
        return Ok(None);
    };
    Ok(Some(Attributes {
        inode: Inode(loaded(inode)),
        generation: row.get(1)?,
        kind: kind_from(row.get(2)?),
        mode: row.get(3)?,
        links: row.get(4)?,
        uid: row.get(5)?,
        gid: row.get(6)?,
        size: loaded(row.get(7)?),
        used: loaded(row.get(8)?),
        device: (row.get(9)?, row.get(10)?),
        accessed: time(11)?,
        modified: time(13)?,
        changed: time(15)?,
    }))
}

pub fn load(rows: &Connection, inode: Inode) -> Result<Option<Record>, Failure> {
    let mut statement = rows.prepare_cached(LOAD)?;
    Ok(statement.query_row([stored(inode.0)], Record::read).optional()?)
}

/// Inserts or replaces.
pub fn save(rows: &Connection, record: &Record) -> Result<(), Failure> {
    let of = &record.attributes;
    let mut statement = rows.prepare_cached(SAVE)?;
    statement.execute(params![
        stored(of.inode.0),
        of.generation,
        kind_number(of.kind),
        of.mode,
        of.links,
        of.uid,
        of.gid,
        stored(of.size),
        stored(of.used),
        of.device.0,
        of.device.1,
        of.accessed.seconds,
        of.accessed.nanoseconds,
        of.modified.seconds,
        of.modified.nanoseconds,
        of.changed.seconds,
        of.changed.nanoseconds,
        stored(record.tree.0),
        record.place.as_ref().map(|place| stored(place.parent.0)),
        record.place.as_ref().map(|place| &place.name),
        stored(record.entries),
        stored(record.next_cookie),
        record.verifier.map(stored),
        record.target,
        stored(record.content_index),
    ])?;
    Ok(())
}

pub fn delete(rows: &Connection, inode: Inode) -> Result<(), Failure> {
    rows.prepare_cached("DELETE FROM inode WHERE id = ?1")?
        .execute([stored(inode.0)])?;
    Ok(())
}

/// Where a folder lies.
pub fn place(rows: &Connection, folder: Inode) -> Result<Option<Place>, Failure> {
    let mut statement = rows.prepare_cached("SELECT parent, name FROM inode WHERE id = ?1 AND parent IS NOT NULL")?;
    let read = |row: &Row<'_>| {
        Ok(Place {
            parent: Inode(loaded(row.get(0)?)),
            name: row.get(1)?,
        })
    };
    Ok(statement.query_row([stored(folder.0)], read).optional()?)
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
