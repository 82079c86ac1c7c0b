//! `Php` against a responder made by hand, which can misbehave on cue.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::*;
use crate::proxy::error::Kind;
use crate::proxy::fixture::{empty, exchange, full, read, sendable};

pub(super) const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;
const END: u8 = 3;

/// A listening socket and the client that speaks to it.
pub(super) struct World {
    listener: UnixListener,
    pub(super) php: Php,
    _folder: tempfile::TempDir,
}

impl World {
    pub(super) fn new(kept: usize) -> World {
        World::with(kept, 0)
    }

    pub(super) fn with(kept: usize, children: usize) -> World {
        let folder = tempfile::tempdir().expect("temp dir");
        let socket = folder.path().join("fpm.sock");
        let listener = UnixListener::bind(&socket).expect("bound");
        let php = Php::new(PhpSettings {
            socket,
            kept,
            children,
            silence: Duration::from_secs(20),
        });
        World {
            listener,
            php,
            _folder: folder,
        }
    }

    pub(super) async fn accept(&self) -> Peer {
        let (stream, _) = self.listener.accept().await.expect("accepted");
        Peer { stream }
    }

    pub(super) async fn get(&self) -> Result<Response<Body>, Error> {
        sendable(self.php.call(&exchange("GET", "/", &[]), &script(), empty())).await
    }

    pub(super) async fn post(&self, body: Body) -> Result<Response<Body>, Error> {
        self.php.call(&exchange("POST", "/", &[]), &script(), body).await
    }
}

fn script() -> Script {
    Script {
        root: "/srv".into(),
        name: "/index.php".into(),
        path_info: String::new(),
    }
}

/// The responder's side of one connection.
pub(super) struct Peer {
    stream: UnixStream,
}

impl Peer {
    /// A request as far as PHP reads it before it works: the end of STDIN is left.
    pub(super) async fn begin(&mut self) {
        for _ in 0..3 {
            self.record().await.expect("BEGIN, PARAMS, end of PARAMS");
        }
    }

