//! Locks of this node's processes, held at the leader so that they hold on all nodes.
//!
//! fcntl ranges are asked of the leader one by one. flock is kept: the node takes the file as a whole, shares it out here (`flock`), and
//! gives it back when another node wants it and nobody here has it. Before a lock is granted that others may have had, the kernel
//! forgets the file's pages; before one is given up, what was written is with the leader.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::errno::Errno;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::ask::{Asker, Number};
use super::convert::errno;
use super::flock::{Holder, Level, Verdict};
use super::lock_table::{GiveBack, NODE, Table};
use super::memory::Rows;
use super::notifier::Notifier;
use super::pages::Pages;
use super::writes::Writes;
use crate::base::Scope;
use crate::storage::call::{Error, Inode, Lock, LockFamily, Mutation, Query, Reply};

/// In place of a process: somebody on the node that has it uses it.
const IN_USE: u32 = 1;
/// How long until the leader is asked again when it does not say that a lock may be free.
const AGAIN: Duration = Duration::from_millis(500);
/// How long another node has to give back what nobody there uses, or to say that it is in use, before a lock that may not wait is
/// refused; and between two looks.
const BACK: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// Clones are the same.
#[derive(Clone)]
pub struct Locks(Arc<Inner>);

struct Inner {
    ask: Asker,
    writes: Writes,
    pages: Arc<Pages>,
    notifier: Arc<Notifier>,
    scope: Scope,
    table: Mutex<Table>,
    /// Something may be free.
    changed: Notify,
}

/// What a process asks for.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub unique: u64,
    pub inode: Inode,
    pub lock: Lock,
    pub waits: bool,
}

impl Locks {
    pub fn new(
        ask: Asker,
        writes: Writes,
        pages: Arc<Pages>,
        notifier: Arc<Notifier>,
        rows: Rows<3>,
        scope: Scope,
    ) -> Self {
        Locks(Arc::new(Inner {
            ask,
            writes,
            pages,
            notifier,
            scope,
            table: Mutex::new(Table::of(rows)),
            changed: Notify::new(),
        }))
    }

    pub async fn lock(&self, wanted: Wanted) -> Result<(), i32> {
        self.0.writes.quiet(wanted.inode).await;
        match wanted.lock.family {
            LockFamily::Flock => self.0.flock(&wanted).await,
            LockFamily::Fcntl => self.0.fcntl(wanted).await,
        }
    }

    pub async fn unlock(&self, unique: u64, inode: Inode, lock: Lock) -> Result<(), i32> {
        self.0.writes.quiet(inode).await;
        match lock.family {
            LockFamily::Flock => {
                // Whoever was refused on another node may have it as soon as this is answered.
                if let Some(given_back) = self.0.release(inode, lock.owner) {
                    let _ = tokio::time::timeout(BACK, given_back).await;
                }
                Ok(())
            }
            LockFamily::Fcntl => {
                let unlock = Mutation::Unlock { inode, lock };
                self.0
                    .ask
                    .change(Number::of(unique), unlock)
                    .await
                    .map(drop)
                    .map_err(errno)
            }
        }
    }

    /// Who stands in the way; `None`: nobody.
    pub async fn test(&self, inode: Inode, lock: Lock) -> Result<Option<Lock>, i32> {
        match self.0.ask.query(Query::TestLock { inode, lock }).await {
            Ok(Reply::Holder(holder)) => Ok(holder),
            Ok(_) => Err(Errno::EIO as i32),
            Err(error) => Err(errno(error)),
        }
    }

    /// The owner closes the file: its flock goes. Waits for nothing but what was written.
    pub fn release_flock(&self, inode: Inode, owner: u64) {
        if self.0.table().has(inode, owner) {
            let inner = self.0.clone();
            self.0.scope.spawn(async move {
                inner.writes.quiet(inode).await;
                inner.release(inode, owner);
            });
        }
    }

    pub fn has_fcntl(&self, inode: Inode, owner: u64) -> bool {
        self.0
            .table()
            .files
            .get(&inode)
            .is_some_and(|file| file.fcntl_rows.contains_key(&owner))
    }

    /// The owner closes the file: all its ranges go.
    pub async fn release_fcntl(&self, number: Number, inode: Inode, owner: u64) -> Result<(), i32> {
        self.0.writes.quiet(inode).await;
        let lock = whole(LockFamily::Fcntl, owner, false);
        let unlock = Mutation::Unlock { inode, lock };
        self.0.ask.change(number, unlock).await.map_err(errno)?;
        self.0.table().forget_fcntl(inode, owner);
        Ok(())
    }

    /// The owner asks for ranges by a handle whose close is not told.
    pub fn note_unflushed(&self, handle: u64, owner: u64) {
        self.0.table().unflushed.entry(handle).or_default().insert(owner);
    }

    /// The handle is closed: the ranges asked for by it go. Waits for nothing.
    pub fn release_unflushed(&self, inode: Inode, handle: u64) {
        let owners = self.0.table().unflushed.remove(&handle);
        self.release_ranges(inode, owners.into_iter().flatten());
    }

