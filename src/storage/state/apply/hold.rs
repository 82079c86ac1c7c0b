//! What a session holds: opens and locks.

use rusqlite::Connection;

use super::{Effects, Outcome, Step, free};
use crate::storage::call::{Error, Inode, Lock, Reply};
use crate::storage::operation::{Place, Session};
use crate::storage::state::locks::Held;
use crate::storage::state::sessions::{GRACE_NEW, GRACE_OLD};
use crate::storage::state::{Failure, LockTrace, inode, lock_rows, locks, sessions};

/// Inodes freed in one go: more would keep other entries waiting.
const REAPED: u32 = 4096;

/// Locks of one inode and family: each further one costs a look at all of them.
pub const LOCKS_MAX: usize = 4096;

impl Step<'_, '_> {
    pub(super) fn open(&mut self, inode: Inode) -> Outcome<Reply> {
        let record = self.load(inode)?;
        sessions::open(self.rows, self.call.session, inode)?;
        Ok(Reply::Attributes(record.attributes))
    }

    pub(super) fn close(&mut self, inode: Inode) -> Outcome<Reply> {
        sessions::close(self.rows, self.call.session, inode)?;
        free_if_unheld(self.rows, self.effects, inode)?;
        Ok(Reply::Done)
    }

    pub(super) fn lock(&mut self, inode: Inode, lock: &Lock) -> Outcome<Reply> {
        self.load(inode)?;
        check_range(lock)?;
        let session = self.call.session;
        let held = lock_rows::load(self.rows, inode, lock.family)?;
        if locks::conflict(&held, session, lock).is_some() {
            let holders = locks::holders(&held, session, lock);
            self.effects.touched.lock(LockTrace::Refused {
                inode,
                session,
                holders,
            });
            return Err(Error::Locked.into());
        }
        if held.len() >= LOCKS_MAX {
            return Err(Error::NoSpace.into());
        }
        let own = locks::with(&held, session, lock);
        self.save_locks(inode, lock, (&held, &own))
    }

    /// Also of an inode that is gone: its locks went with it.
    pub(super) fn unlock(&mut self, inode: Inode, lock: &Lock) -> Outcome<Reply> {
        check_range(lock)?;
        let session = self.call.session;
        let held = lock_rows::load(self.rows, inode, lock.family)?;
        let own = locks::without(&held, session, lock);
        self.save_locks(inode, lock, (&held, &own))
    }

    /// The locks of the owner of `lock` become `own`.
    fn save_locks(&mut self, inode: Inode, lock: &Lock, (held, own): (&[Held], &[Held])) -> Outcome<Reply> {
        let session = self.call.session;
        if locks::is_freed(held, (session, lock.owner), own) {
            self.effects.touched.lock(LockTrace::Freed(inode));
        }
        lock_rows::save(self.rows, inode, (session, lock.family, lock.owner), own)?;
        Ok(Reply::Done)
    }
}

fn check_range(lock: &Lock) -> Result<(), Error> {
    if lock.start < lock.end {
        Ok(())
    } else {
        Err(Error::Invalid)
    }
}

/// Begins a session; what the one before it at that place held goes on with it or ends.
pub(super) fn begin_session(
    rows: &Connection,
    effects: &mut Effects<'_>,
    session: Session,
    (place, adopts): (&Place, bool),
) -> Result<Reply, Failure> {
    let (next, replaced) = sessions::begin(rows, session, (place, adopts))?;
    match replaced {
        Some(old) if adopts => {
            lock_rows::adopt_session(rows, old, session)?;
            sessions::adopt_opens(rows, old, session)?;
        }
        Some(old) => let_go(rows, effects, old)?,
        None => {}
    }
    Ok(Reply::Begun { next })
}

/// Ends a session: its locks, its opens, and the inodes that only it kept alive.
pub(super) fn end_session(rows: &Connection, effects: &mut Effects<'_>, session: Session) -> Result<(), Failure> {
    let_go(rows, effects, session)?;
    sessions::end(rows, session)
}

/// Frees what is in grace since before the last one, or has those that came since be next.
pub(super) fn reap(rows: &Connection, effects: &mut Effects<'_>) -> Result<(), Failure> {
    let old = sessions::take_opens(rows, GRACE_OLD, REAPED)?;
    if old.is_empty() {
        return sessions::adopt_opens(rows, GRACE_NEW, GRACE_OLD);
    }
    for inode in old {
        free_if_unheld(rows, effects, inode)?;
    }
    Ok(())
}

fn let_go(rows: &Connection, effects: &mut Effects<'_>, session: Session) -> Result<(), Failure> {
    for inode in lock_rows::forget_session(rows, session)? {
        effects.touched.lock(LockTrace::Freed(inode));
    }
    for inode in sessions::forget_opens(rows, session)? {
        free_if_unheld(rows, effects, inode)?;
    }
    Ok(())
}

fn free_if_unheld(rows: &Connection, effects: &mut Effects<'_>, inode: Inode) -> Result<(), Failure> {
    match inode::load(rows, inode)? {
        Some(record) if record.attributes.links == 0 && !sessions::is_open(rows, inode)? => free(rows, effects, inode),
        _ => Ok(()),
    }
}
