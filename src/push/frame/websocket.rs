//! Frames of a WebSocket (RFC 6455 §5), the server's side: what clients send is decoded, what they get is encoded. No I/O, no extensions.
//!
//! Why not a crate's: between two frames a decoder is a few words here and no buffer, and a frame that goes to thousands is encoded once,
//! head and all.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::push::message::BODY_MAX;

/// Of a control frame (§5.5).
const CONTROL_MAX: usize = 125;
const HEAD_MAX: usize = 14;
const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
/// The length stands in two, or in eight further bytes.
const TWO: u8 = 126;
const EIGHT: u8 = 127;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    Text(String),
    Binary(Bytes),
    Ping(Bytes),
    Pong,
    /// With its reason's code, if it gave one.
    Close(Option<u16>),
}

/// Why a client is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    #[error("a frame breaks the protocol: {0}")]
    Protocol(&'static str),
    #[error("a text is not UTF-8")]
    NotText,
    #[error("a message is too large")]
    TooLarge,
}

impl Fault {
    /// With which the connection is closed (§7.4.1).
    pub fn code(self) -> u16 {
        match self {
            Fault::Protocol(_) => 1002,
            Fault::NotText => 1007,
            Fault::TooLarge => 1009,
        }
    }
}

/// A frame to a client, in one piece.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut frame = begin(opcode, payload.len());
    frame.put_slice(payload);
    frame.freeze()
}

/// The last frame to a client.
pub fn close(code: u16, reason: &str) -> Bytes {
    let end = reason.floor_char_boundary(CONTROL_MAX - 2);
    let mut frame = begin(Opcode::Close, 2 + end);
    frame.put_u16(code);
    frame.put_slice(&reason.as_bytes()[..end]);
    frame.freeze()
}

/// A frame's head, with room for its payload.
pub fn begin(opcode: Opcode, length: usize) -> BytesMut {
    let mut frame = BytesMut::with_capacity(head_length(length) + length);
    frame.put_u8(FINAL | opcode as u8);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < TWO => frame.put_u8(short),
        (_, Ok(two)) => {
            frame.put_u8(TWO);
            frame.put_u16(two);
        }
        _ => {
            frame.put_u8(EIGHT);
            frame.put_u64(length as u64);
        }
    }
    frame
}

/// Bytes before the payload of a frame to a client.
pub fn head_length(payload: usize) -> usize {
    match payload {
        0..=CONTROL_MAX => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// Puts together what clients send, however it is cut.
#[derive(Default)]
pub struct Decoder {
    head: [u8; HEAD_MAX],
    /// Bytes of the head that are there.
    have: u8,
    /// The frame whose payload is awaited.
    frame: Option<Box<Frame>>,
    /// A message of which not all fragments have come.
    fragments: Option<Box<Fragments>>,
}

struct Frame {
    opcode: Opcode,
    is_final: bool,
    mask: [u8; 4],
    length: usize,
    payload: Vec<u8>,
}

struct Fragments {
    is_text: bool,
    payload: Vec<u8>,
}

impl Decoder {
    /// What the client says next; takes what it reads off `input`. `None`: that was all. After a fault nothing more is to be read.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Said>, Fault> {
        loop {
            if self.frame.is_none() {
                if !self.fill_head(input) {
                    return Ok(None);
                }
                let frame = read_head(&self.head)?;
                self.have = 0;
                self.check(&frame)?;
                self.frame = Some(Box::new(frame));
            }
            let Some(mut frame) = self.frame.take() else { continue };
            frame.fill(input);
            if frame.payload.len() < frame.length {
                self.frame = Some(frame);
                return Ok(None);
            }
            if let Some(said) = self.end(*frame)? {
                return Ok(Some(said));
            }
        }
    }

    /// Returns whether the head is whole.
    fn fill_head(&mut self, input: &mut &[u8]) -> bool {
        loop {
            let have = usize::from(self.have);
            let wanted = match have {
                0 | 1 => 2,
                _ => client_head_length(self.head[1]),
            };
            if have == wanted {
                return true;
            }
            let Some((byte, rest)) = input.split_first() else {
                return false;
            };
            self.head[have] = *byte;
            self.have += 1;
            *input = rest;
        }
    }

    fn check(&self, frame: &Frame) -> Result<(), Fault> {
        let so_far = match (frame.opcode, &self.fragments) {
            (Opcode::Continuation, None) => return Err(Fault::Protocol("it continues nothing")),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Fault::Protocol("the message before is not over")),
            (Opcode::Continuation, Some(fragments)) => fragments.payload.len(),
            _ => 0,
        };
        match frame.length > BODY_MAX - so_far {
            true => Err(Fault::TooLarge),
            false => Ok(()),
        }
    }

    fn end(&mut self, frame: Frame) -> Result<Option<Said>, Fault> {
        let payload = frame.payload;
        Ok(Some(match frame.opcode {
            Opcode::Ping => Said::Ping(payload.into()),
            Opcode::Pong => Said::Pong,
            Opcode::Close => Said::Close(close_code(&payload)?),
            Opcode::Text | Opcode::Binary if frame.is_final => message(frame.opcode == Opcode::Text, payload)?,
            Opcode::Text | Opcode::Binary => {
                let is_text = frame.opcode == Opcode::Text;
                self.fragments = Some(Box::new(Fragments { is_text, payload }));
                return Ok(None);
            }
            Opcode::Continuation => {
                let Some(mut fragments) = self.fragments.take() else {
                    return Err(Fault::Protocol("it continues nothing"));
                };
                fragments.payload.extend_from_slice(&payload);
                if !frame.is_final {
                    self.fragments = Some(fragments);
                    return Ok(None);
                }
                message(fragments.is_text, fragments.payload)?
            }
        }))
    }
}

