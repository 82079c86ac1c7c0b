//! Connections: accept → limit → PROXY protocol → TLS → HTTP/1 behind the guard, or HTTP/2. HTTP/2 is spoken over TLS only.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::Version;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, error};

use super::connection::Connection;
use super::error::Kind;
use super::guard::Guard;
use super::limit::Permit;
use super::origin::preface;
use super::service::{Front, Requests, isolated};
use super::watch::{End, Watch, last_chance};
use super::{access_log, answer};
use crate::base::Scope;
use crate::net::serve::serve;
use crate::net::tls::{self, TlsAcceptor, TlsStream};

/// Protocols offered in the TLS handshake, most wanted first.
pub const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// How long and how far a connection that is turned away is listened to, so that it can read why.
const FAREWELL: Duration = Duration::from_secs(1);
const FAREWELL_BYTES: u64 = 64 << 10;

/// Connections being turned away at once. Beyond, they are closed without a word.
const FAREWELLS: usize = 64;

/// Streams of one connection of HTTP/2 or 3: what browsers use at most, and nginx' own bound.
pub const STREAMS: u32 = 128;

/// Streams that a client may open and reset before they are served: HTTP/2 rapid reset (CVE-2023-44487).
const RESETS: usize = 32;
/// Streams that it may make us reset by breaking the protocol.
const FAULTS: usize = 128;

/// What one stream may have waiting for a client that takes nothing: with all streams 8 MiB a connection, not the 50 of hyper's default.
const STREAM_BUFFER: usize = 64 << 10;

/// A silent client of HTTP/2 or 3 is asked whether it still lives after this long, and gone when it does not answer within the second.
pub const PING_AFTER: Duration = Duration::from_secs(20);
pub const PING_ANSWER: Duration = Duration::from_secs(10);

/// hyper's own default for one connection's read buffer; a header limit beyond it needs more.
const READ_BUFFER: usize = (8 << 10) + (400 << 10);

/// Field lines that hyper reads without a heap allocation.
const FEW_FIELDS: usize = 100;

/// Accepts on one socket until the scope drains.
pub async fn accept(front: Arc<Front>, listener: TcpListener, tls: Option<TlsAcceptor>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let scope = front.scope.clone();
    let farewells = Arc::new(Semaphore::new(FAREWELLS));
    let handle = move |stream, peer| {
        let door = Door {
            front: front.clone(),
            tls: tls.clone(),
            farewells: farewells.clone(),
        };
        async move {
            let served = isolated(door.receive(stream, peer), &door.front.metrics.panics).await;
            if served.is_none() {
                error!(client.addr = %peer, "a connection panicked");
            }
        }
    };
    // `limit` counts connections, and answers those that are too many; nobody waits here.
    let permits = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
    serve(listener, permits, scope, handle).await;
    Ok(())
}

struct Door {
    front: Arc<Front>,
    tls: Option<TlsAcceptor>,
    farewells: Arc<Semaphore>,
}

