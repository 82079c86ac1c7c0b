//! HTTP/2 that an HTTP/1 server behind the front would read as something else, were it passed on: none of it gets there.

use bitrix_node::base::Service;
use tokio::net::TcpStream;

use crate::support::front::{Front, eventually};
use crate::support::http2::{Came, ask};
use crate::support::tls;

type Field = (&'static str, &'static str);

/// Of a valid request.
const PSEUDO: [Field; 4] = [
    (":method", "POST"),
    (":scheme", "https"),
    (":authority", "portal.example"),
    (":path", "/app/wait"),
];

/// Another request, for whoever takes a line end in a field for one.
const HIDDEN: &str = "a\r\n\r\nGET /app/wait HTTP/1.1\r\nHost: portal.example\r\n\r\n";

/// A request with these fields behind the valid ones.
fn with(fields: &[Field]) -> Vec<Field> {
    [&PSEUDO, fields].concat()
}

/// A request with another pseudo-field in the place of its own.
fn instead(name: &'static str, value: &'static str) -> Vec<Field> {
    PSEUDO
        .map(|field| if field.0 == name { (name, value) } else { field })
        .into()
}

fn fields() -> Vec<(&'static str, Vec<Field>)> {
    vec![
        ("TE chunked", with(&[("transfer-encoding", "chunked")])),
        ("TE identity", with(&[("transfer-encoding", "identity")])),
        ("connection", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "timeout=5")])),
        ("proxy-connection", with(&[("proxy-connection", "keep-alive")])),
        ("upgrade", with(&[("upgrade", "h2c")])),
        ("te gzip", with(&[("te", "gzip")])),
        ("upper case", with(&[("X-Upper", "a")])),
        ("upper case TE", with(&[("Transfer-Encoding", "chunked")])),
        ("value with CR LF", with(&[("x", "a\r\ntransfer-encoding: chunked")])),
        ("value with LF", with(&[("x", "a\ntransfer-encoding: chunked")])),
        ("value with CR", with(&[("x", "a\rtransfer-encoding: chunked")])),
        ("value with NUL", with(&[("x", "a\0b")])),
        ("value with a request", with(&[("x", HIDDEN)])),
        ("name with CR LF", with(&[("x: a\r\ntransfer-encoding", "chunked")])),
        ("name with a colon", with(&[("transfer-encoding: chunked\r\nx", "a")])),
        ("name with a colon alone", with(&[("x:y", "a")])),
        ("name with a space", with(&[("transfer-encoding ", "chunked")])),
        ("name with NUL", with(&[("x\0", "a")])),
        ("no name", with(&[("", "a")])),
        ("unknown pseudo-field", with(&[(":x", "a")])),
        ("pseudo-field of answers", with(&[(":status", "200")])),
        ("two methods", with(&[(":method", "GET")])),
        ("two paths", with(&[(":path", "/app/echo")])),
        ("two authorities", with(&[(":authority", "other.example")])),
        ("pseudo-field behind a field", [&[("x", "a")], &PSEUDO[..]].concat()),
        ("another host", with(&[("host", "other.example")])),
        (
            "two hosts",
            with(&[("host", "portal.example"), ("host", "other.example")]),
        ),
        ("no method", PSEUDO[1..].to_vec()),
        ("no path", PSEUDO[..3].to_vec()),
        ("empty path", instead(":path", "")),
        ("path without a slash", instead(":path", "app/wait")),
        ("path with a space", instead(":path", "/app/wait HTTP/1.1")),
        ("path with CR LF", instead(":path", "/app/wait HTTP/1.1\r\nx: a")),
        ("path with a request", instead(":path", HIDDEN)),
        (
            "path of another host",
            instead(":path", "http://other.example/app/wait"),
        ),
        ("method with a space", instead(":method", "POST /app/wait")),
        (
            "method with CR LF",
            instead(":method", "POST / HTTP/1.1\r\nx: a\r\n\r\nGET"),
        ),
        ("empty method", instead(":method", "")),
        ("authority with CR LF", instead(":authority", "portal.example\r\nx: a")),
        ("authority with userinfo", instead(":authority", "a@portal.example")),
        ("authority with a slash", instead(":authority", "portal.example/a")),
        ("empty authority", instead(":authority", "")),
        (
            "scheme with a request",
            instead(":scheme", "https://portal.example/ HTTP/1.1\r\n"),
        ),
        ("two lengths", with(&[("content-length", "5"), ("content-length", "6")])),
        ("list of lengths", with(&[("content-length", "5, 5")])),
        ("length with a sign", with(&[("content-length", "+5")])),
        (
            "length beyond 64 bits",
            with(&[("content-length", "18446744073709551621")]),
        ),
        ("empty length", with(&[("content-length", "")])),
    ]
}

/// Lengths that are not those of the body of five bytes.
const LENGTHS: [Field; 4] = [
    ("content-length", "4"),
    ("content-length", "6"),
    ("content-length", "0"),
    ("content-length", "05000000000"),
];

async fn came(front: &Front, fields: &[Field], body: Option<&[u8]>) -> Came {
    let stream = TcpStream::connect(front.https).await.unwrap();
    let chain = front.folder.path().join("tls/portal.crt");
    let stream = tls::connect(stream, &chain, &[b"h2"]).await;
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    ask(stream, &fields, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_http1_would_misread_is_refused_on_http2() {
    let front = Front::start("").await;
    for (name, fields) in fields() {
        let came = came(&front, &fields, Some(b"01234")).await;
        assert_ne!(came, Came::Ok, "{name}");
    }
    assert_eq!(
        front.upstream.arrived.available_permits(),
        0,
        "none of them was passed on"
    );
    front.upstream.gate.add_permits(1);
    assert_eq!(came(&front, &PSEUDO, Some(b"01234")).await, Came::Ok);
    assert_eq!(front.upstream.arrived.available_permits(), 1);
    // What no server is ever sent is dropped before anything is decided, and not passed on.
    front.upstream.gate.add_permits(1);
    let with_fragment = instead(":path", "/app/wait#a");
    assert_eq!(came(&front, &with_fragment, Some(b"01234")).await, Came::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_on_http2_have_the_length_that_they_announce() {
    let front = Front::start("").await;
    for length in LENGTHS {
        let fields = [&[(":path", "/app/echo")], &PSEUDO[..3], &[length]].concat();
        let came = came(&front, &fields, Some(b"01234")).await;
        assert_ne!(came, Came::Ok, "{length:?}");
    }
    let announced = [&PSEUDO[..3], &[(":path", "/app/echo"), ("content-length", "5")]].concat();
    assert_eq!(came(&front, &announced, None).await, Came::Reset);
    assert_eq!(came(&front, &announced, Some(b"01234")).await, Came::Ok);
    // Connections to the upstream are sound: the next request gets its own answer.
    for number in 0..8 {
        let text = format!("{number:05}");
        assert_eq!(came(&front, &announced, Some(text.as_bytes())).await, Came::Ok);
    }
    eventually("all are gone", || {
        front.proxy.status().detail.contains(", 0 connections")
    })
    .await;
}
