//! `Mesh`: the connections of a process to the same module of other nodes. `Peer`: one of those nodes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::time::Instant;

use crate::base::{BoxFuture, Pieces, Scope};

use super::caller::{Call, Caller};
use super::dial::Dial;
use super::error::{CallError, ConnectError, Fault, OpenError, Why};
use super::identity::Name;
use super::keeper::{Keeper, Kept, Source};
use super::link::{Limits, Phase, Pulse};
use super::streams::{Body, ByteStream, Connection, Unanswered};
use super::tls::{HANDSHAKE, Protocol};

/// Calls of different weight do not share a connection: behind a bulk transfer on the same one a small call waits
/// ten times as long (spec/mesh-and-push.md A3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Calls,
    Bulk,
}

/// All peers of a process. Clones share them.
#[derive(Clone)]
pub struct Mesh {
    making: Making,
    peers: Arc<Mutex<HashMap<Name, Peer>>>,
}

/// What connections are made of.
#[derive(Clone)]
struct Making {
    dial: Arc<dyn Dial>,
    limits: Limits,
    scope: Scope,
}

impl Mesh {
    /// Connections are tasks of `scope`; when it drains they finish their calls and close.
    pub fn new(dial: Arc<dyn Dial>, limits: Limits, scope: &Scope) -> Self {
        let scope = scope.clone();
        Mesh {
            making: Making { dial, limits, scope },
            peers: Arc::default(),
        }
    }

    /// The handle to a node; the same one each time, so that all share its connections. They are made at first use.
    pub fn peer(&self, node: &Name) -> Peer {
        let mut peers = self.peers.lock().expect("nothing panics under this lock");
        let made = peers.entry(node.clone()).or_insert_with(|| Peer {
            inner: Arc::new(Inner {
                node: node.clone(),
                making: self.making.clone(),
                calls: OnceLock::new(),
                bulk: OnceLock::new(),
                streams: OnceLock::new(),
            }),
        });
        made.clone()
    }

    /// Lets go of a node that left the cluster; its connections are drained when the last handle is gone.
    pub fn forget(&self, node: &Name) {
        let mut peers = self.peers.lock().expect("nothing panics under this lock");
        peers.remove(node);
    }
}

/// A node to call. Clones are the same node.
#[derive(Clone)]
pub struct Peer {
    inner: Arc<Inner>,
}

struct Inner {
    node: Name,
    making: Making,
    calls: OnceLock<Keeper<Caller>>,
    bulk: OnceLock<Keeper<Caller>>,
    streams: OnceLock<Keeper<Connection>>,
}

impl Peer {
    pub fn node(&self) -> &Name {
        &self.inner.node
    }

    /// Makes a call and waits for the reply, at most `within`. A node that is known to be away is told at once; a
    /// call refused by a connection that is just being replaced goes over the next one. Dropping it cancels it.
    pub async fn call(
        &self,
        class: Class,
        service: u16,
        body: impl Into<Pieces>,
        within: Duration,
    ) -> Result<Bytes, CallError> {
        let body = body.into();
        let deadline = Instant::now() + within;
        let keeper = self.callers(class);
        let mut caller = keeper.get(None, deadline).await?;
        loop {
            match caller.call(service, body.clone(), deadline).await {
                Err(CallError::NotSent(Why::Draining) | CallError::Fault(Fault::Draining)) => {
                    caller = keeper.get(Some(&caller), deadline).await?;
                }
                result => return result,
            }
        }
    }

    /// Makes a call if there is a connection now, and room on it; else the body comes back. The call has no deadline; one that a
    /// connection refuses that is just being replaced is not made again.
    pub fn begin(&self, class: Class, service: u16, body: Bytes) -> Result<Call, Bytes> {
        match self.callers(class).peek() {
            Some(caller) => caller.begin(service, body),
            None => Err(body),
        }
    }

    /// How the connection of a class does; `None` while there is none. Looking does not make one.
    pub fn pulse(&self, class: Class) -> Option<Pulse> {
        let keeper = self.cell(class).0.get()?;
        keeper.peek().map(|caller| caller.pulse())
    }

    /// Whether a connection for requests stands now. Looking does not make one.
    pub fn is_up(&self) -> bool {
        let connection = self.inner.streams.get().and_then(Keeper::peek);
        connection.is_some_and(|connection| !connection.is_over())
    }

