//! The requests of all doors' sessions, executed by the replica that leads. A replica that does not lead says who does.
//!
//! Here the choices are made that every replica must share: times and numbers of new inodes. A request is tried once; repeating it,
//! here or at another leader, is its session's part, and the state executes it once however often it comes.
//!
//! Every acknowledged change is fsynced in the log, so writes need no commit.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::batch::{Batcher, Refused};
use super::call::{Caller, Error, Inode, Mutation, PORTAL, Query, Reply, Time};
use super::group::{Group, LEASE};
use super::operation::{Operation, Session};
use super::operation_codec;
use super::promise::Callbacks;
use super::replica::blocking;
use super::request::{Answer, Request, Response};
use super::state;
use crate::base::clock;

/// Room that stays free on the disk: for SQLite's log (256 MiB), two segments of ours (128 MiB), and what is under way.
pub const RESERVE: u64 = 512 << 20;
/// A session that was not heard for so long is over. A door renews its session each second; a node that restarts takes
/// its own place again at once, so this is for nodes that are gone or cut off.
const SILENCE: Duration = Duration::from_secs(30);
/// Between two looks at what lost its last name: an inode is in grace for once to twice as long. Tests have less patience.
const GRACE: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 30 });
/// What a new file, name or folder takes in the log and the database, roughly.
const SMALL: u64 = 4096;

/// Clones are the same.
#[derive(Clone)]
pub struct Leader(Arc<Inner>);

struct Inner {
    machine: state::Shared,
    group: Group,
    batcher: Batcher,
    callbacks: Callbacks,
    started: Duration,
    numbers: Numbers,
    /// When each session was heard, while this node leads.
    heard: Mutex<HashMap<Session, Duration>>,
    /// When it last reaped, or began to lead.
    reaped: Mutex<Option<Duration>>,
    /// Free bytes of the disk as last measured, less what was written since.
    room: AtomicU64,
    requests: AtomicU64,
    /// It was said that contents are not read.
    has_refused: AtomicBool,
}

impl Leader {
    pub fn new(machine: state::Shared, group: Group, batcher: Batcher, callbacks: Callbacks) -> Self {
        Leader(Arc::new(Inner {
            machine,
            group,
            batcher,
            callbacks,
            started: clock::boot(),
            numbers: Numbers::default(),
            heard: Mutex::default(),
            reaped: Mutex::default(),
            room: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            has_refused: AtomicBool::new(false),
        }))
    }

    /// Tries a request once.
    pub async fn answer(&self, request: Request) -> Response {
        let inner = &self.0;
        inner.requests.fetch_add(1, Ordering::Relaxed);
        // Before: all that earlier leaders acknowledged is applied here, and all numbers that they gave are known.
        if !inner.group.is_readable() {
            return inner.not_leader();
        }
        inner.heard().insert(request.session(), clock::boot());
        match request {
            Request::Begin { session, place, adopts } => {
                let begin = Operation::Begin { session, place, adopts };
                inner.change(session, &begin).await
            }
            Request::End { session } => inner.change(session, &Operation::End { session }).await,
            Request::Renew { session } => inner.renew(session).await,
            Request::Listen {
                session,
                epoch,
                confirmed,
            } => inner.listen(session, epoch, confirmed).await,
            Request::Query { session, caller, query } => inner.query(session, caller, query).await,
            Request::Mutate {
                session,
                sequence,
                acknowledged,
                key,
                caller,
                mutation,
            } => {
                if let Err(error) = inner.take_room(growth(&mutation)) {
                    return Response::Answer(Err(error));
                }
                let operation = Operation::Mutate {
                    session,
                    sequence,
                    acknowledged,
                    key,
                    caller,
                    time: now(),
                    fresh: inner.numbers.fresh(inner.machine.get().highest_inode()),
                    mutation,
                };
                inner.change(session, &operation).await
            }
        }
    }

    /// Answers a query at once from what was read of late, if this node leads; no waiting. `None`: use `answer`.
    /// That the session lives is heard from what it asks otherwise.
    pub fn recall(&self, caller: &Caller, query: &Query) -> Option<Answer> {
        let inner = &self.0;
        // Before and after, as for any query.
        if !inner.group.is_readable() {
            return None;
        }
        let answer = inner.machine.get().recall(caller, query)?;
        inner.requests.fetch_add(1, Ordering::Relaxed);
        inner.group.is_readable().then_some(answer)
    }