    /// One record: type, content. `None`: closed.
    pub(super) async fn record(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 8];
        self.stream.read_exact(&mut head).await.ok()?;
        let mut content = vec![0; usize::from(u16::from_be_bytes([head[4], head[5]])) + usize::from(head[6])];
        self.stream.read_exact(&mut content).await.ok()?;
        Some((head[1], content))
    }

    /// Reads a whole request; returns whether the connection is to be kept, and the body.
    pub(super) async fn request(&mut self) -> Option<(bool, Vec<u8>)> {
        let (_, begin) = self.record().await?;
        let mut body = Vec::new();
        loop {
            match self.record().await? {
                (STDIN, data) if data.is_empty() => return Some((begin[2] == 1, body)),
                (STDIN, data) => body.extend(data),
                _ => {}
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("sent");
    }

    pub(super) async fn answer(&mut self, text: &str) {
        let bytes = [record(STDOUT, text.as_bytes()), record(END, &[0; 8])].concat();
        self.send(&bytes).await;
    }
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = (content.len() as u16).to_be_bytes();
    [&[1, kind, 0, 1, high, low, 0, 0], content].concat()
}

/// A body that is fed by hand, with a bound of one frame.
fn fed() -> (mpsc::Sender<Result<Frame<Bytes>, Error>>, Body) {
    let (sender, mut receiver) = mpsc::channel(1);
    let frames = stream::poll_fn(move |cx| receiver.poll_recv(cx));
    (sender, StreamBody::new(frames).boxed_unsync())
}

fn data(size: usize) -> Result<Frame<Bytes>, Error> {
    Ok(Frame::data(Bytes::from(vec![b'd'; size])))
}

#[tokio::test]
async fn answer_split_at_every_byte_is_the_same() {
    let world = World::new(1);
    let bytes = [
        record(STDERR, b"PHP message: one\nPHP "),
        record(STDOUT, b"Status: 201 Created\r\nX-A: b\r"),
        record(STDERR, b"message: two"),
        record(STDOUT, b"\n\r\nhel"),
        record(STDERR, b"\n"),
        record(STDOUT, b"lo"),
        record(STDOUT, b""),
        record(END, &[0; 8]),
    ]
    .concat();
    let serve = async {
        let mut peer = world.accept().await;
        for cut in 0..bytes.len() {
            peer.request().await.expect("a request");
            let (first, second) = bytes.split_at(cut);
            peer.send(first).await;
            tokio::task::yield_now().await;
            peer.send(second).await;
        }
    };
    let ask = async {
        for cut in 0..bytes.len() {
            let response = world.get().await.expect("answered");
            assert_eq!(
                (response.status().as_u16(), &response.headers()["x-a"]),
                (201, &"b".parse().expect("value"))
            );
            assert_eq!(
                read(response.into_body()).await.expect("whole"),
                "hello",
                "cut at {cut}"
            );
        }
    };
    tokio::join!(serve, ask);
    let counts = world.php.counts();
    assert_eq!(
        counts,
        Counts {
            idle: 1,
            busy: 0,
            fresh: 0
        }
    );
}

#[tokio::test]
async fn early_answer_streams_while_the_upload_goes_on() {
    let world = World::new(1);
    let (feed, body) = fed();
    let serve = async {
        let mut peer = world.accept().await;
        for _ in 0..3 {
            peer.record().await.expect("BEGIN, PARAMS, end of PARAMS");
        }
        assert_eq!(
            peer.record().await.map(|(kind, data)| (kind, data.len())),
            Some((STDIN, 10))
        );
        peer.send(&record(STDOUT, b"X-A: b\n\nearly ")).await;
        let (_, rest) = (0, peer.record().await.expect("the second frame"));
        assert_eq!(rest.1.len(), 20);
        assert_eq!(peer.record().await, Some((STDIN, vec![])));
        peer.answer("late").await;
    };
    let ask = async {
        feed.send(data(10)).await.expect("taken");
        let field = exchange("POST", "/", &[("content-length", "30")]);
        let mut body = world
            .php
            .call(&field, &script(), body)
            .await
            .expect("answered")
            .into_body();
        let first = body
            .frame()
            .await
            .expect("a frame")
            .expect("data")
            .into_data()
            .expect("data");
        assert_eq!(first, "early ");
        feed.send(data(20)).await.expect("taken");
        drop(feed);
        assert_eq!(read(body).await.expect("whole"), "late");
    };
    tokio::join!(serve, ask);
    assert_eq!(world.php.counts().idle, 1, "all was sent and received");
}

#[tokio::test]
async fn responder_that_dies_in_the_middle_is_an_error() {
    for (sent, at_head) in [
        (vec![], true),
        (record(STDOUT, b"X-A: b\n"), true),
        (record(STDOUT, b"X-A: b\n\npart"), false),
        (record(STDOUT, b"X-A: b\n\npart")[..18].to_vec(), false),
        (
            [record(STDOUT, b"Content-Length: 9\n\npart"), record(END, &[0; 8])].concat(),
            false,
        ),
        (vec![1, 99, 0, 1, 0, 0, 0, 0], true),
        (record(END, &[0; 8]), true),
        (record(END, &[0, 0, 0, 0, 3, 0, 0, 0]), true),
    ] {
        let world = World::new(1);
        let serve = async {
            let mut peer = world.accept().await;
            peer.request().await.expect("a request");
            peer.send(&sent).await;
        };
        let ask = async {
            match world.get().await {
                Err(error) => (true, error.kind),
                Ok(response) => (false, read(response.into_body()).await.expect_err("cut").kind),
            }
        };
        let ((), found) = tokio::join!(serve, ask);
        assert_eq!(found, (at_head, Kind::Upstream), "{sent:?}");
        assert!(world.php.pool.idle().is_none(), "a dead connection is not used again");
        assert_eq!(world.php.counts(), Counts::default());
    }
}

#[tokio::test]
async fn stale_connection_is_replaced_once() {
    let world = World::new(2);
    let serve = async {
        let mut peer = world.accept().await;
        assert!(peer.request().await.expect("a request").0, "to be kept");
        peer.answer("A: b\n\n1").await;
        // Reads the second request and dies, as a PHP process does that reached its last request.
        peer.request().await.expect("a request");
        drop(peer);
        let mut peer = world.accept().await;
        peer.request().await.expect("the same again");
        peer.answer("A: b\n\n2").await;
    };
    let ask = async {
        for expected in ["1", "2"] {
            let response = world.get().await.expect("answered");
            assert_eq!(read(response.into_body()).await.expect("whole"), expected);
        }
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn closed_connection_costs_a_post_nothing_but_a_running_one_is_not_repeated() {
    let world = World::new(2);
    let serve = async {
        let mut peer = world.accept().await;
        peer.request().await.expect("a request");
        peer.answer("A: b\n\n1").await;
        drop(peer);
        let mut peer = world.accept().await;
        assert_eq!(peer.request().await.expect("a request").1, b"one");
        peer.answer("A: b\n\n2").await;
        assert_eq!(peer.request().await.expect("a request").1, b"two");
    };
    let ask = async {
        read(world.get().await.expect("answered").into_body())
            .await
            .expect("whole");
        read(world.post(full("one")).await.expect("answered").into_body())
            .await
            .expect("whole");
        let error = world.post(full("two")).await.expect_err("it may have run");
        assert_eq!(error.kind, Kind::Upstream);
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn dropped_answer_aborts_and_closes() {
    let world = World::new(1);
    let serve = async {
        let mut peer = world.accept().await;
        peer.request().await.expect("a request");
        peer.send(&record(STDOUT, b"A: b\n\nendless")).await;
        assert_eq!(peer.record().await, Some((2, vec![])), "ABORT_REQUEST");
        assert_eq!(peer.record().await, None, "closed");
    };
    let ask = async {
        let mut body = world.get().await.expect("answered").into_body();
        body.frame().await.expect("a frame").expect("data");
        drop(body);
    };
    tokio::join!(serve, ask);
    assert_eq!(world.php.counts(), Counts::default());
}

#[tokio::test]
async fn dropped_call_closes() {
    let world = World::new(1);
    let serve = async {
        let mut peer = world.accept().await;
        peer.request().await.expect("a request");
        peer
    };
    let mut peer = tokio::select! {
        peer = serve => peer,
        _ = world.get() => panic!("nobody answered"),
    };
    assert_eq!(peer.record().await, Some((2, vec![])));
    assert_eq!(peer.record().await, None);
}

#[tokio::test]
async fn delivered_length_frees_the_connection_when_php_ends() {
    let world = World::new(1);
    let serve = async {
        let mut peer = world.accept().await;
        peer.request().await.expect("a request");
        peer.send(&record(STDOUT, b"Content-Length: 4\n\nbodyextra")).await;
        peer
    };
    let ask = async {
        let mut body = world.get().await.expect("answered").into_body();
        let frame = body.frame().await.expect("a frame").expect("data");
        assert_eq!(frame.into_data().expect("data"), "body");
        // As hyper does once the length is reached.
        drop(body);
    };
    let (mut peer, ()) = tokio::join!(serve, ask);
    assert_eq!(
        world.php.counts(),
        Counts {
            idle: 1,
            busy: 0,
            fresh: 0
        }
    );
    assert!(world.php.pool.idle().is_none(), "not before END_REQUEST");
    peer.send(&[record(STDOUT, b"more"), record(END, &[0; 8])].concat())
        .await;
    let connection = loop {
        match world.php.pool.idle() {
            Some(connection) => break connection,
            None => tokio::task::yield_now().await,
        }
    };
    assert!(connection.is_kept());
}

#[tokio::test]
async fn requests_beyond_the_kept_ones_get_a_connection_of_their_own() {
    let world = World::new(1);
    let serve = async {
        let (mut first, mut second) = (world.accept().await, world.accept().await);
        assert!(first.request().await.expect("a request").0);
        assert!(!second.request().await.expect("a request").0);
        assert_eq!(
            world.php.counts(),
            Counts {
                idle: 0,
                busy: 1,
                fresh: 1
            }
        );
        first.answer("A: b\n\n").await;
        second.answer("A: b\n\n").await;
        assert_eq!(second.record().await, None, "closed after its request");
        (first, second)
    };
    let (_peers, first, second) = tokio::join!(serve, world.get(), world.get());
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(
        world.php.counts(),
        Counts {
            idle: 1,
            busy: 0,
            fresh: 0
        }
    );
}

/// Answers the next request; whether its connection is to be kept.
pub(super) async fn turn(peer: &mut Peer) -> bool {
    let is_kept = peer.request().await.expect("a request").0;
    peer.answer("A: b\n\n").await;
    is_kept
}

#[tokio::test(start_paused = true)]
async fn a_process_beyond_the_kept_ones_is_lent_for_a_turn() {
    let world = World::with(1, 2);
    let serve = async {
        let (mut first, mut second) = (world.accept().await, world.accept().await);
        assert!(first.request().await.expect("a request").0);
        assert!(turn(&mut second).await, "there is a process for it");
        assert!(turn(&mut second).await, "and for the next, on the same connection");
        second.request().await.expect("a request");
        tokio::time::advance(Duration::from_millis(150)).await;
        second.answer("A: b\n\n").await;
        assert_eq!(second.record().await, None, "its turn is over");
        first.answer("A: b\n\n").await;
        first
    };
    let others = async {
        for _ in 0..3 {
            world.get().await.expect("answered");
        }
    };
    let (_first, kept, ()) = tokio::join!(serve, world.get(), others);
    kept.expect("answered");
    assert_eq!(
        world.php.counts(),
        Counts {
            idle: 1,
            busy: 0,
            fresh: 0
        }
    );
}

#[tokio::test]
async fn no_process_is_lent_on_while_a_request_waits_for_one() {
    let world = World::with(1, 2);
    let serve = async {
        let (mut first, mut second) = (world.accept().await, world.accept().await);
        let mut third = world.accept().await;
        assert!(first.request().await.expect("a request").0);
        assert!(turn(&mut second).await);
        assert_eq!(second.record().await, None, "closed, for the third");
        assert!(!turn(&mut third).await, "of which there is no process");
        first.answer("A: b\n\n").await;
        first
    };
    let (_first, one, two, three) = tokio::join!(serve, world.get(), world.get(), world.get());
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    assert_eq!(world.php.counts().idle, 1);
}

#[tokio::test(start_paused = true)]
async fn a_lent_process_is_given_back_by_itself() {
    let world = World::with(1, 2);
    let serve = async {
        let (mut first, mut second) = (world.accept().await, world.accept().await);
        assert!(turn(&mut first).await && turn(&mut second).await);
        (first, second)
    };
    let ((_first, mut second), one, two) = tokio::join!(serve, world.get(), world.get());
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(world.php.counts().idle, 2);
    let started = tokio::time::Instant::now();
    assert_eq!(second.record().await, None);
    assert!(started.elapsed() <= Duration::from_millis(250));
    assert_eq!(world.php.counts().idle, 1);
}

#[tokio::test(start_paused = true)]
async fn idle_connection_is_closed_after_a_while() {
    let world = World::new(1);
    let serve = async {
        let mut peer = world.accept().await;
        peer.request().await.expect("a request");
        peer.answer("A: b\n\n").await;
        peer
    };
    let (mut peer, response) = tokio::join!(serve, world.get());
    response.expect("answered");
    let started = tokio::time::Instant::now();
    assert_eq!(peer.record().await, None);
    assert!((10..=12).contains(&started.elapsed().as_secs()));
    assert_eq!(world.php.counts(), Counts::default());
}

#[tokio::test(start_paused = true)]
async fn silence_is_php_s_only_when_php_is_waited_for() {
    let world = World::new(1);
    let (feed, body) = fed();
    let slow = exchange("POST", "/", &[("content-length", "1")]);
    let client = async {
        tokio::time::sleep(Duration::from_secs(300)).await;
        feed.send(data(1)).await.expect("taken");
        drop(feed);
        tokio::time::Instant::now()
    };
    let started = async {
        let _peer = world.accept().await;
        std::future::pending::<()>().await;
    };
    let ask = async {
        let script = script();
        let (sent, result) = tokio::join!(client, world.php.call(&slow, &script, body));
        assert_eq!(result.expect_err("silent").kind, Kind::UpstreamSlow);
        assert_eq!(sent.elapsed().as_secs(), 20);
    };
    tokio::select! {
        () = ask => {}
        () = started => {}
    }
}

#[tokio::test]
async fn absent_socket_is_unavailable() {
    let world = World::new(1);
    std::fs::remove_file(world._folder.path().join("fpm.sock")).expect("removed");
    assert_eq!(world.get().await.expect_err("refused").kind, Kind::Unavailable);
    assert_eq!(world.php.counts(), Counts::default());
}

#[tokio::test]
async fn answers_without_body_end_with_php() {
    let world = World::new(1);
    let serve = async {
        let mut peer = world.accept().await;
        for head in [
            "Status: 304\nContent-Length: 9\n\n",
            "Content-Length: 9\n\nbody of a",
            "Status: 204\n\nignored",
        ] {
            peer.request().await.expect("a request");
            peer.answer(head).await;
        }
    };
    let ask = async {
        for (method, status, length) in [("GET", 304, false), ("HEAD", 200, true), ("GET", 204, false)] {
            let request = exchange(method, "/", &[]);
            let response = world.php.call(&request, &script(), empty()).await.expect("answered");
            assert_eq!(response.status(), status);
            assert_eq!(response.headers().contains_key(CONTENT_LENGTH), length, "{status}");
            assert_eq!(world.php.counts().idle, 1, "PHP has ended");
            assert_eq!(read(response.into_body()).await.expect("nothing"), "");
        }
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn failing_body_fails_the_request() {
    let world = World::new(1);
    let (feed, body) = fed();
    feed.send(Err(Error::new(Kind::TooLarge, "too much")))
        .await
        .expect("taken");
    let field = exchange("POST", "/", &[("content-length", "9")]);
    let error = world.php.call(&field, &script(), body).await.expect_err("failed");
    assert_eq!(error.kind, Kind::TooLarge);
}
