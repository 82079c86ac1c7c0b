//! Sessions in the metadata database: their last replies and what they hold open.

use rusqlite::{Connection, OptionalExtension, params};

use super::schema::{loaded, stored};
use super::{Failure, reply};
use crate::storage::call::{Error, Inode, Reply};
use crate::storage::operation::Session;

/// Replies kept per session: a door that is this far ahead of what it acknowledged is refused. At about 400 bytes each
/// a session takes less than 2 MiB.
pub const WINDOW: u64 = 4096;

pub fn begin(rows: &Connection, session: Session) -> Result<(), Failure> {
    rows.prepare_cached("INSERT OR IGNORE INTO session (id, acknowledged) VALUES (?1, 0)")?
        .execute([stored(session.0)])?;
    Ok(())
}

/// Forgets the session and its opens; returns the inodes that it held open. Locks are the lock table's.
pub fn end(rows: &Connection, session: Session) -> Result<Vec<Inode>, Failure> {
    let id = stored(session.0);
    let held = rows
        .prepare_cached("SELECT inode FROM opened WHERE session = ?1 ORDER BY inode")?
        .query_map([id], |row| Ok(Inode(loaded(row.get(0)?))))?
        .collect::<Result<Vec<_>, _>>()?;
    for sql in [
        "DELETE FROM opened WHERE session = ?1",
        "DELETE FROM reply WHERE session = ?1",
        "DELETE FROM session WHERE id = ?1",
    ] {
        rows.prepare_cached(sql)?.execute([id])?;
    }
    Ok(held)
}

pub fn all(rows: &Connection) -> Result<Vec<Session>, Failure> {
    let mut statement = rows.prepare_cached("SELECT id FROM session ORDER BY id")?;
    let found = statement.query_map([], |row| Ok(Session(loaded(row.get(0)?))))?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// The answer to a numbered call that is not to be executed, `None` if it is; and forgets the replies that have arrived.
/// A call seen before gets its reply again. An unknown session is stale; a number whose reply has arrived, or one beyond the window, is invalid and never executed.
pub fn answered(
    rows: &Connection,
    session: Session,
    sequence: u64,
    acknowledged: u64,
) -> Result<Option<Result<Reply, Error>>, Failure> {
    let id = stored(session.0);
    let known: Option<i64> = rows
        .prepare_cached("SELECT acknowledged FROM session WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    let Some(known) = known.map(loaded) else {
        return Ok(Some(Err(Error::Stale)));
    };
    // A call is not acknowledged before it was made.
    let acknowledged = known.max(acknowledged.min(sequence.saturating_sub(1)));
    if acknowledged > known {
        rows.prepare_cached("UPDATE session SET acknowledged = ?2 WHERE id = ?1")?
            .execute([id, stored(acknowledged)])?;
        rows.prepare_cached("DELETE FROM reply WHERE session = ?1 AND sequence <= ?2")?
            .execute([id, stored(acknowledged)])?;
    }
    if sequence <= acknowledged || sequence - acknowledged > WINDOW {
        return Ok(Some(Err(Error::Invalid)));
    }
    let kept: Option<Vec<u8>> = rows
        .prepare_cached("SELECT reply FROM reply WHERE session = ?1 AND sequence = ?2")?
        .query_row([id, stored(sequence)], |row| row.get(0))
        .optional()?;
    match kept {
        None => Ok(None),
        Some(bytes) => reply::decode(&bytes)
            .map(Some)
            .ok_or_else(|| Failure::Damaged("a kept reply cannot be read".into())),
    }
}

pub fn keep(rows: &Connection, session: Session, sequence: u64, answer: &Result<Reply, Error>) -> Result<(), Failure> {
    let bytes = reply::encode(answer).expect("mutations answer only with replies that can be kept");
    rows.prepare_cached("INSERT INTO reply (session, sequence, reply) VALUES (?1, ?2, ?3)")?
        .execute(params![stored(session.0), stored(sequence), bytes])?;
    Ok(())
}

pub fn open(rows: &Connection, session: Session, inode: Inode) -> Result<(), Failure> {
    rows.prepare_cached(
        "INSERT INTO opened (inode, session, count) VALUES (?1, ?2, 1) ON CONFLICT DO UPDATE SET count = count + 1",
    )?
    .execute([stored(inode.0), stored(session.0)])?;
    Ok(())
}

/// One open less; none is no error, for a door may close what it lost with its session.
pub fn close(rows: &Connection, session: Session, inode: Inode) -> Result<(), Failure> {
    let keys = [stored(inode.0), stored(session.0)];
    rows.prepare_cached("UPDATE opened SET count = count - 1 WHERE inode = ?1 AND session = ?2")?
        .execute(keys)?;
    rows.prepare_cached("DELETE FROM opened WHERE inode = ?1 AND session = ?2 AND count <= 0")?
        .execute(keys)?;
    Ok(())
}

pub fn is_open(rows: &Connection, inode: Inode) -> Result<bool, Failure> {
    let mut statement = rows.prepare_cached("SELECT 1 FROM opened WHERE inode = ?1 LIMIT 1")?;
    Ok(statement.exists([stored(inode.0)])?)
}
