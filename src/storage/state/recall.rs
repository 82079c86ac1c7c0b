//! What was read of late: records and names as of the last batch, in memory, so that most look-ups need neither SQLite nor
//! a thread that may block.
//!
//! Whatever lies here is as in the last committed state. A batch says before its COMMIT what it touched: those keys go, and
//! until it is through nobody may add anything (`Changing`); then they come back as the batch has left them, for what was just
//! changed is looked at next. Who reads from SQLite and wants to keep what it found takes a `Ticket` before it opens its
//! view; the ticket is void when a batch has come in between, for the view may be older.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use quick_cache::unsync::Cache;

use super::HELD;
use super::inode::Record;
use crate::storage::call::Inode;
use crate::storage::operation::Session;

/// Records and names kept of each: about 400 bytes a record and 150 a name, so 20 MiB when both are full.
const KEPT: usize = 32 << 10;

type NameKey = (Inode, Vec<u8>);

/// The memory of one machine.
pub struct Recall(Mutex<Inner>);

struct Inner {
    /// Raised when a batch begins to commit and when it is through: odd in between.
    version: u64,
    records: Cache<Inode, Option<Record>>,
    names: Cache<NameKey, Option<Inode>>,
}

/// The right to keep what a view shows that is opened from now on.
#[derive(Clone, Copy, Debug)]
pub struct Ticket(u64);

/// What a batch has changed, as it leaves it.
#[derive(Debug, Default)]
pub struct Touched {
    records: HashMap<Inode, Option<Record>>,
    names: HashMap<NameKey, Option<Inode>>,
    access: Vec<Inode>,
    orphans: Vec<(Inode, Vec<Session>)>,
    locks: Vec<LockTrace>,
}

/// What became of locks, as far as others are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockTrace {
    /// The session was refused a lock of the inode, for these others hold some.
    Refused {
        inode: Inode,
        session: Session,
        holders: Vec<Session>,
    },
    /// Some lock of the inode is no more or is less.
    Freed(Inode),
}

/// What a batch has changed, for those who keep answers elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// Their attributes or content differ, or they are gone.
    pub inodes: Vec<Inode>,
    /// These names of these folders mean something else.
    pub names: Vec<(Inode, Vec<u8>)>,
    /// Of these folders it differs who may search them, or they are gone.
    pub access: Vec<Inode>,
    /// These have lost their last name, and these sessions may have them open without having said so.
    pub orphans: Vec<(Inode, Vec<Session>)>,
    /// In the order in which it happened.
    pub locks: Vec<LockTrace>,
}

impl Touched {
    pub fn record(&mut self, inode: Inode, record: Option<&Record>) {
        self.records.insert(inode, record.cloned());
    }

    /// Who may search the folder differs.
    pub fn access(&mut self, folder: Inode) {
        self.access.push(folder);
    }

    /// The inode has lost its last name; `sessions` are those that may have it open without having said so.
    pub fn orphan(&mut self, inode: Inode, sessions: Vec<Session>) {
        self.orphans.push((inode, sessions));
    }

    pub fn lock(&mut self, trace: LockTrace) {
        self.locks.push(trace);
    }

    pub fn traces(&mut self) -> Traces {
        Traces {
            inodes: self.records.keys().copied().collect(),
            names: self.names.keys().cloned().collect(),
            access: std::mem::take(&mut self.access),
            orphans: std::mem::take(&mut self.orphans),
            locks: std::mem::take(&mut self.locks),
        }
    }

    pub fn name(&mut self, folder: Inode, name: &[u8], inode: Option<Inode>) {
        self.names.insert((folder, name.to_vec()), inode);
    }
}

impl Default for Recall {
    fn default() -> Self {
        Recall(Mutex::new(Inner {
            version: 0,
            records: Cache::new(KEPT),
            names: Cache::new(KEPT),
        }))
    }
}

