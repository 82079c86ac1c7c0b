//! Framed calls over pipes in memory, mostly in paused time. Transport and certificates are `tests/mesh.rs`'s.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::frame::{self, Frame, Head, Kind};
use super::*;
use crate::base::{BoxFuture, Scope};

const LONG: Duration = Duration::from_secs(60);

const ECHO: u16 = 1;
const PANIC: u16 = 2;
const HANG: u16 = 3;
const QUICK: u16 = 4;

/// Echoes after a delay that the body's first byte gives in milliseconds.
struct Echo;

impl Handler for Echo {
    fn call<'a>(&'a self, _peer: &'a Identity, body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            let delay = body.first().copied().unwrap_or_default();
            if delay > 0 {
                tokio::time::sleep(Duration::from_millis(delay.into())).await;
            }
            Ok(body)
        })
    }
}

struct Panic;

impl Handler for Panic {
    fn call<'a>(&'a self, _peer: &'a Identity, _body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        panic!("on purpose, before there is a future")
    }
}

/// Never answers; counts the calls it holds.
#[derive(Clone, Default)]
struct Hang {
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Hang {
    fn now(&self) -> usize {
        self.begun.load(Ordering::SeqCst) - self.ended.load(Ordering::SeqCst)
    }
}

struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Handler for Hang {
    fn call<'a>(&'a self, _peer: &'a Identity, _body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            self.begun.fetch_add(1, Ordering::SeqCst);
            let _held = Held(self.ended.clone());
            std::future::pending().await
        })
    }
}

/// What it does before `call` its body's first byte says.
struct Quick;

impl Handler for Quick {
    fn call<'a>(&'a self, _peer: &'a Identity, _body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(std::future::ready(Ok(Bytes::from_static(b"called"))))
    }

    fn begin(&self, _peer: &Identity, body: Bytes) -> Begun {
        match body.first() {
            Some(b'n') => Begun::Answered(Ok(body)),
            Some(b'f') => Begun::Answered(Err(Fault::NoService)),
            Some(b'l') => Begun::Answered(Ok(Bytes::from(vec![0; Limits::default().body + 1]))),
            Some(b'w') => Begun::Waits(Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok(body)
            })),
            Some(b'p') => panic!("on purpose, at once"),
            _ => Begun::Not(body),
        }
    }
}

fn identity() -> Identity {
    "bitrix-node://c/n1".parse().expect("an identity")
}

/// A server on one end of a pipe of `width` bytes, and the caller on the other.
struct Pair {
    caller: Caller,
    client: Scope,
    server: Scope,
    held: Hang,
}

fn pair(width: usize, limits: Limits) -> Pair {
    let (near, far) = duplex(width);
    let (client, server) = (Scope::new(), Scope::new());
    let hang = Hang::default();
    let held = hang.clone();
    let handlers: [(u16, Arc<dyn Handler>); 4] = [
        (ECHO, Arc::new(Echo)),
        (PANIC, Arc::new(Panic)),
        (HANG, Arc::new(hang)),
        (QUICK, Arc::new(Quick)),
    ];
    let services: Services = handlers.into_iter().collect();
    let scope = server.clone();
    server.spawn(async move { services.serve(far, identity(), limits, &scope, scope.draining()).await });
    Pair {
        caller: Caller::start(near, limits, &client),
        client,
        server,
        held,
    }
}

fn soon() -> Instant {
    Instant::now() + LONG
}

/// A caller whose peer is played by the test. Its first ping is answered.
async fn against_raw(width: usize) -> (Caller, DuplexStream, Scope) {
    let (near, mut far) = duplex(width);
    let scope = Scope::new();
    let caller = Caller::start(near, Limits::default(), &scope);
    let ping = read(&mut far).await;
    assert_eq!(ping.head.kind, Kind::Ping);
    write(&mut far, Kind::Pong, ping.head.id, b"").await;
    caller.up().await.expect("answered");
    (caller, far, scope)
}

