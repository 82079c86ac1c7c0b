//! The calls of this node's doors, executed by this node's replica while it leads.
//!
//! Every acknowledged change is fsynced in the log, so writes need no commit. A change is driven until its outcome is known, also
//! when the caller has given up. A request that is repeated after this process has ended is executed again: then the door's
//! memory of replies and the session are new. A node that does not lead answers `Unavailable`: nothing is forwarded yet.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;

use super::batch::{Batcher, Refused};
use super::call::{Caller, Error, Inode, Mutation, PORTAL, Query, Reply, Time};
use super::door::{Calls, RequestKey};
use super::group::Group;
use super::operation::{self, Operation};
use super::operation_codec;
use super::replica::blocking;
use super::session::{Answer, Outcome, Session};
use super::state;
use crate::base::backoff::Backoff;
use crate::base::{BoxFuture, Scope, clock};

/// Room that stays free on the disk: for SQLite's log (256 MiB), two segments of ours (128 MiB), and what is under way.
pub const RESERVE: u64 = 512 << 20;
/// How long a caller waits before it may look after something else; the call goes on, and the repetition joins it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pauses before an operation whose outcome is not known is proposed again.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_CAP: Duration = Duration::from_millis(500);
/// What a new file, name or folder takes in the log and the database, roughly.
const SMALL: u64 = 4096;

/// Clones are the same.
#[derive(Clone)]
pub struct Local(Arc<Inner>);

struct Inner {
    machine: state::Shared,
    group: Group,
    batcher: Batcher,
    scope: Scope,
    id: operation::Session,
    numbers: Mutex<Numbers>,
    /// Free bytes of the disk as last measured, less what was written since.
    room: AtomicU64,
    calls: AtomicU64,
    verifier: u64,
}

#[derive(Default)]
struct Numbers {
    session: Session,
    last_inode: u64,
}

impl Local {
    /// Waits until this node leads, then begins a session and ends those of earlier runs, whose opens and locks nobody holds
    /// any more. That is right only while this node has the only doors. `None`: the scope drained before.
    pub async fn start(
        machine: state::Shared,
        group: Group,
        batcher: Batcher,
        scope: Scope,
    ) -> io::Result<Option<Self>> {
        let mut id = [0; 8];
        getrandom::fill(&mut id).map_err(|error| io::Error::other(error.to_string()))?;
        let (store, started) = (group.store().0, clock::unix().as_nanos() as u64);
        let verifier = u64::from_be_bytes(*store.first_chunk().expect("it has 16 bytes")) ^ started;
        let local = Local(Arc::new(Inner {
            machine,
            group,
            batcher,
            scope,
            id: operation::Session(u64::from_be_bytes(id) >> 1),
            numbers: Mutex::default(),
            room: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            verifier,
        }));
        local.measure().await?;
        // Its answer also says that all entries before it are applied: a lone voter resumes its old term, so `is_readable` may hold
        // while the log is still being applied again.
        let begin = Operation::Begin { session: local.0.id };
        if local.0.drive(&begin).await.is_none() {
            return Ok(None);
        }
        let machine = local.0.machine.get();
        let sessions = blocking(move || machine.sessions().map_err(io::Error::other)).await?;
        for session in sessions.into_iter().filter(|session| *session != local.0.id) {
            if local.0.drive(&Operation::End { session }).await.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(local))
    }

    /// Measures the room on the disk; once a second is enough.
    pub async fn measure(&self) -> io::Result<()> {
        let machine = self.0.machine.get();
        let (session, root) = (self.0.id, self.caller());
        let space = blocking(move || Ok(machine.query(session, &root, &Query::Space { inode: PORTAL }))).await?;
        match space {
            Ok(Reply::Space(space)) => {
                self.0.room.store(space.free_bytes, Ordering::Relaxed);
                Ok(())
            }
            other => Err(io::Error::other(format!("the disk's room is not known: {other:?}"))),
        }
    }

    pub fn is_full(&self) -> bool {
        self.0.room.load(Ordering::Relaxed) < RESERVE
    }

    /// Calls since the start.
    pub fn count(&self) -> u64 {
        self.0.calls.load(Ordering::Relaxed)
    }

    fn caller(&self) -> Caller {
        Caller {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
        }
    }
}

