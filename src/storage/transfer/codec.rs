//! The messages of a transfer, as bytes. No I/O.
//!
//! `length u32, kind u8, fields`: the length is of what follows it, numbers are little-endian, the last field of a kind takes
//! the rest. The version stands in `Hello` and `Begin`; the sender speaks the lower of the two.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::CHUNK;
use crate::storage::call::Inode;

/// Raised with the format.
pub const VERSION: u16 = 1;
/// Raft's header or answer, and the note: memberships of a few nodes.
pub const BLOB_MAX: usize = 256 * 1024;
/// Contents asked for at once.
pub const WANTS_MAX: usize = 256;
/// Of the length field.
pub const FRAME_MAX: usize = CHUNK + 2 * BLOB_MAX;
/// Length and kind.
pub const HEAD: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    pub inode: Inode,
    /// Bytes of the content that count.
    pub size: u64,
    /// BLAKE3 of a leftover with the same number and that size.
    pub leftover: Option<[u8; 32]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Sender first.
    Hello {
        version: u16,
        header: Bytes,
        note: Bytes,
        files: u64,
        bytes: u64,
    },
    /// Receiver: is the state wanted, or only the note?
    Begin {
        version: u16,
        with_state: bool,
    },
    /// A piece of the metadata or of the content under way.
    Data(Bytes),
    /// All pieces of it were sent; BLAKE3 of them.
    End([u8; 32]),
    /// A content that was asked for begins.
    Content(Inode),
    /// The leftover is right.
    Same(Inode),
    /// There is no such content any more; the log removes it.
    Gone(Inode),
    Wants(Vec<Want>),
    /// The receiver needs nothing more.
    Done,
    /// What Raft says about the installation.
    Answer(Bytes),
    /// Nothing to say, but there.
    Alive,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Bad {
    #[error("a message of {0} bytes is too long")]
    Long(usize),
    #[error("a message of kind {0} cannot be read")]
    Malformed(u8),
    #[error("a message of the unknown kind {0}")]
    Unknown(u8),
    #[error("an empty message")]
    Empty,
}

impl From<Bad> for std::io::Error {
    fn from(bad: Bad) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, bad)
    }
}

impl Message {
    fn kind(&self) -> u8 {
        match self {
            Message::Hello { .. } => 1,
            Message::Begin { .. } => 2,
            Message::Data(_) => 3,
            Message::End(_) => 4,
            Message::Content(_) => 5,
            Message::Same(_) => 6,
            Message::Gone(_) => 7,
            Message::Wants(_) => 8,
            Message::Done => 9,
            Message::Answer(_) => 10,
            Message::Alive => 11,
        }
    }

    /// With its length. Content pieces are at most `CHUNK`, blobs at most `BLOB_MAX`.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        out.put_u32_le(0);
        out.put_u8(self.kind());
        match self {
            Message::Hello {
                version,
                header,
                note,
                files,
                bytes,
            } => {
                out.put_u16_le(*version);
                out.put_u64_le(*files);
                out.put_u64_le(*bytes);
                out.put_u32_le(u32::try_from(header.len()).expect("a header is short"));
                out.put_slice(header);
                out.put_slice(note);
            }
            Message::Begin { version, with_state } => {
                out.put_u16_le(*version);
                out.put_u8(u8::from(*with_state));
            }
            Message::Data(data) | Message::Answer(data) => out.put_slice(data),
            Message::End(checksum) => out.put_slice(checksum),
            Message::Content(inode) | Message::Same(inode) | Message::Gone(inode) => out.put_u64_le(inode.0),
            Message::Wants(wants) => wants.iter().for_each(|want| put_want(&mut out, want)),
            Message::Done | Message::Alive => {}
        }
        let length = u32::try_from(out.len() - HEAD).expect("messages are bounded");
        out[..HEAD].copy_from_slice(&length.to_le_bytes());
        out.freeze()
    }

    /// Reads what follows the length.
    pub fn decode(mut body: Bytes) -> Result<Message, Bad> {
        if body.len() > FRAME_MAX {
            return Err(Bad::Long(body.len()));
        }
        let kind = body.try_get_u8().map_err(|_| Bad::Empty)?;
        let message = fields(kind, &mut body)?;
        message.filter(|_| body.is_empty()).ok_or(Bad::Malformed(kind))
    }
}

/// The length that a message announces.
pub fn length(head: [u8; HEAD]) -> Result<usize, Bad> {
    let length = u32::from_le_bytes(head) as usize;
    match length {
        0 => Err(Bad::Empty),
        length if length > FRAME_MAX => Err(Bad::Long(length)),
        length => Ok(length),
    }
}

/// `None`: the fields are not those of the kind.
fn fields(kind: u8, body: &mut Bytes) -> Result<Option<Message>, Bad> {
    Ok(match kind {
        1 => hello(body),
        2 => begin(body),
        3 => Some(Message::Data(rest(body))),
        4 => array(body).map(Message::End),
        5 => inode(body).map(Message::Content),
        6 => inode(body).map(Message::Same),
        7 => inode(body).map(Message::Gone),
        8 => wants(body).map(Message::Wants),
        9 => Some(Message::Done),
        10 => Some(Message::Answer(rest(body))),
        11 => Some(Message::Alive),
        other => return Err(Bad::Unknown(other)),
    })
}