async fn read(stream: &mut DuplexStream) -> Frame {
    let mut buffer = BytesMut::new();
    loop {
        // Byte by byte: what follows the frame stays in the pipe.
        buffer.put_u8(stream.read_u8().await.expect("open"));
        if let Some(frame) = frame::decode(&mut buffer, frame::BODY_CEILING, frame::COPIED).expect("well formed") {
            return frame;
        }
    }
}

async fn write(stream: &mut DuplexStream, kind: Kind, id: u64, body: &[u8]) {
    let mut frame = BytesMut::new();
    frame::encode_head(
        Head {
            kind,
            service: ECHO,
            id,
        },
        body.len(),
        &mut frame,
    );
    frame.put_slice(body);
    stream.write_all(&frame).await.expect("open");
}

#[tokio::test(start_paused = true)]
async fn replies_find_their_calls_in_whatever_order() {
    for callers in [1u32, 16, 256] {
        let pair = pair(4096, Limits::default());
        let one = async |caller: u32| {
            for round in 0u32..20 {
                let mut body = BytesMut::new();
                body.put_u8((caller.wrapping_mul(7919).wrapping_add(round * 31) % 23) as u8);
                body.put_u32(caller);
                body.put_u32(round);
                let body = body.freeze();
                let reply = pair.caller.call(ECHO, body.clone(), soon()).await;
                assert_eq!(reply.expect("answered"), body);
            }
        };
        join_all((0..callers).map(one)).await;
    }
}

/// Both directions are full at the same time, and PING must still get through.
#[tokio::test(start_paused = true)]
async fn narrow_pipe_full_in_both_directions_never_locks_up() {
    let limits = Limits {
        queued: 128 * 1024,
        ..Limits::default()
    };
    let pair = pair(100, limits);
    let body = Bytes::from(vec![0; 60_000]);
    let calls = (0..64).map(|_| pair.caller.call(ECHO, body.clone(), soon()));
    for reply in join_all(calls).await {
        assert_eq!(reply.expect("answered"), body);
    }
}

/// Half of them are dropped before they are sent, half while the server executes them.
#[tokio::test]
async fn hundred_thousand_dropped_calls_leave_nothing_behind() {
    let pair = pair(64 * 1024, Limits::default());
    let mut sent = VecDeque::new();
    for round in 0..100_000u32 {
        let mut call = Box::pin(pair.caller.call(HANG, Bytes::from_static(b"x"), soon()));
        assert!(call.as_mut().now_or_never().is_none());
        if round % 2 == 0 {
            sent.push_back(call);
        }
        if sent.len() > 64 {
            tokio::task::yield_now().await;
            sent.drain(..32);
        }
        if round % 1000 == 0 {
            let reply = pair.caller.call(ECHO, Bytes::from_static(b"\0y"), soon()).await;
            assert_eq!(reply.expect("answered"), "\0y");
        }
    }
    drop(sent);
    // A call behind all cancels: when it is answered, they were seen.
    pair.caller.call(ECHO, Bytes::new(), soon()).await.expect("answered");
    let begun = pair.held.begun.load(Ordering::SeqCst);
    assert!(begun > 20_000, "{begun} reached the server");
    assert!(pair.client.stop(LONG).await, "the caller knows of no call any more");
    assert!(pair.server.stop(LONG).await);
    assert_eq!(pair.held.now(), 0);
}

#[tokio::test(start_paused = true)]
async fn cancelled_call_ends_at_the_server() {
    let pair = pair(4096, Limits::default());
    let deadline = Instant::now() + Duration::from_millis(100);
    let error = pair.caller.call(HANG, Bytes::new(), deadline).await.expect_err("hangs");
    assert_eq!(error, CallError::Unknown(Why::Deadline));
    pair.caller.call(ECHO, Bytes::new(), soon()).await.expect("answered");
    tokio::task::yield_now().await;
    assert_eq!(pair.held.now(), 0);
}