    /// Answers a query as this replica knows it, whoever leads. That may be behind what others have been told, but no changes of
    /// it are half done: contents are not read while they may be ahead of the rows. `None`: it cannot say, or only the leader can.
    pub async fn stale(&self, caller: &Caller, query: &Query) -> Option<Answer> {
        if matches!(query, Query::TestLock { .. }) {
            return None;
        }
        let machine = self.0.machine.get();
        // After: a state that comes is not known to be exact before it is the machine's.
        if matches!(query, Query::Read { .. }) && !self.is_exact(&machine) {
            if !self.0.has_refused.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "contents may be ahead of what is known of them here; they are read when a leader was heard"
                );
            }
            return None;
        }
        let answer = match machine.recall(caller, query) {
            Some(answer) => answer,
            None => {
                let (caller, query) = (caller.clone(), query.clone());
                let read = blocking(move || Ok(machine.query(Session(0), &caller, &query))).await;
                read.ok()?
            }
        };
        match answer {
            Err(Error::Io | Error::Unavailable) => None,
            answer => Some(answer),
        }
    }

    /// Whether the machine's contents are those of its rows.
    pub fn is_exact(&self, machine: &state::Machine) -> bool {
        machine.was_closed() || self.0.group.is_exact()
    }

    /// Measures the room on the disk; once a second is enough.
    pub async fn measure(&self) -> io::Result<()> {
        let machine = self.0.machine.get();
        let root = Caller {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
        };
        let space = Query::Space { inode: PORTAL };
        let space = blocking(move || Ok(machine.query(Session(0), &root, &space))).await?;
        match space {
            Ok(Reply::Space(space)) => {
                self.0.room.store(space.free_bytes, Ordering::Relaxed);
                Ok(())
            }
            other => Err(io::Error::other(format!("the disk's room is not known: {other:?}"))),
        }
    }

    pub fn is_full(&self) -> bool {
        self.free() < RESERVE
    }

    /// Free bytes of the disk, as last measured.
    pub fn free(&self) -> u64 {
        self.0.room.load(Ordering::Relaxed)
    }

    /// Requests since the start.
    pub fn count(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    /// Ends the sessions that were silent for too long, and frees inodes whose grace is over; while another node leads, forgets
    /// who was heard. Call it each second.
    pub async fn expire(&self) -> io::Result<()> {
        let inner = &self.0;
        inner.callbacks.expire(SILENCE);
        if !inner.group.is_readable() {
            inner.heard().clear();
            *inner.reaped() = None;
            return Ok(());
        }
        let machine = inner.machine.get();
        let sessions = blocking(move || machine.sessions().map_err(io::Error::other)).await?;
        let silent = {
            let (mut heard, now) = (inner.heard(), clock::boot());
            // A new leader counts from its own first look.
            let is_silent = |session: &Session| now.saturating_sub(*heard.entry(*session).or_insert(now)) > SILENCE;
            let silent: Vec<_> = sessions.into_iter().filter(is_silent).collect();
            heard.retain(|_, at| now.saturating_sub(*at) <= SILENCE);
            silent
        };
        for session in silent {
            tracing::warn!(session = session.0, "a session was silent for too long and is over");
            // What fails now is silent at the next look too.
            inner.propose(&Operation::End { session }).await;
        }
        inner.reap().await
    }
}

