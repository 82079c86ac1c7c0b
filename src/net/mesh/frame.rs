//! The frame of framed calls, without I/O. All numbers are big-endian:
//!
//! `u32` length of what follows · `u8` kind · `u16` service · `u64` request id · body
//!
//! The version is the protocol's name in the TLS handshake (`tls::Protocol`).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Bytes before the body.
pub const HEADER: usize = LENGTH + FIXED;
const LENGTH: usize = 4;
const FIXED: usize = 1 + 2 + 8;

/// The largest body that any configuration may allow: 1 MiB of file data with ample room for its description.
/// One such frame holds a gigabit line for 17 ms.
pub const BODY_CEILING: usize = 2 * 1024 * 1024;

/// Smaller bodies are copied out, so that a kept one does not hold a whole read buffer in memory.
pub const COPIED: usize = 4096;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Call,
    Reply,
    /// The answer to a call that was not completed; the body is a `Fault`.
    Error,
    /// The caller no longer waits for this call.
    Cancel,
    /// The request id is echoed in the Pong.
    Ping,
    Pong,
    /// No new calls, please: the sender is about to go.
    Drain,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Kind::Call,
            2 => Kind::Reply,
            3 => Kind::Error,
            4 => Kind::Cancel,
            5 => Kind::Ping,
            6 => Kind::Pong,
            7 => Kind::Drain,
            _ => return None,
        })
    }

    fn byte(self) -> u8 {
        match self {
            Kind::Call => 1,
            Kind::Reply => 2,
            Kind::Error => 3,
            Kind::Cancel => 4,
            Kind::Ping => 5,
            Kind::Pong => 6,
            Kind::Drain => 7,
        }
    }

    fn has_body(self) -> bool {
        matches!(self, Kind::Call | Kind::Reply | Kind::Error)
    }
}

/// What stands before the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub kind: Kind,
    /// Of calls and their answers; elsewhere 0.
    pub service: u16,
    /// Chosen by the caller, unique on its connection; of Ping and Pong a number to recognise.
    pub id: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub head: Head,
    pub body: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    #[error("a frame shorter than its header")]
    Short,
    #[error("a frame longer than agreed")]
    Long,
    #[error("a frame of unknown kind")]
    Kind,
    #[error("a frame with a body that its kind does not have")]
    Body,
}

/// Takes the next frame off the front of `buffer`; `None`: more bytes are needed. Judges the length as soon as it
/// is there. Bodies below `copied` bytes are copied. After an error the stream is of no further use.
pub fn decode(buffer: &mut BytesMut, body_limit: usize, copied: usize) -> Result<Option<Frame>, Error> {
    let Some(length) = buffer.first_chunk::<LENGTH>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Error::Long)?;
    let body_length = length.checked_sub(FIXED).ok_or(Error::Short)?;
    if body_length > body_limit {
        return Err(Error::Long);
    }
    if buffer.len() < HEADER {
        return Ok(None);
    }
    let mut fields = buffer.get(LENGTH..HEADER).unwrap_or_default();
    let kind = Kind::from_byte(fields.get_u8()).ok_or(Error::Kind)?;
    if body_length > 0 && !kind.has_body() {
        return Err(Error::Body);
    }
    let head = Head {
        kind,
        service: fields.get_u16(),
        id: fields.get_u64(),
    };
    if buffer.len() - HEADER < body_length {
        return Ok(None);
    }
    buffer.advance(HEADER);
    let body = if body_length < copied {
        let body = Bytes::copy_from_slice(buffer.get(..body_length).unwrap_or_default());
        buffer.advance(body_length);
        body
    } else {
        buffer.split_to(body_length).freeze()
    };
    Ok(Some(Frame { head, body }))
}

/// Bytes that the frame at the front of `buffer` lacks, once `proof` of it are there: a length alone is no reason for memory.
/// For a frame that `decode` has let pass so far.
pub fn lacking(buffer: &[u8], proof: usize) -> usize {
    match buffer.first_chunk::<LENGTH>() {
        Some(length) if buffer.len() >= proof => {
            let whole = usize::try_from(u32::from_be_bytes(*length)).map_or(0, |length| LENGTH + length);
            whole.saturating_sub(buffer.len())
        }
        _ => 0,
    }
}