fn hello(body: &mut Bytes) -> Option<Message> {
    let version = body.try_get_u16_le().ok()?;
    let files = body.try_get_u64_le().ok()?;
    let bytes = body.try_get_u64_le().ok()?;
    let length = body.try_get_u32_le().ok()? as usize;
    if length > body.len() {
        return None;
    }
    let header = body.split_to(length);
    let note = rest(body);
    (header.len() <= BLOB_MAX && note.len() <= BLOB_MAX).then_some(Message::Hello {
        version,
        header,
        note,
        files,
        bytes,
    })
}

fn begin(body: &mut Bytes) -> Option<Message> {
    Some(Message::Begin {
        version: body.try_get_u16_le().ok()?,
        with_state: flag(body)?,
    })
}

fn put_want(out: &mut BytesMut, want: &Want) {
    out.put_u64_le(want.inode.0);
    out.put_u64_le(want.size);
    out.put_u8(u8::from(want.leftover.is_some()));
    if let Some(checksum) = &want.leftover {
        out.put_slice(checksum);
    }
}

fn wants(body: &mut Bytes) -> Option<Vec<Want>> {
    let mut wants = Vec::new();
    while !body.is_empty() {
        if wants.len() == WANTS_MAX {
            return None;
        }
        wants.push(Want {
            inode: inode(body)?,
            size: body.try_get_u64_le().ok()?,
            leftover: match flag(body)? {
                true => Some(array(body)?),
                false => None,
            },
        });
    }
    Some(wants)
}

fn rest(body: &mut Bytes) -> Bytes {
    body.split_off(0)
}

fn inode(body: &mut Bytes) -> Option<Inode> {
    body.try_get_u64_le().ok().map(Inode)
}

fn flag(body: &mut Bytes) -> Option<bool> {
    match body.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn array(body: &mut Bytes) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    body.try_copy_to_slice(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<Message> {
        let want = |leftover| Want {
            inode: Inode(u64::MAX),
            size: 7,
            leftover,
        };
        vec![
            Message::Hello {
                version: VERSION,
                header: Bytes::from_static(b"header"),
                note: Bytes::from_static(b"note"),
                files: 3,
                bytes: 1 << 40,
            },
            Message::Begin {
                version: 2,
                with_state: true,
            },
            Message::Data(vec![7; CHUNK].into()),
            Message::Data(Bytes::new()),
            Message::End([9; 32]),
            Message::Content(Inode(1)),
            Message::Same(Inode(2)),
            Message::Gone(Inode(3)),
            Message::Wants(vec![want(None), want(Some([1; 32]))]),
            Message::Wants(Vec::new()),
            Message::Done,
            Message::Answer(vec![1; BLOB_MAX].into()),
            Message::Alive,
        ]
    }

    #[test]
    fn messages_come_back() {
        for message in examples() {
            let bytes = message.encode();
            let (head, body) = bytes.split_first_chunk().unwrap();
            assert_eq!(length(*head), Ok(body.len()));
            assert_eq!(Message::decode(Bytes::copy_from_slice(body)), Ok(message));
        }
    }

    #[test]
    fn a_message_cut_anywhere_is_refused_or_another_one() {
        for message in examples() {
            let body = message.encode().slice(HEAD..);
            for at in 0..body.len().min(200) {
                let cut = Message::decode(body.slice(..at));
                assert_ne!(cut, Ok(message.clone()), "cut at {at}");
            }
        }
    }

    #[test]
    fn hostile_lengths_are_refused() {
        assert_eq!(length([0; 4]), Err(Bad::Empty));
        assert_eq!(length([0xff; 4]), Err(Bad::Long(u32::MAX as usize)));
        assert_eq!(Message::decode(Bytes::new()), Err(Bad::Empty));
        assert_eq!(Message::decode(Bytes::from_static(&[99])), Err(Bad::Unknown(99)));
        assert_eq!(Message::decode(Bytes::from_static(&[9, 0])), Err(Bad::Malformed(9)));
        let want = Want {
            inode: Inode(1),
            size: 0,
            leftover: None,
        };
        let body = Message::Wants(vec![want; WANTS_MAX + 1]).encode().slice(HEAD..);
        assert_eq!(Message::decode(body), Err(Bad::Malformed(8)));
        let mut hello = examples().remove(0).encode().slice(HEAD..).to_vec();
        hello[19..23].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Message::decode(hello.into()), Err(Bad::Malformed(1)));
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        for _ in 0..20_000 {
            let length = usize::from(next()) % 80;
            let mut bytes: Vec<u8> = (0..length).map(|_| next()).collect();
            if let Some(kind) = bytes.first_mut() {
                *kind %= 13;
            }
            let _ = Message::decode(bytes.into());
        }
    }
}