impl Recall {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect(HELD)
    }

    /// Take it before the view is opened.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.inner().version)
    }

    pub fn keep_record(&self, ticket: Ticket, inode: Inode, record: Option<&Record>) {
        if let Some(inner) = &mut self.valid(ticket) {
            inner.records.insert(inode, record.cloned());
        }
    }

    pub fn keep_name(&self, ticket: Ticket, folder: Inode, name: &[u8], inode: Option<Inode>) {
        if let Some(inner) = &mut self.valid(ticket) {
            inner.names.insert((folder, name.to_vec()), inode);
        }
    }

    fn valid(&self, ticket: Ticket) -> Option<MutexGuard<'_, Inner>> {
        let inner = self.inner();
        (inner.version == ticket.0 && ticket.0.is_multiple_of(2)).then_some(inner)
    }

    /// One state for several look-ups; batches wait for their end.
    pub fn look(&self) -> Look<'_> {
        Look(self.inner())
    }

    /// A batch is about to commit. Call `done` when it has; dropping the guard means that it has failed.
    pub fn change(&self, touched: Touched) -> Changing<'_> {
        let mut inner = self.inner();
        inner.version += 1;
        for inode in touched.records.keys() {
            inner.records.remove(inode);
        }
        for name in touched.names.keys() {
            inner.names.remove(name);
        }
        drop(inner);
        Changing { recall: self, touched }
    }
}

/// Look-ups in one state. The outer `None`: not known here.
pub struct Look<'a>(MutexGuard<'a, Inner>);

impl Look<'_> {
    pub fn record(&self, inode: Inode) -> Option<Option<Record>> {
        self.0.records.get(&inode).cloned()
    }

    pub fn name(&self, folder: Inode, name: &[u8]) -> Option<Option<Inode>> {
        self.0.names.get(&(folder, name.to_vec())).copied()
    }
}

/// While it lives, nothing is added.
pub struct Changing<'a> {
    recall: &'a Recall,
    touched: Touched,
}

impl Changing<'_> {
    /// The batch has committed.
    pub fn done(mut self) {
        let Touched { records, names, .. } = std::mem::take(&mut self.touched);
        let mut inner = self.recall.inner();
        for (inode, record) in records {
            inner.records.insert(inode, record);
        }
        for (name, inode) in names {
            inner.names.insert(name, inode);
        }
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.recall.inner().version += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: Inode = Inode(1);

    #[test]
    fn what_is_kept_is_found_until_a_batch_touches_it() {
        let recall = Recall::default();
        recall.keep_name(recall.ticket(), FOLDER, b"a", Some(Inode(7)));
        recall.keep_name(recall.ticket(), FOLDER, b"none", None);
        assert_eq!(recall.look().name(FOLDER, b"a"), Some(Some(Inode(7))));
        assert_eq!(
            recall.look().name(FOLDER, b"none"),
            Some(None),
            "that it is not there is known too"
        );
        assert_eq!(recall.look().name(FOLDER, b"b"), None);
        let mut touched = Touched::default();
        touched.name(FOLDER, b"a", Some(Inode(8)));
        drop(recall.change(touched));
        assert_eq!(recall.look().name(FOLDER, b"a"), None, "the batch has failed");
        assert_eq!(recall.look().name(FOLDER, b"none"), Some(None));
    }

    #[test]
    fn what_a_batch_has_changed_is_known_once_it_has_committed() {
        let recall = Recall::default();
        recall.keep_name(recall.ticket(), FOLDER, b"a", Some(Inode(7)));
        let mut touched = Touched::default();
        touched.name(FOLDER, b"a", Some(Inode(8)));
        touched.name(FOLDER, b"a", None);
        touched.record(Inode(7), None);
        let changing = recall.change(touched);
        assert_eq!(recall.look().name(FOLDER, b"a"), None, "not while it commits");
        changing.done();
        assert_eq!(recall.look().name(FOLDER, b"a"), Some(None), "as of its last change");
        assert_eq!(recall.look().record(Inode(7)), Some(None));
        recall.keep_name(recall.ticket(), FOLDER, b"b", None);
        assert_eq!(recall.look().name(FOLDER, b"b"), Some(None), "it is over");
    }

    #[test]
    fn a_view_from_before_a_batch_is_not_kept_after_it() {
        let recall = Recall::default();
        let before = recall.ticket();
        let changing = recall.change(Touched::default());
        let during = recall.ticket();
        for ticket in [before, during] {
            recall.keep_record(ticket, FOLDER, None);
        }
        assert!(recall.look().record(FOLDER).is_none(), "not while it commits");
        drop(changing);
        for ticket in [before, during] {
            recall.keep_record(ticket, FOLDER, None);
        }
        assert!(recall.look().record(FOLDER).is_none(), "nor afterwards");
        recall.keep_record(recall.ticket(), FOLDER, None);
        assert!(recall.look().record(FOLDER).is_some());
    }
}
