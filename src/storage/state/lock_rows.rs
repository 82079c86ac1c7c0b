//! The lock table in the metadata database.

use rusqlite::{Connection, Row, params};

use super::Failure;
use super::locks::Held;
use super::schema::{loaded, stored};
use crate::storage::call::{Inode, Lock, LockFamily};
use crate::storage::operation::Session;

/// All locks of an inode in one family, by start, session and owner.
pub fn load(rows: &Connection, inode: Inode, family: LockFamily) -> Result<Vec<Held>, Failure> {
    let mut statement = rows.prepare_cached(
        "SELECT session, owner, is_exclusive, start, end, pid FROM lock WHERE inode = ?1 AND family = ?2",
    )?;
    let read = |row: &Row<'_>| {
        Ok(Held {
            session: Session(loaded(row.get(0)?)),
            lock: Lock {
                family,
                owner: loaded(row.get(1)?),
                is_exclusive: row.get(2)?,
                start: loaded(row.get(3)?),
                end: loaded(row.get(4)?),
                pid: row.get(5)?,
            },
        })
    };
    let found = statement.query_map(params![stored(inode.0), number(family)], read)?;
    let mut held = found.collect::<Result<Vec<_>, _>>()?;
    held.sort_by_key(|each| (each.lock.start, each.session, each.lock.owner));
    Ok(held)
}

/// Replaces the locks of one owner.
pub fn save(
    rows: &Connection,
    inode: Inode,
    (session, family, owner): (Session, LockFamily, u64),
    own: &[Held],
) -> Result<(), Failure> {
    rows.prepare_cached("DELETE FROM lock WHERE inode = ?1 AND family = ?2 AND session = ?3 AND owner = ?4")?
        .execute(params![
            stored(inode.0),
            number(family),
            stored(session.0),
            stored(owner)
        ])?;
    let mut insert = rows.prepare_cached("INSERT INTO lock VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    for Held { lock, .. } in own {
        insert.execute(params![
            stored(inode.0),
            number(family),
            stored(session.0),
            stored(owner),
            lock.is_exclusive,
            stored(lock.start),
            stored(lock.end),
            lock.pid
        ])?;
    }
    Ok(())
}

/// All locks of an inode that is gone; whether there were any.
pub fn forget_inode(rows: &Connection, inode: Inode) -> Result<bool, Failure> {
    let forgotten = rows
        .prepare_cached("DELETE FROM lock WHERE inode = ?1")?
        .execute([stored(inode.0)])?;
    Ok(forgotten > 0)
}

/// All locks of a session that ended; the inodes that they were of.
pub fn forget_session(rows: &Connection, session: Session) -> Result<Vec<Inode>, Failure> {
    let id = stored(session.0);
    let locked = rows
        .prepare_cached("SELECT DISTINCT inode FROM lock WHERE session = ?1 ORDER BY inode")?
        .query_map([id], |row| Ok(Inode(loaded(row.get(0)?))))?
        .collect::<Result<Vec<_>, _>>()?;
    rows.prepare_cached("DELETE FROM lock WHERE session = ?1")?
        .execute([id])?;
    Ok(locked)
}

/// Hands the locks of a session to the one that took its place.
pub fn adopt_session(rows: &Connection, old: Session, new: Session) -> Result<(), Failure> {
    rows.prepare_cached("UPDATE lock SET session = ?2 WHERE session = ?1")?
        .execute([stored(old.0), stored(new.0)])?;
    Ok(())
}

fn number(family: LockFamily) -> u8 {
    match family {
        LockFamily::Flock => 1,
        LockFamily::Fcntl => 2,
    }
}
