//! Messages and requests as bytes, in the three forms that clients speak. No I/O.

pub mod protobuf;
pub mod rpc;
pub mod text;

use std::sync::Arc;

use bytes::Bytes;

use super::message::Message;

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

/// Messages as one client takes them: each by itself in generation 5, else some together.
pub fn frames(messages: impl IntoIterator<Item = Arc<Message>>, dialect: Dialect, user: Option<u64>) -> Vec<Bytes> {
    let mut frames: Vec<Bytes> = Vec::new();
    let mut together: Vec<Bytes> = Vec::new();
    for message in messages {
        let frame = message.frame(dialect, user);
        let length: usize = together.iter().map(Bytes::len).sum();
        let is_apart = dialect == Dialect::Rpc || length + frame.len() > TOGETHER;
        if is_apart && !together.is_empty() {
            frames.push(join(&mut together));
        }
        together.push(frame);
    }
    if !together.is_empty() {
        frames.push(join(&mut together));
    }
    frames
}

fn join(together: &mut Vec<Bytes>) -> Bytes {
    match together.len() {
        // The bytes that all others get, too.
        1 => together.remove(0),
        _ => std::mem::take(together).concat().into(),
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
            let apart: Vec<Bytes> = messages.iter().map(|message| message.frame(dialect, None)).collect();
            assert_eq!(frames.concat(), apart.concat(), "nothing is lost");
        }
        assert!(frames(Vec::new(), Dialect::Text, None).is_empty());
        let alone = frames(messages[..1].to_vec(), Dialect::Text, None);
        assert_eq!(
            alone[0].as_ptr(),
            messages[0].frame(Dialect::Text, None).as_ptr(),
            "not copied"
        );
    }
}
