//! A request to another node's front, over the mesh: HTTP/2, both bodies streamed.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::uri::Uri;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use super::hop::{self, Hop, Load};
use super::target::Target;
use crate::base::error::chain;
use crate::net::mesh::{self, CallError, Peer};
use crate::proxy::error::{Error, Kind};
use crate::proxy::exchange::{Body, Exchange, FromFile};
use crate::proxy::forward::{Upload, Watch};
use crate::proxy::headers::{is_fronts_own, strip_hop_by_hop};
use crate::proxy::silence::Silence;

/// Nothing is sent before there is a connection, so another target may be tried soon.
const CONNECT: Duration = Duration::from_millis(500);

/// The other front watches its PHP, and tells of its silence; we wait a little longer for its word.
const SPARE: Duration = Duration::from_secs(5);

/// Beyond what any request takes; the silence ends it before.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What a head on the mesh may have (`net::mesh`), less the field that we add.
const HEAD: usize = 63 << 10;

/// Of each field, by HTTP/2's way to count (RFC 9113 §6.5.2).
const FIELD: usize = 32;

/// Whether the mesh takes a request's head.
pub fn carries(exchange: &Exchange) -> bool {
    let parts = &exchange.request;
    let fields: usize = parts
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + FIELD)
        .sum();
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    fields + target + 8 * FIELD < HEAD
}

/// Sends a request and waits for the head of the answer. Dropping the future or the answer's body ends it over there, too.
pub async fn call(
    peer: &Peer,
    target: &Arc<Target>,
    exchange: &Exchange,
    body: Body,
    silence: Duration,
) -> Result<Response<Body>, Error> {
    let (upload, watch) = Upload::new(body);
    let request = head(exchange).map(|()| upload.map_err(mesh::BoxError::from).boxed_unsync());
    let answer = send(peer, request, &watch, silence + SPARE).await;
    let answer = answer.map_err(|error| watch.failure().unwrap_or(error))?;
    let node = peer.node().as_str();
    let Some(load) = Load::read(answer.headers()) else {
        return Err(Error::new(
            Kind::Upstream,
            format!("{node} does not answer like a front"),
        ));
    };
    target.reported(load);
    if let Some(fault) = hop::read_fault(answer.headers(), node) {
        return Err(fault);
    }
    let (parts, body) = answer.into_parts();
    let body = Answer {
        body,
        node: peer.node().clone(),
        watch,
        silence: Silence::new(silence + SPARE),
        is_over: false,
    };
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = parts.status;
    if hop::is_file(&parts.headers) {
        response.extensions_mut().insert(FromFile);
    }
    *response.headers_mut() = end_to_end(parts.headers);
    Ok(response)
}

async fn send(
    peer: &Peer,
    request: Request<mesh::Body>,
    watch: &Watch,
    silence: Duration,
) -> Result<Response<mesh::Body>, Error> {
    let node = peer.node();
    let mut silence = Silence::new(silence);
    let mut answer = pin!(peer.request_soon(request, CONNECT, LONGEST));
    let answer = poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(Some(answer));
        }
        // Looked at again at the latest when the timer fires.
        if watch.moved() || watch.waits_for_client() {
            silence.broken();
        }
        ready!(silence.poll_over(cx));
        Poll::Ready(None)
    })
    .await;
    match answer {
        Some(Ok(answer)) => Ok(answer),
        Some(Err(error @ CallError::NotSent(_))) => {
            Err(Error::new(Kind::Unavailable, format!("{node}: {error}")).unsent())
        }
        Some(Err(error)) => Err(Error::new(Kind::Upstream, format!("{node}: {error}"))),
        None => Err(Error::new(Kind::UpstreamSlow, format!("{node} is silent"))),
    }
}

/// The request's head as the other front shall see it.
fn head(exchange: &Exchange) -> Request<()> {
    let mut headers = exchange.request.headers.clone();
    strip_hop_by_hop(&mut headers);
    let dropped: Vec<_> = headers.keys().filter(|name| is_fronts_own(name)).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
    // This front has met the expectation.
    headers.remove(EXPECT);
    let hop = Hop {
        id: exchange.id,
        client: exchange.peer,
        reached: exchange.local,
        tls: exchange.tls,
        is_secure: exchange.is_secure,
        version: exchange.request.version,
    };
    hop.write(&mut headers);
    let mut request = Request::new(());
    *request.method_mut() = exchange.request.method.clone();
    let target = exchange.request.uri.path_and_query().cloned();
    *request.uri_mut() = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    *request.headers_mut() = headers;
    request
}

fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    strip_hop_by_hop(&mut headers);
    hop::strip(&mut headers);
    headers
}

/// An answer's body on its way to the client.
struct Answer {
    body: mesh::Body,
    node: mesh::Name,
    watch: Arc<Watch>,
    silence: Silence,
    is_over: bool,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            if self.watch.moved() || self.watch.waits_for_client() {
                self.silence.broken();
            }
            ready!(self.silence.poll_over(cx));
            self.is_over = true;
            let silent = Error::new(Kind::UpstreamSlow, format!("{} is silent", self.node));
            return Poll::Ready(Some(Err(silent)));
        };
        self.silence.broken();
        self.is_over = !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame.map(|frame| frame.map_err(|error| self.broken(&*error))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Answer {
    fn broken(&self, error: &(dyn std::error::Error + 'static)) -> Error {
        self.watch
            .failure()
            .unwrap_or_else(|| Error::new(Kind::Upstream, format!("{} broke off: {}", self.node, chain(error))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::fixture::exchange;

    #[test]
    fn head_tells_what_the_front_knows_and_nothing_that_the_client_says_of_it() {
        let fields = [
            ("x-forwarded-for", "1.2.3.4"),
            ("x-request-id", "forged"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("expect", "100-continue"),
            ("cookie", "a=1"),
        ];
        let request = head(&exchange("POST", "/a/in%64ex.php?q=%32", &fields));
        assert_eq!(request.uri(), "/a/in%64ex.php?q=%32");
        assert_eq!(request.method(), "POST");
        let mut names: Vec<_> = request.headers().keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["bn-hop", "cookie", "host"]);
        let hop = Hop::read(request.headers()).expect("whole");
        assert_eq!(hop.id.as_str(), "0123456789abcdef");
        assert_eq!(hop.client.ip().to_canonical().to_string(), "198.51.100.7");
        assert_eq!((hop.tls, hop.version), (Some("TLSv1.3"), http::Version::HTTP_11));
    }

    #[test]
    fn what_the_mesh_cannot_carry_is_known_beforehand() {
        assert!(carries(&exchange("GET", "/", &[("cookie", &"x".repeat(60 << 10))])));
        assert!(!carries(&exchange("GET", "/", &[("cookie", &"x".repeat(63 << 10))])));
        let target = format!("/{}", "x".repeat(63 << 10));
        assert!(!carries(&exchange("GET", &target, &[])));
    }
}