impl Inner {
    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().expect("no holder of this lock panics")
    }

    /// Proposes until the outcome is known; `None`: the storage stopped before.
    async fn drive(&self, operation: &Operation) -> Option<Answer> {
        let bytes = operation_codec::encode(operation);
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        while !self.scope.is_draining() {
            match self.batcher.submit(bytes.clone()).await {
                Ok(reply) => return Some(read(&reply)),
                Err(Refused::TooLong(_)) => return Some(Err(Error::Invalid)),
                Err(Refused::Stopping) => return None,
                Err(Refused::NotLeader { .. } | Refused::Unknown(_)) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.delay()) => {}
                () = self.scope.draining() => {}
            }
        }
        None
    }

    /// Starts a new call, or joins the one that the request has.
    fn call(self: &Arc<Self>, caller: &Caller, key: RequestKey, mutation: Mutation) -> Result<Outcome, Error> {
        let mut numbers = self.numbers();
        if let Some(outcome) = numbers.session.find(key) {
            return Ok(outcome);
        }
        if !self.group.is_readable() {
            return Err(Error::Unavailable);
        }
        self.take_room(growth(&mutation))?;
        let call = numbers.session.begin(key).ok_or(Error::Unavailable)?;
        // Another leader may have given numbers meanwhile; what it gave is applied here before this node may lead.
        numbers.last_inode = numbers.last_inode.max(self.machine.get().highest_inode().0) + 1;
        let now = clock::unix();
        let operation = Operation::Mutate {
            session: self.id,
            sequence: call.sequence,
            acknowledged: call.acknowledged,
            caller: caller.clone(),
            time: Time {
                seconds: now.as_secs().cast_signed(),
                nanoseconds: now.subsec_nanos(),
            },
            fresh: Inode(numbers.last_inode),
            mutation,
        };
        drop(numbers);
        let inner = self.clone();
        self.scope.spawn(async move {
            if let Some(answer) = inner.drive(&operation).await {
                call.sender.send_replace(Some(answer));
                inner.numbers().session.end(key, call.sequence, clock::boot());
            }
        });
        Ok(call.outcome)
    }

    /// Refuses what would take the disk's last room; the log and the database need it.
    fn take_room(&self, bytes: u64) -> Result<(), Error> {
        let take = |room| rest(room, bytes);
        let taken = self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map(drop).map_err(|_| Error::NoSpace)
    }
}

/// Room after `bytes` were taken; `None`: they would go into the reserve.
fn rest(room: u64, bytes: u64) -> Option<u64> {
    match bytes {
        0 => Some(room),
        bytes => room.checked_sub(bytes).filter(|rest| *rest >= RESERVE),
    }
}

/// Bytes that a mutation takes on the disk; 0 for what may also be done on a full one.
fn growth(mutation: &Mutation) -> u64 {
    match mutation {
        // Once in the log and once in the file.
        Mutation::Write { data, .. } | Mutation::Append { data, .. } => 2 * data.len() as u64 + SMALL,
        Mutation::Create { .. }
        | Mutation::MakeFolder { .. }
        | Mutation::MakeLink { .. }
        | Mutation::MakeNode { .. }
        | Mutation::Link { .. } => SMALL,
        _ => 0,
    }
}

fn read(reply: &Bytes) -> Answer {
    state::decode_reply(reply).unwrap_or_else(|| {
        tracing::error!("the state machine's reply cannot be read");
        Err(Error::Io)
    })
}

impl Calls for Local {
    fn query<'a>(&'a self, caller: &'a Caller, query: Query) -> BoxFuture<'a, Result<Reply, Error>> {
        let inner = &self.0;
        inner.calls.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            // Before: all that earlier leaders acknowledged is applied. After: the lease held while it was read.
            if !inner.group.is_readable() {
                return Err(Error::Unavailable);
            }
            let (machine, session, caller) = (inner.machine.get(), inner.id, caller.clone());
            let answer = blocking(move || Ok(machine.query(session, &caller, &query))).await;
            match inner.group.is_readable() {
                true => answer.map_err(|_| Error::Io)?,
                false => Err(Error::Unavailable),
            }
        })
    }

    fn mutate<'a>(
        &'a self,
        caller: &'a Caller,
        key: RequestKey,
        mutation: Mutation,
    ) -> BoxFuture<'a, Result<Reply, Error>> {
        let inner = &self.0;
        inner.calls.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let mut outcome = inner.call(caller, key, mutation)?;
            let known = tokio::time::timeout(PATIENCE, outcome.wait_for(Option::is_some)).await;
            match known {
                Ok(Ok(answer)) => {
                    inner.numbers().session.fetched(key);
                    answer.clone().unwrap_or(Err(Error::Unavailable))
                }
                _ => Err(Error::Unavailable),
            }
        })
    }

    fn commit(&self, _inode: Inode) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn verifier(&self) -> u64 {
        self.0.verifier
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nearly_full_disk_takes_nothing_new_but_gives_room_back() {
        let (folder, name) = (PORTAL, b"name".to_vec());
        let write = |length: usize| Mutation::Write {
            inode: PORTAL,
            offset: 0,
            data: vec![0; length].into(),
        };
        let link = Mutation::Link {
            inode: PORTAL,
            folder,
            name: name.clone(),
        };
        let remove = Mutation::Remove { folder, name };
        let room = RESERVE + 3 * SMALL;
        assert_eq!(rest(room, growth(&write(4096))), Some(RESERVE));
        assert_eq!(rest(room, growth(&write(4097))), None);
        assert_eq!(rest(RESERVE, growth(&link)), None);
        assert_eq!(rest(RESERVE, growth(&remove)), Some(RESERVE));
        assert_eq!(rest(0, growth(&remove)), Some(0));
        assert_eq!(rest(0, growth(&write(0))), None);
    }
}
