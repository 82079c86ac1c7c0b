//! `Upstream` against servers made by hand, and a WebSocket through a real front of hyper.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Request;
use http::header::HeaderName;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::base::Scope;
use crate::proxy::error::{Error, Kind};
use crate::proxy::exchange::Body;
use crate::proxy::fixture::{empty, exchange, full, read};

struct World {
    listener: TcpListener,
    upstream: Upstream,
    scope: Scope,
}

impl World {
    async fn new() -> World {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address");
        let scope = Scope::new();
        let upstream = Upstream::new(
            &format!("http://{address}"),
            Duration::from_secs(20),
            scope.clone(),
            Arc::default(),
        );
        World {
            listener,
            upstream: upstream.expect("an upstream"),
            scope,
        }
    }

    async fn accept(&self) -> Peer {
        let (stream, _) = self.listener.accept().await.expect("accepted");
        Peer { stream }
    }

    async fn ask(&self, method: &str, body: Body) -> Result<Bytes, Error> {
        let response = self.upstream.call(&mut exchange(method, "/a?b", &[]), body).await?;
        read(response.into_body()).await
    }
}

struct Peer {
    stream: TcpStream,
}

impl Peer {
    /// Reads up to and with these bytes.
    async fn until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            match self.stream.read_u8().await {
                Ok(byte) => text.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8(text).expect("text")
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("sent");
    }
}

#[tokio::test]
async fn head_is_rewritten_both_ways() {
    let world = World::new().await;
    let fields = [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
        ("connection", "x-hop, keep-alive"),
        ("x-hop", "1"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("accept", "*/*"),
    ];
    let serve = async {
        let mut peer = world.accept().await;
        let request = peer.until("\r\n\r\n").await;
        peer.send("HTTP/1.1 418 Teapot\r\nKeep-Alive: 5\r\nConnection: x-b\r\nX-B: 1\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 2\r\n\r\nhi").await;
        request
    };
    let mut exchange = exchange("GET", "/a/%2e/b?c=%20", &fields);
    let (request, response) = tokio::join!(serve, world.upstream.call(&mut exchange, empty()));
    let mut lines: Vec<&str> = request.trim_end().lines().collect();
    lines[1..].sort_unstable();
    assert_eq!(
        lines,
        [
            "GET /a/%2e/b?c=%20 HTTP/1.1",
            "accept: */*",
            "cookie: a=1; b=2",
            "host: Portal.example:443",
            "x-forwarded-for: 198.51.100.7",
            "x-forwarded-host: Portal.example:443",
            "x-forwarded-proto: https",
            "x-real-ip: 198.51.100.7",
            "x-request-id: 0123456789abcdef",
        ]
    );
    let (parts, body) = response.expect("answered").into_parts();
    assert_eq!(parts.status, 418);
    let mut names: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "x-a"]);
    assert_eq!(parts.headers.get_all("x-a").iter().count(), 2);
    assert_eq!(read(body).await.expect("whole"), "hi");
}

