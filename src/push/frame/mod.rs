//! Messages and requests as bytes, in the three forms that clients speak. No I/O.

pub mod protobuf;
pub mod rpc;
pub mod text;
pub mod websocket;

use std::sync::Arc;

use bytes::Bytes;

use super::message::Message;
use websocket::Opcode;

/// Messages beyond this go into a frame of their own: what a connection has once sent at a time, it keeps room for.
const TOGETHER: usize = 16 << 10;

/// What a client speaks, told by its query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Generation 3, and 4 without `binaryMode`.
    Text,
    /// Generation 4.
    Protobuf,
    /// Generation 5: JSON-RPC.
    Rpc,
}

impl Dialect {
    pub const ALL: [Dialect; 3] = [Dialect::Text, Dialect::Protobuf, Dialect::Rpc];

    pub fn index(self) -> usize {
        self as usize
    }

    /// Of a long poll's answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Dialect::Text => "text/plain; charset=utf-8",
            Dialect::Protobuf => "application/octet-stream",
            Dialect::Rpc => "application/json",
        }
    }
}

/// Messages in one dialect, encoded once for all who get them: as a frame of a WebSocket, whose payload is also a long poll's answer.
#[derive(Clone, Debug)]
pub struct Framed {
    bytes: Bytes,
    head: usize,
}

impl Framed {
    pub fn new(dialect: Dialect, payload: &[u8]) -> Self {
        let opcode = match dialect {
            Dialect::Protobuf => Opcode::Binary,
            Dialect::Text | Dialect::Rpc => Opcode::Text,
        };
        Framed {
            bytes: websocket::frame(opcode, payload),
            head: websocket::head_length(payload.len()),
        }
    }

    pub fn websocket(&self) -> &Bytes {
        &self.bytes
    }

    pub fn payload(&self) -> Bytes {
        self.bytes.slice(self.head..)
    }
}

/// Messages as one client takes them: each by itself in generation 5, else some together.
pub fn frames(messages: impl IntoIterator<Item = Arc<Message>>, dialect: Dialect, user: Option<u64>) -> Vec<Framed> {
    let mut frames: Vec<Framed> = Vec::new();
    let mut together: Vec<Framed> = Vec::new();
    for message in messages {
        let frame = message.frame(dialect, user);
        let length: usize = together.iter().map(|frame| frame.bytes.len()).sum();
        let is_apart = dialect == Dialect::Rpc || length + frame.bytes.len() > TOGETHER;
        if is_apart && !together.is_empty() {
            frames.push(join(&mut together, dialect));
        }
        together.push(frame);
    }
    if !together.is_empty() {
        frames.push(join(&mut together, dialect));
    }
    frames
}

fn join(together: &mut Vec<Framed>, dialect: Dialect) -> Framed {
    match together.len() {
        // The bytes that all others get, too.
        1 => together.remove(0),
        _ => {
            let payloads: Vec<Bytes> = together.drain(..).map(|frame| frame.payload()).collect();
            Framed::new(dialect, &payloads.concat())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::message::sample;

    #[test]
    fn small_messages_go_together_and_large_ones_do_not() {
        let large = format!("\"{}\"", "x".repeat(TOGETHER - 500));
        let messages: Vec<Arc<Message>> = ["1", "2", &large, "3"].map(|body| Arc::new(sample(body))).into();
        for (dialect, count) in [(Dialect::Text, 2), (Dialect::Protobuf, 1), (Dialect::Rpc, 4)] {
            let frames = frames(messages.clone(), dialect, None);
            assert!(frames.len() >= count, "{dialect:?}");
            let apart: Vec<Bytes> = messages
                .iter()
                .map(|message| message.frame(dialect, None).payload())
                .collect();
            let payloads: Vec<Bytes> = frames.iter().map(Framed::payload).collect();
            assert_eq!(payloads.concat(), apart.concat(), "nothing is lost");
        }
        assert!(frames(Vec::new(), Dialect::Text, None).is_empty());
        let alone = frames(messages[..1].to_vec(), Dialect::Text, None);
        assert_eq!(
            alone[0].websocket().as_ptr(),
            messages[0].frame(Dialect::Text, None).websocket().as_ptr(),
            "not copied"
        );
    }
}
