//! What clients may cost: size, number, time.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message as WsMessage;

use super::world::{PRIVATE, SHARED, World, messages};
use crate::push::door::For;
use crate::push::hub::PER_CHANNEL;
use crate::push::message::BODY_MAX;

#[tokio::test]
async fn bounds_hold() {
    let world = World::new();
    let large = vec![b'1'; BODY_MAX + 1];
    let said = world
        .ask(
            For::Portal,
            "POST",
            &format!("/bitrix/pub/?CHANNEL_ID={SHARED}"),
            "",
            &large,
        )
        .await;
    assert_eq!((said.status, said.field("connection")), (413, Some("close")));
    let fits = world
        .ask(
            For::Portal,
            "POST",
            &format!("/bitrix/pub/?CHANNEL_ID={SHARED}"),
            "",
            &large[..BODY_MAX],
        )
        .await;
    assert_eq!(fits.status, 200);
    let hundred_and_one = vec![SHARED; 101].join("/");
    let said = world
        .portal(&format!("/bitrix/pub/?CHANNEL_ID={hundred_and_one}"), "1")
        .await;
    assert_eq!(said.text(), "4018: Too many channels in the request.");
    let said = world
        .portal(&format!("/bitrix/pub/?CHANNEL_ID={SHARED}"), "no JSON")
        .await;
    assert_eq!(said.status, 400);

    let query = format!("{}&binaryMode=true", world.channels());
    let mut client = world.listen(&query).await;
    client.send(WsMessage::Binary(large.into())).await;
    assert_eq!(client.closed().await, 1009);
    let mut clients = Vec::new();
    for _ in 0..=PER_CHANNEL {
        clients.push(world.listen(&query).await);
    }
    assert_eq!(clients[0].closed().await, 4029);
    world.portal(&format!("/bitrix/pub/?CHANNEL_ID={PRIVATE}"), "1").await;
    assert_eq!(clients[1].messages().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanished_is_found_out() {
    let world = World::new();
    for query in [world.channels(), world.token(7)] {
        // It is there, and does nothing.
        let client = world.listen(&query).await;
        tokio::time::sleep(Duration::from_secs(250)).await;
        assert_eq!(world.desk.hub.numbers().channels, 0, "{query}");
        drop(client);
    }
    let numbers = world.numbers();
    assert!(
        numbers.contains("bitrix_push_cut_total{reason=\"silent\"} 2\n"),
        "{numbers}"
    );
    // Also after it was told something.
    let mut client = world.listen(&world.channels()).await;
    world.portal(&format!("/bitrix/pub/?CHANNEL_ID={SHARED}"), "1").await;
    client.text().await;
    tokio::time::sleep(Duration::from_secs(250)).await;
    assert_eq!(world.desk.hub.numbers().channels, 0);
    drop(client);
    // One that answers stays: reading answers pings.
    let mut client = world.listen(&world.channels()).await;
    for _ in 0..5 {
        assert!(matches!(client.next().await, WsMessage::Ping(payload) if payload == "ws ping"));
    }
    assert_eq!(world.desk.metrics.open().0, 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_cut_and_misses_nothing() {
    let world = World::new();
    let query = format!("{}&binaryMode=true&mid={}", world.channels(), "0".repeat(26));
    let slow = world.listen_over(&query, 512).await;
    let mut quick = world.listen(&query).await;
    let target = format!("/bitrix/pub/?CHANNEL_ID={SHARED}");
    let body = format!("\"{}\"", "x".repeat(1000));
    let mut taken = 0;
    for _ in 0..700 {
        world.portal(&target, &body).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        while let Some(Some(Ok(WsMessage::Binary(bytes)))) = futures_util::FutureExt::now_or_never(quick.0.next()) {
            taken += messages(bytes).len();
        }
    }
    while taken < 700 {
        taken += quick.messages().await.len();
    }
    let numbers = world.numbers();
    assert!(
        numbers.contains("bitrix_push_cut_total{reason=\"slow\"} 1\n"),
        "{numbers}"
    );
    drop(slow);
    let mut back = world.listen(&query).await;
    let mut told = 0;
    while told < 100 {
        told += back.messages().await.len();
    }
    assert_eq!(told, 100, "the newest hundred");
}

#[tokio::test(start_paused = true)]
async fn slow_senders_of_requests_do_not_stay() {
    let world = World::new();
    let mut stream = world.connect(For::Portal, 1024);
    stream.write_all(b"POST /bitrix/pub/?CHANNEL_ID=").await.expect("sent");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("closed");
    let mut stream = world.connect(For::Portal, 1024);
    let head = format!("POST /bitrix/pub/?CHANNEL_ID={SHARED} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n1");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("closed");
    assert!(rest.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test(start_paused = true)]
async fn who_connected_before_the_drain_is_still_answered() {
    let world = World::new();
    let mut asks = world.connect(For::Portal, 64 << 10);
    let mut silent = world.connect(For::Portal, 64 << 10);
    let mut stopping = pin!(world.scope.stop(Duration::from_secs(60)));
    assert!(futures_util::poll!(stopping.as_mut()).is_pending(), "two are connected");
    // Both see the drain before anything is asked.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let head = format!("GET /bitrix/pub/?CHANNEL_ID={SHARED} HTTP/1.1\r\nHost: x\r\n\r\n");
    asks.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    asks.read_to_string(&mut answer).await.expect("answered");
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"),
        "{answer}"
    );
    assert_eq!(silent.read(&mut [0]).await.expect("closed"), 0);
    assert!(stopping.await, "nothing had to be cut");
}

#[tokio::test(start_paused = true)]
async fn draining_sends_everybody_elsewhere() {
    let world = World::new();
    let mut client = world.listen(&world.channels()).await;
    world.portal(&format!("/bitrix/pub/?CHANNEL_ID={SHARED}"), "1").await;
    client.text().await;
    let ended = async {
        let code = client.closed().await;
        // The answer to the close.
        assert!(client.0.next().await.is_none());
        code
    };
    let channels = world.channels();
    let poll = world.poll(&channels);
    let drain = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.scope.stop(Duration::from_secs(5)).await
    };
    let (code, polled, is_clean) = tokio::join!(ended, poll, drain);
    assert_eq!((code, polled.status, is_clean), (1001, 304, true));
}

/// The task of a client that does nothing.
#[tokio::test]
async fn an_idle_client_is_small() {
    let world = World::new();
    let client = world.listen(&world.channels()).await;
    let wanted = crate::push::hub::Wanted::default();
    let (near, _far) = tokio::io::duplex(64);
    let line = crate::push::line::Line::new(near, &[]);
    let mut session = crate::push::socket::Session::new(
        line,
        world.desk.hub.subscribe(wanted),
        world.desk.clone(),
        crate::push::frame::Dialect::Text,
        None,
    );
    let size = {
        let running = session.run(world.scope.clone());
        size_of_val(&running)
    };
    let size = size + size_of_val(&session);
    assert!(size <= 1400, "{size} bytes");
    drop(client);
}
