//! HTTP/3 of the web front over real sockets: requests, bodies, limits, misuse, drain, certificates.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bitrix_node::base::Scope;
use bitrix_node::base::service::Service;
use bitrix_node::net::tls::self_signed;
use bytes::{Buf, Bytes};
use futures_util::future::join_all;
use h3::error::Code;
use quinn::ConnectionError;
use tokio::time::timeout;

use crate::support::front::{Front, PATIENCE, eventually};
use crate::support::http3::{Answer, Client, get, post};

struct Bed {
    front: Front,
    scope: Scope,
}

impl Bed {
    async fn start(extra: &str) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), extra).await
    }

    async fn start_at(ip: IpAddr, extra: &str) -> Self {
        Bed {
            front: Front::start_at(ip, &format!("http3 = true\n{extra}")).await,
            scope: Scope::new(),
        }
    }

    async fn connect(&self) -> Result<Client, ConnectionError> {
        let chain = self.front.folder.path().join("tls/portal.crt");
        timeout(PATIENCE, Client::connect(self.front.https, &chain, &self.scope))
            .await
            .expect("in time")
    }

    async fn client(&self) -> Client {
        self.connect().await.unwrap()
    }

    async fn metric(&self, line: &str) {
        eventually(line, || self.front.proxy.metrics().contains(line)).await;
    }
}

/// The connection's end, as the client sees it.
async fn end(client: &Client) -> ConnectionError {
    timeout(PATIENCE, client.quic.closed()).await.expect("closed in time")
}

