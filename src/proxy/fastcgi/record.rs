//! FastCGI 1.0 records, without I/O: encoder for what a web server sends, incremental decoder for what a responder answers.
//! Section numbers are those of the FastCGI Specification of 29 April 1996.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Size of a record's header (§3.3).
pub const HEADER: usize = 8;

/// Longest content that we put into one record: the largest multiple of 8 below 64 KiB (§3.3 recommends such boundaries).
pub const MAX_CONTENT: usize = 65528;

/// We send one request at a time over a connection, so it is always this one. 0 is for management records (§3.3).
const REQUEST: u16 = 1;

const VERSION: u8 = 1;

const BEGIN_REQUEST: u8 = 1;
const ABORT_REQUEST: u8 = 2;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;
const UNKNOWN_TYPE: u8 = 11;

const ROLE_RESPONDER: u16 = 1;
const KEEP_CONN: u8 = 1;

/// One piece of an answer. A long STDOUT or STDERR record comes in several pieces, as its bytes arrive.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    Stdout(Bytes),
    Stderr(Bytes),
    End {
        app_status: u32,
        protocol: Protocol,
    },
    /// The responder does not know the type of a record of ours (§4.2).
    Unknown(u8),
}

/// `protocolStatus` of END_REQUEST (§5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Complete,
    CannotMultiplex,
    Overloaded,
    UnknownRole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("FastCGI version {0}")]
    Version(u8),
    #[error("FastCGI record of type {0}")]
    Type(u8),
    #[error("FastCGI record for request {0}")]
    Request(u16),
    #[error("FastCGI record of type {kind} with {length} bytes")]
    Length { kind: u8, length: u16 },
    #[error("FastCGI protocol status {0}")]
    Status(u8),
}

fn header(kind: u8, length: u16) -> [u8; HEADER] {
    let [request_high, request_low] = REQUEST.to_be_bytes();
    let [length_high, length_low] = length.to_be_bytes();
    [VERSION, kind, request_high, request_low, length_high, length_low, 0, 0]
}

/// BEGIN_REQUEST (§5.1) for a responder; `keep` asks it to leave the connection open afterwards.
pub fn begin(keep: bool) -> [u8; 2 * HEADER] {
    let mut record = [0; 2 * HEADER];
    let (head, body) = record.split_at_mut(HEADER);
    head.copy_from_slice(&header(BEGIN_REQUEST, 8));
    let [high, low] = ROLE_RESPONDER.to_be_bytes();
    body.copy_from_slice(&[high, low, if keep { KEEP_CONN } else { 0 }, 0, 0, 0, 0, 0]);
    record
}

/// ABORT_REQUEST (§5.4).
pub fn abort() -> [u8; HEADER] {
    header(ABORT_REQUEST, 0)
}

/// Header of a STDIN record (§5.3); an empty one ends the stream.
pub fn stdin(length: u16) -> [u8; HEADER] {
    header(STDIN, length)
}

/// The whole PARAMS stream (§5.2): records of at most `MAX_CONTENT` bytes, then the empty one that ends it.
pub fn params(pairs: &[u8], out: &mut BytesMut) {
    out.reserve(pairs.len() + (pairs.len() / MAX_CONTENT + 2) * HEADER);
    for chunk in pairs.chunks(MAX_CONTENT) {
        out.put_slice(&header(PARAMS, chunk.len() as u16));
        out.put_slice(chunk);
    }
    out.put_slice(&header(PARAMS, 0));
}

