//! The accepting side: TLS, then by the protocol agreed on either framed calls or HTTP/2. A connection is asked to
//! leave when this process drains, when our certificate was replaced, and when it is older than a dialler lets it be.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::base::{BoxFuture, Scope};
use crate::net::serve;

use super::dial::{self, Stream};
use super::error::ConnectError;
use super::identity::Identity;
use super::keeper::AGE;
use super::link::{self, Limits};
use super::refusals::Refusals;
use super::service::Services;
use super::streams::{self, Body, ByteStream, Tasks};
use super::tls::{Came, Protocol, Tls};

/// Nine nodes need three connections each, twice during a renewal; the rest is for strangers whose handshake fails
/// within its time. Full: the kernel's queue holds further ones.
const CONNECTIONS: usize = 1024;

/// Diallers replace their connections at `AGE`; this is for one that does not.
const OVERDUE: Duration = AGE.saturating_add(Duration::from_secs(600));

/// What is done with an opened byte stream, until it ends. Runs as a task of its own.
pub type Tunnel = Box<dyn FnOnce(ByteStream) -> BoxFuture<'static, ()> + Send>;

/// Answers HTTP/2 from other nodes. A panic ends one stream.
pub trait Streams: Send + Sync + 'static {
    fn request<'a>(&'a self, peer: &'a Identity, request: Request<Incoming>) -> BoxFuture<'a, Response<Body>>;
    /// A byte stream to `authority` is wanted (CONNECT): what to do with it, or the status that refuses it.
    fn open<'a>(&'a self, peer: &'a Identity, authority: &'a str) -> BoxFuture<'a, Result<Tunnel, StatusCode>>;
}

/// Hears machines that are no nodes of the cluster yet, and have shown nothing.
pub trait Guests: Send + Sync + 'static {
    /// Returns when there is nothing left to say; the connection is closed then.
    fn converse<'a>(&'a self, stream: Box<dyn Stream>, address: SocketAddr) -> BoxFuture<'a, ()>;
}

/// What a module offers to the same module of other nodes.
pub struct Server {
    pub tls: Arc<Tls>,
    pub services: Services,
    /// Without it HTTP/2 connections are closed.
    pub streams: Option<Arc<dyn Streams>>,
    pub limits: Limits,
}

impl Server {
    /// Accepts nodes of the cluster until the scope drains.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, scope: Scope) {
        self.accept(listener, None, scope).await;
    }

    /// Like `serve`, with guests on the same port.
    pub async fn serve_with(self: Arc<Self>, listener: TcpListener, guests: Arc<dyn Guests>, scope: Scope) {
        self.accept(listener, Some(guests), scope).await;
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, guests: Option<Arc<dyn Guests>>, scope: Scope) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let tasks = scope.clone();
        let refusals = Arc::<Mutex<Refusals>>::default();
        serve::serve(listener, permits, scope, move |tcp, address| {
            let door = Door {
                server: self.clone(),
                guests: guests.clone(),
                refusals: refusals.clone(),
            };
            door.connection(tcp, address, tasks.clone())
        })
        .await;
    }
}

/// One listening socket.
struct Door {
    server: Arc<Server>,
    guests: Option<Arc<dyn Guests>>,
    refusals: Arc<Mutex<Refusals>>,
}

