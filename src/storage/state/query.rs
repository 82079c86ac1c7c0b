//! Calls that change nothing.

use bytes::Bytes;
use rusqlite::Connection;

use super::inode::{self, Record};
use super::machine::Machine;
use super::{Failure, access, entry, lock_rows, locks};
use crate::storage::call::{Attributes, Caller, Changed, DATA_MAX, Entry, Error, Inode, Kind, Lock, Query, Reply};
use crate::storage::operation::Session;

/// Entries of one listing, so that a reply stays under 2 MiB with the longest names.
const LIST_MAX: u32 = 4096;

/// As in a mutation: an answer of the state, or a failure of this replica.
enum Stop {
    Refused(Error),
    Failed(Failure),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Refused(error)
    }
}

impl<E: Into<Failure>> From<E> for Stop {
    fn from(failure: E) -> Self {
        Stop::Failed(failure.into())
    }
}

type Outcome<T> = Result<T, Stop>;

impl Machine {
    /// Answers a query from the state as of the last batch. `session` is who asks, for `TestLock`.
    pub fn query(&self, session: Session, caller: &Caller, query: &Query) -> Result<Reply, Error> {
        let answer = match query {
            Query::Read { inode, offset, count } => self.read(caller, *inode, *offset, *count),
            Query::Space { inode } => self.space(*inode),
            other => self.in_one_view(|rows| answer(rows, session, caller, other)),
        };
        match answer {
            Ok(reply) => Ok(reply),
            Err(Stop::Refused(error)) => Err(error),
            // Another machine has its place.
            Err(Stop::Failed(Failure::Stopped)) => Err(Error::Unavailable),
            Err(Stop::Failed(failure)) => {
                tracing::error!(%failure, "a query could not be answered");
                Err(Error::Io)
            }
        }
    }

    fn in_one_view<T>(&self, work: impl FnOnce(&Connection) -> Outcome<T>) -> Outcome<T> {
        let mut outcome = None;
        self.look(|rows| {
            let view = rows.unchecked_transaction()?;
            outcome = Some(work(&view));
            Ok(())
        })?;
        outcome.expect("the work was done, for the look succeeded")
    }

    fn read(&self, caller: &Caller, inode: Inode, offset: u64, count: u32) -> Outcome<Reply> {
        let _turn = self.contents.turn(inode);
        let attributes = self.in_one_view(|rows| Ok(load(rows, inode)?.attributes))?;
        match attributes.kind {
            Kind::File => {}
            Kind::Folder => return Err(Error::IsFolder.into()),
            _ => return Err(Error::Invalid.into()),
        }
        access::may_read(&attributes, caller)?;
        if self.is_torn(inode) {
            return Err(Error::Unavailable.into());
        }
        let rest = attributes.size.saturating_sub(offset);
        let count = (count as usize)
            .min(DATA_MAX)
            .min(usize::try_from(rest).unwrap_or(DATA_MAX));
        let data = match count {
            0 => Vec::new(),
            count => match self.contents.read(inode, offset, count) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.missing(inode)?,
                other => other?,
            },
        };
        if data.len() < count {
            return Err(Failure::Damaged(format!("the content of inode {} is too short", inode.0)).into());
        }
        Ok(Reply::Data {
            is_end: data.len() as u64 >= rest,
            data: Bytes::from(data),
            attributes,
        })
    }

    /// A content that is not there: its inode went in between, or the disk has lost it.
    fn missing(&self, inode: Inode) -> Outcome<Vec<u8>> {
        self.in_one_view(|rows| load(rows, inode))?;
        Err(Failure::Damaged(format!("the content of inode {} is missing", inode.0)).into())
    }

    /// Room on this replica's disk.
    fn space(&self, inode: Inode) -> Outcome<Reply> {
        self.in_one_view(|rows| load(rows, inode))?;
        Ok(Reply::Space(self.disk.space(&self.folder)?))
    }
}

fn load(rows: &Connection, inode: Inode) -> Outcome<Record> {
    Ok(inode::load(rows, inode)?.ok_or(Error::Stale)?)
}

fn answer(rows: &Connection, session: Session, caller: &Caller, query: &Query) -> Outcome<Reply> {
    match query {
        Query::Attributes { inode } => Ok(Reply::Attributes(load(rows, *inode)?.attributes)),
        Query::Lookup { folder, name } => look_up(rows, caller, *folder, name),
        Query::Access { inode, wanted } => {
            let of = load(rows, *inode)?.attributes;
            Ok(Reply::Access(access::granted(&of, caller) & wanted))
        }
        Query::ReadLink { inode } => {
            let target = load(rows, *inode)?.target.ok_or(Error::Invalid)?;
            Ok(Reply::Target(target))
        }
        Query::List { folder, cookie, limit } => list(rows, caller, *folder, *cookie, *limit),
        Query::TestLock { inode, lock } => test_lock(rows, session, *inode, lock),
        Query::Read { .. } | Query::Space { .. } => Err(Error::Invalid.into()),
    }
}

fn folder(rows: &Connection, caller: &Caller, inode: Inode, bits: u32) -> Outcome<Record> {
    let folder = load(rows, inode)?;
    if !folder.is_folder() {
        return Err(Error::NotFolder.into());
    }
    access::need(&folder.attributes, caller, bits)?;
    Ok(folder)
}

fn look_up(rows: &Connection, caller: &Caller, inode: Inode, name: &[u8]) -> Outcome<Reply> {
    let folder = folder(rows, caller, inode, access::EXECUTE)?;
    let found = match name {
        b"." => inode,
        b".." if inode == folder.tree => inode,
        b".." => folder.place.as_ref().ok_or(Error::NotFound)?.parent,
        name => {
            access::check_name(name)?;
            entry::find(rows, inode, name)?.ok_or(Error::NotFound)?
        }
    };
    Ok(Reply::Object {
        attributes: load(rows, found)?.attributes,
        folder: Some(Changed {
            before: folder.attributes.clone(),
            after: folder.attributes,
        }),
    })
}

fn list(rows: &Connection, caller: &Caller, inode: Inode, cookie: u64, limit: u32) -> Outcome<Reply> {
    let folder = folder(rows, caller, inode, access::READ)?;
    let limit = limit.min(LIST_MAX) as usize;
    let mut names = entry::list(rows, inode, cookie, limit + 1)?;
    let is_end = names.len() <= limit;
    names.truncate(limit);
    let entries = names
        .into_iter()
        .map(|name| {
            Ok(Entry {
                attributes: attributes_of(rows, name.inode)?,
                name: name.name,
                inode: name.inode,
                cookie: name.cookie,
            })
        })
        .collect::<Outcome<Vec<_>>>()?;
    Ok(Reply::List {
        entries,
        is_end,
        folder: folder.attributes,
    })
}

fn attributes_of(rows: &Connection, inode: Inode) -> Result<Attributes, Failure> {
    let record = inode::load(rows, inode)?;
    record
        .map(|record| record.attributes)
        .ok_or_else(|| Failure::Damaged(format!("a name points to inode {}, which is not there", inode.0)))
}

fn test_lock(rows: &Connection, session: Session, inode: Inode, lock: &Lock) -> Outcome<Reply> {
    load(rows, inode)?;
    if lock.start >= lock.end {
        return Err(Error::Invalid.into());
    }
    let held = lock_rows::load(rows, inode, lock.family)?;
    let holder = locks::conflict(&held, session, lock).map(|held| held.lock.clone());
    Ok(Reply::Holder(holder))
}