#[tokio::test(start_paused = true)]
async fn silent_peer_is_dead_after_three_seconds() {
    let (caller, _far, _scope) = against_raw(1 << 20).await;
    let since = Instant::now();
    let error = caller.call(ECHO, Bytes::new(), soon()).await.expect_err("silence");
    assert_eq!(error, CallError::Unknown(Why::Silent));
    assert!(error.may_have_happened());
    let elapsed = since.elapsed();
    assert!(
        elapsed >= link::SILENCE && elapsed < link::SILENCE + Duration::from_millis(10),
        "{elapsed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn server_leaves_a_silent_caller_and_drops_its_calls() {
    let (mut near, far) = duplex(4096);
    let scope = Scope::new();
    let hang = Hang::default();
    let held = hang.clone();
    let services: Services = [(HANG, Arc::new(hang) as Arc<dyn Handler>)].into_iter().collect();
    let mut frame = BytesMut::new();
    frame::encode_head(
        Head {
            kind: Kind::Call,
            service: HANG,
            id: 1,
        },
        0,
        &mut frame,
    );
    near.write_all(&frame).await.expect("open");
    let why = services
        .serve(far, identity(), Limits::default(), &scope, std::future::pending())
        .await;
    assert_eq!(why, Why::Silent);
    assert!(scope.stop(LONG).await);
    assert_eq!(held.now(), 0);
}

/// It lives and pings, but takes nothing: memory stays bounded, callers are told, at last it is cut off.
#[tokio::test(start_paused = true)]
async fn peer_that_never_reads_is_bounded_and_cut_off() {
    let (caller, far, scope) = against_raw(1000).await;
    let (_unread, mut far) = tokio::io::split(far);
    let pings = async {
        for id in 0u64.. {
            let mut ping = BytesMut::new();
            frame::encode_head(
                Head {
                    kind: Kind::Ping,
                    service: 0,
                    id,
                },
                0,
                &mut ping,
            );
            if far.write_all(&ping).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let body = Bytes::from(vec![0; 60_000]);
    let since = Instant::now();
    let calls = join_all((0..1000).map(|_| caller.call(ECHO, body.clone(), soon())));
    let results = tokio::select! {
        results = calls => results,
        () = pings => panic!("the connection ended, and the calls go on"),
    };
    let unsure = |result: &&Result<Bytes, CallError>| **result == Err(CallError::Unknown(Why::Stalled));
    assert_eq!(results.iter().filter(unsure).count(), 1, "one batch was begun");
    let sure = |result: &&Result<Bytes, CallError>| **result == Err(CallError::NotSent(Why::Stalled));
    assert_eq!(results.iter().filter(sure).count(), 999);
    assert!(since.elapsed() < Duration::from_secs(12));
    assert!(scope.stop(LONG).await);
}

#[tokio::test(start_paused = true)]
async fn callers_wait_for_room_until_their_deadline() {
    let (caller, _far, _scope) = against_raw(1000).await;
    let body = Bytes::from(vec![0; 60_000]);
    let deadline = Instant::now() + Duration::from_secs(1);
    let results = join_all((0..100).map(|_| caller.call(ECHO, body.clone(), deadline))).await;
    let sent = results
        .iter()
        .filter(|result| **result == Err(CallError::Unknown(Why::Deadline)));
    assert_eq!(sent.count(), 1);
    let unsent = results
        .iter()
        .filter(|result| **result == Err(CallError::NotSent(Why::Deadline)));
    assert_eq!(unsent.count(), 99);
}

#[tokio::test]
async fn closed_connection_says_which_calls_may_have_happened() {
    let (caller, mut far, _scope) = against_raw(1000).await;
    let large = Bytes::from(vec![0; 60_000]);
    let peer = async {
        // The first call fills the pipe; the second is never taken.
        far.read_u8().await.expect("open");
        tokio::task::yield_now().await;
        drop(far);
    };
    let (first, second, ()) = tokio::join!(
        caller.call(ECHO, large.clone(), soon()),
        caller.call(ECHO, large.clone(), soon()),
        peer
    );
    assert_eq!(first, Err(CallError::Unknown(Why::Closed)));
    assert_eq!(second, Err(CallError::NotSent(Why::Closed)));
    let later = caller.call(ECHO, Bytes::new(), soon()).await;
    assert_eq!(later, Err(CallError::NotSent(Why::Closed)));
}

#[tokio::test]
async fn killed_scope_leaves_no_caller_waiting() {
    let pair = pair(4096, Limits::default());
    let call = pair.caller.call(HANG, Bytes::new(), soon());
    let kill = async {
        pair.caller.up().await.expect("up");
        pair.client.stop(Duration::ZERO).await
    };
    let (result, _) = tokio::join!(call, kill);
    assert_eq!(result, Err(CallError::Unknown(Why::Stopped)));
}

#[tokio::test]
async fn panic_ends_one_call_alone() {
    let pair = pair(4096, Limits::default());
    let (panicked, echoed) = tokio::join!(
        pair.caller.call(PANIC, Bytes::new(), soon()),
        pair.caller.call(ECHO, Bytes::new(), soon())
    );
    assert_eq!(panicked, Err(Fault::Panicked.into()));
    assert_eq!(echoed, Ok(Bytes::new()));
    pair.caller.call(ECHO, Bytes::new(), soon()).await.expect("goes on");
}

#[tokio::test(start_paused = true)]
async fn a_handler_answers_at_once_or_later_or_leaves_it_to_call() {
    let pair = pair(4096, Limits::default());
    for (sent, expected) in [
        ("now", Ok("now")),
        ("wait", Ok("wait")),
        ("else", Ok("called")),
        ("fault", Err(Fault::NoService)),
        ("large", Err(Fault::TooLarge)),
        ("panic", Err(Fault::Panicked)),
        ("now", Ok("now")),
    ] {
        let reply = pair.caller.call(QUICK, sent, soon()).await;
        assert_eq!(reply, expected.map(Bytes::from).map_err(CallError::from), "{sent}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_begins_now_or_its_body_comes_back() {
    let limits = Limits {
        outstanding: 1,
        ..Limits::default()
    };
    let pair = pair(4096, limits);
    let body = Bytes::from_static(b"\0y");
    let hung = pair.caller.begin(HANG, body.clone());
    assert!(hung.is_ok());
    assert_eq!(pair.caller.begin(ECHO, body.clone()).err(), Some(body.clone()));
    // Dropped, it is taken back.
    drop(hung);
    let call = pair.caller.begin(ECHO, body.clone()).expect("there is room again");
    assert_eq!(call.await, Ok(body));
    tokio::task::yield_now().await;
    assert_eq!(pair.held.now(), 0);
    let large = Bytes::from(vec![0; Limits::default().body + 1]);
    assert!(pair.caller.begin(ECHO, large).is_err());
}

#[tokio::test]
async fn calls_beyond_the_bounds_are_answered_busy() {
    let limits = Limits {
        concurrent: 2,
        outstanding: 3,
        ..Limits::default()
    };
    let pair = pair(4096, limits);
    let hung = [0, 1].map(|_| pair.caller.call(HANG, Bytes::new(), soon()));
    let then = async {
        let third = pair.caller.call(ECHO, Bytes::new(), soon()).await;
        assert_eq!(third, Err(Fault::Busy.into()));
        let third = pair.caller.call(HANG, Bytes::new(), soon());
        let fourth = pair.caller.call(ECHO, Bytes::new(), soon());
        let (_, fourth) = tokio::join!(third, fourth);
        assert_eq!(fourth, Err(CallError::NotSent(Why::Busy)), "known without asking");
    };
    tokio::select! {
        biased;
        _ = join_all(hung) => panic!("they hang"),
        () = then => {}
    }
    pair.caller.call(ECHO, Bytes::new(), soon()).await.expect("room again");
}

#[tokio::test]
async fn too_large_bodies_and_unknown_services_are_refused() {
    let pair = pair(4096, Limits::default());
    let body = Bytes::from(vec![0; Limits::default().body + 1]);
    let large = pair.caller.call(ECHO, body, soon()).await;
    assert_eq!(large, Err(CallError::NotSent(Why::TooLarge)));
    let unknown = pair.caller.call(999, Bytes::new(), soon()).await.expect_err("unknown");
    assert_eq!(unknown, Fault::NoService.into());
    assert!(!unknown.may_have_happened());
}

#[tokio::test(start_paused = true)]
async fn draining_server_finishes_what_is_under_way() {
    let pair = pair(4096, Limits::default());
    pair.caller.up().await.expect("up");
    let slow = pair.caller.call(ECHO, Bytes::from_static(b"\xc8slow"), soon());
    let drain = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        pair.server.drain();
        let late = pair.caller.call(ECHO, Bytes::new(), soon()).await.expect_err("refused");
        assert!(!late.may_have_happened(), "{late}");
    };
    let (slow, ()) = tokio::join!(slow, drain);
    assert_eq!(slow.expect("finished"), &b"\xc8slow"[..]);
    assert!(
        pair.server.stop(Duration::from_secs(1)).await,
        "the caller closed the connection"
    );
}

#[tokio::test(start_paused = true)]
async fn caller_that_does_not_close_when_asked_is_cut_off() {
    let (near, far) = duplex(4096);
    let scope = Scope::new();
    let served = Services::default();
    let serve = served.serve(far, identity(), Limits::default(), &scope, std::future::ready(()));
    let (mut read_half, mut near) = tokio::io::split(near);
    let mut heard = Vec::new();
    let reads = read_half.read_to_end(&mut heard);
    let pings = async {
        loop {
            let mut ping = BytesMut::new();
            let kind = Kind::Ping;
            frame::encode_head(
                Head {
                    kind,
                    service: 0,
                    id: 7,
                },
                0,
                &mut ping,
            );
            near.write_all(&ping).await.expect("open");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let why = tokio::select! {
        why = serve => why,
        _ = reads => panic!("only the caller or time closes it"),
        () = pings => unreachable!("they go on"),
    };
    assert_eq!(why, Why::Draining);
}

#[tokio::test(start_paused = true)]
async fn round_trip_is_measured() {
    let pair = pair(4096, Limits::default());
    pair.caller.up().await.expect("up");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let pulse = pair.caller.pulse();
    assert!(pulse.round_trip.is_some());
    assert!(pulse.silent <= link::PING, "{:?}", pulse.silent);
}

#[tokio::test]
async fn breach_of_protocol_ends_the_connection() {
    for (kind, id) in [(Kind::Reply, 5), (Kind::Call, 1), (Kind::Cancel, 1)] {
        let (caller, mut far, _scope) = against_raw(4096).await;
        write(&mut far, kind, id, b"").await;
        let mut phase = caller.phase();
        let over = phase.wait_for(|phase| matches!(phase, Phase::Ended(_))).await;
        assert!(matches!(*over.expect("alive"), Phase::Ended(Why::Violation(_))));
    }
    let (mut near, far) = duplex(4096);
    for _ in 0..2 {
        write(&mut near, Kind::Call, 1, b"\x01").await;
    }
    let scope = Scope::new();
    let services: Services = [(ECHO, Arc::new(Echo) as Arc<dyn Handler>)].into_iter().collect();
    let why = services
        .serve(far, identity(), Limits::default(), &scope, std::future::pending())
        .await;
    assert_eq!(why, Why::Violation("two calls with one id"));
}

#[tokio::test]
async fn noise_ends_the_connection() {
    let (caller, mut far, _scope) = against_raw(4096).await;
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("open");
    let error = caller.call(ECHO, Bytes::new(), soon()).await.expect_err("broken");
    assert!(
        matches!(
            error,
            CallError::NotSent(Why::Broken(_)) | CallError::Unknown(Why::Broken(_))
        ),
        "{error}"
    );
}
