//! Answers and notifications as bytes. No I/O.

use bytes::Bytes;
use zerocopy::{Immutable, IntoBytes};

use super::abi::{self, EntryHead, EntryOut, OutHeader};

/// What a request is answered with; an error is an errno.
pub type Answer = Result<Body, i32>;

/// What follows the head: a structure or entries, then data that is not copied.
#[derive(Clone, Debug, Default)]
pub struct Body {
    pub head: Vec<u8>,
    pub data: Bytes,
}

impl Body {
    pub fn of<T: IntoBytes + Immutable>(value: &T) -> Self {
        Body {
            head: value.as_bytes().to_vec(),
            data: Bytes::new(),
        }
    }

    pub fn two<A: IntoBytes + Immutable, B: IntoBytes + Immutable>(first: &A, second: &B) -> Self {
        Body {
            head: [first.as_bytes(), second.as_bytes()].concat(),
            data: Bytes::new(),
        }
    }

    pub fn data(data: Bytes) -> Self {
        Body { head: Vec::new(), data }
    }
}

/// The head of an answer to the request `unique`.
pub fn head(unique: u64, answer: &Answer) -> OutHeader {
    let (error, length) = match answer {
        Ok(body) => (0, body.head.len() + body.data.len()),
        Err(errno) => (-errno, 0),
    };
    OutHeader {
        len: length_of(length),
        error,
        unique,
    }
}

/// A notification: no request has the number 0, and the code stands in the error's place.
pub fn notification(code: i32, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum();
    let header = OutHeader {
        len: length_of(length),
        error: code,
        unique: 0,
    };
    let mut bytes = header.as_bytes().to_vec();
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// Forget the attributes of an inode; and its pages, with `with_pages`.
pub fn invalid_inode(ino: u64, with_pages: bool) -> Vec<u8> {
    let of = abi::InvalidInode {
        ino,
        offset: if with_pages { 0 } else { -1 },
        length: 0,
    };
    notification(abi::notify::INVALID_INODE, &[of.as_bytes()])
}

/// Forget a name.
pub fn invalid_entry(folder: u64, name: &[u8]) -> Vec<u8> {
    entry(folder, name, 0)
}

/// Ask for a name again before it is used.
pub fn expired_entry(folder: u64, name: &[u8]) -> Vec<u8> {
    entry(folder, name, abi::notify::EXPIRE_ONLY)
}

fn entry(folder: u64, name: &[u8], flags: u32) -> Vec<u8> {
    let of = abi::InvalidEntry {
        folder,
        name_length: u32::try_from(name.len()).unwrap_or(u32::MAX),
        flags,
    };
    notification(abi::notify::INVALID_ENTRY, &[of.as_bytes(), name, &[0]])
}

/// Hand out again what was read and not answered.
pub fn resend() -> Vec<u8> {
    notification(abi::notify::RESEND, &[])
}

/// Entries of a folder, up to the size that the kernel has room for.
pub struct Listing {
    bytes: Vec<u8>,
    room: usize,
}

impl Listing {
    pub fn new(room: u32) -> Self {
        Listing {
            bytes: Vec::new(),
            room: usize::try_from(room).unwrap_or(usize::MAX),
        }
    }

    /// Adds an entry, after which the list goes on at `offset`. `false`: it does not fit.
    pub fn push(&mut self, plus: Option<&EntryOut>, name: &[u8], (ino, offset, kind): (u64, u64, u32)) -> bool {
        let plus = plus.map(IntoBytes::as_bytes).unwrap_or_default();
        let length = (size_of::<EntryHead>() + name.len()).next_multiple_of(8);
        if self.bytes.len() + plus.len() + length > self.room {
            return false;
        }
        let head = EntryHead {
            ino,
            offset,
            name_length: u32::try_from(name.len()).unwrap_or(u32::MAX),
            kind,
        };
        self.bytes.extend_from_slice(plus);
        self.bytes.extend_from_slice(head.as_bytes());
        self.bytes.extend_from_slice(name);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        true
    }

    pub fn done(self) -> Body {
        Body {
            head: self.bytes,
            data: Bytes::new(),
        }
    }
}

fn length_of(body: usize) -> u32 {
    u32::try_from(size_of::<OutHeader>() + body).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_its_length_or_its_error() {
        let header = head(5, &Ok(Body::data(Bytes::from_static(b"abc"))));
        assert_eq!((header.len, header.error, header.unique), (19, 0, 5));
        let header = head(6, &Err(2));
        assert_eq!((header.len, header.error, header.unique), (16, -2, 6));
    }

    #[test]
    fn a_listing_is_aligned_and_ends_where_the_room_does() {
        let mut list = Listing::new(70);
        assert!(list.push(None, b"abc", (7, 1, 8)));
        assert!(list.push(None, b"12345678", (8, 2, 8)));
        assert!(!list.push(None, b"x", (9, 3, 8)));
        let body = list.done();
        assert_eq!(body.head.len(), 64);
        assert_eq!(&body.head[24..27], b"abc");
        assert_eq!(&body.head[27..32], [0; 5]);
    }

    #[test]
    fn notifications_have_no_number() {
        let bytes = invalid_entry(1, b"name");
        assert_eq!(bytes.len(), 16 + 16 + 5);
        assert_eq!(bytes[4..8], 3i32.to_ne_bytes());
        assert_eq!(bytes[8..16], [0; 8]);
        let expired = expired_entry(1, b"name");
        assert_eq!(
            (&bytes[28..32], &expired[28..32]),
            (&[0; 4][..], &1u32.to_ne_bytes()[..])
        );
        assert_eq!((&bytes[32..], &expired[..28]), (&expired[32..], &bytes[..28]));
        assert_eq!(invalid_inode(1, false)[24..32], (-1i64).to_ne_bytes());
    }
}
