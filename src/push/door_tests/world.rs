//! A push server whose doors are streams in memory, and clients that knock at them.

use std::sync::Arc;

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Semaphore;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::base::{Scope, clock};
use crate::push::channel::Id;
use crate::push::desk::Desk;
use crate::push::door::{Door, For};
use crate::push::frame::protobuf::{
    Answer, Command, IncomingMessage, IncomingMessages, OutgoingMessage, Receiver, Request, RequestBatch, ResponseBatch,
};
use crate::push::hub::Hub;
use crate::push::key::Key;
use crate::push::metrics::Metrics;
use crate::push::token;

pub const PRIVATE: &str = "0123456789abcdef0123456789abcdef";
pub const PUBLIC: &str = "fedcba9876543210fedcba9876543210";
pub const SHARED: &str = "00000000000000000000000000000001";

pub struct World {
    pub desk: Arc<Desk>,
    pub scope: Scope,
}

pub struct Said {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Said {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields
            .into_iter()
            .find(|(field, _)| *field == name)
            .map(|(_, value)| value)
    }
}

impl World {
    pub fn new() -> Self {
        let metrics = Arc::new(Metrics::default());
        let desk = Desk {
            hub: Hub::new(8 << 20, metrics.clone()),
            key: Key::new("bitrix-node-test-key"),
            metrics,
        };
        World {
            desk: Arc::new(desk),
            scope: Scope::new(),
        }
    }

    pub fn connect(&self, open_to: For, buffer: usize) -> DuplexStream {
        let door = Door {
            desk: self.desk.clone(),
            open_to,
            seats: Arc::new(Semaphore::new(1000)),
            scope: self.scope.clone(),
        };
        let (near, far) = duplex(buffer);
        self.scope.spawn(door.serve(far));
        near
    }

    pub async fn ask(&self, open_to: For, method: &str, target: &str, fields: &str, body: &[u8]) -> Said {
        let mut stream = self.connect(open_to, 64 << 10);
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{fields}\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        // A server that refuses early does not read it all.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("answered");
        let end = answer
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("a head");
        let head = String::from_utf8(answer[..end].to_vec()).expect("text");
        Said {
            status: head
                .split(' ')
                .nth(1)
                .and_then(|status| status.parse().ok())
                .expect("a status"),
            head,
            body: answer[end + 4..].to_vec(),
        }
    }

    pub async fn portal(&self, target: &str, body: &str) -> Said {
        self.ask(For::Portal, "POST", target, "Message-Expiry: 60\r\n", body.as_bytes())
            .await
    }

    pub async fn poll(&self, query: &str) -> Said {
        self.ask(For::Clients, "GET", &format!("/bitrix/sub/?{query}"), "", b"")
            .await
    }

    pub async fn listen(&self, query: &str) -> Client {
        self.listen_over(query, 64 << 10).await
    }

    pub async fn listen_over(&self, query: &str, buffer: usize) -> Client {
        let mut stream = self.connect(For::Clients, buffer);
        let head = format!(
            "GET /bitrix/subws/?{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
            BASE64.encode(&[7; 16])
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.expect("a head"));
        }
        assert!(
            answer.starts_with(b"HTTP/1.1 101 "),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        Client(WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
    }

    pub fn key(&self) -> &Key {
        &self.desk.key
    }

    /// A private channel with its public id, and the shared one.
    pub fn channels(&self) -> String {
        let both = self.key().sign(&format!("{PRIVATE}:{PUBLIC}"));
        let shared = self.key().sign(SHARED);
        format!("CHANNEL_ID={PRIVATE}%3A{PUBLIC}.{both}%2F{SHARED}.{shared}")
    }

    pub fn token(&self, user: u64) -> String {
        let exp = clock::unix().as_secs() + 60;
        let body = format!(r#"{{"exp":{exp},"sub":"{user}","chan":"{SHARED}"}}"#);
        let token = token::issue(self.key(), r#"{"typ":"JWT","alg":"HS256"}"#, &body);
        format!("token={token}&jsonRpc=true")
    }

    /// Bytes of a request to publish to the public id.
    pub fn publish(&self, body: &str) -> RequestBatch {
        let signature = HEXLOWER.decode(self.key().sign(&format!("public:{PUBLIC}")).as_bytes());
        let receiver = Receiver {
            id: Bytes::copy_from_slice(&Id::parse(PUBLIC).expect("an id").0),
            is_private: false,
            signature: signature.expect("hexadecimal").into(),
        };
        let message = IncomingMessage {
            receivers: vec![receiver],
            body: body.into(),
            expiry: 60,
        };
        let messages = vec![message];
        let command = Some(Command::Publish(IncomingMessages { messages }));
        RequestBatch {
            requests: vec![Request { command }],
        }
    }

    pub fn numbers(&self) -> String {
        self.desk.metrics.encode(self.desk.hub.numbers())
    }
}

pub struct Client(pub WebSocketStream<DuplexStream>);

impl Client {
    pub async fn next(&mut self) -> WsMessage {
        self.0.next().await.expect("not over").expect("well formed")
    }

    pub async fn text(&mut self) -> String {
        match self.next().await {
            WsMessage::Text(text) => text.to_string(),
            other => panic!("{other:?}"),
        }
    }

    pub async fn json(&mut self) -> Value {
        serde_json::from_str(&self.text().await).expect("JSON")
    }

    pub async fn messages(&mut self) -> Vec<OutgoingMessage> {
        let WsMessage::Binary(bytes) = self.next().await else {
            panic!("binary")
        };
        messages(bytes)
    }

    pub async fn send(&mut self, message: WsMessage) {
        self.0.send(message).await.expect("sent");
    }

    pub async fn closed(&mut self) -> u16 {
        loop {
            match self.next().await {
                WsMessage::Close(frame) => return frame.expect("with a reason").code.into(),
                WsMessage::Ping(_) | WsMessage::Text(_) | WsMessage::Binary(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

pub fn messages(bytes: Bytes) -> Vec<OutgoingMessage> {
    let batch = ResponseBatch::decode(bytes).expect("a batch");
    let answers = batch
        .responses
        .into_iter()
        .filter_map(|response| match response.command {
            Some(Answer::Messages(answer)) => Some(answer.messages),
            _ => None,
        });
    answers.flatten().collect()
}

pub fn bytes(batch: &RequestBatch) -> WsMessage {
    WsMessage::Binary(batch.encode_to_vec().into())
}
