//! Connections to PHP-FPM: a bounded number is kept open, the newest idle one is used first, idle ones are closed after a while.
//!
//! END_REQUEST does not say that the process is free: after `fastcgi_finish_request()` the script goes on, and whatever is sent to the process
//! waits for its end. The empty record that ends STDIN tells: PHP takes no more of a body than CONTENT_LENGTH, so it reads that record when it
//! looks for the next request, and not before (measured with PHP-FPM 8.2 for all kinds of bodies). A process that is to end after this
//! request never looks for another, so a connection on which nothing is unread is not about to be closed.
//!
//! Beyond that number a connection is lent for a turn, if every open one has a PHP process of its own: to whoever comes meanwhile it saves
//! a connection, and whoever waits in PHP-FPM's backlog, ours or not, is not passed over for long.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::record::{Decoder, Piece};
use super::unread::has_unread;
use crate::base::Scope;
use crate::base::backoff::Backoff;
use crate::proxy::error::{Error, Kind};
use crate::proxy::silence::Silence;

/// An idle connection pins a PHP process; after this time PHP-FPM gets it back for its own turnover.
const IDLE: Duration = Duration::from_secs(10);

/// How long a connection beyond the kept ones serves, busy or idle, before its process looks whether somebody else waits for it.
const TURN: Duration = Duration::from_millis(100);

/// How often overdue connections are looked for, while there are idle ones.
const SWEEP: Duration = TURN;

/// How long a full backlog is tried again: PHP-FPM empties it within milliseconds or not at all.
const CONNECT: Duration = Duration::from_secs(5);

/// First size of a read buffer: a small page in one read.
const BUFFER: usize = 16 * 1024;

/// Connections by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Kept open, without a request; the process may still work for the last one.
    pub idle: usize,
    /// Kept open, with a request.
    pub busy: usize,
    /// For one request only.
    pub fresh: usize,
}

pub struct Pool {
    socket: PathBuf,
    limit: usize,
    /// PHP processes there are at most.
    children: usize,
    /// One permit for each kept connection, idle or busy.
    kept: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
    fresh: Arc<AtomicUsize>,
    idle: Arc<Mutex<Idle>>,
    /// Owns the sweeper; drained with the pool.
    scope: Scope,
}

#[derive(Default)]
struct Idle {
    /// Oldest first.
    connections: Vec<Connection>,
    is_swept: bool,
}

/// An open connection. Dropping it closes it.
pub struct Connection {
    pub stream: UnixStream,
    pub buffer: BytesMut,
    pub decoder: Decoder,
    pub silence: Silence,
    tenure: Tenure,
    _open: Counted,
    /// The answer's body is delivered, END_REQUEST is still to come.
    is_unfinished: bool,
    opened: Instant,
    since: Instant,
}

