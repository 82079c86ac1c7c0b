//! Clients that take their time: every wait of the web front has an end.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use crate::support::front::{Front, statuses};

const GET: &str = "GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n";

/// Long enough to tell apart from at once, short enough to wait for.
const SHORT: &str = "header_timeout = \"300ms\"\nidle_timeout = \"600ms\"\nbody_timeout = \"300ms\"";

fn took(started: Instant, at_least: u64) {
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(at_least), "closed after {took:?}");
    assert!(took < Duration::from_millis(at_least * 10), "closed after {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_header_gets_408_however_it_trickles() {
    let front = Front::start(SHORT).await;
    let mut client = front.connect().await;
    let started = Instant::now();
    let (read, mut write) = client.stream.into_split();
    let trickle = async {
        for byte in "GET /a.txt HTTP/1.1\r\nX: ".bytes().chain(std::iter::repeat(b'x')) {
            if write.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let answer = async {
        read.readable().await.unwrap();
        let mut bytes = [0; 1024];
        let count = read.try_read(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    let answer = tokio::select! {
        answer = answer => answer,
        () = trickle => panic!("cut before the answer"),
    };
    assert_eq!(statuses(&answer), [408], "{answer}");
    took(started, 300);
    client = front.connect().await;
    client.send("GET /a.txt HTTP/1.1\r\n").await;
    assert_eq!(statuses(&client.read_to_end().await), [408]);
    front.logged("\"GET /a.txt HTTP/1.1\" 408").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_are_closed_without_a_word() {
    let front = Front::start(SHORT).await;
    let started = Instant::now();
    assert_eq!(front.connect().await.read_to_end().await, "");
    took(started, 300);
    let mut client = front.connect().await;
    client.send(GET).await;
    client.read_until("text of a").await;
    let started = Instant::now();
    assert_eq!(client.read_to_end().await, "");
    took(started, 550);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_is_not_an_idle_client() {
    let front = Front::start(SHORT).await;
    let mut client = front.connect().await;
    client
        .send("GET /app/wait HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    front.upstream.arrived.acquire().await.unwrap().forget();
    // Not to wait for anything, but because time itself is what must not matter here.
    tokio::time::sleep(Duration::from_millis(900)).await;
    front.upstream.gate.add_permits(1);
    assert_eq!(statuses(&client.read_to_end().await), [200]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_gets_408() {
    let front = Front::start(SHORT).await;
    for framing in [
        "Content-Length: 10\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nab",
    ] {
        let mut client = front.connect().await;
        let started = Instant::now();
        client
            .send(format!("POST /app/wait HTTP/1.1\r\nHost: a\r\n{framing}"))
            .await;
        let answer = client.read_to_end().await;
        assert_eq!(statuses(&answer), [408], "{answer}");
        took(started, 300);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_cut() {
    let front = Front::start(SHORT).await;
    let mut client = front.connect().await;
    client.send("GET /app/flood HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let line = front.logged("/app/flood").await;
    assert!(
        line.contains(" 200 ") && line.ends_with("\"the client left before the end of the answer\""),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_handshake_has_an_end() {
    let front = Front::start(SHORT).await;
    let started = Instant::now();
    let mut stream = tokio::net::TcpStream::connect(front.https).await.unwrap();
    let mut bytes = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes)
        .await
        .unwrap();
    assert!(bytes.is_empty());
    took(started, 300);
}
