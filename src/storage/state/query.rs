//! Calls that change nothing.

use bytes::Bytes;
use rusqlite::Connection;

use super::inode::{self, Record};
use super::machine::Machine;
use super::recall::{Look, Recall, Ticket};
use super::{Failure, access, entry, lock_rows, locks};
use crate::storage::call::{Attributes, Caller, Changed, DATA_MAX, Error, Inode, Kind, Lock, Query, Reply};
use crate::storage::operation::Session;

/// Entries of one listing, so that a reply stays under 2 MiB with the longest names.
const LIST_MAX: u32 = 4096;

/// As in a mutation: an answer of the state, or a failure of this replica.
enum Stop {
    Refused(Error),
    Failed(Failure),
    /// What was read of late does not tell.
    Unknown,
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

/// Where records and names are looked up; `None`: it does not know.
trait Source {
    fn record(&self, inode: Inode) -> Outcome<Option<Record>>;
    fn find(&self, folder: Inode, name: &[u8]) -> Outcome<Option<Inode>>;

    fn load(&self, inode: Inode) -> Outcome<Record> {
        Ok(self.record(inode)?.ok_or(Error::Stale)?)
    }
}

/// One state of the database; what is found is remembered.
struct View<'a> {
    rows: &'a Connection,
    recall: &'a Recall,
    ticket: Ticket,
}

impl Source for View<'_> {
    fn record(&self, inode: Inode) -> Outcome<Option<Record>> {
        let found = inode::load(self.rows, inode)?;
        self.recall.keep_record(self.ticket, inode, found.as_ref());
        Ok(found)
    }

    fn find(&self, folder: Inode, name: &[u8]) -> Outcome<Option<Inode>> {
        let found = entry::find(self.rows, folder, name)?;
        self.recall.keep_name(self.ticket, folder, name, found);
        Ok(found)
    }
}

impl Source for Look<'_> {
    fn record(&self, inode: Inode) -> Outcome<Option<Record>> {
        Look::record(self, inode).ok_or(Stop::Unknown)
    }

    fn find(&self, folder: Inode, name: &[u8]) -> Outcome<Option<Inode>> {
        self.name(folder, name).ok_or(Stop::Unknown)
    }
}

/// A part of a content.
struct Part {
    attributes: Attributes,
    count: usize,
    /// Bytes from its start to the end of the file.
    rest: u64,
}

impl Part {
    fn answer(self, data: Bytes) -> Reply {
        Reply::Data {
            is_end: data.len() as u64 >= self.rest,
            data,
            attributes: self.attributes,
        }
    }
}

impl Machine {
    /// Answers a query from the state as of the last batch. `session` is who asks, for `TestLock`.
    pub fn query(&self, session: Session, caller: &Caller, query: &Query) -> Result<Reply, Error> {
        let answer = match query {
            Query::Read { inode, offset, count } => self.read(caller, *inode, *offset, *count),
            Query::Space { inode } => self.space(*inode),
            Query::List { folder, cookie, limit } => {
                self.in_one_view(|view| list(view, caller, *folder, *cookie, *limit))
            }
            Query::TestLock { inode, lock } => self.in_one_view(|view| test_lock(view, session, *inode, lock)),
            other => match self.remembered().map(|look| answer(&look, caller, other)) {
                None | Some(Err(Stop::Unknown)) => self.in_one_view(|view| answer(view, caller, other)),
                Some(known) => known,
            },
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
            Err(Stop::Unknown) => {
                tracing::error!("the database does not know what is in it");
                Err(Error::Io)
            }
        }
    }

    /// Answers a query at once from what was read of late: no input or output, no waiting. `None`: use `query`.
    pub fn recall(&self, caller: &Caller, query: &Query) -> Option<Result<Reply, Error>> {
        let answer = match query {
            Query::Read { inode, offset, count } => self.read_ready(caller, *inode, *offset, *count),
            other => answer(&self.remembered()?, caller, other),
        };
        match answer {
            Ok(reply) => Some(Ok(reply)),
            // That may be over when it is asked again.
            Err(Stop::Refused(Error::Unavailable)) => None,
            Err(Stop::Refused(error)) => Some(Err(error)),
            Err(Stop::Unknown | Stop::Failed(_)) => None,
        }
    }