fn code(end: &ConnectionError) -> u64 {
    match end {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_spoken_over_ipv6() {
    let bed = Bed::start_at(Ipv6Addr::LOCALHOST.into(), "").await;
    let answer = bed.client().await.get("/a.txt?six").await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, "text of a".into()), "{answer:?}");
    let line = bed.front.logged("/a.txt?six").await;
    assert!(line.starts_with("::1 ") && line.contains("HTTP/3.0"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http3_is_offered_over_tls_and_spoken() {
    let bed = Bed::start("").await;
    let client = bed.client().await;
    let answer = client.get("/a.txt?q").await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, "text of a".into()), "{answer:?}");
    assert_eq!(answer.header("content-length"), "9");
    assert_eq!(answer.header("server"), "bitrix-node");
    assert!(answer.header("date").ends_with(" GMT"), "{answer:?}");
    let offer = format!("h3=\":{}\"; ma=86400", bed.front.https.port());
    assert_eq!(answer.header("alt-svc"), offer);
    let line = bed.front.logged("/a.txt?q").await;
    assert!(line.contains("\"GET /a.txt?q HTTP/3.0\" 200 9 "), "{line}");
    assert!(line.ends_with(" static TLSv1.3 - \"-\""), "{line}");
    assert_eq!(client.get("/.git/x").await.unwrap().status, 404);
    assert_eq!(client.get("/..%2fx").await.unwrap().status, 400);
    let request = http::Request::get("https://portal.example/app/fields")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(());
    let fields = client.send(request.unwrap(), Bytes::new()).await.unwrap().text();
    assert!(
        fields.contains("portal.example") && fields.contains("a=1; b=2"),
        "{fields}"
    );
    assert!(!fields.contains("transfer-encoding"), "a GET has no body: {fields}");
    let head = http::Request::head("https://portal.example/a.txt").body(()).unwrap();
    let head = client.send(head, Bytes::new()).await.unwrap();
    assert_eq!(
        (head.status, head.header("content-length"), head.text().as_str()),
        (200, "9", "")
    );
    bed.metric("bitrix_proxy_connections_opened_total{version=\"3\"} 1")
        .await;
    bed.metric("bitrix_proxy_requests_received_total{version=\"3\"} 5")
        .await;
    let plain = bed
        .front
        .exchange(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert!(!plain.contains("alt-svc"), "{plain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_unchanged_with_and_without_a_length() {
    let bed = Bed::start("").await;
    let client = bed.client().await;
    let body: Bytes = (0u32..5 << 19).flat_map(u32::to_le_bytes).collect();
    for build in [
        post("/app/echo").header("content-length", body.len()),
        post("/app/echo"),
    ] {
        let sent = client.send(build.body(()).unwrap(), body.clone());
        let answer = timeout(PATIENCE, sent).await.unwrap().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.body == body, "{} bytes", answer.body.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_share_a_connection() {
    let bed = Bed::start("").await;
    let client = bed.client().await;
    let answers = join_all((0..1000).map(|_| client.get("/a.txt")));
    let answers: Vec<Answer> = timeout(PATIENCE, answers)
        .await
        .expect("in time")
        .into_iter()
        .map(|answer| answer.unwrap())
        .collect();
    assert!(answers.iter().all(|answer| answer.text() == "text of a"));
    bed.metric("bitrix_proxy_connections_opened_total{version=\"3\"} 1")
        .await;
    assert!(bed.front.proxy.status().detail.contains(", 1 connections"));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_headers_hold() {
    let bed = Bed::start("").await;
    let client = bed.client().await;
    let with = |name: &str, value: String| {
        let request = http::Request::get("https://portal.example/a.txt").header(name, value);
        request.body(()).unwrap()
    };
    let below = client.send(with("x", "x".repeat(64_000)), Bytes::new()).await.unwrap();
    assert_eq!(below.status, 200);
    let above = client.send(with("x", "x".repeat(70_000)), Bytes::new()).await.unwrap();
    assert_eq!(above.status, 431);
    let mut many = http::Request::get("https://portal.example/a.txt");
    for _ in 0..101 {
        many = many.header("x", "y");
    }
    let many = client.send(many.body(()).unwrap(), Bytes::new()).await.unwrap();
    assert_eq!(many.status, 431);
    // A header of which nobody will see the end: type HEADERS, a length of 1 GiB less one, and a megabyte of it.
    let (mut send, _receive) = client.quic.open_bi().await.unwrap();
    send.write_all(&[0x01, 0xbf, 0xff, 0xff, 0xff]).await.unwrap();
    let _ = send.write_all(&vec![b'x'; 1 << 20]).await;
    let stopped = timeout(PATIENCE, send.stopped()).await.expect("in time");
    let stopped = stopped.unwrap().map(quinn::VarInt::into_inner);
    assert_eq!(stopped, Some(Code::H3_EXCESSIVE_LOAD.value()));
    assert_eq!(client.get("/a.txt").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_not_what_was_announced_are_refused() {
    let bed = Bed::start("").await;
    let client = bed.client().await;
    for (announced, sent) in [("10", 9), ("10", 11)] {
        let request = post("/app/wait").header("content-length", announced).body(()).unwrap();
        let answer = client.send(request, Bytes::from(vec![b'x'; sent])).await.unwrap();
        assert_eq!(answer.status, 400, "{announced} {sent}");
    }
    for (name, value) in [
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("content-length", "+1"),
        ("te", "chunked"),
    ] {
        let request = post("/app/echo").header(name, value).body(()).unwrap();
        let refused = client.send(request, Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(refused.status, 400, "{name}");
    }
    assert_eq!(client.get("/a.txt").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_bodies_hold() {
    let bed = Bed::start("max_body_size = \"1KiB\"\nbody_timeout = \"300ms\"").await;
    let client = bed.client().await;
    let large = client.send(post("/app/wait").body(()).unwrap(), Bytes::from(vec![b'x'; 2000]));
    assert_eq!(timeout(PATIENCE, large).await.unwrap().unwrap().status, 413);
    let announced = post("/app/wait").header("content-length", "2000").body(()).unwrap();
    let announced = client.send(announced, Bytes::from(vec![b'x'; 2000]));
    assert_eq!(timeout(PATIENCE, announced).await.unwrap().unwrap().status, 413);
    let mut slow = client.begin(post("/app/wait").body(()).unwrap()).await.unwrap();
    slow.send_data(Bytes::from_static(b"0123456789")).await.unwrap();
    let answer = timeout(PATIENCE, slow.recv_response()).await.unwrap().unwrap();
    assert_eq!(answer.status(), 408);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_cut() {
    let bed = Bed::start("body_timeout = \"300ms\"").await;
    let chain = bed.front.folder.path().join("tls/portal.crt");
    let client = Client::with_window(bed.front.https, &chain, &bed.scope, Some(64 << 10));
    let client = client.await.unwrap();
    let mut stream = client.begin(get("/app/flood")).await.unwrap();
    stream.finish().await.unwrap();
    assert_eq!(stream.recv_response().await.unwrap().status(), 200);
    let line = bed.front.logged("/app/flood").await;
    assert!(
        line.ends_with("\"the client left before the end of the answer\""),
        "{line}"
    );
    end(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_closed() {
    let bed = Bed::start("idle_timeout = \"300ms\"").await;
    let client = bed.client().await;
    assert_eq!(client.get("/a.txt").await.unwrap().status, 200);
    assert_eq!(code(&end(&client).await), Code::H3_NO_ERROR.value());
    eventually("it is forgotten", || {
        bed.front.proxy.status().detail.contains(", 0 connections")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_given_up_is_logged_as_499() {
    let bed = Bed::start("").await;
    let client = bed.client().await;
    let mut stream = client.begin(get("/app/wait?given-up")).await.unwrap();
    stream.finish().await.unwrap();
    bed.front.upstream.arrived.acquire().await.unwrap().forget();
    stream.stop_sending(Code::H3_REQUEST_CANCELLED);
    let line = bed.front.logged("/app/wait?given-up").await;
    assert!(line.contains(" 499 0 ") && line.contains(" upstream "), "{line}");
    assert_eq!(client.get("/a.txt").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_resets_ends_the_connection() {
    let bed = Bed::start("").await;
    let client = bed.client().await;
    let mut begun = 0;
    let flood = async {
        loop {
            let Ok(mut stream) = client.begin(get("/app/wait")).await else {
                break;
            };
            begun += 1;
            stream.stop_stream(Code::H3_REQUEST_CANCELLED);
            stream.stop_sending(Code::H3_REQUEST_CANCELLED);
        }
    };
    timeout(PATIENCE, flood).await.expect("cut in time");
    assert_eq!(code(&end(&client).await), Code::H3_EXCESSIVE_LOAD.value());
    assert!((100..2000).contains(&begun), "{begun} requests");
    bed.metric("bitrix_proxy_refused_total{reason=\"resets\"} 1").await;
    assert_eq!(bed.client().await.get("/a.txt").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_so_many_connections() {
    let bed = Bed::start("max_connections_per_address = 2").await;
    let (first, _second) = (bed.client().await, bed.client().await);
    assert!(bed.connect().await.is_err(), "the third one is refused");
    bed.metric("bitrix_proxy_refused_total{reason=\"address\"} 1").await;
    first.quic.close(0u32.into(), b"");
    eventually("one is gone", || {
        bed.front.proxy.status().detail.contains(", 1 connections")
    })
    .await;
    assert_eq!(bed.client().await.get("/a.txt").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_finishes_requests_and_sends_new_clients_away() {
    let bed = Bed::start("").await;
    let (busy, idle) = (bed.client().await, bed.client().await);
    assert_eq!(idle.get("/a.txt").await.unwrap().status, 200);
    let mut waiting = busy.begin(get("/app/wait")).await.unwrap();
    waiting.finish().await.unwrap();
    bed.front.upstream.arrived.acquire().await.unwrap().forget();
    bed.front.scope.drain();
    assert_eq!(code(&end(&idle).await), Code::H3_NO_ERROR.value());
    assert!(bed.connect().await.is_err(), "a draining front takes nobody");
    bed.front.upstream.gate.add_permits(1);
    assert_eq!(waiting.recv_response().await.unwrap().status(), 200);
    let mut body = waiting.recv_data().await.unwrap().unwrap();
    assert_eq!(body.copy_to_bytes(body.remaining()), "waited");
    assert_eq!(code(&end(&busy).await), Code::H3_NO_ERROR.value());
    assert!(bed.front.scope.stop(PATIENCE).await, "something did not end by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_the_front_drains() {
    let bed = Bed::start("").await;
    let clients: Vec<Client> = join_all((0..8).map(|_| bed.client())).await;
    let drain = Arc::new(tokio::sync::Barrier::new(9));
    let asking = clients.iter().map(|client| {
        let drain = drain.clone();
        async move {
            let mut answered = 0;
            loop {
                if answered == 20 {
                    drain.wait().await;
                }
                match client.begin(get("/a.txt")).await {
                    // It was told not to ask any more.
                    Err(_) => return answered,
                    Ok(mut stream) => {
                        stream.finish().await.unwrap();
                        assert_eq!(stream.recv_response().await.unwrap().status(), 200);
                        let mut body = stream.recv_data().await.unwrap().unwrap();
                        assert_eq!(body.copy_to_bytes(body.remaining()), "text of a");
                        answered += 1;
                    }
                }
            }
        }
    });
    let draining = async {
        drain.wait().await;
        bed.front.scope.drain();
    };
    let all = timeout(PATIENCE, async { tokio::join!(join_all(asking), draining) });
    let (answered, ()) = all.await.expect("all were told");
    assert!(answered.iter().all(|count| *count >= 20), "{answered:?}");
    assert!(bed.front.scope.stop(PATIENCE).await, "something did not end by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_certificates_are_shown_and_connections_stay() {
    let bed = Bed::start("").await;
    let before = bed.client().await;
    let (chain, key) = self_signed(vec!["portal.example".into()]).unwrap();
    std::fs::write(bed.front.folder.path().join("tls/portal.crt"), chain).unwrap();
    std::fs::write(bed.front.folder.path().join("tls/portal.key"), key).unwrap();
    bed.front.proxy.reload();
    // It trusts the new one alone.
    assert_eq!(bed.client().await.get("/a.txt").await.unwrap().status, 200);
    assert_eq!(before.get("/a.txt").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_turns_it_off() {
    let bed = Bed::start("").await;
    let before = bed.client().await;
    bed.front.reconfigure("http3 = false", "");
    let answer = before.get("/a.txt").await.unwrap();
    assert_eq!((answer.status, answer.header("alt-svc")), (200, "clear"));
    assert!(bed.connect().await.is_err(), "nobody is let in any more");
    bed.front.reconfigure("http3 = true", "");
    assert_eq!(bed.client().await.get("/a.txt").await.unwrap().status, 200);
}
