//! What an operator is answered.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};

use super::world::{PRIVATE, PUBLIC, SHARED, World};
use crate::push::control;

async fn ask(world: &World, question: &str) -> BufReader<DuplexStream> {
    let (mut near, far) = duplex(64 << 10);
    let asked = control::serve(far, world.desk.clone(), world.scope.clone());
    world.scope.spawn(asked);
    near.write_all(format!("{question}\n").as_bytes()).await.expect("asked");
    BufReader::new(near)
}

async fn whole(world: &World, question: &str) -> String {
    let mut text = String::new();
    let mut answer = ask(world, question).await;
    answer.read_to_string(&mut text).await.expect("answered");
    text
}

async fn line(answer: &mut BufReader<DuplexStream>) -> Value {
    let mut line = String::new();
    answer.read_line(&mut line).await.expect("a line");
    serde_json::from_str(&line).expect("JSON")
}

#[tokio::test]
async fn channels_are_shown_without_what_is_secret() {
    let world = World::new();
    let (_one, _two) = (
        world.listen(&world.channels()).await,
        world.listen(&world.token(7)).await,
    );
    let told = whole(&world, "channels").await;
    let mut told: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    told.sort_by_key(|one| one["channel"].to_string());
    let of = |channel: String, connections: u32| json!({"channel": channel, "connections": connections});
    let expected = [
        of(format!("private:{}…", &SHARED[..8]), 2),
        of(format!("private:{}…", &PRIVATE[..8]), 1),
        of(format!("public:{PUBLIC}"), 1),
        of("user:7".into(), 1),
    ];
    assert_eq!(told, expected);
    let numbers = whole(&world, "numbers").await;
    assert!(
        numbers.contains("bitrix_push_connections{transport=\"websocket\"} 2\n"),
        "{numbers}"
    );
    assert!(whole(&world, "what?").await.contains("error"));
}

#[tokio::test]
async fn messages_are_followed_as_they_are_delivered() {
    let world = World::new();
    let _listens = world.listen(&world.channels()).await;
    let (mut all, mut one) = (
        ask(&world, "tail bodies").await,
        ask(&world, &format!("tail {PRIVATE}")).await,
    );
    // Both follow when they have asked, which nobody is told: messages are said until each has heard one.
    let body = r#"{"module_id":"im","command":"message","params":{}}"#;
    let publish = async {
        loop {
            world.portal(&format!("/bitrix/pub/?CHANNEL_ID={SHARED}"), "0").await;
            world.portal(&format!("/bitrix/pub/?CHANNEL_ID={PRIVATE}"), body).await;
        }
    };
    let heard = async {
        let mut told = line(&mut all).await;
        while told["what"] == "-" {
            assert_eq!(told["body"], 0);
            told = line(&mut all).await;
        }
        assert_eq!(told["body"]["command"], "message");
        line(&mut one).await
    };
    let told = tokio::select! {
        () = publish => unreachable!("it goes on"),
        told = heard => told,
    };
    assert_eq!(
        (&told["what"], &told["sender"], &told["reached"]),
        (&json!("im.message"), &json!("portal"), &json!(1))
    );
    assert_eq!(
        (&told["channels"], &told["body"]),
        (&json!([format!("private:{}…", &PRIVATE[..8])]), &Value::Null)
    );
}
