//! The calling end of a connection: many calls at a time, replies matched by id. A call whose future is dropped is
//! withdrawn if it was not sent, cancelled at the peer if it was, and its late reply is let go.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::base::{Pieces, Scope};

use super::error::{CallError, Fault, Why};
use super::frame::{Frame, Head, Kind};
use super::link::{LINGER, Limits, Link, Phase, Pulse, Role};
use super::queue::Queue;

/// One connection to make calls on. Clones share it.
#[derive(Clone)]
pub struct Caller {
    link: Arc<Link<Calls>>,
}

/// Calls under way.
#[derive(Default)]
pub(super) struct Calls {
    last_id: u64,
    waiting: HashMap<u64, oneshot::Sender<Result<Bytes, CallError>>, BuildHasherDefault<Spread>>,
    /// No new calls.
    closed: Option<Why>,
}

/// Hashes ids, which are this side's own and count up.
#[derive(Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, id: u64) {
        // Fibonacci hashing (Knuth, TAOCP 3, 6.4): the table looks at bits of both ends.
        let product = (self.0 ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }
}

impl Caller {
    /// Serves `stream` as a task of `scope`; `up` tells when the peer has answered.
    pub fn start<S>(stream: S, limits: Limits, scope: &Scope) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let link = Link::new(Calls::default(), limits);
        let caller = Caller { link: link.clone() };
        let drained = scope.clone();
        scope.spawn(async move {
            let lingering = async {
                let mut phase = link.phase.subscribe();
                tokio::select! {
                    () = drained.draining() => close(&link, Why::Stopped),
                    _ = phase.wait_for(|phase| *phase == Phase::Draining) => close(&link, Why::Draining),
                }
                tokio::time::sleep(LINGER).await;
            };
            let why = tokio::select! {
                why = link.run(stream) => why,
                () = lingering => Why::Draining,
            };
            debug!(%why, "a connection for calls ended");
        });
        caller
    }

    /// Waits until the peer has answered for the first time: only then has it accepted us. Cancel safe.
    pub async fn up(&self) -> Result<(), Why> {
        let mut phase = self.link.phase.subscribe();
        let reached = phase.wait_for(|phase| *phase != Phase::Opening).await;
        match reached.as_deref() {
            Ok(Phase::Ended(why)) => Err(why.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err(Why::Closed),
        }
    }

    /// How far the connection is.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.link.phase.subscribe()
    }

    pub fn pulse(&self) -> Pulse {
        self.link.pulse()
    }

    /// Takes no new calls, finishes those under way, then closes. Does not wait.
    pub fn drain(&self) {
        close(&self.link, Why::Draining);
        self.link.phase.send_if_modified(|phase| {
            let open = matches!(phase, Phase::Opening | Phase::Up);
            if open {
                *phase = Phase::Draining;
            }
            open
        });
    }

    /// Whether both are the same connection.
    pub fn is(&self, other: &Caller) -> bool {
        Arc::ptr_eq(&self.link, &other.link)
    }

    /// Makes a call and waits for its reply, at most until `deadline`. Cancel safe: dropping it cancels the call.
    pub async fn call(&self, service: u16, body: impl Into<Pieces>, deadline: Instant) -> Result<Bytes, CallError> {
        let body = body.into();
        if body.len() > self.link.limits.body {
            return Err(CallError::NotSent(Why::TooLarge));
        }
        let room = timeout_at(deadline, self.link.room(body.len()));
        let room = match room.await {
            Ok(room) => room.map_err(CallError::NotSent)?,
            Err(_) => return Err(CallError::NotSent(Why::Deadline)),
        };
        let mut call = self
            .enqueue(service, body)
            .map_err(|(why, _)| CallError::NotSent(why))?;
        // The writer gives the room back.
        room.forget();
        match timeout_at(deadline, &mut call).await {
            Ok(result) => result,
            Err(_) => Err(call.late()),
        }
    }

    /// Makes a call if there is room for it now; else the body comes back.
    pub fn begin(&self, service: u16, body: Bytes) -> Result<Call, Bytes> {
        if body.len() > self.link.limits.body {
            return Err(body);
        }
        let Some(room) = self.link.room_now(body.len()) else {
            return Err(body);
        };
        let call = self.enqueue(service, body.into());
        let call = call.map_err(|(_, body)| body.join())?;
        room.forget();
        Ok(call)
    }

    fn enqueue(&self, service: u16, body: Pieces) -> Result<Call, (Why, Pieces)> {
        let limits = &self.link.limits;
        let (sender, reply) = oneshot::channel();
        let id = self.link.with(|queue, calls| {
            if let Some(why) = &calls.closed {
                return Err((why.clone(), body));
            }
            if calls.waiting.len() >= limits.outstanding {
                return Err((Why::Busy, body));
            }
            calls.last_id += 1;
            let id = calls.last_id;
            calls.waiting.insert(id, sender);
            let kind = Kind::Call;
            queue.push(Head { kind, service, id }, body);
            Ok(id)
        })?;
        Ok(Call {
            link: self.link.clone(),
            id,
            reply,
            is_over: false,
        })
    }
}

