//! One connection of framed calls, the part that both ends share: a reader that always reads, a writer that puts all
//! that waits into one write, and a watch that ends a connection on which nothing is heard. The three run in one
//! task; what the reader causes is state (`queue`), so no back-pressure of one direction stops the other.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;

use super::error::Why;
use super::frame::{self, BODY_CEILING, Frame, Kind};
use super::queue::{self, Queue};

/// Each side asks every second …
pub const PING: Duration = Duration::from_secs(1);
/// … and gives up a connection on which no byte came for so long: three lost pings, before the 4 s after which
/// another node may take over a role.
pub const SILENCE: Duration = Duration::from_secs(3);
/// A peer that lives but does not take one batch for so long is broken; its connection must not hold memory for ever.
/// The largest frame needs this long at 200 kB/s.
const STALLED: Duration = Duration::from_secs(10);
/// How long a connection that takes no new calls may finish the old ones. Calls have deadlines of their own; this is
/// for callers more patient than sensible, and for those that do not close when asked.
pub(super) const LINGER: Duration = Duration::from_secs(60);
/// The buffer of the reader, and the room for one read: what a record of TLS holds.
const READ: usize = 4 * RECORD;
const RECORD: usize = 16 * 1024;
/// So much of a frame must be there before it gets room for all of it.
const PROOF: usize = READ - RECORD;

/// Bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest body of a call or reply; at most `BODY_CEILING`. Both ends must agree.
    pub body: usize,
    /// Bytes that wait to be sent, each way. Full: callers and finished handlers wait their turn.
    pub queued: usize,
    /// Calls of one connection that may be under way. Full: the caller is told Busy at once.
    pub outstanding: usize,
    /// Calls of one connection that a server executes at the same time. Full: answered Busy at once.
    pub concurrent: usize,
    /// Bodies of those calls together, in bytes. Full: answered Busy at once.
    pub received: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body: 64 * 1024,
            queued: 4 * 1024 * 1024,
            outstanding: 4096,
            concurrent: 1024,
            received: 32 * 1024 * 1024,
        }
    }
}

impl Limits {
    /// Bodies never beyond what a frame may carry, and room for at least one of them in the queue.
    pub(super) fn sane(self) -> Self {
        let body = self.body.min(BODY_CEILING);
        // A semaphore counts up to 2^32 at a time.
        let queued = self.queued.clamp(queue::cost(body), 1 << 30);
        Limits { body, queued, ..self }
    }
}

/// How far a connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was heard of the peer yet: it may still refuse us.
    Opening,
    Up,
    /// The peer asked for no further calls.
    Draining,
    Ended(Why),
}

/// How a connection does.
#[derive(Clone, Copy, Debug)]
pub struct Pulse {
    /// Since the peer's last byte.
    pub silent: Duration,
    /// Of the last answered ping.
    pub round_trip: Option<Duration>,
}

/// What one end does with the frames that concern it.
pub(super) trait Role: Send + 'static {
    /// Bodies below so many bytes are copied out of the read buffer.
    const COPIED: usize;
    /// Takes a Call, Reply, Error, Cancel or Drain. Must not block: the reader waits.
    fn receive(link: &Arc<Link<Self>>, frame: Frame) -> Result<(), Why>
    where
        Self: Sized;
    /// The connection is over; all that was promised on it is void.
    fn end(&mut self, queue: &Queue, why: &Why);
}

/// The connection as its owner and its task see it. One lock guards all that changes.
pub(super) struct Link<R> {
    shared: Mutex<Shared<R>>,
    writer: Notify,
    pub budget: Semaphore,
    pub phase: watch::Sender<Phase>,
    pub limits: Limits,
}

struct Shared<R> {
    queue: Queue,
    role: R,
    heard: Instant,
    /// Number and time of the ping under way.
    pinged: (u64, Instant),
    round_trip: Option<Duration>,
    /// Since when the writer is busy with one batch.
    writing: Option<Instant>,
}

impl<R: Role> Link<R> {
    pub fn new(role: R, limits: Limits) -> Arc<Self> {
        let limits = limits.sane();
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.ping(0);
        Arc::new(Link {
            shared: Mutex::new(Shared {
                queue,
                role,
                heard: now,
                pinged: (0, now),
                round_trip: None,
                writing: None,
            }),
            writer: Notify::new(),
            budget: Semaphore::new(limits.queued),
            phase: watch::Sender::new(Phase::Opening),
            limits,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Shared<R>> {
        self.shared.lock().expect("nothing panics under this lock")
    }

    /// Looks at or changes the end's state and what is to be sent. `act` must not block.
    pub fn with<T>(&self, act: impl FnOnce(&mut Queue, &mut R) -> T) -> T {
        let mut shared = self.lock();
        let Shared { queue, role, .. } = &mut *shared;
        let result = act(queue, role);
        let wake = !queue.is_empty() || queue.is_finished();
        drop(shared);
        if wake {
            self.writer.notify_one();
        }
        result
    }

    /// Room for a frame in the queue. Cancel safe. `Err`: the connection is over.
    pub async fn room(&self, body_length: usize) -> Result<SemaphorePermit<'_>, Why> {
        // Without a place in the waiting line as long as there is none.
        if let Some(room) = self.room_now(body_length) {
            return Ok(room);
        }
        self.budget
            .acquire_many(room_of(body_length))
            .await
            .map_err(|_| self.why())
    }

    /// The same, if there is room now.
    pub fn room_now(&self, body_length: usize) -> Option<SemaphorePermit<'_>> {
        self.budget.try_acquire_many(room_of(body_length)).ok()
    }

    /// Why the connection is over.
    pub fn why(&self) -> Why {
        match &*self.phase.borrow() {
            Phase::Ended(why) => why.clone(),
            _ => Why::Closed,
        }
    }

    pub fn pulse(&self) -> Pulse {
        let shared = self.lock();
        Pulse {
            silent: shared.heard.elapsed(),
            round_trip: shared.round_trip,
        }
    }

    /// Serves the connection until it ends, and says why. Also when dropped midway, nobody is left waiting.
    pub async fn run<S>(self: &Arc<Self>, stream: S) -> Why
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut ending = Ending {
            link: self,
            why: Why::Stopped,
        };
        let (reader, writer) = tokio::io::split(stream);
        ending.why = tokio::select! {
            why = self.read(reader) => why,
            why = self.write(writer) => why,
            why = self.watch() => why,
        };
        ending.why.clone()
    }