/// Appends a name-value pair (§3.4). Our names and values come from a bounded header, far below the format's 2 GiB.
pub fn pair(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.reserve(2 * size_of::<u32>() + name.len() + value.len());
    for length in [name.len(), value.len()] {
        match u8::try_from(length) {
            Ok(short) if short < 0x80 => out.push(short),
            _ => out.extend_from_slice(&(length as u32 | 0x8000_0000).to_be_bytes()),
        }
    }
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

/// What the decoder is in the middle of.
#[derive(Clone, Copy, Debug)]
enum State {
    Header,
    /// Content of a STDOUT or STDERR record, `left` bytes of it; then padding.
    Stream {
        kind: u8,
        left: usize,
        padding: usize,
    },
    /// A record that is read whole.
    Whole {
        kind: u8,
        padding: usize,
    },
    Padding(usize),
}

/// Reads an answer. Holds no bytes itself: they stay in the caller's buffer until they make a piece.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    pub fn new() -> Self {
        Decoder { state: State::Header }
    }

    /// Whether the last piece ended its record, so that the next byte is a header's.
    pub fn is_between_records(&self) -> bool {
        matches!(self.state, State::Header)
    }

    /// Takes the next piece off the buffer without copying it. `None`: more bytes are needed.
    /// After an error the connection is of no use.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Piece>, Error> {
        loop {
            match self.state {
                State::Header => {
                    let Some(head) = buffer.first_chunk::<HEADER>() else {
                        return Ok(None);
                    };
                    self.state = opened(*head)?;
                    buffer.advance(HEADER);
                }
                State::Padding(left) => {
                    let step = left.min(buffer.len());
                    buffer.advance(step);
                    if step < left {
                        self.state = State::Padding(left - step);
                        return Ok(None);
                    }
                    self.state = State::Header;
                }
                State::Stream { kind, left, padding } => {
                    let step = left.min(buffer.len());
                    if step == 0 && left > 0 {
                        return Ok(None);
                    }
                    self.state = match left - step {
                        0 => after(padding),
                        left => State::Stream { kind, left, padding },
                    };
                    // An empty record only says that its stream is over, which END_REQUEST says too.
                    if step > 0 {
                        let bytes = buffer.split_to(step).freeze();
                        return Ok(Some(if kind == STDOUT {
                            Piece::Stdout(bytes)
                        } else {
                            Piece::Stderr(bytes)
                        }));
                    }
                }
                State::Whole { kind, padding } => {
                    let Some(body) = buffer.first_chunk::<8>().copied() else {
                        return Ok(None);
                    };
                    buffer.advance(8);
                    self.state = after(padding);
                    return whole(kind, body).map(Some);
                }
            }
        }
    }
}

/// What follows a record's content. Without padding the record is over with its last byte.
fn after(padding: usize) -> State {
    if padding == 0 {
        State::Header
    } else {
        State::Padding(padding)
    }
}

fn opened(head: [u8; HEADER]) -> Result<State, Error> {
    let [
        version,
        kind,
        request_high,
        request_low,
        length_high,
        length_low,
        padding,
        _,
    ] = head;
    if version != VERSION {
        return Err(Error::Version(version));
    }
    let request = u16::from_be_bytes([request_high, request_low]);
    let length = u16::from_be_bytes([length_high, length_low]);
    let padding = usize::from(padding);
    let expected = if kind == UNKNOWN_TYPE { 0 } else { REQUEST };
    match kind {
        STDOUT | STDERR | END_REQUEST | UNKNOWN_TYPE if request != expected => Err(Error::Request(request)),
        STDOUT | STDERR => Ok(State::Stream {
            kind,
            left: usize::from(length),
            padding,
        }),
        // Both bodies are 8 bytes (§4.2, §5.5).
        END_REQUEST | UNKNOWN_TYPE if length == 8 => Ok(State::Whole { kind, padding }),
        END_REQUEST | UNKNOWN_TYPE => Err(Error::Length { kind, length }),
        kind => Err(Error::Type(kind)),
    }
}

