//! Requests over HTTP: which path is for whom, and what is answered. Two doors: clients come through the front, over a unix socket;
//! the portal comes over loopback and is trusted.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1::{self, UpgradeableConnection};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use super::desk::Desk;
use super::line::Line;
use super::message::BODY_MAX;
use super::metrics::Transport;
use super::publish::By;
use super::query::Query;
use super::refusal::Refusal;
use super::socket::{self, Session};
use super::visitor::Visitor;
use super::{poll, upgrade};
use crate::base::{Scope, clock};
use crate::net::last_chance::{mark_last, serve_to_last_chance};

/// For a client to send its request.
const PATIENCE: Duration = Duration::from_secs(20);
/// Head of a request: a hundred signed channels, percent-encoded, are 15 KiB.
const HEAD: usize = 64 << 10;
/// How long the portal's message is kept that does not say so.
const MESSAGE_EXPIRY: HeaderName = HeaderName::from_static("message-expiry");
/// In seconds, for those who are refused for what will pass.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

pub type Answer = Response<Full<Bytes>>;

/// Whom a door lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    Clients,
    Portal,
}

/// What each connection needs.
#[derive(Clone)]
pub struct Door {
    pub desk: Arc<Desk>,
    pub open_to: For,
    /// WebSockets that may be open.
    pub seats: Arc<Semaphore>,
    pub scope: Scope,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Listen,
    ListenOptions,
    PublishAsClient,
    Publish,
    Online,
    Calls,
    Stat,
}

/// Paths end with or without a slash.
fn place(open_to: For, method: &Method, path: &str) -> Option<Place> {
    let path = path.strip_suffix('/').unwrap_or(path);
    match (open_to, path, method.as_str()) {
        (For::Clients, "/bitrix/sub" | "/bitrix/subws", "GET") => Some(Place::Listen),
        (For::Clients, "/bitrix/sub" | "/bitrix/subws", "OPTIONS") => Some(Place::ListenOptions),
        (For::Clients, "/bitrix/rest", "POST") => Some(Place::PublishAsClient),
        (For::Portal, "/bitrix/pub", "POST") => Some(Place::Publish),
        (For::Portal, "/bitrix/pub", "GET") => Some(Place::Online),
        (For::Portal, "/bitrix/api", "POST") => Some(Place::Calls),
        (For::Portal, "/server-stat", "GET") => Some(Place::Stat),
        _ => None,
    }
}

impl Door {
    /// Serves one connection to its end.
    pub async fn serve<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let scope = self.scope.clone();
        let door = Arc::new(self);
        let service = service_fn(move |request| {
            let door = door.clone();
            async move {
                let mut answer = door.answer::<S>(request).await;
                mark_last(&mut answer, &door.scope);
                Ok::<_, Infallible>(answer)
            }
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(HEAD);
        let serving = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        if let Err(error) = serve_to_last_chance(serving, UpgradeableConnection::graceful_shutdown, &scope).await {
            debug!(%error, "a connection broke off");
        }
    }

    async fn answer<S>(&self, request: Request<Incoming>) -> Answer
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let Some(place) = place(self.open_to, request.method(), request.uri().path()) else {
            return with_origin(plain(StatusCode::NOT_FOUND, "there is nothing here"));
        };
        let answer = match place {
            Place::Listen => return with_origin(self.listen::<S>(&query, request).await),
            Place::ListenOptions => return poll::options(),
            // Boxed: a long poll, which waits here for long, shall not be as large as these.
            Place::PublishAsClient => Box::pin(self.publish_as_client(&query, request)).await.map(with_origin),
            Place::Publish => Box::pin(self.publish(&query, request)).await,
            Place::Online => self.online(&query),
            Place::Calls => Box::pin(self.calls(&query, request)).await,
            Place::Stat => Ok(json(self.desk.stat())),
        };
        answer.unwrap_or_else(|failure| self.fail(failure))
    }