    async fn read(self: &Arc<Self>, mut stream: impl AsyncRead + Unpin) -> Why {
        let mut buffer = BytesMut::with_capacity(READ);
        loop {
            if buffer.capacity() - buffer.len() < RECORD {
                // A large frame at once: memory that grows step by step is copied and faulted in anew at each.
                buffer.reserve(frame::lacking(&buffer, PROOF).max(READ));
            }
            match stream.read_buf(&mut buffer).await {
                Ok(0) => return Why::Closed,
                Ok(_) => self.lock().heard = Instant::now(),
                Err(error) => return broken(&error),
            }
            loop {
                match frame::decode(&mut buffer, self.limits.body, R::COPIED) {
                    Ok(None) => break,
                    Ok(Some(frame)) => match self.dispatch(frame) {
                        Ok(()) => {}
                        Err(why) => return why,
                    },
                    Err(error) => return Why::Broken(error.to_string().into()),
                }
            }
        }
    }

    fn dispatch(self: &Arc<Self>, frame: Frame) -> Result<(), Why> {
        match frame.head.kind {
            Kind::Ping => self.with(|queue, _| queue.pong(frame.head.id)),
            Kind::Pong => self.ponged(frame.head.id),
            _ => return R::receive(self, frame),
        }
        Ok(())
    }

    fn ponged(&self, number: u64) {
        let mut shared = self.lock();
        let (asked, at) = shared.pinged;
        if number == asked {
            shared.round_trip = Some(at.elapsed());
        }
        drop(shared);
        self.phase.send_if_modified(|phase| {
            let opening = *phase == Phase::Opening;
            if opening {
                *phase = Phase::Up;
            }
            opening
        });
    }

    async fn write(&self, mut stream: impl AsyncWrite + Unpin) -> Why {
        let mut batch = BytesMut::new();
        loop {
            let taken = {
                let mut shared = self.lock();
                shared.writing = None;
                if shared.queue.is_finished() {
                    break;
                }
                let taken = shared.queue.take(&mut batch);
                if !batch.is_empty() {
                    shared.writing = Some(Instant::now());
                }
                taken
            };
            if batch.is_empty() {
                self.writer.notified().await;
                // Tasks that are about to send something come first: all of it goes into one write.
                tokio::task::yield_now().await;
                continue;
            }
            let written = async {
                stream.write_all(&batch).await?;
                for piece in taken.large.iter() {
                    stream.write_all(piece).await?;
                }
                stream.flush().await
            };
            if let Err(error) = written.await {
                return broken(&error);
            }
            batch.clear();
            self.budget.add_permits(taken.cost);
        }
        // The peer's reader sees the end; whether it is told politely makes no difference any more.
        let _ = stream.shutdown().await;
        Why::Closed
    }

    async fn watch(&self) -> Why {
        let mut next_ping = Instant::now() + PING;
        loop {
            let (silent_at, stalled_at) = {
                let shared = self.lock();
                (shared.heard + SILENCE, shared.writing.map(|since| since + STALLED))
            };
            let now = Instant::now();
            if now >= silent_at {
                return Why::Silent;
            }
            if stalled_at.is_some_and(|at| now >= at) {
                return Why::Stalled;
            }
            if now >= next_ping {
                next_ping = now + PING;
                let mut shared = self.lock();
                shared.pinged = (shared.pinged.0.wrapping_add(1), now);
                let number = shared.pinged.0;
                shared.queue.ping(number);
                drop(shared);
                self.writer.notify_one();
            }
            tokio::time::sleep_until(next_ping.min(silent_at)).await;
        }
    }
}

fn room_of(body_length: usize) -> u32 {
    u32::try_from(queue::cost(body_length)).expect("bodies are bounded")
}

/// Ends the connection for all who wait on it, also when its task is dropped.
struct Ending<'a, R: Role> {
    link: &'a Link<R>,
    why: Why,
}

impl<R: Role> Drop for Ending<'_, R> {
    fn drop(&mut self) {
        // Whoever still holds a connection that was replaced shall look for its successor.
        let replaced = *self.link.phase.borrow() == Phase::Draining;
        let why = if replaced { &Why::Draining } else { &self.why };
        self.link.phase.send_replace(Phase::Ended(why.clone()));
        self.link.budget.close();
        let mut shared = self.link.lock();
        let Shared { queue, role, .. } = &mut *shared;
        role.end(queue, &self.why);
        // Bodies that wait here are nobody's any more.
        *queue = Queue::default();
    }
}

/// What a failed read or write means.
pub(super) fn broken(error: &std::io::Error) -> Why {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    if let Some(rustls::Error::AlertReceived(alert)) = tls {
        return Why::Refused(format!("{alert:?}").into());
    }
    match error.kind() {
        // Ends of a killed process differ by what was in flight; they mean the same.
        BrokenPipe | ConnectionReset | UnexpectedEof => Why::Closed,
        _ => Why::Broken(error.to_string().into()),
    }
}
