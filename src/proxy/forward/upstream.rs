//! `Upstream`: one request over one connection, and what to do when that one dies.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::uri::{Scheme, Uri};
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::body::{Answer, Upload, Watch};
use super::pool::{Connection, Pool};
use super::rewrite::{head, response};
use crate::base::Scope;
use crate::net::tls::Connector;
use crate::proxy::error::{Error, Kind};
use crate::proxy::exchange::{Body, Exchange};
use crate::proxy::leaving::Leaving;
use crate::proxy::websocket;

/// One upstream server.
pub struct Upstream {
    pool: Arc<Pool>,
    silence: Duration,
    scope: Scope,
    leaving: Arc<Leaving>,
    /// It learns who asks, and how.
    is_told: bool,
}

/// Why a request got no answer.
struct Failure {
    error: Error,
    /// The request, when nothing of it was sent.
    unsent: Option<Request<Upload>>,
    /// The connection broke, so another one may do better.
    is_broken: bool,
}

/// Whoever asks for a WebSocket, and where it reached us.
struct Client {
    local: IpAddr,
    upgrade: OnUpgrade,
}

impl Upstream {
    /// `upstream`: `http://host:port`, without path. `silence`: longest time without a sign of life while we wait for it.
    /// Connections and WebSocket tunnels live in `scope`; a tunnel ends with the address that its client reached. Fails on another form of address, or when a name is given and the system has no resolver.
    pub fn new(upstream: &str, silence: Duration, scope: Scope, leaving: Arc<Leaving>) -> anyhow::Result<Upstream> {
        let uri: Uri = upstream
            .parse()
            .with_context(|| format!("read the upstream {upstream}"))?;
        if uri.scheme() != Some(&Scheme::HTTP) || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            bail!("the upstream {upstream} is not http://host:port");
        }
        let host = uri
            .host()
            .with_context(|| format!("the upstream {upstream} has no host"))?;
        let pool = Pool::new(host, uri.port_u16().unwrap_or(80), None, scope.clone())?;
        Ok(Self::over(pool, silence, scope, leaving))
    }

    /// A store of objects, by TLS or plain. It is somebody else's, and not told who asks.
    pub fn store(
        host: &str,
        port: u16,
        tls: Option<Connector>,
        silence: Duration,
        scope: Scope,
        leaving: Arc<Leaving>,
    ) -> anyhow::Result<Upstream> {
        let pool = Pool::new(host, port, tls, scope.clone())?;
        Ok(Upstream {
            is_told: false,
            ..Self::over(pool, silence, scope, leaving)
        })
    }

    /// A module of this node, behind its unix socket.
    pub fn local(socket: &Path, silence: Duration, scope: Scope, leaving: Arc<Leaving>) -> Upstream {
        Self::over(Pool::local(socket, scope.clone()), silence, scope, leaving)
    }

    fn over(pool: Pool, silence: Duration, scope: Scope, leaving: Arc<Leaving>) -> Upstream {
        Upstream {
            pool: Arc::new(pool),
            silence,
            scope,
            leaving,
            is_told: true,
        }
    }

    /// Passes a request on. Resolves with the head of the answer; the body streams.
    /// Takes hyper's `OnUpgrade` out of the request's extensions when it asks for a WebSocket.
    /// Dropping the future or the answer's body closes the connection to the upstream.
    pub async fn call(&self, exchange: &mut Exchange, body: Body) -> Result<Response<Body>, Error> {
        let is_bodiless = body.is_end_stream();
        let may_run_twice = is_bodiless && exchange.request.method.is_idempotent();
        let client = websocket::is_asked(&exchange.request)
            .then(|| exchange.request.extensions.remove::<OnUpgrade>())
            .flatten();
        let local = exchange.local.ip();
        let client = client.map(|upgrade| Client { local, upgrade });
        let is_upgrade = client.is_some();
        // With more to send, the upstream may answer and the client be slow to take that while it still sends.
        let is_alone = is_bodiless && !is_upgrade;
        let (upload, watch) = Upload::new(body);
        let mut request = head(exchange, is_upgrade, self.is_told).map(|()| upload);
        if let Some(connection) = self.pool.idle().await {
            match self.send(connection, request, &watch, is_alone).await {
                Ok((answer, connection)) => return self.answer(answer, connection, watch, client),
                Err(failure) if failure.is_broken => match failure.unsent {
                    Some(unsent) => request = unsent,
                    None if may_run_twice => {
                        request = head(exchange, is_upgrade, self.is_told).map(|()| Upload::new(empty()).0)
                    }
                    None => return Err(failure.error),
                },
                Err(failure) => return Err(failure.error),
            }
        }
        // In a box: it is seldom, and every request would have room for it.
        let connection = Box::pin(self.pool.connect(self.silence)).await?;
        let sent = self.send(connection, request, &watch, is_alone).await;
        let (answer, connection) = sent.map_err(|failure| failure.error)?;
        self.answer(answer, connection, watch, client)
    }

    /// Sends over one connection and waits for the head of the answer. `is_alone`: a head, and no more.
    async fn send(
        &self,
        mut connection: Connection,
        request: Request<Upload>,
        watch: &Watch,
        is_alone: bool,
    ) -> Result<(Response<Incoming>, Connection), Failure> {
        connection.silence.broken();
        if !is_alone {
            connection.motor.let_go(&self.scope);
        }
        let answer = {
            let Connection {
                sender, motor, silence, ..
            } = &mut connection;
            let mut answer = pin!(sender.try_send_request(request));
            poll_fn(|cx| {
                if let Poll::Ready(answer) = motor.drive(cx, |cx| answer.as_mut().poll(cx)) {
                    return Poll::Ready(Some(answer));
                }
                // Looked at again at the latest when the timer fires.
                if watch.moved() || watch.waits_for_client() {
                    silence.broken();
                }
                ready!(silence.poll_over(cx));
                Poll::Ready(None)
            })
            .await
        };
        match answer {
            Some(Ok(answer)) => Ok((answer, connection)),
            Some(Err(mut failed)) => Err(Failure {
                unsent: failed.take_message(),
                is_broken: failed.error().is_incomplete_message()
                    || failed.error().is_canceled()
                    || is_io(failed.error()),
                error: watch.failure().unwrap_or_else(|| broken(failed.error())),
            }),
            None => Err(Failure {
                error: Error::new(Kind::UpstreamSlow, "the upstream is silent"),
                unsent: None,
                is_broken: false,
            }),
        }
    }

    fn answer(
        &self,
        mut answer: Response<Incoming>,
        connection: Connection,
        watch: Arc<Watch>,
        client: Option<Client>,
    ) -> Result<Response<Body>, Error> {
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(Client { local, upgrade }) = client.filter(|_| websocket::is_agreed(answer.headers())) else {
                return Err(Error::new(
                    Kind::Upstream,
                    "the upstream switches to a protocol that was not asked for",
                ));
            };
            let upstream = hyper::upgrade::on(&mut answer);
            websocket::tunnel(&self.scope, self.leaving.clone(), local, upgrade, upstream);
            return Ok(response(answer.map(|_| empty()), true));
        }
        let body = |incoming| Answer::new(incoming, connection, self.pool.clone(), watch).boxed_unsync();
        Ok(response(answer.map(body), false))
    }
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn is_io(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

pub fn broken(error: &hyper::Error) -> Error {
    Error::new(
        Kind::Upstream,
        format!("the upstream broke off: {}", crate::base::error::chain(error)),
    )
}
