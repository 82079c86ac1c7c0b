//! Names in folders. A name keeps its cookie while it stays, so a listing goes on where it was while the folder changes.

use rusqlite::{Connection, OptionalExtension, params};

use super::Failure;
use super::inode;
use super::schema::{loaded, stored};
use crate::storage::call::{Entry, Inode};

/// Entries for which a listing has room from its start: about what a client asks for.
const EXPECTED: usize = 2048;

/// A name as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub name: Vec<u8>,
    pub inode: Inode,
    pub cookie: u64,
}

pub fn find(rows: &Connection, folder: Inode, name: &[u8]) -> Result<Option<Inode>, Failure> {
    let mut statement = rows.prepare_cached("SELECT inode FROM entry WHERE folder = ?1 AND name = ?2")?;
    let inode: Option<i64> = statement
        .query_row(params![stored(folder.0), name], |row| row.get(0))
        .optional()?;
    Ok(inode.map(|inode| Inode(loaded(inode))))
}

pub fn insert(rows: &Connection, folder: Inode, name: &[u8], inode: Inode, cookie: u64) -> Result<(), Failure> {
    rows.prepare_cached("INSERT INTO entry (folder, name, inode, cookie) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![stored(folder.0), name, stored(inode.0), stored(cookie)])?;
    Ok(())
}

/// Points a name that is there to another inode.
pub fn redirect(rows: &Connection, folder: Inode, name: &[u8], inode: Inode) -> Result<(), Failure> {
    rows.prepare_cached("UPDATE entry SET inode = ?3 WHERE folder = ?1 AND name = ?2")?
        .execute(params![stored(folder.0), name, stored(inode.0)])?;
    Ok(())
}

pub fn delete(rows: &Connection, folder: Inode, name: &[u8]) -> Result<(), Failure> {
    rows.prepare_cached("DELETE FROM entry WHERE folder = ?1 AND name = ?2")?
        .execute(params![stored(folder.0), name])?;
    Ok(())
}

/// Up to `limit` names after `cookie`, in the order of their cookies.
pub fn list(rows: &Connection, folder: Inode, cookie: u64, limit: usize) -> Result<Vec<Name>, Failure> {
    let mut statement = rows.prepare_cached(
        "SELECT name, inode, cookie FROM entry WHERE folder = ?1 AND cookie > ?2 ORDER BY cookie LIMIT ?3",
    )?;
    let found = statement.query_map(
        params![
            stored(folder.0),
            cookie.min(i64::MAX as u64).cast_signed(),
            limit as i64
        ],
        |row| {
            Ok(Name {
                name: row.get(0)?,
                inode: Inode(loaded(row.get(1)?)),
                cookie: loaded(row.get(2)?),
            })
        },
    )?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// As `list`, with the attributes of what the names point to.
pub fn list_whole(rows: &Connection, folder: Inode, cookie: u64, limit: usize) -> Result<Vec<Entry>, Failure> {
    let mut statement = rows.prepare_cached(
        "SELECT name, inode, cookie, record FROM entry LEFT JOIN inode ON inode.id = entry.inode
         WHERE folder = ?1 AND cookie > ?2 ORDER BY cookie LIMIT ?3",
    )?;
    let mut found = statement.query(params![
        stored(folder.0),
        cookie.min(i64::MAX as u64).cast_signed(),
        limit as i64
    ])?;
    let mut entries = Vec::with_capacity(limit.min(EXPECTED));
    while let Some(row) = found.next()? {
        let inode = Inode(loaded(row.get(1)?));
        let attributes = inode::read_attributes(row, 3)?
            .ok_or_else(|| Failure::Damaged(format!("a name points to inode {}, which is not there", inode.0)))?;
        entries.push(Entry {
            name: row.get(0)?,
            inode,
            cookie: loaded(row.get(2)?),
            attributes,
        });
    }
    Ok(entries)
}

/// Every name of an object, with its folder. Looks at all names there are.
pub fn names_of(rows: &Connection, inode: Inode) -> Result<Vec<(Inode, Vec<u8>)>, Failure> {
    let mut statement = rows.prepare_cached("SELECT folder, name FROM entry WHERE inode = ?1")?;
    let found = statement.query_map([stored(inode.0)], |row| Ok((Inode(loaded(row.get(0)?)), row.get(1)?)))?;
    Ok(found.collect::<Result<_, _>>()?)
}