/// Writes the header of a frame whose body has `body_length` bytes, at most `BODY_CEILING`.
pub fn encode_head(head: Head, body_length: usize, out: &mut BytesMut) {
    let length = u32::try_from(FIXED + body_length).expect("bodies are bounded by the ceiling");
    out.put_u32(length);
    out.put_u8(head.kind.byte());
    out.put_u16(head.service);
    out.put_u64(head.id);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 64 * 1024;

    fn encode(frame: &Frame) -> BytesMut {
        let mut out = BytesMut::new();
        encode_head(frame.head, frame.body.len(), &mut out);
        out.put_slice(&frame.body);
        out
    }

    fn frames() -> impl Strategy<Value = Frame> {
        let body = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            proptest::collection::vec(any::<u8>(), COPIED - 2..COPIED + 2)
        ];
        (1u8..=7, any::<u16>(), any::<u64>(), body).prop_map(|(kind, service, id, body)| {
            let kind = Kind::from_byte(kind).expect("a kind");
            let body = if kind.has_body() { body.into() } else { Bytes::new() };
            let head = Head { kind, service, id };
            Frame { head, body }
        })
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(sent in proptest::collection::vec(frames(), 1..6), step in 1usize..300, copied in 0..2 * COPIED) {
            let wire: Vec<u8> = sent.iter().flat_map(encode).collect();
            let mut buffer = BytesMut::new();
            let mut received = Vec::new();
            for piece in wire.chunks(step) {
                buffer.put_slice(piece);
                while let Some(frame) = decode(&mut buffer, LIMIT, copied).expect("well formed") {
                    received.push(frame);
                }
            }
            prop_assert_eq!(received, sent);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn noise_never_panics_nor_grows(noise in proptest::collection::vec(any::<u8>(), 0..200), copied in 0..100usize) {
            let mut buffer = BytesMut::from(noise.as_slice());
            while let Ok(Some(frame)) = decode(&mut buffer, LIMIT, copied) {
                prop_assert!(frame.body.len() <= noise.len());
            }
        }
    }

    #[test]
    fn every_cut_asks_for_more() {
        let head = Head {
            kind: Kind::Call,
            service: 3,
            id: u64::MAX,
        };
        let wire = encode(&Frame {
            head,
            body: Bytes::from_static(b"0123456789"),
        });
        for cut in 0..wire.len() {
            let mut part = BytesMut::from(wire.get(..cut).expect("inside"));
            assert_eq!(decode(&mut part, LIMIT, COPIED), Ok(None), "cut at {cut}");
            assert_eq!(part.len(), cut, "nothing was taken");
        }
    }

    #[test]
    fn hostile_lengths_are_refused_before_their_bytes_come() {
        let refused = |length: u32| decode(&mut BytesMut::from(length.to_be_bytes().as_slice()), LIMIT, COPIED);
        assert_eq!(refused(u32::MAX), Err(Error::Long));
        assert_eq!(refused(LIMIT as u32 + FIXED as u32 + 1), Err(Error::Long));
        assert_eq!(refused(LIMIT as u32 + FIXED as u32), Ok(None));
        for short in 0..FIXED as u32 {
            assert_eq!(refused(short), Err(Error::Short));
        }
    }

    #[test]
    fn a_frame_that_has_begun_gets_its_room_at_once() {
        let mut wire = BytesMut::from(1000_u32.to_be_bytes().as_slice());
        assert_eq!(lacking(&wire, 500), 0, "a length alone");
        wire.resize(500, 0);
        assert_eq!(lacking(&wire, 500), 504);
        wire.resize(2000, 0);
        assert_eq!(lacking(&wire, 500), 0, "it is whole");
        assert_eq!(lacking(&[0xff; 3], 1), 0);
    }

    #[test]
    fn unknown_kind_and_needless_body_are_refused() {
        let wire = |kind: u8, body: &[u8]| {
            let mut out = BytesMut::new();
            out.put_u32((FIXED + body.len()) as u32);
            out.put_u8(kind);
            out.put_u16(0);
            out.put_u64(1);
            out.put_slice(body);
            decode(&mut out, LIMIT, COPIED)
        };
        assert_eq!(wire(0, b""), Err(Error::Kind));
        assert_eq!(wire(8, b""), Err(Error::Kind));
        for kind in 4..=7 {
            assert_eq!(wire(kind, b"x"), Err(Error::Body));
        }
    }
}