/// How long a connection serves.
enum Tenure {
    Kept(#[allow(dead_code)] OwnedSemaphorePermit),
    /// For its turn.
    Lent,
    /// For one request.
    Fresh(#[allow(dead_code)] Counted),
}

/// One of those that are counted, until it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    /// Also how many there are with it.
    fn new(count: &Arc<AtomicUsize>) -> (Counted, usize) {
        let others = count.fetch_add(1, Ordering::Relaxed);
        (Counted(count.clone()), others + 1)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Look {
    Usable,
    /// END_REQUEST came, but the process does not look for the next request yet.
    Working,
    Unfinished,
    Gone,
}

impl Connection {
    /// Whether PHP shall leave it open after the request.
    pub fn is_kept(&self) -> bool {
        !matches!(self.tenure, Tenure::Fresh(_))
    }

    /// Whether it is idle for too long, or its turn is over.
    fn is_over(&self, now: Instant) -> bool {
        match self.tenure {
            Tenure::Lent => now.duration_since(self.opened) >= TURN,
            _ => now.duration_since(self.since) >= IDLE,
        }
    }

    /// Looks, without waiting, whether PHP-FPM has closed it, has at last ended its request, waits for the next.
    fn look(&mut self) -> Look {
        loop {
            self.buffer.reserve(BUFFER);
            match self.stream.try_read_buf(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Closed, or it speaks unasked.
                Ok(0) | Err(_) => return Look::Gone,
                Ok(_) if !self.is_unfinished => return Look::Gone,
                Ok(_) => self.finish(),
            }
        }
        if self.is_unfinished {
            return Look::Unfinished;
        }
        if has_unread(&self.stream) {
            return Look::Working;
        }
        // In this order, and not of the runtime, which may not have heard of it: a process that ends closes its side, then reads the rest.
        match recv(&self.stream, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => Look::Usable,
            _ => Look::Gone,
        }
    }

    /// Drops what comes before END_REQUEST. A broken record leaves the connection unfinished until it is closed as overdue.
    fn finish(&mut self) {
        while let Ok(Some(piece)) = self.decoder.decode(&mut self.buffer) {
            if matches!(piece, Piece::End { .. }) && self.buffer.is_empty() && self.decoder.is_between_records() {
                self.is_unfinished = false;
            }
        }
    }
}

impl Pool {
    /// `children`: how many processes PHP-FPM has at most, 0 where that is not known.
    pub fn new(socket: PathBuf, kept: usize, children: usize) -> Self {
        Pool {
            socket,
            limit: kept,
            children,
            kept: Arc::new(Semaphore::new(kept)),
            open: Arc::default(),
            fresh: Arc::default(),
            idle: Arc::default(),
            scope: Scope::new(),
        }
    }

    pub fn counts(&self) -> Counts {
        let idle = lock(&self.idle).connections.len();
        let fresh = self.fresh.load(Ordering::Relaxed);
        Counts {
            idle,
            busy: self.open.load(Ordering::Relaxed).saturating_sub(idle + fresh),
            fresh,
        }
    }

    /// The newest idle connection whose process waits for a request. Where all of them still work, a new one is to be made; the newest is
    /// closed then, unless there is a process for each: the new one gets that process, if no other is free before.
    pub fn idle(&self) -> Option<Connection> {
        let mut idle = lock(&self.idle);
        let mut working = None;
        for index in (0..idle.connections.len()).rev() {
            let Some(connection) = idle.connections.get_mut(index) else {
                continue;
            };
            match connection.look() {
                Look::Usable => {
                    let usable = idle.connections.remove(index);
                    idle.connections.extend(working);
                    return Some(usable);
                }
                Look::Gone => drop(idle.connections.remove(index)),
                Look::Working if working.is_none() => working = Some(idle.connections.remove(index)),
                Look::Working | Look::Unfinished => {}
            }
        }
        let has_process = self.open.load(Ordering::Relaxed) < self.children;
        idle.connections.extend(working.filter(|_| has_process));
        None
    }

    /// Whether the processes of all idle ones wait for a request.
    #[cfg(test)]
    pub fn is_at_rest(&self) -> bool {
        let idle = lock(&self.idle);
        idle.connections
            .iter()
            .all(|connection| !has_unread(&connection.stream))
    }

    /// A new connection: kept when there is room. `patience`: how long PHP may be silent, now and later.
    pub async fn connect(&self, patience: Duration) -> Result<Connection, Error> {
        let (counted, open) = Counted::new(&self.open);
        let tenure = match self.kept.clone().try_acquire_owned() {
            Ok(permit) => Tenure::Kept(permit),
            Err(_) if self.limit > 0 && open <= self.children => Tenure::Lent,
            Err(_) => Tenure::Fresh(Counted::new(&self.fresh).0),
        };
        Ok(Connection {
            stream: self.open(patience.min(CONNECT)).await?,
            buffer: BytesMut::new(),
            decoder: Decoder::new(),
            silence: Silence::new(patience),
            tenure,
            _open: counted,
            is_unfinished: false,
            opened: Instant::now(),
            since: Instant::now(),
        })
    }

    pub async fn probe(&self) -> Result<(), Error> {
        self.open(Duration::ZERO).await.map(drop)
    }

    /// A full backlog makes a non-blocking connect fail at once (EAGAIN, unix(7)): tried again for a while.
    async fn open(&self, patience: Duration) -> Result<UnixStream, Error> {
        let deadline = Instant::now() + patience;
        let mut backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(100));
        loop {
            match UnixStream::connect(&self.socket).await {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    tokio::time::sleep(backoff.delay()).await;
                }
                Err(error) => return Err(Error::with(Kind::Unavailable, "cannot connect to PHP-FPM", error).unsent()),
            }
        }
    }

    /// Takes a kept connection back, whose request is over.
    pub fn give(&self, connection: Connection) {
        self.put(connection, false);
    }

    /// Takes a kept connection back, on which only the rest of an answer that nobody needs is to come.
    pub fn give_unfinished(&self, connection: Connection) {
        self.put(connection, true);
    }

    fn put(&self, mut connection: Connection, is_unfinished: bool) {
        // Outside a runtime nobody could close it later.
        if !connection.is_kept() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        connection.is_unfinished = is_unfinished;
        connection.since = Instant::now();
        let is_crowded = self.open.load(Ordering::Relaxed) > self.children;
        if matches!(connection.tenure, Tenure::Lent) && (is_crowded || connection.is_over(connection.since)) {
            return;
        }
        let mut idle = lock(&self.idle);
        idle.connections.push(connection);
        if !idle.is_swept {
            idle.is_swept = true;
            self.scope.spawn(sweep(self.idle.clone(), self.scope.clone()));
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.idle).connections.clear();
        self.scope.drain();
    }
}

/// Closes overdue connections until none is idle.
async fn sweep(idle: Arc<Mutex<Idle>>, scope: Scope) {
    loop {
        tokio::select! {
            () = scope.draining() => return,
            () = tokio::time::sleep(SWEEP) => {}
        }
        let mut idle = lock(&idle);
        let now = Instant::now();
        idle.connections.retain(|connection| !connection.is_over(now));
        if idle.connections.is_empty() {
            idle.is_swept = false;
            return;
        }
    }
}

/// A panic elsewhere leaves the list whole: nothing is called while it is half changed.
fn lock(idle: &Mutex<Idle>) -> MutexGuard<'_, Idle> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}