    /// Sends a request over HTTP/2 and waits for the head of its response, at most `within`.
    pub async fn request(&self, request: Request<Body>, within: Duration) -> Result<Response<Body>, CallError> {
        self.request_soon(request, within, within).await
    }

    /// The same, for a request whose answer may take long: nothing is sent when there is no connection after `connect`.
    pub async fn request_soon(
        &self,
        request: Request<Body>,
        connect: Duration,
        within: Duration,
    ) -> Result<Response<Body>, CallError> {
        let now = Instant::now();
        let (deadline, connected) = (now + within, now + connect);
        let keeper = self.streams();
        let mut connection = keeper.get(None, connected).await?;
        let mut request = request;
        loop {
            match connection.request(request, deadline).await {
                Ok(response) => return Ok(response),
                Err(Unanswered::Turned(back)) => {
                    request = *back;
                    connection = keeper.get(Some(&connection), connected).await?;
                }
                Err(Unanswered::Failed(error)) => return Err(error),
            }
        }
    }

    /// Opens a byte stream to `authority` (`name:port`, for the other side to make sense of) by CONNECT
    /// (RFC 9113 §8.5), waiting at most `within`.
    pub async fn open(&self, authority: &str, within: Duration) -> Result<ByteStream, OpenError> {
        let request = Request::connect(authority).body(super::streams::empty());
        let request = request.map_err(|_| OpenError::Authority)?;
        super::streams::upgrade(self.request(request, within).await?).await
    }

    fn cell(&self, class: Class) -> (&OnceLock<Keeper<Caller>>, &'static str) {
        match class {
            Class::Calls => (&self.inner.calls, "calls"),
            Class::Bulk => (&self.inner.bulk, "bulk"),
        }
    }

    fn callers(&self, class: Class) -> &Keeper<Caller> {
        let (cell, kind) = self.cell(class);
        cell.get_or_init(|| {
            self.keeper(kind, |making, node| {
                Box::pin(async move {
                    let stream = making.dial.dial(&node, Protocol::Call).await?;
                    let caller = Caller::start(stream, making.limits, &making.scope);
                    match tokio::time::timeout(HANDSHAKE, caller.up()).await {
                        Ok(Ok(())) => Ok(caller),
                        Ok(Err(Why::Refused(alert))) => Err(ConnectError::Refused(alert.to_string())),
                        Ok(Err(why)) => Err(ConnectError::Ended(why)),
                        Err(_) => {
                            caller.drain();
                            Err(ConnectError::TimedOut)
                        }
                    }
                })
            })
        })
    }

    fn streams(&self) -> &Keeper<Connection> {
        self.inner.streams.get_or_init(|| {
            self.keeper("streams", |making, node| {
                Box::pin(async move {
                    let stream = making.dial.dial(&node, Protocol::Streams).await?;
                    Connection::start(stream, &making.scope).await
                })
            })
        })
    }

    fn keeper<C: Kept>(
        &self,
        kind: &str,
        connect: fn(Making, Name) -> BoxFuture<'static, Result<C, ConnectError>>,
    ) -> Keeper<C> {
        let (making, node) = (self.inner.making.clone(), self.inner.node.clone());
        let dial = making.dial.clone();
        let scope = making.scope.clone();
        let what = format!("{node}/{kind}");
        let source = Source {
            connect: Box::new(move || connect(making.clone(), node.clone())),
            renewed: Box::new(move || dial.renewed()),
        };
        Keeper::start(source, &scope, what)
    }
}

impl Kept for Caller {
    fn over(&self) -> BoxFuture<'static, Why> {
        let mut phase = self.phase();
        Box::pin(async move {
            let over = phase.wait_for(|phase| matches!(phase, Phase::Draining | Phase::Ended(_)));
            match over.await.as_deref() {
                Ok(Phase::Ended(why)) => why.clone(),
                Ok(_) => Why::Draining,
                Err(_) => Why::Closed,
            }
        })
    }

    fn is_over(&self) -> bool {
        matches!(*self.phase().borrow(), Phase::Draining | Phase::Ended(_))
    }

    fn drain(&self) {
        Caller::drain(self);
    }

    fn is(&self, other: &Self) -> bool {
        Caller::is(self, other)
    }
}
