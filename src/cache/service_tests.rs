//! The service through its doors: order, limits, drain, numbers.

use std::io;
use std::time::Duration;

use memcache_async::ascii::Protocol;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::client_tests::{PATIENCE, Running};
use crate::base::service::Socket;
use crate::base::{Health, Service};
use crate::net::listen;

/// Sends and expects exactly that answer.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, request: &[u8], reply: &[u8]) {
    stream.write_all(request).await.expect("sent");
    expect(stream, reply).await;
}

async fn expect<S: AsyncRead + Unpin>(stream: &mut S, reply: &[u8]) {
    let mut got = vec![0; reply.len()];
    let read = timeout(PATIENCE, stream.read_exact(&mut got)).await.expect("in time");
    read.expect("as many bytes as expected");
    assert!(got == reply, "{} instead of {}", head(&got), head(reply));
}

fn head(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(200)
        .copied()
        .collect::<Vec<u8>>()
        .escape_ascii()
        .to_string()
}

#[tokio::test]
async fn pipelined_commands_are_answered_in_order() {
    let running = Running::start("");
    let mut stream = TcpStream::connect(running.address).await.expect("connected");
    let (mut requests, mut replies) = (Vec::new(), Vec::new());
    for number in 0..3000 {
        requests.extend(format!("set k{number} {number} 0 4\r\nabcd\r\nget k{number} none\r\n").bytes());
        replies.extend(format!("STORED\r\nVALUE k{number} {number} 4\r\nabcd\r\nEND\r\n").bytes());
    }
    let (mut reader, mut writer) = stream.split();
    let (sent, ()) = tokio::join!(writer.write_all(&requests), expect(&mut reader, &replies));
    sent.expect("sent");
    drop(stream);
    running.stop().await;
}

#[tokio::test]
async fn values_up_to_the_limit_pass_and_beyond_it_the_connection_lives() {
    let running = Running::start("[cache]\nmemory = \"64MiB\"\nmax_item_size = \"1MiB\"\n");
    let mut stream = TcpStream::connect(running.address).await.expect("connected");
    for (size, fits) in [
        ((1 << 20) - 200, true),
        ((1 << 20) - 1, false),
        (1 << 20, false),
        ((1 << 20) + 1, false),
    ] {
        let value: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
        let request = [format!("set big 3 0 {size}\r\n").as_bytes(), &value, b"\r\nget big\r\n"].concat();
        let hit = [
            format!("STORED\r\nVALUE big 3 {size}\r\n").as_bytes(),
            &value,
            b"\r\nEND\r\n",
        ]
        .concat();
        let reply = if fits {
            hit
        } else {
            b"SERVER_ERROR object too large for cache\r\nEND\r\n".to_vec()
        };
        exchange(&mut stream, &request, &reply).await;
    }
    drop(stream);
    running.stop().await;
}

#[tokio::test]
async fn client_that_reads_late_gets_everything() {
    let running = Running::start("");
    let mut stream = TcpStream::connect(running.address).await.expect("connected");
    let value = vec![b'v'; 500_000];
    let set = [b"set v 0 0 500000\r\n", &value[..], b"\r\n"].concat();
    exchange(&mut stream, &set, b"STORED\r\n").await;
    // 50 MB wait for a client that only writes; more than any socket buffer holds.
    stream.write_all(&b"get v\r\n".repeat(100)).await.expect("sent");
    let one = [b"VALUE v 0 500000\r\n", &value[..], b"\r\nEND\r\n"].concat();
    for _ in 0..100 {
        expect(&mut stream, &one).await;
    }
    drop(stream);
    running.stop().await;
}

#[tokio::test]
async fn unix_socket_serves_too() {
    let folder = tempfile::tempdir().expect("temp dir");
    let path = folder.path().join("cache.sock");
    let running = Running::on("", Socket::Unix(listen::unix(&path).expect("bound")));
    let mut stream = UnixStream::connect(&path).await.expect("connected");
    exchange(&mut stream, b"add a 0 0 1\r\n1\r\nincr a 1\r\n", b"STORED\r\n2\r\n").await;
    drop(stream);
    running.stop().await;
}