    /// Nobody here has the file open any more: no ranges of it are held. Waits for nothing.
    pub fn release_closed(&self, inode: Inode) {
        let owners = self.0.table().fcntl_owners(inode);
        self.release_ranges(inode, owners);
    }

    /// Files of which the process before has noted ranges.
    pub fn with_ranges(&self) -> Vec<Inode> {
        let table = self.0.table();
        let with_ranges = table.files.iter().filter(|(_, file)| !file.fcntl_rows.is_empty());
        with_ranges.map(|(inode, _)| *inode).collect()
    }

    fn release_ranges(&self, inode: Inode, owners: impl IntoIterator<Item = u64>) {
        for owner in owners.into_iter().filter(|owner| self.has_fcntl(inode, *owner)) {
            let locks = self.clone();
            self.0
                .scope
                .spawn(async move { locks.release_fcntl(locks.0.ask.fresh(), inode, owner).await });
        }
    }

    /// The node has of the leader what it had of the session before, or nothing.
    pub fn begun(&self, has_nothing: bool) {
        if has_nothing {
            self.lost();
        }
        self.0.table().is_begun = true;
    }

    /// What this node had the leader may have given to others: what is used here is asked for again, the rest it has no more.
    pub fn lost(&self) {
        let used = self.0.table().lose();
        self.0.changed.notify_waiters();
        for inode in used {
            let inner = self.0.clone();
            self.0.scope.spawn(async move { inner.give_back(inode).await });
        }
    }