impl Door {
    async fn receive(&self, mut stream: TcpStream, peer: SocketAddr) {
        let setup = self.front.setup();
        // Behind a trusted proxy are many clients.
        let counted = (!setup.trust.has(peer.ip())).then(|| peer.ip());
        let mut permit = match self.front.limit.admit(counted) {
            Ok(permit) => permit,
            Err(kind) => return self.turn_away(stream, peer.ip(), kind).await,
        };
        let mut client = peer;
        if setup.trust.announces(peer.ip()) {
            let Some(announced) = self.announced(&mut stream, peer, setup.patience.header).await else {
                return self.front.metrics.refused_announcement();
            };
            client = announced.unwrap_or(peer);
            let is_proxy = setup.trust.has(client.ip());
            if let Some(Err(kind)) = (!is_proxy).then(|| permit.charge(client.ip())) {
                return self.turn_away(stream, client.ip(), kind).await;
            }
        }
        drop(setup);
        let peer = client;
        let Ok(local) = stream.local_addr() else { return };
        // The sockets of the supervisor have this set and hand it on; others may not.
        let _ = stream.set_nodelay(true);
        let Some(acceptor) = &self.tls else {
            return self.http1(stream, Connection::new(peer, local, None), permit).await;
        };
        let patience = self.front.setup().patience.header;
        match timeout(patience, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let connection = Connection::new(peer, local, Some(tls::version(&stream)));
                let protocol = stream.get_ref().1.alpn_protocol();
                if protocol == Some(tls::CHALLENGE) {
                    // It has seen the certificate, and says nothing (RFC 8737 §3).
                } else if protocol == Some(b"h2") {
                    self.http2(stream, connection, permit).await;
                } else {
                    self.http1(stream, connection, permit).await;
                }
            }
            Ok(Err(error)) => {
                debug!(client.addr = %peer, %error, "no TLS handshake");
                self.front.metrics.refused_handshake();
            }
            Err(_) => self.front.metrics.refused_handshake(),
        }
    }

    /// What a trusted proxy says of its client before anything else. `None`: nothing in time, or not that.
    async fn announced(
        &self,
        stream: &mut TcpStream,
        peer: SocketAddr,
        patience: Duration,
    ) -> Option<Option<SocketAddr>> {
        match timeout(patience, preface::receive(stream)).await {
            Ok(Ok(client)) => Some(client),
            Ok(Err(error)) => {
                debug!(client.addr = %peer, %error, "no PROXY protocol");
                None
            }
            Err(_) => None,
        }
    }

    async fn http1<S>(&self, stream: S, connection: Connection, permit: Permit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let setup = self.front.setup();
        let (limits, patience) = (setup.limits, setup.patience);
        drop(setup);
        let connection = Arc::new(connection);
        self.front.metrics.opened(Version::HTTP_11);
        let guard = Guard::new(stream, connection.clone(), limits, patience, permit);
        let mut builder = http1::Builder::new();
        // The guard has timers and limits of its own, and answers; hyper's would cut the connection without a word.
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_buf_size(READ_BUFFER.max(limits.size + READ_BUFFER / 2));
        if limits.fields > FEW_FIELDS {
            builder.max_headers(limits.fields);
        }
        let serving = builder.serve_connection(TokioIo::new(guard), self.requests(&connection));
        let mut serving = pin!(serving.with_upgrades());
        // Alone in there it is polled when it was woken, not each time that the connection moves: that would take several locks.
        let chance = std::iter::once(last_chance(&self.front, &connection));
        let mut chance: FuturesUnordered<_> = chance.collect();
        let result = tokio::select! {
            biased;
            result = serving.as_mut() => result,
            Some(chance) = chance.next() => tokio::select! {
                // The next answer says that it is the last one.
                result = serving.as_mut() => result,
                () = unasked(&connection, chance) => {
                    serving.as_mut().graceful_shutdown();
                    serving.await
                }
            }
        };
        ended(&connection, result);
    }

    async fn http2(&self, stream: TlsStream<TcpStream>, connection: Connection, _permit: Permit) {
        let setup = self.front.setup();
        let (limits, patience) = (setup.limits, setup.patience);
        drop(setup);
        let connection = Arc::new(connection);
        self.front.metrics.opened(Version::HTTP_2);
        let mut builder = http2::Builder::new(OnScope(self.front.scope.clone()));
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_pending_accept_reset_streams(RESETS)
            .max_local_error_reset_streams(FAULTS)
            .max_send_buf_size(STREAM_BUFFER)
            .max_header_list_size(u32::try_from(limits.size).unwrap_or(u32::MAX))
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_ANSWER);
        let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), self.requests(&connection)));
        let mut watch = Watch::new(connection.clone(), patience);
        let result = loop {
            tokio::select! {
                result = serving.as_mut() => break result,
                _ = last_chance(&self.front, &connection) => {
                    serving.as_mut().graceful_shutdown();
                    break serving.await;
                }
                end = watch.look() => match end {
                    None => {}
                    Some(End::Idle) => {
                        serving.as_mut().graceful_shutdown();
                        // A client that does not say goodbye either is left.
                        break timeout(patience.header, serving).await.unwrap_or(Ok(()));
                    }
                    Some(End::Stuck) => break Ok(()),
                },
            }
        };
        ended(&connection, result);
    }

    fn requests(&self, connection: &Arc<Connection>) -> Requests {
        Requests {
            front: self.front.clone(),
            connection: connection.clone(),
        }
    }

    /// A TLS client is closed without a word: the handshake is the work that the limit saves us.
    async fn turn_away(&self, mut stream: TcpStream, peer: IpAddr, kind: Kind) {
        self.front.metrics.refused(kind);
        if let Some(log) = &self.front.setup().log {
            log.write(&access_log::Line::turned_away(peer, answer::status(kind).as_u16()));
        }
        let (None, Ok(_seat)) = (&self.tls, self.farewells.try_acquire()) else {
            return;
        };
        let _ = timeout(FAREWELL, async {
            stream.write_all(answer::short(kind).as_bytes()).await?;
            stream.shutdown().await?;
            tokio::io::copy(&mut stream.take(FAREWELL_BYTES), &mut tokio::io::sink()).await
        })
        .await;
    }
}

/// Resolves when an HTTP/1 connection that must end was idle for a while. Closed at once it would cut a client that is
/// just asking: HTTP/1 has no word for it but in an answer.
async fn unasked(connection: &Connection, chance: Duration) {
    let begun = Instant::now();
    loop {
        let now = Instant::now();
        let idle = connection.idle_since(connection.begun());
        let end = idle.map_or(now, |since| since.max(begun)) + chance;
        if end <= now {
            return;
        }
        sleep_until(end).await;
    }
}

/// Runs the streams of HTTP/2 connections as tasks of the scope.
#[derive(Clone)]
struct OnScope(Scope);

impl<F> hyper::rt::Executor<F> for OnScope
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

fn ended(connection: &Connection, result: hyper::Result<()>) {
    if let Err(error) = result {
        debug!(client.addr = %connection.peer, %error, "a connection broke");
    }
}