#[tokio::test]
async fn connection_beyond_the_limit_waits_for_one_to_leave() {
    let running = Running::start("[cache]\nmax_connections = 1\n");
    let mut first = TcpStream::connect(running.address).await.expect("connected");
    exchange(&mut first, b"mn\r\n", b"MN\r\n").await;
    let mut second = TcpStream::connect(running.address).await.expect("queued by the kernel");
    second.write_all(b"mn\r\n").await.expect("sent");
    let mut byte = [0];
    let early = timeout(Duration::from_millis(100), second.read(&mut byte)).await;
    assert!(early.is_err(), "nobody answers yet");
    drop(first);
    expect(&mut second, b"MN\r\n").await;
    exchange(&mut second, b"quit\r\n", b"").await;
    assert_eq!(second.read(&mut byte).await.expect("closed"), 0);
    running.stop().await;
}

#[tokio::test]
async fn drain_closes_idle_connections_and_lets_a_request_end() {
    let running = Running::start("");
    let mut idle = TcpStream::connect(running.address).await.expect("connected");
    let mut busy = TcpStream::connect(running.address).await.expect("connected");
    exchange(&mut idle, b"mn\r\n", b"MN\r\n").await;
    exchange(&mut busy, b"mn\r\nset a 0 0 10\r\n01234", b"MN\r\n").await;
    running.scope.drain();
    assert_eq!(idle.read(&mut [0]).await.expect("closed"), 0);
    exchange(&mut busy, b"56789\r\n", b"STORED\r\n").await;
    assert_eq!(busy.read(&mut [0]).await.expect("closed"), 0);
    running.stop().await;
}

#[tokio::test]
async fn broken_binary_packet_is_answered_before_the_connection_ends() {
    let running = Running::start("");
    let mut stream = TcpStream::connect(running.address).await.expect("connected");
    // GET without a key.
    let request = [&[0x80][..], &[0; 23]].concat();
    let reply = [
        &[0x81, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 17][..],
        &[0; 12],
        b"Invalid arguments",
    ]
    .concat();
    exchange(&mut stream, &request, &reply).await;
    assert_eq!(stream.read(&mut [0]).await.expect("closed"), 0);
    running.stop().await;
}

#[tokio::test]
async fn service_reports_what_it_did() {
    let running = Running::start("[cache]\nmemory = \"64MiB\"\n");
    assert_eq!(running.cache.status().health, Health::Good);
    let mut stream = TcpStream::connect(running.address).await.expect("connected");
    exchange(
        &mut stream,
        b"set a 0 0 1\r\n1\r\nget a\r\nget b\r\nget a\r\nget a\r\n",
        b"STORED\r\n",
    )
    .await;
    exchange(
        &mut stream,
        b"mn\r\n",
        b"VALUE a 0 1\r\n1\r\nEND\r\nEND\r\nVALUE a 0 1\r\n1\r\nEND\r\nVALUE a 0 1\r\n1\r\nEND\r\nMN\r\n",
    )
    .await;
    let detail = running.cache.status().detail;
    assert_eq!(detail, "1 item, 1 of 64 MiB, hit rate 75 %");
    let text = running.cache.metrics();
    for line in [
        "bitrix_cache_commands_total{kind=\"get\",result=\"hit\"} 3",
        "bitrix_cache_commands_total{kind=\"get\",result=\"miss\"} 1",
        "bitrix_cache_connections 1",
        "bitrix_cache_items 1",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    drop(stream);
    running.stop().await;
}

#[tokio::test]
async fn independent_client_agrees() -> io::Result<()> {
    let running = Running::start("");
    let mut client = Protocol::new(TcpStream::connect(running.address).await?);
    assert!(client.version().await?.contains("1.6.18"));
    // Its writes are sent noreply; the reads after them show that they were done, in order.
    client.set("key", b"value", 10).await?;
    client.append("key", b" and more").await?;
    assert_eq!(client.get("key").await?, b"value and more");
    client.set("number", b"41", 0).await?;
    assert_eq!(client.increment("number", 1).await?, 42);
    let found = client.get_multi(&["key", "missing", "number"]).await?;
    assert_eq!(found.len(), 2);
    let (_, unique) = client.gets_cas("key").await?;
    client.delete("key").await?;
    assert_eq!(
        client.get("key").await.expect_err("is gone").kind(),
        io::ErrorKind::NotFound
    );
    assert!(unique > 0);
    drop(client);
    running.stop().await;
    Ok(())
}