    async fn listen<S>(&self, query: &Query, request: Request<Incoming>) -> Answer
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if query.has_callback {
            self.desk.metrics.refused("callback");
            return plain(StatusCode::BAD_REQUEST, "callback is not supported");
        }
        let visitor = Visitor::recognise(query, &self.desk.key, clock::unix().as_secs());
        if upgrade::is_asked(&request) {
            return self.switch::<S>(visitor, request);
        }
        match visitor {
            Ok(visitor) => poll::wait(&self.desk, visitor, &self.scope).await,
            Err(refusal) => self.fail(Failure::Refused(refusal)),
        }
    }

    /// Agrees to become a WebSocket even where the client is refused: only there can it read why.
    fn switch<S>(&self, visitor: Result<Visitor, Refusal>, mut request: Request<Incoming>) -> Answer
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let agreed = match upgrade::agree(request.headers()) {
            Ok(agreed) => agreed,
            Err(status) => {
                self.desk.metrics.refused("handshake");
                return plain(status, "not a WebSocket of version 13");
            }
        };
        let Ok(seat) = self.seats.clone().try_acquire_owned() else {
            self.desk.metrics.refused("full");
            return plain(StatusCode::SERVICE_UNAVAILABLE, "too many connections");
        };
        let (desk, scope) = (self.desk.clone(), self.scope.clone());
        let upgraded = hyper::upgrade::on(&mut request);
        self.scope.spawn(async move {
            let Some(line) = switched::<S>(upgraded).await else {
                return;
            };
            match visitor {
                Ok(Visitor {
                    dialect,
                    wanted,
                    sender,
                }) => {
                    let _listening = desk.metrics.listens(Transport::WebSocket);
                    let subscription = desk.hub.subscribe(wanted);
                    let mut session = Session::new(line, subscription, desk, dialect, sender);
                    let end = session.run(scope).await;
                    Box::pin(session.leave(end)).await;
                }
                Err(refusal) => {
                    desk.metrics.refused_with(refusal);
                    Box::pin(socket::refuse(line, refusal)).await;
                }
            }
            drop(seat);
        });
        agreed.map(|()| Full::default())
    }

    async fn publish_as_client(&self, query: &Query, request: Request<Incoming>) -> Result<Answer, Failure> {
        let visitor = Visitor::recognise(query, &self.desk.key, clock::unix().as_secs())?;
        let sender = visitor.sender.ok_or(Refusal::NoPublicChannel)?;
        let body = read(request).await?;
        let answer = self.desk.binary(body, By::Client(sender)).await?;
        Ok(octets(answer.unwrap_or_default()))
    }

    async fn publish(&self, query: &Query, request: Request<Incoming>) -> Result<Answer, Failure> {
        let expiry = expiry(request.headers());
        let body = read(request).await?;
        if query.is_binary {
            let answer = self.desk.binary(body, By::Portal).await?;
            return Ok(octets(answer.unwrap_or_default()));
        }
        let text = String::from_utf8(body.into()).map_err(|_| Refusal::WrongData)?;
        let channels = query.channels.as_deref().unwrap_or_default();
        self.desk.text(channels, text, expiry).await?;
        Ok(plain(StatusCode::OK, ""))
    }

    fn online(&self, query: &Query) -> Result<Answer, Failure> {
        let channels = query.channels.as_deref().unwrap_or_default();
        Ok(json(self.desk.online(channels)?))
    }

    async fn calls(&self, query: &Query, request: Request<Incoming>) -> Result<Answer, Failure> {
        let body = read(request).await?;
        let signature = query.signature.as_deref().unwrap_or_default();
        if !self.desk.key.has_signed_body(&body, signature) {
            return Err(Failure::Refused(Refusal::WrongBodySignature));
        }
        let text = std::str::from_utf8(&body).map_err(|_| Refusal::BadJson)?;
        let answer = self.desk.calls(text, By::Portal, None).await;
        // The portal wants JSON even where it asked nothing.
        Ok(json(answer.unwrap_or_else(|| "[]".into())))
    }

    fn fail(&self, failure: Failure) -> Answer {
        match failure {
            Failure::Refused(refusal) => {
                self.desk.metrics.refused_with(refusal);
                with_origin(plain(refusal.status(), &refusal.to_string()))
            }
            Failure::TooLarge => {
                self.desk.metrics.refused("too_large");
                closing(plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"))
            }
            Failure::TooSlow => {
                self.desk.metrics.refused("too_slow");
                closing(plain(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))
            }
        }
    }
}