impl Inner {
    fn heard(&self) -> MutexGuard<'_, HashMap<Session, Duration>> {
        self.heard.lock().expect("no holder of this lock panics")
    }

    fn reaped(&self) -> MutexGuard<'_, Option<Duration>> {
        self.reaped.lock().expect("no holder of this lock panics")
    }

    /// Frees what was in grace at the last one, then has that which came since be next.
    async fn reap(&self) -> io::Result<()> {
        let now = clock::boot();
        // Another leader may have done it just before this one.
        if now.saturating_sub(*self.reaped().get_or_insert(now)) < GRACE {
            return Ok(());
        }
        loop {
            let machine = self.machine.get();
            let (old, new) = blocking(move || machine.has_grace().map_err(io::Error::other)).await?;
            if old || new {
                // Before: whatever becomes of it, the next one is not too soon.
                *self.reaped() = Some(now);
                let reaped = self.propose(&Operation::Reap).await;
                if old && matches!(reaped, Response::Answer(Ok(_))) {
                    continue;
                }
            }
            return Ok(());
        }
    }

    fn not_leader(&self) -> Response {
        // This node may lead and not be ready: then the others shall not be asked, nor this one in a hurry.
        Response::NotLeader {
            leader: self.group.leader().filter(|node| *node != self.group.me()),
        }
    }

    /// What was promised before the change is recalled when this returns.
    async fn change(&self, session: Session, operation: &Operation) -> Response {
        let response = self.propose(operation).await;
        let Response::Answer(answer) = response else {
            return response;
        };
        self.callbacks.told(session).await;
        // What this process promised before it was started again is known to nobody, but soon over.
        let lent_before = (self.started + LEASE).saturating_sub(clock::boot());
        if !lent_before.is_zero() && self.group.peers().len() > 1 {
            tokio::time::sleep(lent_before).await;
        }
        match self.callbacks.recalls(session) {
            Some(recalls) => Response::Changed { answer, recalls },
            None => Response::Answer(answer),
        }
    }

    async fn propose(&self, operation: &Operation) -> Response {
        match self.batcher.submit(operation_codec::encode(operation)).await {
            Ok(reply) => Response::Answer(read(&reply)),
            Err(Refused::TooLong(_)) => Response::Answer(Err(Error::Invalid)),
            Err(Refused::NotLeader { leader }) => Response::NotLeader { leader },
            Err(Refused::Stopping | Refused::Unknown(_)) => Response::Unknown,
        }
    }

    async fn query(&self, session: Session, caller: Caller, query: Query) -> Response {
        let ticket = self.callbacks.ticket();
        let machine = self.machine.get();
        let (answer, query) = match machine.recall(&caller, &query) {
            Some(answer) => (answer, query),
            None => {
                let read = blocking(move || Ok((machine.query(session, &caller, &query), query))).await;
                let Ok(read) = read else {
                    return Response::Answer(Err(Error::Io));
                };
                read
            }
        };
        // After: the lease held while it was read.
        if !self.group.is_readable() {
            return self.not_leader();
        }
        match self.callbacks.promise(session, &query, &answer, ticket) {
            Some(epoch) => Response::Promised { answer, epoch },
            None => Response::Answer(answer),
        }
    }

    async fn listen(&self, session: Session, epoch: u64, confirmed: u64) -> Response {
        let arrived = clock::boot();
        self.callbacks.listen(session, epoch, confirmed).await;
        let Some(until) = self.group.readable_until() else {
            return self.not_leader();
        };
        let recalls = self.callbacks.lend(session, epoch, until);
        let lease = match recalls {
            Some(_) => until.saturating_sub(arrived),
            None => Duration::ZERO,
        };
        Response::Listened {
            recalls: recalls.unwrap_or_default(),
            lease,
        }
    }

    async fn renew(&self, session: Session) -> Response {
        let machine = self.machine.get();
        let known = blocking(move || machine.has_session(session).map_err(io::Error::other)).await;
        match (known, self.group.is_readable()) {
            (_, false) => self.not_leader(),
            (Ok(true), _) => Response::Answer(Ok(Reply::Done)),
            (Ok(false), _) => Response::Answer(Err(Error::NoSession)),
            (Err(_), _) => Response::Answer(Err(Error::Io)),
        }
    }

    /// Refuses what would take the disk's last room; the log and the database need it.
    fn take_room(&self, bytes: u64) -> Result<(), Error> {
        let take = |room| rest(room, bytes);
        let taken = self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map(drop).map_err(|_| Error::NoSpace)
    }
}

/// The numbers of new inodes that this process gives while it leads.
#[derive(Default)]
pub struct Numbers(Mutex<u64>);

impl Numbers {
    /// The next one, after `highest` of all that were applied. Unused numbers are lost, never given again.
    pub fn fresh(&self, highest: Inode) -> Inode {
        let mut last = self.0.lock().expect("no holder of this lock panics");
        // Another leader may have given numbers meanwhile; what it gave is applied here before this node may lead.
        *last = (*last).max(highest.0) + 1;
        Inode(*last)
    }
}

fn now() -> Time {
    let now = clock::unix();
    Time {
        seconds: now.as_secs().cast_signed(),
        nanoseconds: now.subsec_nanos(),
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

fn read(reply: &[u8]) -> Answer {
    state::decode_reply(reply).unwrap_or_else(|| {
        tracing::error!("the state machine's reply cannot be read");
        Err(Error::Io)
    })
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
