//! The answering end of a connection: calls go to the handler of their service, each in a task of its own unless the handler has its
//! answer at once. Beyond the bounds a call is answered Busy at once; a panic ends that call alone.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tracing::{debug, error};

use crate::base::{BoxFuture, Scope};

use super::error::{Fault, Why};
use super::frame::{self, Frame, Head, Kind};
use super::identity::Identity;
use super::link::{LINGER, Limits, Link, Role};
use super::queue::{FAULT_TEXT, Queue};

/// Refusals that may wait to be sent; a caller that sends on without reading them is cut off.
const REFUSALS: usize = 64 * 1024;

/// Answers the calls of one service.
///
/// The future is dropped where it stands when the caller cancels or its connection ends: work that must be
/// completed belongs into a task of the handler's own.
pub trait Handler: Send + Sync + 'static {
    fn call<'a>(&'a self, peer: &'a Identity, body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>>;

    /// Comes before `call`: what needs no waiting needs no task of its own. Must be short, for the connection is not read meanwhile.
    fn begin(&self, _peer: &Identity, body: Bytes) -> Begun {
        Begun::Not(body)
    }
}

/// What a handler has made of a call at once.
pub enum Begun {
    /// Nothing: it is `call`'s.
    Not(Bytes),
    Answered(Result<Bytes, Fault>),
    /// What it waits for; dropped like the future of `call`.
    Waits(BoxFuture<'static, Result<Bytes, Fault>>),
}

/// The handlers of a process, by service id. Ids are part of the protocol: never reuse one.
#[derive(Clone, Default)]
pub struct Services {
    handlers: Arc<HashMap<u16, Arc<dyn Handler>>>,
}

impl FromIterator<(u16, Arc<dyn Handler>)> for Services {
    fn from_iter<I: IntoIterator<Item = (u16, Arc<dyn Handler>)>>(handlers: I) -> Self {
        Services {
            handlers: Arc::new(handlers.into_iter().collect()),
        }
    }
}

impl Services {
    /// Answers the calls of one connection until it ends, and says why it did. When `leave` resolves, further calls
    /// are refused and the caller is asked to close; it does so when the last reply has arrived, or is cut off after
    /// a minute.
    pub async fn serve<S>(
        &self,
        stream: S,
        peer: Identity,
        limits: Limits,
        scope: &Scope,
        leave: impl Future<Output = ()>,
    ) -> Why
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let link = Link::new(
            Running {
                tasks: HashMap::new(),
                bytes: 0,
                draining: false,
                services: self.clone(),
                peer: Arc::new(peer),
                scope: scope.clone(),
            },
            limits,
        );
        let leave = async {
            leave.await;
            link.with(|queue, running| {
                running.draining = true;
                queue.drain();
            });
            tokio::time::sleep(LINGER).await;
        };
        tokio::select! {
            why = link.run(stream) => why,
            () = leave => Why::Draining,
        }
    }
}

/// Calls being executed.
struct Running {
    tasks: HashMap<u64, Task>,
    bytes: usize,
    draining: bool,
    services: Services,
    peer: Arc<Identity>,
    scope: Scope,
}

struct Task {
    handle: AbortHandle,
    bytes: usize,
}

impl Role for Running {
    const COPIED: usize = frame::COPIED;

    fn receive(link: &Arc<Link<Self>>, frame: Frame) -> Result<(), Why> {
        let Frame { head, body } = frame;
        match head.kind {
            Kind::Call => match take(link, head, body) {
                Ok(()) => Ok(()),
                Err(Refused::Violation(what)) => Err(Why::Violation(what)),
                Err(Refused::Fault(fault)) => match link.with(|queue, _| queue.refuse(head, fault)) {
                    0..=REFUSALS => Ok(()),
                    _ => Err(Why::Violation("calls without end and reads no answer")),
                },
            },
            Kind::Cancel => {
                if let Some(task) = link.with(|_, running| running.remove(head.id)) {
                    task.handle.abort();
                }
                Ok(())
            }
            _ => Err(Why::Violation("a server is only called")),
        }
    }

