//! Sessions in the metadata database: their last replies and what they hold open.

use rusqlite::{Connection, OptionalExtension, params};

use super::schema::{loaded, stored};
use super::{Failure, reply};
use crate::storage::call::{Error, Inode, Reply};
use crate::storage::door::RequestKey;
use crate::storage::operation::{Place, Session};

/// Replies kept per session: a door that is this far ahead of what it acknowledged is refused. At about 400 bytes each
/// a session takes less than 2 MiB.
pub const WINDOW: u64 = 4096;

/// Replies kept although the door has acknowledged them: its client may not have got them when the door died, and asks again.
/// A kernel client has at most some hundred requests open.
const KEPT: u64 = 1024;
/// Beyond these, replies are forgotten so many at a time: one by one, each would cost as much as keeping the next.
const FORGOTTEN_AT_ONCE: u64 = 256;

/// No sessions: they hold open what has lost its last name while a session that adopts might have it open without having said so.
/// One holds what came since the last `Reap`, the other what was there before. Sessions' ids are the doors' choice below these.
pub const GRACE_NEW: Session = Session(u64::MAX);
pub const GRACE_OLD: Session = Session(u64::MAX - 1);

pub fn is_grace(session: Session) -> bool {
    session >= GRACE_OLD
}

/// Begins a session at a place, or finds it begun; returns the number of its next call, and the session that it replaced
/// there, whose replies are now its own.
pub fn begin(
    rows: &Connection,
    session: Session,
    (place, adopts): (&Place, bool),
) -> Result<(u64, Option<Session>), Failure> {
    let old: Option<(i64, i64)> = rows
        .prepare_cached("SELECT id, acknowledged FROM session WHERE place = ?1")?
        .query_row([&place.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let id = stored(session.0);
    let Some((old, acknowledged)) = old else {
        rows.prepare_cached(
            "INSERT INTO session (id, place, adopts, acknowledged, forgotten) VALUES (?1, ?2, ?3, 0, 0)",
        )?
        .execute(params![id, place.0, adopts])?;
        return Ok((1, None));
    };
    let last: Option<i64> = rows
        .prepare_cached("SELECT MAX(sequence) FROM reply WHERE session = ?1")?
        .query_row([old], |row| row.get(0))?;
    let last = loaded(acknowledged).max(last.map_or(0, loaded));
    if old == id {
        return Ok((last + 1, None));
    }
    rows.prepare_cached("UPDATE reply SET session = ?2 WHERE session = ?1")?
        .execute([old, id])?;
    rows.prepare_cached("UPDATE session SET id = ?2, acknowledged = ?3, adopts = ?4 WHERE id = ?1")?
        .execute(params![old, id, stored(last), adopts])?;
    Ok((last + 1, Some(Session(loaded(old)))))
}

/// Hands the opens of a session to the one that took its place.
pub fn adopt_opens(rows: &Connection, old: Session, new: Session) -> Result<(), Failure> {
    rows.prepare_cached("UPDATE opened SET session = ?2 WHERE session = ?1")?
        .execute([stored(old.0), stored(new.0)])?;
    Ok(())
}

/// Forgets the opens of a session; returns the inodes that it held.
pub fn forget_opens(rows: &Connection, session: Session) -> Result<Vec<Inode>, Failure> {
    let id = stored(session.0);
    let held = rows
        .prepare_cached("SELECT inode FROM opened WHERE session = ?1 ORDER BY inode")?
        .query_map([id], |row| Ok(Inode(loaded(row.get(0)?))))?
        .collect::<Result<Vec<_>, _>>()?;
    rows.prepare_cached("DELETE FROM opened WHERE session = ?1")?
        .execute([id])?;
    Ok(held)
}

/// Forgets up to `limit` opens of a session; returns the inodes that it held.
pub fn take_opens(rows: &Connection, session: Session, limit: u32) -> Result<Vec<Inode>, Failure> {
    let id = stored(session.0);
    let held = rows
        .prepare_cached("SELECT inode FROM opened WHERE session = ?1 ORDER BY inode LIMIT ?2")?
        .query_map(params![id, limit], |row| Ok(Inode(loaded(row.get(0)?))))?
        .collect::<Result<Vec<_>, _>>()?;
    let mut forget = rows.prepare_cached("DELETE FROM opened WHERE session = ?1 AND inode = ?2")?;
    for inode in &held {
        forget.execute([id, stored(inode.0)])?;
    }
    Ok(held)
}

pub fn has_opens(rows: &Connection, session: Session) -> Result<bool, Failure> {
    let mut statement = rows.prepare_cached("SELECT 1 FROM opened WHERE session = ?1 LIMIT 1")?;
    Ok(statement.exists([stored(session.0)])?)
}

/// Forgets the session and its replies. Its opens and locks are the caller's to end.
pub fn end(rows: &Connection, session: Session) -> Result<(), Failure> {
    for sql in [
        "DELETE FROM reply WHERE session = ?1",
        "DELETE FROM session WHERE id = ?1",
    ] {
        rows.prepare_cached(sql)?.execute([stored(session.0)])?;
    }
    Ok(())
}

pub fn all(rows: &Connection) -> Result<Vec<Session>, Failure> {
    let mut statement = rows.prepare_cached("SELECT id FROM session ORDER BY id")?;
    let found = statement.query_map([], |row| Ok(Session(loaded(row.get(0)?))))?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Those whose owner outlives the process.
pub fn adopting(rows: &Connection) -> Result<Vec<Session>, Failure> {
    let mut statement = rows.prepare_cached("SELECT id FROM session WHERE adopts ORDER BY id")?;
    let found = statement.query_map([], |row| Ok(Session(loaded(row.get(0)?))))?;
    Ok(found.collect::<Result<_, _>>()?)
}

pub fn is_known(rows: &Connection, session: Session) -> Result<bool, Failure> {
    let mut statement = rows.prepare_cached("SELECT 1 FROM session WHERE id = ?1")?;
    Ok(statement.exists([stored(session.0)])?)
}

/// The answer to a numbered call that is not to be executed, `None` if it is; and forgets the replies that have arrived.
/// A call seen before gets its reply again, and so does a request that another call brought. A number whose reply has arrived, or
/// one beyond the window, is invalid and never executed.
pub fn answered(
    rows: &Connection,
    session: Session,
    (sequence, acknowledged): (u64, u64),
    key: Option<RequestKey>,
) -> Result<Option<Result<Reply, Error>>, Failure> {
    let id = stored(session.0);
    let known: Option<(i64, i64)> = rows
        .prepare_cached("SELECT acknowledged, forgotten FROM session WHERE id = ?1")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((known, forgotten)) = known.map(|(known, forgotten)| (loaded(known), loaded(forgotten))) else {
        return Ok(Some(Err(Error::NoSession)));
    };
    // A call is not acknowledged before it was made.
    let acknowledged = known.max(acknowledged.min(sequence.saturating_sub(1)));
    if acknowledged > known {
        rows.prepare_cached("UPDATE session SET acknowledged = ?2 WHERE id = ?1")?
            .execute([id, stored(acknowledged)])?;
        forget(rows, id, acknowledged.saturating_sub(KEPT), forgotten)?;
    }
    if sequence <= acknowledged || sequence - acknowledged > WINDOW {
        return Ok(Some(Err(Error::Invalid)));
    }
    let kept: Option<Vec<u8>> = rows
        .prepare_cached("SELECT reply FROM reply WHERE session = ?1 AND sequence = ?2")?
        .query_row([id, stored(sequence)], |row| row.get(0))
        .optional()?;
    let kept = match (kept, key) {
        (None, Some(key)) => rows
            .prepare_cached("SELECT reply FROM reply WHERE client = ?1 AND xid = ?2 AND checksum = ?3")?
            .query_row(params![stored(key.client), key.xid, stored(key.checksum)], |row| {
                row.get(0)
            })
            .optional()?,
        (kept, _) => kept,
    };
    match kept {
        None => Ok(None),
        Some(bytes) => reply::decode(&bytes)
            .map(Some)
            .ok_or_else(|| Failure::Damaged("a kept reply cannot be read".into())),
    }
}

/// Forgets the replies up to `last` when they are enough; those up to `forgotten` are gone.
fn forget(rows: &Connection, id: i64, last: u64, forgotten: u64) -> Result<(), Failure> {
    if last >= forgotten + FORGOTTEN_AT_ONCE {
        rows.prepare_cached("DELETE FROM reply WHERE session = ?1 AND sequence <= ?2")?
            .execute([id, stored(last)])?;
        rows.prepare_cached("UPDATE session SET forgotten = ?2 WHERE id = ?1")?
            .execute([id, stored(last)])?;
    }
    Ok(())
}

pub fn keep(
    rows: &Connection,
    session: Session,
    sequence: u64,
    key: Option<RequestKey>,
    answer: &Result<Reply, Error>,
) -> Result<(), Failure> {
    let bytes = reply::encode(answer).expect("mutations answer only with replies that can be kept");
    rows.prepare_cached(
        "INSERT INTO reply (session, sequence, client, xid, checksum, reply) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        stored(session.0),
        stored(sequence),
        key.map(|key| stored(key.client)),
        key.map(|key| key.xid),
        key.map(|key| stored(key.checksum)),
        bytes
    ])?;
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
