//! What the tests of the targets share: an exchange made by hand, and bodies.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};

use super::exchange::{Body, Exchange, Target};
use super::id::Id;
use super::path::Path;

/// Header fields, in this order.
pub fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

/// A request over TLS from 198.51.100.7 to portal.example.
pub fn exchange(method: &str, target: &str, fields: &[(&str, &str)]) -> Exchange {
    let mut request = http::Request::builder()
        .method(method)
        .uri(target)
        .header("host", "Portal.example:443");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (request, ()) = request.body(()).expect("a request").into_parts();
    Exchange {
        path: Path::parse(request.uri.path()).expect("a path"),
        request,
        peer: "[::ffff:198.51.100.7]:50000".parse().expect("address"),
        local: "192.0.2.1:443".parse().expect("address"),
        tls: Some("TLSv1.3"),
        is_secure: true,
        is_hop: false,
        host: "portal.example".into(),
        id: Id::parse("0123456789abcdef").expect("an id"),
        started: Instant::now(),
        target: Target::None,
    }
}

pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// What was read at once, and whoever counts such buffers.
struct Buffer(Vec<u8>, #[allow(dead_code)] Arc<()>);

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// `crumb` of each number below `count`.
pub fn crumbs(count: usize) -> Vec<u8> {
    (0..count).map(crumb).collect()
}

/// The same as a body of single bytes, each in a buffer of its own. While the body stands, it has `buffers`, and each buffer has.
pub fn crumbled(count: usize, buffers: &Arc<()>) -> Body {
    let buffers = buffers.clone();
    let frames = (0..count).map(move |number| {
        let buffer = Buffer(vec![crumb(number); 8192], buffers.clone());
        Ok(Frame::data(Bytes::from_owner(buffer).slice(..1)))
    });
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

fn crumb(number: usize) -> u8 {
    u8::try_from(number % 251).expect("small")
}

/// The whole body, for bodies of tests.
pub async fn read(body: Body) -> Result<Bytes, super::Error> {
    body.collect().await.map(|collected| collected.to_bytes())
}

/// Holds for every future that a connection's task awaits.
pub fn sendable<F: Future + Send>(future: F) -> F {
    future
}