impl Frame {
    fn fill(&mut self, input: &mut &[u8]) {
        let (taken, rest) = input.split_at(input.len().min(self.length - self.payload.len()));
        let mask = self.mask.iter().cycle().skip(self.payload.len() % 4);
        // No more room than for what has come: the length is only a claim.
        self.payload
            .extend(taken.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
        *input = rest;
    }
}

/// Bytes of a client's head, by its second byte.
fn client_head_length(second: u8) -> usize {
    let mask = if second & MASKED == 0 { 0 } else { 4 };
    match second & !MASKED {
        TWO => 4 + mask,
        EIGHT => 10 + mask,
        _ => 2 + mask,
    }
}

fn read_head(head: &[u8; HEAD_MAX]) -> Result<Frame, Fault> {
    let [first, second, rest @ ..] = head;
    if first & RESERVED != 0 {
        return Err(Fault::Protocol("no extension was agreed on"));
    }
    if second & MASKED == 0 {
        return Err(Fault::Protocol("it is not masked"));
    }
    let opcode = match first & 0x0f {
        0 => Opcode::Continuation,
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        _ => return Err(Fault::Protocol("there is no such opcode")),
    };
    let is_final = first & FINAL != 0;
    let [a, b, c, d, e, f, g, h, ..] = *rest;
    let (length, mask) = match second & !MASKED {
        TWO => (u64::from(u16::from_be_bytes([a, b])), [c, d, e, f]),
        EIGHT => (
            u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            [rest[8], rest[9], rest[10], rest[11]],
        ),
        short => (u64::from(short), [a, b, c, d]),
    };
    let length = usize::try_from(length).map_err(|_| Fault::TooLarge)?;
    if opcode as u8 >= Opcode::Close as u8 && (length > CONTROL_MAX || !is_final) {
        return Err(Fault::Protocol("a control frame is short and in one piece"));
    }
    Ok(Frame {
        opcode,
        is_final,
        mask,
        length,
        payload: Vec::new(),
    })
}

fn message(is_text: bool, payload: Vec<u8>) -> Result<Said, Fault> {
    match is_text {
        true => String::from_utf8(payload).map(Said::Text).map_err(|_| Fault::NotText),
        false => Ok(Said::Binary(payload.into())),
    }
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, Fault> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] => {
            std::str::from_utf8(reason).map_err(|_| Fault::NotText)?;
            match u16::from_be_bytes([*high, *low]) {
                code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Ok(Some(code)),
                _ => Err(Fault::Protocol("that code is not for closing")),
            }
        }
        [_] => Err(Fault::Protocol("half a code")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{self, Cursor, Read, Write};
    use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
    use tokio_tungstenite::tungstenite::{Message, WebSocket, error::Error};

    fn masked(first: u8, length: &[u8], payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        [first]
            .into_iter()
            .chain(length.iter().copied())
            .chain(mask)
            .chain(payload)
            .collect()
    }

    fn short(first: u8, payload: &[u8]) -> Vec<u8> {
        masked(first, &[MASKED | u8::try_from(payload.len()).expect("short")], payload)
    }

    fn decode(mut input: &[u8]) -> (Vec<Said>, Option<Fault>) {
        let (mut decoder, mut all) = (Decoder::default(), Vec::new());
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(Said::Close(code))) => {
                    all.push(Said::Close(code));
                    return (all, None);
                }
                Ok(Some(said)) => all.push(said),
                Ok(None) => return (all, None),
                Err(fault) => return (all, Some(fault)),
            }
        }
    }

    #[test]
    fn messages_come_through_wherever_they_are_cut() {
        let long = "ж".repeat(200);
        let mut bytes = short(0x81, b"a");
        bytes.extend(short(0x01, "ж".as_bytes().split_at(1).0));
        bytes.extend(short(0x89, b"between"));
        bytes.extend(short(0x80, "ж".as_bytes().split_at(1).1));
        bytes.extend(masked(0x82, &[MASKED | TWO, 1, 144], long.as_bytes()));
        bytes.extend(short(0x8a, b""));
        bytes.extend(short(0x88, &[3, 232, b'x']));
        let expected = [
            Said::Text("a".into()),
            Said::Ping(Bytes::from_static(b"between")),
            Said::Text("ж".into()),
            Said::Binary(long.into_bytes().into()),
            Said::Pong,
            Said::Close(Some(1000)),
        ];
        assert_eq!(decode(&bytes).0, expected);
        for cut in 0..bytes.len() {
            let (mut decoder, mut all) = (Decoder::default(), Vec::new());
            for mut piece in [&bytes[..cut], &bytes[cut..]] {
                while let Some(said) = decoder.decode(&mut piece).expect("well formed") {
                    all.push(said);
                }
            }
            assert_eq!(all, expected, "cut at {cut}");
        }
    }

    #[test]
    fn what_breaks_the_protocol_is_told_from_what_is_too_large() {
        let huge = [MASKED | EIGHT, 255, 255, 255, 255, 255, 255, 255, 255];
        let fits = u64::try_from(BODY_MAX).expect("small").to_be_bytes();
        let beyond = u64::try_from(BODY_MAX + 1).expect("small").to_be_bytes();
        for (bytes, code) in [
            (vec![0x81, 0], 1002),
            (short(0xc1, b"a"), 1002),
            (short(0x83, b"a"), 1002),
            (short(0x80, b"a"), 1002),
            ([short(0x01, b"a"), short(0x81, b"a")].concat(), 1002),
            (short(0x09, b""), 1002),
            (masked(0x89, &[MASKED | TWO, 0, 126], &[0; 126]), 1002),
            (short(0x88, &[3]), 1002),
            (short(0x88, &[3, 237]), 1002),
            (short(0x81, &[255]), 1007),
            (masked(0x82, &huge, b""), 1009),
            (masked(0x82, &[&[MASKED | EIGHT], &beyond[..]].concat(), b""), 1009),
            (
                [
                    short(0x02, b"a"),
                    masked(0x80, &[&[MASKED | EIGHT], &fits[..]].concat(), b""),
                ]
                .concat(),
                1009,
            ),
        ] {
            assert_eq!(decode(&bytes).1.map(Fault::code), Some(code), "{bytes:?}");
        }
        let mut decoder = Decoder::default();
        let claim = masked(0x82, &[&[MASKED | EIGHT], &fits[..]].concat(), b"x");
        assert_eq!(decoder.decode(&mut claim.as_slice()), Ok(None));
        let frame = decoder.frame.expect("under way");
        assert!(frame.payload.capacity() < 100, "a claim takes no memory");
    }

    #[test]
    fn a_crates_client_reads_our_frames() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let bytes = [frame(Opcode::Binary, &payload), close(4010, "4010: ж")].concat();
            assert_eq!(head_length(length), frame(Opcode::Binary, &payload).len() - length);
            let mut client = WebSocket::from_raw_socket(Peer(Cursor::new(bytes)), Role::Client, None);
            assert_eq!(client.read().expect("a message"), Message::Binary(payload.into()));
            let Message::Close(Some(end)) = client.read().expect("an end") else {
                panic!("with a reason")
            };
            assert_eq!((u16::from(end.code), end.reason.as_str()), (4010, "4010: ж"));
        }
        let cut = close(1000, &"ж".repeat(200));
        assert_eq!(cut.len(), 2 + 2 + 122, "and no half letter");
    }

    /// A client that has said all that it will.
    struct Peer(Cursor<Vec<u8>>);

    impl Read for Peer {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Peer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The same by a crate: messages, and whether it found a fault.
    fn oracle(bytes: &[u8]) -> (Vec<Said>, bool) {
        let config = WebSocketConfig::default()
            .max_message_size(Some(BODY_MAX))
            .max_frame_size(Some(BODY_MAX));
        let mut socket = WebSocket::from_raw_socket(Peer(Cursor::new(bytes.to_vec())), Role::Server, Some(config));
        let mut all = Vec::new();
        loop {
            match socket.read() {
                Ok(Message::Text(text)) => all.push(Said::Text(text.to_string())),
                Ok(Message::Binary(bytes)) => all.push(Said::Binary(bytes)),
                Ok(Message::Ping(payload)) => all.push(Said::Ping(payload)),
                Ok(Message::Pong(_)) => all.push(Said::Pong),
                Ok(Message::Close(frame)) => {
                    all.push(Said::Close(frame.map(|frame| frame.code.into())));
                    return (all, false);
                }
                Ok(Message::Frame(_)) => unreachable!("only sent"),
                // Where the bytes end.
                Err(Error::Protocol(error)) if error.to_string().contains("without closing handshake") => {
                    return (all, false);
                }
                Err(_) => return (all, true),
            }
        }
    }

    /// Frames as bytes, and whether they are left as they are: some are cut, some have a byte changed.
    fn bytes() -> impl Strategy<Value = (Vec<u8>, bool)> {
        let first = prop_oneof![
            4 => prop::sample::select(vec![0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8a]),
            1 => any::<u8>(),
        ];
        let payload = prop_oneof![
            prop::collection::vec(prop::sample::select(b"a\xd0\xb6".to_vec()), 0..20),
            prop::collection::vec(any::<u8>(), 0..125),
        ];
        let frame = (first, payload).prop_map(|(first, payload)| short(first, &payload));
        let frames = prop::collection::vec(frame, 0..8).prop_map(|frames| frames.concat());
        (frames, any::<prop::sample::Index>(), any::<u8>(), 0..4).prop_map(|(mut bytes, place, byte, how)| {
            let place = place.index(bytes.len().max(1));
            match how {
                0 if place < bytes.len() => bytes[place] = byte,
                1 => bytes.truncate(place),
                _ => {}
            }
            (bytes, how > 1)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_crate_reads_the_same((bytes, is_whole) in bytes()) {
            let (said, fault) = decode(&bytes);
            let (expected, is_faulty) = oracle(&bytes);
            // The crate closes with a code of its own in the place of one that is not allowed.
            if fault == Some(Fault::Protocol("that code is not for closing")) {
                prop_assert!(matches!(expected.split_last(), Some((Said::Close(_), before)) if before == said));
            } else if is_faulty && (said.len(), fault.is_some()) != (expected.len(), true) {
                // It looks at the fragments of a text one by one, and we at the whole; what comes between them is said meanwhile.
                prop_assert!(said.starts_with(&expected) && has_begun_a_text(&bytes));
            } else {
                prop_assert_eq!(said, expected);
                // We look at a head at once, and it when the payload has come.
                prop_assert!(fault.is_some() == is_faulty || fault.is_some() && !is_whole);
            }
        }
    }

    fn has_begun_a_text(bytes: &[u8]) -> bool {
        bytes.contains(&0x01) || bytes.contains(&0x81)
    }
}
