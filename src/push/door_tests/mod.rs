//! The push server through its doors, over streams in memory, with a client of another role of the same WebSocket crate.

mod bounds;
mod operator;
mod world;

use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use prost::Message as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message as WsMessage;

use super::door::For;
use super::frame::protobuf::{Answer, ChannelStatsRequest, Command, Receiver, RequestBatch, ResponseBatch};
use super::token;
use world::{PRIVATE, PUBLIC, SHARED, World, bytes, messages};

#[tokio::test]
async fn each_generation_is_told_in_its_own_form() {
    let world = World::new();
    let mut three = world.listen(&world.channels()).await;
    let mut four = world.listen(&format!("{}&binaryMode=true", world.channels())).await;
    let mut five = world.listen(&world.token(7)).await;
    let said = world
        .portal(&format!("/bitrix/pub/?CHANNEL_ID={SHARED}"), r#"{"a":1}"#)
        .await;
    assert_eq!((said.status, said.text()), (200, ""));
    let text = three.text().await;
    assert!(
        text.starts_with("#!NGINXNMS!#{\"id\":") && text.ends_with("\"text\":{\"a\":1}}#!NGINXNME!#"),
        "{text}"
    );
    let message = four.messages().await.remove(0);
    assert_eq!((message.body.as_str(), message.expiry), (r#"{"a":1}"#, 60));
    let call = five.json().await;
    assert_eq!(call["method"], "incoming.message");
    assert_eq!(call["params"]["body"], json!({"a": 1}));
    let mid = call["params"]["mid"].as_str().expect("an id");
    assert!(
        text.contains(mid) && HEXLOWER.encode(&message.id) == mid,
        "the same in all forms"
    );
}

#[tokio::test]
async fn what_was_missed_is_told_once_however_one_listens() {
    let world = World::new();
    let target = format!("/bitrix/pub/?CHANNEL_ID={PRIVATE}/{SHARED}");
    let mut client = world.listen(&format!("{}&binaryMode=true", world.channels())).await;
    world.portal(&target, "1").await;
    let first = HEXLOWER.encode(&client.messages().await[0].id);
    drop(client);
    for body in ["2", "3"] {
        world.portal(&target, body).await;
    }
    let query = format!("{}&binaryMode=true&mid={first}", world.channels());
    let mut back = world.listen(&query).await;
    let told: Vec<String> = back.messages().await.into_iter().map(|message| message.body).collect();
    assert_eq!(told, ["2", "3"]);
    let polled = world.poll(&query).await;
    let told: Vec<String> = messages(polled.body.into())
        .into_iter()
        .map(|message| message.body)
        .collect();
    assert_eq!(told, ["2", "3"]);
    world.portal(&target, "4").await;
    assert_eq!(back.messages().await[0].body, "4");
}

#[tokio::test(start_paused = true)]
async fn a_poll_in_vain_leaves_no_gap() {
    let world = World::new();
    let empty = world.poll(&world.channels()).await;
    assert_eq!((empty.status, empty.body.len()), (304, 0));
    assert_eq!(empty.field("access-control-allow-origin"), Some("*"));
    assert_eq!(empty.field("expires"), Some("Thu, 01 Jan 1973 11:11:01 GMT"));
    let last = empty.field("last-message-id").expect("an id").to_string();
    // Between two polls.
    world.portal(&format!("/bitrix/pub/?CHANNEL_ID={SHARED}"), "1").await;
    let told = world.poll(&format!("{}&mid={last}", world.channels())).await;
    assert_eq!(told.status, 200);
    assert!(told.text().contains("\"text\":1}"), "{}", told.text());
    let channels = world.channels();
    let (polled, _) = tokio::join!(world.poll(&channels), async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        world.portal(&format!("/bitrix/pub/?CHANNEL_ID={SHARED}"), "2").await
    });
    assert!(polled.text().contains("\"text\":2}"), "{}", polled.text());
    assert_eq!(world.desk.hub.numbers().channels, 0, "nobody listens any more");
}

#[tokio::test]
async fn strangers_hear_the_code_and_nothing_else() {
    let world = World::new();
    let forged = format!("CHANNEL_ID={PRIVATE}.{}", world.key().sign(SHARED));
    let expired = token::issue(world.key(), r#"{"alg":"HS256"}"#, r#"{"exp":5,"sub":"1"}"#);
    let unsigned = token::issue(world.key(), r#"{"alg":"none"}"#, r#"{"exp":99999999999,"sub":"1"}"#);
    let queries = [
        forged,
        format!("CHANNEL_ID={SHARED}"),
        "CHANNEL_ID=".into(),
        format!("token={expired}&jsonRpc=true"),
        format!("token={unsigned}&jsonRpc=true"),
    ];
    for query in &queries {
        assert_eq!(world.listen(query).await.closed().await, 4010, "{query}");
        let polled = world.poll(query).await;
        assert_eq!(
            (polled.status, polled.text()),
            (400, "4010: Wrong Channel Id."),
            "{query}"
        );
    }
    let numbers = world.numbers();
    assert!(
        numbers.contains("bitrix_push_refused_total{reason=\"wrong_channel\"} 10\n"),
        "{numbers}"
    );
    let old = world.poll(&format!("{}&callback=x", world.channels())).await;
    assert_eq!(old.status, 400);
    for target in ["/bitrix/pub/", "/bitrix/api/", "/server-stat/", "/"] {
        let said = world.ask(For::Clients, "POST", target, "", b"{}").await;
        assert_eq!(
            (said.status, said.field("access-control-allow-origin")),
            (404, Some("*")),
            "{target}"
        );
    }
    assert_eq!(world.desk.hub.numbers().kept, 0);
}

#[tokio::test]
async fn clients_write_to_those_whom_the_portal_has_named() {
    let world = World::new();
    let query = format!("{}&binaryMode=true", world.channels());
    let (mut writer, mut reader) = (world.listen(&query).await, world.listen(&query).await);
    writer.send(bytes(&world.publish("{}"))).await;
    let message = reader.messages().await.remove(0);
    let sender = message.sender.expect("a sender");
    assert_eq!((sender.kind, HEXLOWER.encode(&sender.id).as_str()), (1, PUBLIC));
    let (target, batch) = (
        format!("/bitrix/rest/?{}", world.channels()),
        world.publish("2").encode_to_vec(),
    );
    let posted = world.ask(For::Clients, "POST", &target, "", &batch).await;
    assert_eq!(posted.status, 200);
    assert_eq!(reader.messages().await[0].body, "2");

    let spoil = |spoil: fn(&mut Receiver)| {
        let mut batch = world.publish("{}");
        if let Some(Command::Publish(request)) = &mut batch.requests[0].command {
            spoil(&mut request.messages[0].receivers[0]);
        }
        batch
    };
    for (batch, code) in [
        (
            spoil(|receiver| receiver.signature = Bytes::from_static(b"forged")),
            4021,
        ),
        (spoil(|receiver| receiver.is_private = true), 4020),
        (spoil(|receiver| receiver.id = Bytes::from_static(b"short")), 4019),
        (RequestBatch::default(), 4022),
    ] {
        let mut client = world.listen(&query).await;
        client.send(bytes(&batch)).await;
        assert_eq!(client.closed().await, code);
    }
    let shared = format!("CHANNEL_ID={SHARED}.{}&binaryMode=true", world.key().sign(SHARED));
    let mut guest = world.listen(&shared).await;
    guest.send(bytes(&world.publish("{}"))).await;
    assert_eq!(guest.closed().await, 4012);
    let said = world
        .ask(For::Clients, "POST", &format!("/bitrix/rest/?{shared}"), "", b"")
        .await;
    assert_eq!(
        (said.status, said.text()),
        (400, "4012: Public Channel Id is Required.")
    );
}

#[tokio::test]
async fn online_is_told_in_all_three_forms() {
    let world = World::new();
    let ask = format!("/bitrix/pub/?CHANNEL_ID={PRIVATE}/{SHARED}");
    let online = world.ask(For::Portal, "GET", &ask, "", b"").await;
    assert_eq!(online.text(), "{\"infos\":[]}");
    let mut client = world.listen(&format!("{}&binaryMode=true", world.channels())).await;
    let online = world.ask(For::Portal, "GET", &ask, "", b"").await;
    assert_eq!(
        online.text(),
        format!("{{\"infos\":[{{\"channel\":\"{PRIVATE}\",\"subscribers\":1}}]}}")
    );
    let mut batch = world.publish("{}");
    if let Some(Command::Publish(request)) = batch.requests[0].command.take() {
        let channels = request
            .messages
            .into_iter()
            .flat_map(|message| message.receivers)
            .collect();
        batch.requests[0].command = Some(Command::Stats(ChannelStatsRequest { channels }));
    }
    client.send(bytes(&batch)).await;
    let WsMessage::Binary(answer) = client.next().await else {
        panic!("binary")
    };
    let answer = ResponseBatch::decode(answer)
        .expect("a batch")
        .responses
        .remove(0)
        .command;
    let Some(Answer::Stats(stats)) = answer else {
        panic!("{answer:?}")
    };
    assert!(stats.channels[0].is_online && !stats.channels[0].is_private);
    let _user = world.listen(&world.token(7)).await;
    let call = r#"{"jsonrpc":"2.0","method":"getUsersLastSeen","params":{"userList":["7",8]},"id":1}"#;
    let target = |signature: &str| format!("/bitrix/api/?signature={signature}");
    let seen = world.portal(&target(&world.key().sign(call)), call).await;
    let seen: Value = serde_json::from_slice(&seen.body).expect("JSON");
    assert_eq!(seen, json!({"jsonrpc": "2.0", "result": {"7": 0}, "id": 1}));
    let forged = world.portal(&target(&world.key().sign("other")), call).await;
    assert_eq!((forged.status, forged.text()), (400, "4026: Wrong request signature."));
}

#[tokio::test]
async fn calls_of_generation_5_are_answered() {
    let world = World::new();
    let (mut one, mut two) = (world.listen(&world.token(1)).await, world.listen(&world.token(2)).await);
    let mut call = async |text: Value| {
        one.send(WsMessage::Text(text.to_string().into())).await;
        one.json().await
    };
    let asked =
        |id: u32, method: &str, params: Value| json!({"jsonrpc": "2.0", "method": method, "params": params, "id": id});
    assert_eq!(
        call(asked(1, "ping", json!({}))).await,
        json!({"jsonrpc": "2.0", "result": "pong", "id": 1})
    );
    assert_eq!(
        call(asked(2, "listChannels", json!({}))).await["result"],
        json!([SHARED])
    );
    assert_eq!(call(asked(3, "none", json!({}))).await["error"]["code"], -32601);
    assert_eq!(
        call(asked(4, "publish", json!({"body": {}}))).await["error"]["code"],
        -32602
    );
    assert_eq!(
        call(asked(5, "subscribeStatusChange", json!({"userId": 3}))).await["result"],
        true
    );
    let published = call(json!([
        asked(6, "publish", json!({"userList": [2], "body": {"b": 2}, "expiry": 9})),
        7
    ]))
    .await;
    assert_eq!(published[0]["result"], true);
    assert_eq!(published[1]["error"]["code"], -32600);
    let told = two.json().await;
    assert_eq!(told["params"]["body"], json!({"b": 2}));
    assert_eq!(told["params"]["sender"], json!({"type": 1, "id": 1}));
    two.send(WsMessage::Text(
        format!("mack:{}", told["params"]["mid"].as_str().expect("an id")).into(),
    ))
    .await;
    let _three = world.listen(&world.token(3)).await;
    assert_eq!(
        one.json().await["params"]["body"]["params"],
        json!({"user_id": 3, "online": true})
    );
    // What the portal says differently to each.
    let calls = json!([{"jsonrpc": "2.0", "method": "publish",
        "params": {"userList": [1, 2], "body": {}, "user_params": {"2": {"x": 1}}, "dictionary": {"d": 1}}}]);
    let calls = calls.to_string();
    let said = world
        .portal(&format!("/bitrix/api/?signature={}", world.key().sign(&calls)), &calls)
        .await;
    assert_eq!(said.text(), "[]");
    let (first, second) = (one.json().await, two.json().await);
    assert_eq!(
        (&first["params"]["user_params"], &first["params"]["dictionary"]),
        (&Value::Null, &json!({"d": 1}))
    );
    assert_eq!(second["params"]["user_params"], json!({"x": 1}));
}

#[tokio::test(start_paused = true)]
async fn messages_that_follow_soon_go_together() {
    let world = World::new();
    let mut client = world.listen(&format!("{}&binaryMode=true", world.channels())).await;
    let target = format!("/bitrix/pub/?CHANNEL_ID={SHARED}");
    world.portal(&target, "0").await;
    assert_eq!(client.messages().await.len(), 1, "the first one at once");
    for body in 1..=5 {
        world.portal(&target, &body.to_string()).await;
    }
    let together = client.messages().await;
    assert_eq!(together.len(), 5);
    assert_eq!(together[4].body, "5");
}