#[tokio::test]
async fn connection_is_used_again_and_replaced_when_it_died() {
    let world = World::new().await;
    let answer = |text: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    let serve = async {
        let mut peer = world.accept().await;
        for text in ["one", "two"] {
            peer.until("\r\n\r\n").await;
            peer.send(&answer(text)).await;
        }
        // Reads the third request and dies.
        peer.until("\r\n\r\n").await;
        drop(peer);
        let mut peer = world.accept().await;
        peer.until("\r\n\r\n").await;
        peer.send(&answer("three")).await;
        // The same with a request that may have run.
        peer.until("body").await;
    };
    let ask = async {
        for expected in ["one", "two", "three"] {
            assert_eq!(world.ask("GET", empty()).await.expect("answered"), expected);
        }
        let error = world.ask("POST", full("body")).await.expect_err("not repeated");
        assert_eq!(error.kind, Kind::Upstream);
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn one_connection_serves_every_kind_of_request() {
    let world = World::new().await;
    let serve = async {
        let mut peer = world.accept().await;
        for (end, answer) in [
            (
                "\r\n\r\n",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n",
            ),
            ("\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"),
            ("body", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nthree"),
            (
                "\r\n\r\n",
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour",
            ),
            (
                "body",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfive\r\n0\r\n\r\n",
            ),
        ] {
            peer.until(end).await;
            peer.send(answer).await;
        }
    };
    let ask = async {
        for (method, body, expected) in [
            ("GET", empty(), "one"),
            ("GET", empty(), ""),
            ("POST", full("body"), "three"),
            ("GET", empty(), "four"),
            ("POST", full("body"), "five"),
        ] {
            assert_eq!(world.ask(method, body).await.expect("answered"), expected);
        }
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn broken_answers_are_the_upstreams_fault() {
    for text in [
        "",
        "HTTP/1.1 200",
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
        "HTTP/1.1 101 Switching\r\n\r\n",
    ] {
        let world = World::new().await;
        let serve = async {
            let mut peer = world.accept().await;
            peer.until("\r\n\r\n").await;
            peer.send(text).await;
        };
        let ((), answer) = tokio::join!(serve, world.ask("GET", empty()));
        assert_eq!(answer.expect_err("broken").kind, Kind::Upstream, "{text}");
    }
}

#[tokio::test]
async fn absent_upstream_is_unavailable_and_strange_addresses_are_refused() {
    let World {
        listener,
        upstream,
        scope,
    } = World::new().await;
    drop(listener);
    let error = upstream
        .call(&mut exchange("GET", "/", &[]), empty())
        .await
        .expect_err("refused");
    assert_eq!(error.kind, Kind::Unavailable);
    for address in ["https://a:1", "http://a:1/path", "a", "http://a:1/?q", ""] {
        assert!(
            Upstream::new(address, Duration::ZERO, scope.clone(), Arc::default()).is_err(),
            "{address}"
        );
    }
}

#[tokio::test]
async fn upstream_may_have_a_name() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("address").port();
    let upstream = Upstream::new(
        &format!("http://localhost:{port}"),
        Duration::from_secs(20),
        Scope::new(),
        Arc::default(),
    );
    let upstream = upstream.expect("an upstream");
    let serve = async {
        let (stream, _) = listener.accept().await.expect("accepted");
        let mut peer = Peer { stream };
        peer.until("\r\n\r\n").await;
        peer.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    };
    let mut exchange = exchange("GET", "/", &[]);
    let ((), answer) = tokio::join!(serve, upstream.call(&mut exchange, empty()));
    assert_eq!(answer.expect("answered").status(), 204);
}

#[tokio::test]
async fn silence_is_told_from_a_slow_client() {
    let world = World::new().await;
    let serve = async {
        let mut peer = world.accept().await;
        peer.until("last").await;
        let request_read = tokio::time::Instant::now();
        // The rest of the upload, then nothing but the close.
        peer.until("never").await;
        request_read.elapsed()
    };
    let slow = stream::once(async {
        tokio::time::sleep(Duration::from_secs(100)).await;
        Ok(Frame::data(Bytes::from_static(b"last")))
    });
    let ask = async {
        // Connections are made by the system's clock.
        let mut exchange = exchange("POST", "/", &[("content-length", "4")]);
        let body = StreamBody::new(slow).boxed_unsync();
        let call = world.upstream.call(&mut exchange, body);
        tokio::time::pause();
        call.await.expect_err("silent").kind
    };
    let (waited, kind) = tokio::join!(serve, ask);
    assert_eq!(kind, Kind::UpstreamSlow);
    assert!((20..=40).contains(&waited.as_secs()), "{waited:?}");
}

#[tokio::test]
async fn clients_error_stays_the_clients() {
    let world = World::new().await;
    let failing = stream::iter([Err(Error::new(Kind::TooLarge, "too much"))]);
    let mut exchange = exchange("POST", "/", &[("content-length", "9")]);
    let call = world
        .upstream
        .call(&mut exchange, StreamBody::new(failing).boxed_unsync());
    let (_peer, answer) = tokio::join!(world.accept(), call);
    assert_eq!(answer.expect_err("failed").kind, Kind::TooLarge);
}

/// A front of hyper that passes each request to the upstream.
async fn front(upstream: Arc<Upstream>, scope: &Scope) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("address");
    scope.spawn(async move {
        let (stream, _) = listener.accept().await.expect("accepted");
        let service = service_fn(move |request: Request<Incoming>| {
            let upstream = upstream.clone();
            async move {
                let (parts, body) = request.into_parts();
                let mut exchange = exchange("GET", "/", &[]);
                exchange.request = parts;
                let body = body.map_err(|_| Error::new(Kind::ClientGone, "gone")).boxed_unsync();
                upstream.call(&mut exchange, body).await
            }
        });
        let server = hyper::server::conn::http1::Builder::new();
        // The client closes when it has seen enough.
        let _ = server
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
    });
    address
}

#[tokio::test]
async fn websocket_passes_and_ends_with_the_drain() {
    let World {
        listener,
        upstream,
        scope,
    } = World::new().await;
    let address = front(Arc::new(upstream), &scope).await;
    let serve = async {
        let (stream, _) = listener.accept().await.expect("accepted");
        let mut peer = Peer { stream };
        let request = peer.until("\r\n\r\n").await;
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: key\r\n\r\nhello").await;
        assert_eq!(peer.until("ping").await, "ping");
        peer.send("pong").await;
        (request, peer)
    };
    let ask = async {
        let stream = TcpStream::connect(address).await.expect("connected");
        let mut client = Peer { stream };
        client.send("GET /subws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n").await;
        let head = client.until("\r\n\r\n").await;
        assert_eq!(client.until("hello").await, "hello");
        client.send("ping").await;
        assert_eq!(client.until("pong").await, "pong");
        (head, client)
    };
    let ((request, _upstream), (head, mut client)) = tokio::join!(serve, ask);
    for line in ["connection: upgrade", "upgrade: websocket", "sec-websocket-key: k"] {
        assert!(request.contains(&format!("\r\n{line}\r\n")), "{line} in {request}");
    }
    for line in [
        "HTTP/1.1 101",
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-accept: key\r\n",
    ] {
        assert!(head.contains(line), "{line} in {head}");
    }
    tokio::time::pause();
    let (ended, rest) = tokio::join!(scope.stop(Duration::from_secs(60)), client.until("more"));
    assert!(ended && rest.is_empty(), "the tunnel ends by itself");
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_drain() {
    let world = World::new().await;
    let serve = async {
        let mut peer = world.accept().await;
        peer.until("\r\n\r\n").await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        peer
    };
    let (_peer, answer) = tokio::join!(serve, world.ask("GET", empty()));
    answer.expect("answered");
    assert!(world.scope.stop(Duration::from_secs(20)).await);
}