    /// The leader says that somebody waits for a lock of this node, or that one it was refused may be free.
    pub fn look_again(&self, inode: Inode) {
        self.0.table().look(inode);
        self.0.changed.notify_waiters();
        let inner = self.0.clone();
        self.0.scope.spawn(async move { inner.give_back(inode).await });
    }
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no holder of this lock panics")
    }

    async fn flock(self: &Arc<Self>, wanted: &Wanted) -> Result<(), i32> {
        let holder = Holder {
            owner: wanted.lock.owner,
            is_exclusive: wanted.lock.is_exclusive,
        };
        let started = Instant::now();
        let mut step = 0;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let turn = self.table().file(wanted.inode).turn.clone();
            let held = turn.lock().await;
            let verdict = self.table().judge(wanted.inode, holder)?;
            let level = match verdict {
                Verdict::Granted => {
                    drop(held);
                    // Whoever was refused may have what this one gave up, as soon as this is answered.
                    if self.table().file(wanted.inode).has_more_than_used() {
                        self.give_back(wanted.inode).await;
                    }
                    return Ok(());
                }
                Verdict::Busy => {
                    self.make_way(wanted.inode, holder.owner);
                    drop(held);
                    if !wanted.waits {
                        return Err(Errno::EAGAIN as i32);
                    }
                    changed.await;
                    continue;
                }
                Verdict::Ask(level) => level,
            };
            let number = Number::step(wanted.unique, step);
            step += 1;
            match self.take(wanted.inode, level, number).await {
                Ok(()) => {
                    self.look_for_idle(wanted.inode);
                    if self.table().judge(wanted.inode, holder)? == Verdict::Granted {
                        return Ok(());
                    }
                    // It was lost meanwhile.
                }
                Err(Error::Locked) if wanted.waits => self.make_way(wanted.inode, holder.owner),
                Err(Error::Locked) if started.elapsed() < BACK && !self.is_used(wanted.inode, level).await => {}
                Err(error) => {
                    if error == Error::Locked {
                        self.make_way(wanted.inode, holder.owner);
                    }
                    drop(held);
                    drop(turn);
                    self.table().tidy(wanted.inode);
                    return Err(errno(error));
                }
            }
            drop(held);
            let pause = if wanted.waits { AGAIN } else { LOOK };
            let _ = tokio::time::timeout(pause, changed).await;
        }
    }

    /// Whether another node that has the file says that it is in use there.
    async fn is_used(&self, inode: Inode, level: Level) -> bool {
        let lock = node_lock(level);
        let holder = self.ask.query(Query::TestLock { inode, lock }).await;
        matches!(holder, Ok(Reply::Holder(Some(holder))) if holder.pid == IN_USE)
    }

    /// Takes the file of the leader for this node.
    async fn take(&self, inode: Inode, level: Level, number: Number) -> Result<(), Error> {
        let lock = node_lock(level);
        let losses = self.table().losses;
        self.table().file(inode).is_asked = true;
        let answer = self.ask.change(number, Mutation::Lock { inode, lock }).await;
        if let Err(error) = answer {
            self.table().file(inode).is_asked = false;
            return Err(error);
        }
        self.renew_pages(inode).await;
        let mut table = self.table();
        // Of a session that was lost since it is worth nothing; of the next one it goes back when it is asked for.
        if table.losses == losses {
            table.set_level(inode, level);
        }
        Ok(())
    }

    /// What the kernel has of a file that others may have changed goes.
    async fn renew_pages(&self, inode: Inode) {
        self.notifier.attributes(inode);
        self.notifier.pages(inode).await;
        if let Ok(attributes) = self.ask.attributes(inode).await {
            self.pages.are(&attributes);
        }
    }

    /// Where another node has asked for the file: what resolves when that has it, or could.
    fn release(self: &Arc<Self>, inode: Inode, owner: u64) -> Option<JoinHandle<Option<()>>> {
        let is_wanted = self.table().release(inode, owner);
        self.changed.notify_waiters();
        is_wanted.then(|| {
            let inner = self.clone();
            self.scope.spawn(async move { inner.give_back(inode).await })
        })
    }

    /// Gives the file back if nobody here has it, or as much of it as nobody here has; else says that it is in use. Gives back also one
    /// of which nobody knows whether the leader has granted it.
    async fn give_back(&self, inode: Inode) {
        self.give_back_in_turn(inode).await;
        // Nobody's turn any more: it is forgotten if nothing of it is held.
        self.table().settle(inode);
    }

    async fn give_back_in_turn(&self, inode: Inode) {
        let turn = self.table().file(inode).turn.clone();
        let _turn = turn.lock().await;
        let (step, losses) = {
            let mut table = self.table();
            (table.file(inode).give_back(), table.losses)
        };
        let (mutation, level) = match step {
            GiveBack::Nothing => return,
            GiveBack::All => (
                Mutation::Unlock {
                    inode,
                    lock: node_lock(Level::None),
                },
                Level::None,
            ),
            GiveBack::To(level) => {
                let pid = IN_USE;
                let lock = Lock {
                    pid,
                    ..node_lock(level)
                };
                (Mutation::Lock { inode, lock }, level)
            }
        };
        let given = match self.ask.change(self.ask.fresh(), mutation).await {
            Ok(_) => Some(level),
            // Of a file that is gone the leader keeps no locks.
            Err(Error::Stale | Error::NotFound) => Some(Level::None),
            Err(Error::Locked) => {
                tracing::warn!(
                    inode = inode.0,
                    "this node was cut off, and another one has a lock that is held here"
                );
                None
            }
            Err(_) => None,
        };
        let mut table = self.table();
        if let Some(level) = given.filter(|_| table.losses == losses) {
            table.set_level(inode, level);
            let file = table.file(inode);
            // Until it is idle.
            (file.flock.is_wanted, file.is_said) = (level != Level::None, level != Level::None);
        }
        drop(table);
        self.changed.notify_waiters();
    }

    /// As flock(2) has it, what an owner had goes before it waits for another mode, or is refused it.
    fn make_way(self: &Arc<Self>, inode: Inode, owner: u64) {
        if self.table().has(inode, owner) {
            self.release(inode, owner);
        }
    }

    fn look_for_idle(self: &Arc<Self>, but: Inode) {
        let idle = self.table().too_many(but);
        for inode in idle {
            let inner = self.clone();
            self.scope.spawn(async move { inner.give_back(inode).await });
        }
    }

    async fn fcntl(self: &Arc<Self>, wanted: Wanted) -> Result<(), i32> {
        let mut step = 0;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let number = Number::step(wanted.unique, step);
            step += 1;
            match self.try_fcntl(wanted.inode, wanted.lock.clone(), number).await {
                Ok(()) => {
                    self.renew_pages(wanted.inode).await;
                    return Ok(());
                }
                Err(Error::Locked) if wanted.waits => {}
                Err(error) => return Err(errno(error)),
            }
            let _ = tokio::time::timeout(AGAIN, changed).await;
        }
    }

    /// One attempt. If nobody waits for its outcome any more, it is undone.
    async fn try_fcntl(self: &Arc<Self>, inode: Inode, lock: Lock, number: Number) -> Result<(), Error> {
        if self.table().note_fcntl(inode, lock.owner).is_err() {
            return Err(Error::NoSpace);
        }
        let (sender, outcome) = oneshot::channel();
        let inner = self.clone();
        self.scope.spawn(async move {
            let mutation = Mutation::Lock {
                inode,
                lock: lock.clone(),
            };
            let answer = inner.ask.change(number, mutation).await.map(drop);
            if sender.send(answer) == Err(Ok(())) {
                let _ = inner
                    .ask
                    .change(inner.ask.fresh(), Mutation::Unlock { inode, lock })
                    .await;
            }
        });
        match outcome.await {
            Ok(answer) => answer,
            // This process ends; the next one asks again.
            Err(_) => std::future::pending().await,
        }
    }
}

fn node_lock(level: Level) -> Lock {
    whole(LockFamily::Flock, NODE, level == Level::Exclusive)
}

fn whole(family: LockFamily, owner: u64, is_exclusive: bool) -> Lock {
    Lock {
        family,
        owner,
        is_exclusive,
        start: 0,
        end: u64::MAX,
        pid: 0,
    }
}