impl Door {
    async fn connection(self, tcp: TcpStream, address: SocketAddr, scope: Scope) {
        let server = &self.server;
        let tcp = match dial::tuned(tcp) {
            Ok(tcp) => tcp,
            Err(error) => return debug!(client.addr = %address, %error, "a connection between nodes broke at once"),
        };
        // Watched from before the handshake: a certificate replaced meanwhile is not missed.
        let mut renewal = server.tls.renewed();
        let came = match &self.guests {
            None => server
                .tls
                .accept(tcp)
                .await
                .map(|(tls, peer, protocol)| Came::Node(tls, peer, protocol)),
            Some(_) => server.tls.welcome(tcp).await,
        };
        let (stream, peer, protocol) = match came {
            Ok(Came::Node(stream, peer, protocol)) => (stream, peer, protocol),
            Ok(Came::Guest(stream)) => {
                if let Some(guests) = &self.guests {
                    guests.converse(Box::new(stream), address).await;
                }
                return;
            }
            Err(error) => {
                self.refused(address, &error);
                return;
            }
        };
        let leave = async {
            tokio::select! {
                () = scope.draining() => {}
                () = renewal.next() => {}
                () = tokio::time::sleep(OVERDUE) => {}
            }
        };
        match (protocol, &server.streams) {
            (Protocol::Call, _) => {
                server.services.serve(stream, peer, server.limits, &scope, leave).await;
            }
            (Protocol::Streams, Some(streams)) => serve_streams(streams, stream, peer, &scope, leave).await,
            (Protocol::Streams, None) => {
                warn!(node = %peer.node, "a node asks for HTTP/2, which is not served here");
            }
        }
    }

    fn refused(&self, address: SocketAddr, error: &ConnectError) {
        let noted = {
            let mut refusals = self.refusals.lock().expect("nothing panics under this lock");
            refusals.note(address.ip(), Instant::now())
        };
        match noted {
            Some(0) => warn!(client.addr = %address, %error, "a connection between nodes was refused"),
            Some(before) => {
                warn!(client.addr = %address, %error, before, "a connection between nodes was refused, as others before it");
            }
            None => debug!(client.addr = %address, %error, "a connection between nodes was refused"),
        }
    }
}

/// Serves one HTTP/2 connection until it ends. When `leave` resolves, the peer is asked to make no further streams.
pub async fn serve_streams<S>(
    streams: &Arc<dyn Streams>,
    stream: S,
    peer: Identity,
    scope: &Scope,
    leave: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (tasks, running) = Tasks::new(scope);
    let _cut_at_end = running.cut.drop_guard();
    let peer = Arc::new(peer);
    let service = service_fn(|request| {
        let (streams, peer, tasks) = (streams.clone(), peer.clone(), tasks.clone());
        async move { Ok::<_, Infallible>(answer(streams, peer, tasks, request).await) }
    });
    let mut connection = pin!(builder(tasks.clone()).serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = leave => {
            connection.as_mut().graceful_shutdown();
            // Streams under way may finish, but a certificate is not believed for much longer than its check.
            tokio::time::timeout(AGE, connection).await.unwrap_or(Ok(()))
        }
    };
    debug!(node = %peer.node, ?ended, "a connection of streams ended");
}

async fn answer(
    streams: Arc<dyn Streams>,
    peer: Arc<Identity>,
    tasks: Tasks,
    request: Request<Incoming>,
) -> Response<Body> {
    if request.method() != Method::CONNECT {
        return streams.request(&peer, request).await;
    }
    let opened = match request.uri().authority() {
        Some(authority) => streams.open(&peer, authority.as_str()).await,
        None => Err(StatusCode::BAD_REQUEST),
    };
    let mut response = Response::new(streams::empty());
    match opened {
        Err(status) => *response.status_mut() = status,
        Ok(tunnel) => hyper::rt::Executor::execute(&tasks, async move {
            match hyper::upgrade::on(request).await {
                Ok(io) => tunnel(ByteStream::accepted(io)).await,
                Err(error) => debug!(%error, "a byte stream was given up before it opened"),
            }
        }),
    }
    response
}

fn builder(tasks: Tasks) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(tasks);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(streams::STREAM_WINDOW)
        .initial_connection_window_size(streams::CONNECTION_WINDOW)
        .max_concurrent_streams(streams::STREAMS)
        .max_pending_accept_reset_streams(streams::RESETS)
        .max_local_error_reset_streams(None)
        .max_header_list_size(streams::HEADERS)
        .keep_alive_interval(link::PING)
        .keep_alive_timeout(streams::PING_TIMEOUT);
    builder
}