fn whole(kind: u8, body: [u8; 8]) -> Result<Piece, Error> {
    let [a, b, c, d, status, ..] = body;
    if kind == UNKNOWN_TYPE {
        return Ok(Piece::Unknown(a));
    }
    let protocol = match status {
        0 => Protocol::Complete,
        1 => Protocol::CannotMultiplex,
        2 => Protocol::Overloaded,
        3 => Protocol::UnknownRole,
        status => return Err(Error::Status(status)),
    };
    Ok(Piece::End {
        app_status: u32::from_be_bytes([a, b, c, d]),
        protocol,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn record(kind: u8, request: u16, content: &[u8], padding: u8) -> Vec<u8> {
        let mut bytes = vec![1, kind];
        bytes.extend(request.to_be_bytes());
        bytes.extend((content.len() as u16).to_be_bytes());
        bytes.extend([padding, 0]);
        bytes.extend(content);
        bytes.extend(vec![0xee; usize::from(padding)]);
        bytes
    }

    fn answer() -> Vec<u8> {
        [
            record(STDOUT, 1, b"Status: 200\r\n\r\n", 3),
            record(STDERR, 1, b"notice", 2),
            record(STDOUT, 1, b"body", 0),
            record(STDOUT, 1, b"", 8),
            record(END_REQUEST, 1, &[0, 0, 1, 2, 0, 9, 9, 9], 5),
        ]
        .concat()
    }

    /// Joined STDOUT, joined STDERR, and what ended it.
    type Decoded = (Vec<u8>, Vec<u8>, Option<Piece>);

    fn decode(parts: &[&[u8]]) -> Result<Decoded, Error> {
        let (mut decoder, mut buffer) = (Decoder::new(), BytesMut::new());
        let (mut out, mut err, mut end) = (Vec::new(), Vec::new(), None);
        for part in parts {
            buffer.extend_from_slice(part);
            while let Some(piece) = decoder.decode(&mut buffer)? {
                match piece {
                    Piece::Stdout(bytes) => out.extend(bytes),
                    Piece::Stderr(bytes) => err.extend(bytes),
                    piece => end = Some(piece),
                }
            }
        }
        assert!(buffer.is_empty());
        Ok((out, err, end))
    }

    #[test]
    fn answer_cut_anywhere_reads_the_same() {
        let bytes = answer();
        for cut in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            let (out, err, ended) = decode(&[head, tail]).expect("valid");
            assert_eq!(out, b"Status: 200\r\n\r\nbody", "cut at {cut}");
            assert_eq!(err, b"notice");
            let end = Piece::End {
                app_status: 258,
                protocol: Protocol::Complete,
            };
            assert_eq!(ended, Some(end));
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(decode(&single).expect("valid").0, b"Status: 200\r\n\r\nbody");
    }

    #[test]
    fn hostile_headers_are_refused() {
        for (bytes, error) in [
            (vec![2, 6, 0, 1, 0, 0, 0, 0], Error::Version(2)),
            (record(STDOUT, 2, b"x", 0), Error::Request(2)),
            (record(STDOUT, 0, b"x", 0), Error::Request(0)),
            (record(BEGIN_REQUEST, 1, b"x", 0), Error::Type(BEGIN_REQUEST)),
            (record(12, 1, b"", 0), Error::Type(12)),
            (
                record(END_REQUEST, 1, b"1234567", 0),
                Error::Length {
                    kind: END_REQUEST,
                    length: 7,
                },
            ),
            (
                record(END_REQUEST, 1, &[0; 9], 0),
                Error::Length {
                    kind: END_REQUEST,
                    length: 9,
                },
            ),
            (record(END_REQUEST, 1, &[0, 0, 0, 0, 4, 0, 0, 0], 0), Error::Status(4)),
        ] {
            assert_eq!(decode(&[&bytes]).expect_err("refused"), error);
        }
    }

    #[test]
    fn unknown_type_is_told() {
        let bytes = record(UNKNOWN_TYPE, 0, &[77, 0, 0, 0, 0, 0, 0, 0], 0);
        assert_eq!(decode(&[&bytes]).expect("valid").2, Some(Piece::Unknown(77)));
    }

    #[test]
    fn long_values_get_four_byte_lengths() {
        let mut out = Vec::new();
        pair(&[b'n'; 127], &[b'v'; 128], &mut out);
        assert_eq!(out[..5], [127, 0x80, 0, 0, 128]);
        assert_eq!(out.len(), 5 + 127 + 128);
    }

    #[test]
    fn params_are_split_and_ended() {
        let mut out = BytesMut::new();
        params(&vec![7; MAX_CONTENT + 1], &mut out);
        assert_eq!(out[..HEADER], [1, PARAMS, 0, 1, 0xff, 0xf8, 0, 0]);
        assert_eq!(
            out[HEADER + MAX_CONTENT..][..HEADER + 1],
            [1, PARAMS, 0, 1, 0, 1, 0, 0, 7]
        );
        assert_eq!(out[HEADER + MAX_CONTENT + HEADER + 1..], [1, PARAMS, 0, 1, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn random_bytes_neither_panic_nor_loop(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (mut decoder, mut buffer) = (Decoder::new(), BytesMut::from(&bytes[..]));
            let mut left = buffer.len();
            while let Ok(Some(_)) = decoder.decode(&mut buffer) {
                prop_assert!(buffer.len() < left);
                left = buffer.len();
            }
        }

        #[test]
        fn streams_survive_any_split(body in proptest::collection::vec(any::<u8>(), 1..2000), sizes in proptest::collection::vec(1usize..300, 1..20)) {
            let bytes: Vec<u8> = body.chunks(97).flat_map(|chunk| record(STDOUT, 1, chunk, chunk[0])).collect();
            let mut parts = Vec::new();
            let mut rest = &bytes[..];
            for size in sizes.iter().cycle() {
                let (part, tail) = rest.split_at((*size).min(rest.len()));
                parts.push(part);
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(decode(&parts).expect("valid").0, body);
        }
    }
}
