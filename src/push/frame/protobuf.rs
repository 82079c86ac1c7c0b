//! Generation 4: requests and answers in protocol buffers. The messages are declared here, with the numbers that the clients know.
//!
//! Requests are counted before anything is made of them: the wire form lets two bytes stand for a whole structure.

use bytes::Bytes;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{Message as _, Oneof};

use crate::push::channel::{Id, MOST};
use crate::push::message::{Message, Sender};
use crate::push::refusal::Refusal;

/// Messages in one request.
pub const MESSAGES: usize = 100;
/// Requests in one batch, of which the first is looked at.
const REQUESTS: usize = 100;

#[derive(Clone, PartialEq, prost::Message)]
pub struct RequestBatch {
    #[prost(message, repeated, tag = "1")]
    pub requests: Vec<Request>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    #[prost(oneof = "Command", tags = "1, 2, 3")]
    pub command: Option<Command>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Command {
    #[prost(message, tag = "1")]
    Publish(IncomingMessages),
    #[prost(message, tag = "2")]
    Stats(ChannelStatsRequest),
    #[prost(message, tag = "3")]
    ServerStats(ServerStatsRequest),
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct IncomingMessages {
    #[prost(message, repeated, tag = "1")]
    pub messages: Vec<IncomingMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct IncomingMessage {
    #[prost(message, repeated, tag = "1")]
    pub receivers: Vec<Receiver>,
    #[prost(string, tag = "3")]
    pub body: String,
    #[prost(uint32, tag = "4")]
    pub expiry: u32,
}

/// A receiver, or a channel that is asked about.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Receiver {
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    #[prost(bool, tag = "2")]
    pub is_private: bool,
    #[prost(bytes = "bytes", tag = "3")]
    pub signature: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ChannelStatsRequest {
    #[prost(message, repeated, tag = "1")]
    pub channels: Vec<Receiver>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ServerStatsRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResponseBatch {
    #[prost(message, repeated, tag = "1")]
    pub responses: Vec<Response>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    #[prost(oneof = "Answer", tags = "1, 2, 3")]
    pub command: Option<Answer>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Answer {
    #[prost(message, tag = "1")]
    Messages(OutgoingMessages),
    #[prost(message, tag = "2")]
    Stats(ChannelStats),
    #[prost(message, tag = "3")]
    ServerStats(Json),
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct OutgoingMessages {
    #[prost(message, repeated, tag = "1")]
    pub messages: Vec<OutgoingMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct OutgoingMessage {
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    #[prost(string, tag = "2")]
    pub body: String,
    #[prost(uint32, tag = "3")]
    pub expiry: u32,
    #[prost(fixed32, tag = "4")]
    pub created: u32,
    #[prost(message, optional, tag = "5")]
    pub sender: Option<SenderField>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SenderField {
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(bytes = "bytes", tag = "2")]
    pub id: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ChannelStats {
    #[prost(message, repeated, tag = "1")]
    pub channels: Vec<ChannelState>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ChannelState {
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    #[prost(bool, tag = "2")]
    pub is_private: bool,
    #[prost(bool, tag = "3")]
    pub is_online: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Json {
    #[prost(string, tag = "1")]
    pub json: String,
}

/// One message as a whole answer. Several are laid behind each other: protocol buffers read that as one.
pub fn message(message: &Message) -> Vec<u8> {
    let sender = SenderField {
        kind: kind(message.sender),
        id: match message.sender {
            Sender::Client(id) => Bytes::copy_from_slice(&id.0),
            Sender::Backend | Sender::User(_) => Bytes::new(),
        },
    };
    let message = OutgoingMessage {
        id: Bytes::copy_from_slice(&message.mid.bytes()),
        body: message.body.as_str().to_string(),
        expiry: message.expiry,
        created: u32::try_from(message.created.as_secs()).unwrap_or(u32::MAX),
        sender: Some(sender),
    };
    let messages = vec![message];
    answer(Answer::Messages(OutgoingMessages { messages }))
}

/// Whether channels are online.
pub fn stats(channels: Vec<ChannelState>) -> Vec<u8> {
    answer(Answer::Stats(ChannelStats { channels }))
}

/// The server's own numbers.
pub fn server_stats(json: String) -> Vec<u8> {
    answer(Answer::ServerStats(Json { json }))
}

fn answer(answer: Answer) -> Vec<u8> {
    let response = Response { command: Some(answer) };
    let responses = vec![response];
    ResponseBatch { responses }.encode_to_vec()
}

/// The number of a sender in the protocol, which generation 5 uses too.
pub fn kind(sender: Sender) -> i32 {
    match sender {
        Sender::Client(_) | Sender::User(_) => 1,
        Sender::Backend => 2,
    }
}

/// The first command of a batch.
pub fn request(bytes: Bytes) -> Result<Command, Refusal> {
    count(&bytes)?;
    let batch = RequestBatch::decode(bytes).map_err(|_| Refusal::WrongData)?;
    let first = batch.requests.into_iter().next().ok_or(Refusal::Empty)?;
    first.command.ok_or(Refusal::Empty)
}

pub fn id(receiver: &Receiver) -> Result<Id, Refusal> {
    Id::of(&receiver.id).ok_or(Refusal::InvalidChannel)
}

/// Refuses more elements than are allowed, by the lengths alone. All have field number 1, and so have their parents.
fn count(batch: &[u8]) -> Result<(), Refusal> {
    // Over the whole batch: parts of one command may be scattered.
    let (mut requests, mut elements) = (0, 0);
    for request in Fields::new(batch) {
        requests += 1;
        if requests > REQUESTS {
            return Err(Refusal::TooManyMessages);
        }
        let (_, request) = request?;
        for command in Fields::new(request) {
            let (number, command) = command?;
            for element in Fields::new(command) {
                let (_, element) = element?;
                elements += 1;
                match number {
                    1 if elements > MESSAGES => return Err(Refusal::TooManyMessages),
                    2 if elements > MOST => return Err(Refusal::TooManyChannels),
                    1 if Fields::new(element).filter(is_receiver).count() > MOST => {
                        return Err(Refusal::TooManyChannels);
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

fn is_receiver(field: &Result<(u32, &[u8]), Refusal>) -> bool {
    matches!(field, Ok((1, _)))
}

/// The fields of a message that have a length of their own.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Fields { rest: bytes }
    }

    /// `None`: a field of another kind.
    fn step(&mut self) -> Result<Option<(u32, &'a [u8])>, prost::DecodeError> {
        let (number, wire) = decode_key(&mut self.rest)?;
        if wire != WireType::LengthDelimited {
            skip_field(wire, number, &mut self.rest, DecodeContext::default())?;
            return Ok(None);
        }
        let length = usize::try_from(decode_varint(&mut self.rest)?).unwrap_or(usize::MAX);
        match self.rest.split_at_checked(length) {
            Some((field, rest)) => {
                self.rest = rest;
                Ok(Some((number, field)))
            }
            // The decoder proper says what is wrong.
            None => {
                self.rest = &[];
                Ok(None)
            }
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, &'a [u8]), Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            match self.step() {
                Ok(Some(field)) => return Some(Ok(field)),
                Ok(None) => {}
                Err(_) => {
                    self.rest = &[];
                    return Some(Err(Refusal::WrongData));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::message::sample;

    fn publish(messages: usize, receivers: usize) -> Bytes {
        let receiver = Receiver {
            id: Bytes::from_static(&[7; 16]),
            is_private: true,
            signature: Bytes::new(),
        };
        let message = IncomingMessage {
            receivers: vec![receiver; receivers],
            body: "{}".into(),
            expiry: 3,
        };
        let messages = vec![message; messages];
        let command = Some(Command::Publish(IncomingMessages { messages }));
        let requests = vec![Request { command }];
        RequestBatch { requests }.encode_to_vec().into()
    }

    #[test]
    fn an_answer_has_the_bytes_that_clients_know() {
        let bytes = message(&sample("{}"));
        let mut expected = vec![0x0a, 34, 0x0a, 32, 0x0a, 30, 0x0a, 13];
        expected.extend([0x17, 0x01, 0x23, 0x45, 0x67, 0, 0, 0, 0, 0, 0, 0, 0x42]);
        expected.extend([0x12, 2, b'{', b'}', 0x18, 60, 0x25]);
        expected.extend(1_701_234_567_u32.to_le_bytes());
        expected.extend([0x2a, 2, 0x08, 2]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn answers_behind_each_other_are_one() {
        let two = [message(&sample("1")), message(&sample("2"))].concat();
        let batch = ResponseBatch::decode(Bytes::from(two)).expect("one batch");
        let bodies: Vec<String> = batch
            .responses
            .into_iter()
            .filter_map(|response| match response.command {
                Some(Answer::Messages(answer)) => answer.messages.into_iter().next().map(|message| message.body),
                _ => None,
            })
            .collect();
        assert_eq!(bodies, ["1", "2"]);
    }

    #[test]
    fn limits_hold_before_anything_is_made() {
        assert!(request(publish(100, 100)).is_ok());
        assert_eq!(request(publish(101, 1)), Err(Refusal::TooManyMessages));
        assert_eq!(request(publish(1, 101)), Err(Refusal::TooManyChannels));
        assert_eq!(request(Bytes::new()), Err(Refusal::Empty));
        assert_eq!(request(Bytes::from_static(&[0x0a, 0])), Err(Refusal::Empty));
        // Half a million empty requests, and as many empty messages in one.
        let empty = |count: usize| [0x0a, 0].repeat(count);
        assert_eq!(request(empty(1 << 19).into()), Err(Refusal::TooManyMessages));
        let inner = empty(1 << 18);
        let mut nested = vec![0x0a];
        prost::encoding::encode_varint(inner.len() as u64, &mut nested);
        nested.extend(inner);
        let mut batch = vec![0x0a];
        prost::encoding::encode_varint(nested.len() as u64, &mut batch);
        batch.extend(nested);
        assert_eq!(request(batch.into()), Err(Refusal::TooManyMessages));
    }

    #[test]
    fn cut_and_random_bytes_are_refused_without_a_panic() {
        let whole = publish(3, 2);
        for end in 1..whole.len() {
            assert!(request(whole.slice(..end)).is_err(), "cut at {end}");
        }
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            let mut bytes = whole.to_vec();
            for _ in 0..3 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = usize::try_from(seed >> 33).expect("31 bits") % bytes.len();
                bytes[at] = seed.to_be_bytes()[3];
            }
            let _ = request(bytes.into());
        }
    }
}
