//! The leader's side: who listens, who waits for whose confirmation.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use super::table::Owed;
use super::{Promises, Recalls, Thing, rests_on};
use crate::base::clock;
use crate::storage::call::Query;
use crate::storage::operation::Session;
use crate::storage::request::Answer;
use crate::storage::state::{LockTrace, Traces};

/// How long a `Listen` is held when there is nothing to say: a lease is at least 425 ms, and the next one must be there before.
const HOLD: Duration = Duration::from_millis(150);

/// Clones are the same.
#[derive(Clone)]
pub struct Callbacks(Arc<Inner>);

struct Inner {
    promises: Mutex<Promises>,
    /// Somebody has something to hear.
    recalled: Notify,
    /// Somebody has confirmed.
    confirmed: Notify,
}

impl Default for Callbacks {
    fn default() -> Self {
        let mut epoch = [0; 8];
        getrandom::fill(&mut epoch).expect("the kernel gives random bytes");
        Callbacks(Arc::new(Inner {
            promises: Mutex::new(Promises::new(u64::from_be_bytes(epoch))),
            recalled: Notify::new(),
            confirmed: Notify::new(),
        }))
    }
}

impl Callbacks {
    fn promises(&self) -> MutexGuard<'_, Promises> {
        self.0.promises.lock().expect("no holder of this lock panics")
    }

    /// Take it before reading what is to be promised.
    pub fn ticket(&self) -> u64 {
        self.promises().ticket()
    }

    /// The epoch of the promise, if the session may keep the answer.
    pub fn promise(&self, session: Session, query: &Query, answer: &Answer, ticket: u64) -> Option<u64> {
        let things = rests_on(query, answer)?;
        self.promises().promise(session, &things, ticket, clock::boot())
    }

    /// This was changed; call it after that is seen by queries, and before anybody is told.
    pub fn touched(&self, traces: &Traces) {
        let inodes = traces.inodes.iter().map(|inode| Thing::Attributes(*inode));
        let access = traces.access.iter().map(|folder| Thing::Access(*folder));
        let names = traces.names.iter();
        let names = names.map(|(folder, name)| Thing::Name(*folder, name.as_slice()));
        let mut promises = self.promises();
        let mut is_heard = false;
        for (inode, sessions) in &traces.orphans {
            for session in sessions {
                is_heard |= promises.orphaned(*inode, *session);
            }
        }
        for lock in &traces.locks {
            is_heard |= match lock {
                LockTrace::Refused {
                    inode,
                    session,
                    holders,
                } => promises.refused(*inode, *session, holders),
                LockTrace::Freed(inode) => promises.freed(*inode),
            };
        }
        is_heard |= promises.touch(inodes.chain(access).chain(names));
        drop(promises);
        if is_heard {
            self.0.recalled.notify_waiters();
        }
    }

    /// Anything may have changed.
    pub fn forget(&self) {
        self.promises().forget();
        self.0.confirmed.notify_waiters();
    }

    /// What the session has not confirmed.
    pub fn recalls(&self, session: Session) -> Option<Recalls> {
        self.promises().recalls(session)
    }

    /// The session listens. Returns when there is something to tell it, or after `HOLD`.
    pub async fn listen(&self, session: Session, epoch: u64, confirmed: u64) {
        let hold = tokio::time::sleep(HOLD);
        tokio::pin!(hold);
        loop {
            let recalled = self.0.recalled.notified();
            tokio::pin!(recalled);
            // Before the look: what comes between the two is not missed.
            recalled.as_mut().enable();
            let has_nothing = self.promises().confirm(session, epoch, confirmed);
            self.0.confirmed.notify_waiters();
            if !has_nothing {
                return;
            }
            tokio::select! {
                () = recalled => {}
                () = &mut hold => return,
            }
        }
    }

    /// Extends the session's lease, and says what it must forget; in a new epoch, if it holds nothing in this one.
    /// `None`: there is no place for it.
    pub fn lend(&self, session: Session, epoch: u64, until: Duration) -> Option<Recalls> {
        let mut promises = self.promises();
        let known = promises.lend(session, epoch, until);
        known.or_else(|| {
            let epoch = promises.begin(session)?;
            promises.lend(session, epoch, until)
        })
    }

    /// Returns when nobody but `own` answers any more with what was before the last change, which has touched what it did.
    pub async fn told(&self, own: Session) {
        let owed = self.promises().owed(own);
        for owed in &owed {
            self.settled(owed).await;
        }
    }

    async fn settled(&self, owed: &Owed) {
        loop {
            let confirmed = self.0.confirmed.notified();
            tokio::pin!(confirmed);
            confirmed.as_mut().enable();
            let now = clock::boot();
            let Some(end) = self.promises().outstanding(owed, now) else {
                return;
            };
            tokio::select! {
                () = confirmed => {}
                () = tokio::time::sleep(end.saturating_sub(now)) => {}
            }
        }
    }

    /// Forgets who is gone for `patience`.
    pub fn expire(&self, patience: Duration) {
        self.promises().expire(clock::boot(), patience);
    }
}