/// The stream itself, when the answer has been written. What HTTP held for it is gone then.
async fn switched<S>(upgraded: OnUpgrade) -> Option<Line<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let parts = upgraded.await.ok()?.downcast::<TokioIo<S>>();
    let parts = parts.map_err(|_| ()).expect("it is the stream that is served");
    Some(Line::new(parts.io.into_inner(), &parts.read_buf))
}

/// Why a request is not carried out.
#[derive(Debug)]
enum Failure {
    Refused(Refusal),
    TooLarge,
    /// Or broken off, which nobody will read.
    TooSlow,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::Refused(refusal)
    }
}

/// The whole body, in bounded time and size. Copied piece by piece: each would keep the buffer that it was read into.
async fn read(request: Request<Incoming>) -> Result<Bytes, Failure> {
    let mut body = Limited::new(request.into_body(), BODY_MAX);
    let whole = async {
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await.transpose()? {
            if let Some(piece) = frame.data_ref() {
                whole.extend_from_slice(piece);
            }
        }
        Ok::<_, Box<dyn Error + Send + Sync>>(whole.freeze())
    };
    match timeout(PATIENCE, whole).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Failure::TooLarge),
        Ok(Err(_)) | Err(_) => Err(Failure::TooSlow),
    }
}

/// Missing or unreadable: for those present only.
fn expiry(headers: &HeaderMap) -> u32 {
    let value = headers.get(MESSAGE_EXPIRY).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

pub fn plain(status: StatusCode, text: &str) -> Answer {
    typed(status, "text/plain; charset=utf-8", text.to_owned())
}

fn json(text: String) -> Answer {
    typed(StatusCode::OK, "application/json", text)
}

fn octets(bytes: Vec<u8>) -> Answer {
    typed(StatusCode::OK, "application/octet-stream", bytes)
}

pub fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    answer
}

/// Pages of any origin may read it: who may listen is decided by signatures.
pub fn with_origin(mut answer: Answer) -> Answer {
    let any = HeaderValue::from_static("*");
    answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
    answer
}

fn closing(mut answer: Answer) -> Answer {
    let close = HeaderValue::from_static("close");
    answer.headers_mut().insert(header::CONNECTION, close);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_do_not_reach_the_portals_paths() {
        for path in ["/bitrix/pub/", "/bitrix/pub", "/bitrix/api/", "/server-stat/"] {
            for method in [Method::GET, Method::POST] {
                assert_eq!(place(For::Clients, &method, path), None, "{method} {path}");
            }
        }
        assert_eq!(place(For::Portal, &Method::POST, "/bitrix/pub/"), Some(Place::Publish));
        assert_eq!(place(For::Portal, &Method::GET, "/bitrix/pub"), Some(Place::Online));
        assert_eq!(place(For::Portal, &Method::GET, "/bitrix/subws/"), None);
        assert_eq!(place(For::Clients, &Method::GET, "/bitrix/subws/"), Some(Place::Listen));
        assert_eq!(place(For::Clients, &Method::POST, "/bitrix/sub/"), None);
    }

    #[test]
    fn only_what_will_pass_is_to_be_asked_again() {
        for (refusal, after) in [
            (Refusal::Unavailable, Some(&RETRY_AFTER)),
            (Refusal::WrongChannel, None),
        ] {
            let answer = plain(refusal.status(), "");
            assert_eq!(answer.headers().get(header::RETRY_AFTER), after);
        }
    }

    #[test]
    fn expiry_is_read_leniently() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(MESSAGE_EXPIRY, HeaderValue::from_static(value));
            expiry(&headers)
        };
        assert_eq!((with("86400"), with(" 5"), with("x"), with("-1")), (86400, 5, 0, 0));
        assert_eq!(expiry(&HeaderMap::new()), 0);
    }
}