    fn end(&mut self, _queue: &Queue, why: &Why) {
        debug!(peer = %self.peer, %why, calls = self.tasks.len(), "a connection of calls ended");
        self.draining = true;
        for (_, task) in self.tasks.drain() {
            task.handle.abort();
        }
    }
}

enum Refused {
    Fault(Fault),
    Violation(&'static str),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Refused::Fault(fault)
    }
}

impl Running {
    /// Who shall answer a call.
    fn admit(&self, limits: &Limits, head: Head, size: usize) -> Result<(Arc<dyn Handler>, Arc<Identity>), Refused> {
        if self.draining {
            return Err(Fault::Draining.into());
        }
        let handler = self.services.handlers.get(&head.service).ok_or(Fault::NoService)?;
        if self.tasks.len() >= limits.concurrent || (self.bytes + size > limits.received && !self.tasks.is_empty()) {
            return Err(Fault::Busy.into());
        }
        if self.tasks.contains_key(&head.id) {
            return Err(Refused::Violation("two calls with one id"));
        }
        Ok((handler.clone(), self.peer.clone()))
    }

    fn start(&mut self, link: &Arc<Link<Self>>, head: Head, size: usize, work: Work) {
        // The task looks for its entry only after this lock is released.
        let handle = self.scope.spawn(answer(link.clone(), head, work)).abort_handle();
        self.tasks.insert(head.id, Task { handle, bytes: size });
        self.bytes += size;
    }

    fn remove(&mut self, id: u64) -> Option<Task> {
        let task = self.tasks.remove(&id)?;
        self.bytes -= task.bytes;
        Some(task)
    }
}

type Work = BoxFuture<'static, Result<Bytes, Fault>>;

/// Answers a call, or starts a task that will.
fn take(link: &Arc<Link<Running>>, head: Head, body: Bytes) -> Result<(), Refused> {
    let size = body.len();
    let (handler, peer) = link.with(|_, running| running.admit(&link.limits, head, size))?;
    let begun = catch_unwind(AssertUnwindSafe(|| handler.begin(&peer, body)));
    let work: Work = match begun.unwrap_or_else(|_| Begun::Answered(Err(panicked(head)))) {
        Begun::Not(body) => Box::pin(async move { handler.call(&peer, body).await }),
        Begun::Waits(work) => work,
        Begun::Answered(result) => match tell(link, head, result) {
            None => return Ok(()),
            Some(result) => Box::pin(std::future::ready(result)),
        },
    };
    link.with(|_, running| running.start(link, head, size, work));
    Ok(())
}

/// Puts a reply into the queue; gives it back where it must wait for room or be another one.
fn tell(link: &Link<Running>, head: Head, result: Result<Bytes, Fault>) -> Option<Result<Bytes, Fault>> {
    let reply = match result {
        Ok(reply) if reply.len() <= link.limits.body => reply,
        other => return Some(other),
    };
    let Some(room) = link.room_now(reply.len()) else {
        return Some(Ok(reply));
    };
    let kind = Kind::Reply;
    link.with(|queue, _| queue.push(Head { kind, ..head }, reply));
    // The writer gives the room back.
    room.forget();
    None
}

fn panicked(head: Head) -> Fault {
    error!(service = head.service, "a handler of calls panicked");
    Fault::Panicked
}

async fn answer(link: Arc<Link<Running>>, head: Head, work: Work) {
    let result = match AssertUnwindSafe(work).catch_unwind().await {
        Ok(Ok(reply)) if reply.len() > link.limits.body => Err(Fault::TooLarge),
        Ok(result) => result,
        Err(_) => Err(panicked(head)),
    };
    let (kind, body) = match result {
        Ok(reply) => (Kind::Reply, reply),
        Err(fault) => (Kind::Error, fault.encode(FAULT_TEXT)),
    };
    // The call keeps its place among those under way until its answer has one in the queue.
    let Ok(room) = link.room(body.len()).await else { return };
    let queued = link.with(|queue, running| {
        running.remove(head.id)?;
        queue.push(Head { kind, ..head }, body);
        Some(())
    });
    if queued.is_some() {
        // The writer gives the room back.
        room.forget();
    }
}