/// A call under way: its reply, when it comes. It has no deadline; dropped before, it takes itself back.
pub struct Call {
    link: Arc<Link<Calls>>,
    id: u64,
    reply: oneshot::Receiver<Result<Bytes, CallError>>,
    is_over: bool,
}

impl Call {
    fn late(&self) -> CallError {
        let sent = self.link.with(|queue, _| queue.is_taken(self.id));
        match sent {
            true => CallError::Unknown(Why::Deadline),
            false => CallError::NotSent(Why::Deadline),
        }
    }
}

impl Future for Call {
    type Output = Result<Bytes, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(Pin::new(&mut self.reply).poll(cx));
        self.is_over = true;
        Poll::Ready(result.unwrap_or_else(|_| Err(CallError::Unknown(self.link.why()))))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let freed = self.link.with(|queue, calls| {
            calls.waiting.remove(&self.id)?;
            let freed = queue.withdraw(self.id);
            if freed.is_none() {
                queue.cancel(self.id);
            }
            calls.finish_if_done(queue);
            freed
        });
        self.link.budget.add_permits(freed.unwrap_or_default());
    }
}

fn close(link: &Link<Calls>, why: Why) {
    link.with(|queue, calls| {
        calls.closed.get_or_insert(why);
        calls.finish_if_done(queue);
    });
}

impl Calls {
    /// The caller closes a drained connection, never the server: only the caller knows that nothing is in flight.
    fn finish_if_done(&self, queue: &mut Queue) {
        if self.closed.is_some() && self.waiting.is_empty() {
            queue.finish();
        }
    }
}

impl Role for Calls {
    /// Whoever waits for a reply reads it soon.
    const COPIED: usize = 256;

    fn receive(link: &Arc<Link<Self>>, frame: Frame) -> Result<(), Why> {
        let result = match frame.head.kind {
            Kind::Reply => Ok(frame.body),
            Kind::Error => Err(Fault::decode(&frame.body).into()),
            Kind::Drain => {
                link.phase.send_replace(Phase::Draining);
                close(link, Why::Draining);
                return Ok(());
            }
            _ => return Err(Why::Violation("a caller is not called")),
        };
        let waiting = link.with(|queue, calls| {
            if frame.head.id > calls.last_id {
                return Err(Why::Violation("a reply to no call"));
            }
            let waiting = calls.waiting.remove(&frame.head.id);
            calls.finish_if_done(queue);
            Ok(waiting)
        })?;
        // No entry: the call was cancelled, and this reply is late.
        if let Some(waiting) = waiting {
            let _ = waiting.send(result);
        }
        Ok(())
    }

    fn end(&mut self, queue: &Queue, why: &Why) {
        self.closed.get_or_insert_with(|| why.clone());
        for (id, waiting) in self.waiting.drain() {
            let error = match queue.is_taken(id) {
                true => CallError::Unknown(why.clone()),
                false => CallError::NotSent(why.clone()),
            };
            let _ = waiting.send(Err(error));
        }
    }
}