    /// A machine that has stopped may have a successor.
    fn remembered(&self) -> Option<Look<'_>> {
        (!self.is_stopped()).then(|| self.recall.look())
    }

    fn in_one_view<T>(&self, work: impl FnOnce(&View<'_>) -> Outcome<T>) -> Outcome<T> {
        let mut outcome = None;
        let ticket = self.recall.ticket();
        self.look(|rows| {
            let view = rows.unchecked_transaction()?;
            outcome = Some(work(&View {
                rows: &view,
                recall: &self.recall,
                ticket,
            }));
            Ok(())
        })?;
        outcome.expect("the work was done, for the look succeeded")
    }

    fn read(&self, caller: &Caller, inode: Inode, offset: u64, count: u32) -> Outcome<Reply> {
        let turn = self.contents.turn(inode);
        let part = self.part(caller, self.record(inode)?, offset, count)?;
        let data = match part.count {
            0 => Bytes::new(),
            count => match turn.read(offset, count) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.missing(inode)?,
                other => other?,
            },
        };
        if data.len() < part.count {
            return Err(Failure::Damaged(format!("the content of inode {} is too short", inode.0)).into());
        }
        Ok(part.answer(data))
    }

    /// As `read`, of what is in memory.
    fn read_ready(&self, caller: &Caller, inode: Inode, offset: u64, count: u32) -> Outcome<Reply> {
        let turn = self.contents.try_turn(inode).ok_or(Stop::Unknown)?;
        let record = self.remembered().ok_or(Stop::Unknown)?.load(inode)?;
        let part = self.part(caller, record, offset, count)?;
        let data = turn.read_ready(offset, part.count).ok_or(Stop::Unknown)?;
        Ok(part.answer(data))
    }

    /// What is to be read, if it may be. The turn is held.
    fn part(&self, caller: &Caller, of: Record, offset: u64, count: u32) -> Outcome<Part> {
        let attributes = of.attributes;
        match attributes.kind {
            Kind::File => {}
            Kind::Folder => return Err(Error::IsFolder.into()),
            _ => return Err(Error::Invalid.into()),
        }
        access::may_read(&attributes, caller)?;
        if self.is_torn(attributes.inode) {
            return Err(Error::Unavailable.into());
        }
        let rest = attributes.size.saturating_sub(offset);
        let count = (count as usize)
            .min(DATA_MAX)
            .min(usize::try_from(rest).unwrap_or(DATA_MAX));
        Ok(Part {
            attributes,
            count,
            rest,
        })
    }

    fn record(&self, inode: Inode) -> Outcome<Record> {
        if let Some(found) = self.remembered().and_then(|look| Look::record(&look, inode)) {
            return Ok(found.ok_or(Error::Stale)?);
        }
        self.in_one_view(|view| view.load(inode))
    }

    /// A content that is not there: its inode went in between, or the disk has lost it.
    fn missing(&self, inode: Inode) -> Outcome<Bytes> {
        self.in_one_view(|view| view.load(inode))?;
        Err(Failure::Damaged(format!("the content of inode {} is missing", inode.0)).into())
    }

    /// Room on this replica's disk.
    fn space(&self, inode: Inode) -> Outcome<Reply> {
        self.record(inode)?;
        Ok(Reply::Space(self.disk.space(&self.folder)?))
    }
}

/// Queries that look at a few records and names.
fn answer(source: &impl Source, caller: &Caller, query: &Query) -> Outcome<Reply> {
    match query {
        Query::Attributes { inode } => Ok(Reply::Attributes(source.load(*inode)?.attributes)),
        Query::Lookup { folder, name } => look_up(source, caller, *folder, name),
        Query::Access { inode, wanted } => {
            let of = source.load(*inode)?.attributes;
            Ok(Reply::Access(access::granted(&of, caller) & wanted))
        }
        Query::ReadLink { inode } => {
            let target = source.load(*inode)?.target.ok_or(Error::Invalid)?;
            Ok(Reply::Target(target))
        }
        Query::List { .. } | Query::TestLock { .. } | Query::Read { .. } | Query::Space { .. } => Err(Stop::Unknown),
    }
}

fn folder(source: &impl Source, caller: &Caller, inode: Inode, bits: u32) -> Outcome<Record> {
    let folder = source.load(inode)?;
    if !folder.is_folder() {
        return Err(Error::NotFolder.into());
    }
    access::need(&folder.attributes, caller, bits)?;
    Ok(folder)
}

fn look_up(source: &impl Source, caller: &Caller, inode: Inode, name: &[u8]) -> Outcome<Reply> {
    let folder = folder(source, caller, inode, access::EXECUTE)?;
    let found = match name {
        b"." => inode,
        b".." if inode == folder.tree => inode,
        b".." => folder.place.as_ref().ok_or(Error::NotFound)?.parent,
        name => {
            access::check_name(name)?;
            source.find(inode, name)?.ok_or(Error::NotFound)?
        }
    };
    Ok(Reply::Object {
        attributes: source.load(found)?.attributes,
        folder: Some(Changed {
            before: folder.attributes.clone(),
            after: folder.attributes,
        }),
    })
}

fn list(view: &View<'_>, caller: &Caller, inode: Inode, cookie: u64, limit: u32) -> Outcome<Reply> {
    let folder = folder(view, caller, inode, access::READ)?;
    let limit = limit.min(LIST_MAX) as usize;
    let mut entries = entry::list_whole(view.rows, inode, cookie, limit + 1)?;
    let is_end = entries.len() <= limit;
    entries.truncate(limit);
    Ok(Reply::List {
        entries,
        is_end,
        folder: folder.attributes,
    })
}

fn test_lock(view: &View<'_>, session: Session, inode: Inode, lock: &Lock) -> Outcome<Reply> {
    view.load(inode)?;
    if lock.start >= lock.end {
        return Err(Error::Invalid.into());
    }
    let held = lock_rows::load(view.rows, inode, lock.family)?;
    let holder = locks::conflict(&held, session, lock).map(|held| held.lock.clone());
    Ok(Reply::Holder(holder))
}
