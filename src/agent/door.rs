//! The doors of the agent, both HTTP: the control socket, which its file mode guards,
//! and the admin port (HTTPS), where a request must bear the token of `secrets/admin.token`.

use std::convert::Infallible;
use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tracing::debug;

use super::board::Board;
use super::inquiry::Inquiry;
use crate::base::Scope;
use crate::config::Config;
use crate::net::last_chance::{mark_last, serve_to_last_chance};
use crate::net::serve::serve;
use crate::net::tls::Certificate;

/// Operators and a few scrapers.
const CONNECTIONS: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves the control socket until the scope drains.
pub fn control(listener: StdUnixListener, source: Source, scope: &Scope) -> anyhow::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = scope.clone();
    scope.spawn(serve(listener, permits, scope.clone(), move |stream, _| {
        converse(
            stream,
            Door {
                source: source.clone(),
                token: None,
            },
            connections.clone(),
        )
    }));
    Ok(())
}

/// Serves the admin port until the scope drains. Returns what it shows, to be read again when the files change.
pub fn admin(
    listener: StdTcpListener,
    config: &Config,
    source: Source,
    scope: &Scope,
) -> anyhow::Result<Arc<Certificate>> {
    let (chain, key) = config.certificate();
    let certificate = Certificate::read(&chain, &key)?;
    let acceptor = certificate.acceptor(&[b"http/1.1"]);
    let token = config.secrets().join("admin.token");
    let token = std::fs::read_to_string(&token).with_context(|| token.display().to_string())?;
    let token: Arc<str> = format!("Bearer {}", token.trim()).into();
    let listener = TcpListener::from_std(listener)?;
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = scope.clone();
    scope.spawn(serve(listener, permits, scope.clone(), move |stream, peer| {
        let door = Door {
            source: source.clone(),
            token: Some(token.clone()),
        };
        let (acceptor, scope) = (acceptor.clone(), connections.clone());
        async move {
            match tokio::time::timeout(HEADER_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => converse(stream, door, scope).await,
                Ok(Err(error)) => debug!(client.addr = %peer, %error, "TLS handshake failed"),
                Err(_) => debug!(client.addr = %peer, "TLS handshake took too long"),
            }
        }
    }));
    Ok(certificate)
}

/// Where answers come from.
#[derive(Clone)]
pub struct Source {
    pub board: Arc<Board>,
    pub inquiry: Arc<Inquiry>,
}

#[derive(Clone)]
struct Door {
    source: Source,
    /// Whole value of the Authorization field that is let in; `None`: the socket's file mode decided already.
    token: Option<Arc<str>>,
}

async fn converse<S>(stream: S, door: Door, scope: Scope)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let (door, scope) = (door.clone(), scope.clone());
        async move {
            let mut answer = door.answer(&request).await;
            mark_last(&mut answer, &scope);
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serve_to_last_chance(connection, http1::Connection::graceful_shutdown, &scope).await {
        debug!(%error, "connection ended");
    }
}

impl Door {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !self.lets_in(request) {
            let mut refused = text(StatusCode::UNAUTHORIZED, "text/plain", "a bearer token is needed\n");
            refused
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return refused;
        }
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/v1/status") => {
                let overview = serde_json::to_string(&self.source.board.overview()).expect("plain data");
                text(StatusCode::OK, "application/json", overview)
            }
            (&Method::GET, "/v1/cluster") => {
                let cluster = self.source.inquiry.cluster().await;
                let cluster = serde_json::to_string(&cluster).expect("plain data");
                text(StatusCode::OK, "application/json", cluster)
            }
            (&Method::GET, "/v1/ports") => {
                let ports = serde_json::to_string(&self.source.inquiry.ports().await).expect("plain data");
                text(StatusCode::OK, "application/json", ports)
            }
            (&Method::GET, "/metrics") => text(StatusCode::OK, OPEN_METRICS, self.source.board.metrics()),
            (_, "/v1/status" | "/v1/cluster" | "/v1/ports" | "/metrics") => {
                text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "use GET\n")
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "text/plain",
                "there are /v1/status, /v1/cluster, /v1/ports and /metrics\n",
            ),
        }
    }

    fn lets_in(&self, request: &Request<Incoming>) -> bool {
        let Some(token) = &self.token else { return true };
        let shown = request
            .headers()
            .get(AUTHORIZATION)
            .map(HeaderValue::as_bytes)
            .unwrap_or_default();
        shown.ct_eq(token.as_bytes()).into()
    }
}

fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
