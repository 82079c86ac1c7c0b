//! The guard alone, over a pipe: nothing is lost or reordered however bytes come and go, and every wait ends.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::super::hostile;
use super::*;

const LIMITS: Limits = Limits {
    size: 64 << 10,
    fields: 100,
};

const PATIENCE: Patience = Patience {
    header: Duration::from_secs(15),
    idle: Duration::from_secs(75),
    body: Duration::from_secs(60),
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A client, its guard behind a pipe of this size, and what the service would see.
fn pipe(size: usize) -> (DuplexStream, Guard<DuplexStream, ()>, Arc<Connection>) {
    let (client, server) = duplex(size);
    let address = SocketAddr::from(([127, 0, 0, 1], 80));
    let connection = Arc::new(Connection::new(address, address, None));
    let guard = Guard::new(server, connection.clone(), LIMITS, PATIENCE, ());
    (client, guard, connection)
}

/// Reads what comes, in steps of this size, up to the end of the stream.
async fn drain(guard: &mut Guard<DuplexStream, ()>, step: usize) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = vec![0; step];
    loop {
        match guard.read(&mut buffer).await? {
            0 => return Ok(all),
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
}

#[tokio::test]
async fn bytes_arrive_whole_whatever_the_pieces() {
    for (bytes, _) in hostile::valid("/a") {
        for (pieces, step) in [(1, 1), (1, 8192), (7, 3), (100_000, 1), (100_000, 8192)] {
            let (mut client, mut guard, connection) = pipe(pieces);
            // Whatever is held for its answer is declined at once.
            connection.settle(1, false);
            let send = async {
                client.write_all(&bytes).await.expect("the guard reads");
                drop(client);
            };
            let ((), read) = tokio::join!(send, drain(&mut guard, step));
            let read = read.expect("valid");
            assert_eq!(
                String::from_utf8_lossy(&read),
                String::from_utf8_lossy(&bytes),
                "{pieces} {step}"
            );
        }
    }
}

#[tokio::test]
async fn stand_in_takes_the_place_of_a_refused_head() {
    let (mut client, mut guard, connection) = pipe(1024);
    client
        .write_all(format!("{GET}GET /x y HTTP/1.1\r\n\r\n{GET}").as_bytes())
        .await
        .expect("room");
    let mut read = vec![0; GET.len() + STAND_IN.len()];
    guard.read_exact(&mut read).await.expect("both");
    assert_eq!(read, [GET.as_bytes(), STAND_IN].concat());
    let refused = connection.refused(2).expect("the second");
    assert_eq!(
        (refused.refusal.kind, refused.line.as_str()),
        (Kind::Malformed, "GET /x y HTTP/1.1")
    );
    assert!(connection.refused(1).is_none());
    let more = tokio::time::timeout(Duration::from_millis(10), guard.read(&mut read)).await;
    assert!(more.is_err(), "something was read behind a refused head");
}

#[tokio::test(start_paused = true)]
async fn each_wait_has_its_own_end() {
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab";
    for (sent, answered, end) in [
        ("", 0, PATIENCE.header),
        (GET, 1, PATIENCE.idle),
        (post, 0, PATIENCE.body),
    ] {
        let (mut client, mut guard, connection) = pipe(1024);
        client.write_all(sent.as_bytes()).await.expect("room");
        (0..answered).for_each(|_| connection.finish(Instant::now()));
        let started = Instant::now();
        let read = drain(&mut guard, 1024).await;
        assert_eq!(started.elapsed().as_secs(), end.as_secs(), "{sent}");
        match read {
            Ok(read) => assert_eq!(read, sent.as_bytes()),
            Err(error) => {
                let refusal = error.get_ref().and_then(|error| error.downcast_ref::<Refusal>());
                assert_eq!((sent, refusal.expect("a refusal").kind), (post, Kind::Slow));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_head_becomes_a_refusal_and_idleness_begins_with_the_answer() {
    let (mut client, mut guard, connection) = pipe(1024);
    client.write_all(GET.as_bytes()).await.expect("room");
    let mut buffer = vec![0; 1024];
    let count = guard.read(&mut buffer).await.expect("a head");
    assert_eq!(&buffer[..count], GET.as_bytes());
    // The answer takes longer than an idle client may.
    let late = async {
        tokio::time::sleep(PATIENCE.idle * 3).await;
        connection.finish(Instant::now());
        tokio::time::sleep(PATIENCE.idle - Duration::from_secs(1)).await;
        client.write_all(b"GET /slow HTTP/1.1\r\n").await.expect("room");
        Instant::now()
    };
    let (asked, count) = tokio::join!(late, guard.read(&mut buffer));
    assert_eq!(&buffer[..count.expect("a stand-in")], STAND_IN);
    assert_eq!(asked.elapsed(), PATIENCE.header);
    assert_eq!(connection.refused(2).expect("the second").refusal.kind, Kind::Slow);
}

#[tokio::test(start_paused = true)]
async fn answer_that_is_not_taken_ends_in_an_error() {
    let (_client, mut guard, _) = pipe(16);
    let started = Instant::now();
    let error = guard.write_all(&[b'x'; 64]).await.expect_err("nobody reads");
    assert_eq!(
        (error.kind(), started.elapsed()),
        (io::ErrorKind::TimedOut, PATIENCE.body)
    );
}

#[tokio::test(start_paused = true)]
async fn refused_client_is_listened_to_for_a_while() {
    let (mut client, mut guard, _) = pipe(1024);
    client.write_all(b"GET / HTTP/9.9\r\n\r\n").await.expect("room");
    let mut stand_in = vec![0; STAND_IN.len()];
    guard.read_exact(&mut stand_in).await.expect("a stand-in");
    let started = Instant::now();
    let send = client.write_all(&[b'x'; 64 << 10]);
    let (sent, closed) = tokio::join!(send, guard.shutdown());
    sent.expect("somebody reads");
    closed.expect("closed");
    assert_eq!(started.elapsed(), LINGER);
}
