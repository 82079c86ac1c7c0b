//! `Record`: key and value of one item in one allocation.
//!
//! Layout: length of the key (1 byte), key, value, CR LF. The line end is kept because the text protocols send it after
//! every value. A large record is shared by its clones, so that a hit hands out a reference; a small one is copied, because it is
//! copied into the output anyway, and counting references would cost it 16 bytes.
//!
//! Records are of the C library's allocator: its grain of 16 bytes keeps more of them than the size classes of the allocator that all
//! else is of, which are up to an eighth apart.

use std::alloc::System;
use std::sync::Arc;

use allocator_api2::boxed::Box;
use allocator_api2::vec;
use allocator_api2::vec::Vec;

/// Longest key of the protocol (protocol.txt, "Keys").
pub const KEY_MAX: usize = 250;
/// From here on sharing a value costs less than copying it: a copy of 4 KiB takes about as long as one more slice.
pub const SHARE_FROM: usize = 4 << 10;
const LINE_END: &[u8; 2] = b"\r\n";
/// The allocator's own word.
const ALLOCATION: usize = size_of::<usize>();
/// glibc hands out multiples of this, and no less than two of it.
const GRAIN: usize = 16;
/// What counts the references of a large record: two counts, a pointer with its length, and where the allocator has one, its word.
const COUNTED: usize = (5 * size_of::<usize>()).next_multiple_of(GRAIN);

/// Two words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record(Held);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    Small(Box<[u8], System>),
    /// The pointer in between keeps `Held` at two words.
    Large(Arc<Box<[u8], System>>),
}

impl Record {
    /// A record whose value is still to be filled in by `room`. The key has at most `KEY_MAX` bytes.
    pub fn reserve(key: &[u8], value_len: usize) -> Self {
        let length = u8::try_from(key.len()).expect("decoders refuse longer keys");
        let size = 1 + key.len() + value_len + LINE_END.len();
        let is_small = size < SHARE_FROM;
        // Memory that comes zeroed is dear in small pieces: glibc's calloc passes by what was freed last.
        let mut whole = if is_small {
            Vec::with_capacity_in(size, System)
        } else {
            vec![in System; 0; size]
        };
        whole.resize(size, 0);
        let mut whole = whole.into_boxed_slice();
        whole[0] = length;
        whole[1..=key.len()].copy_from_slice(key);
        whole[1 + key.len() + value_len..].copy_from_slice(LINE_END);
        Record(if is_small {
            Held::Small(whole)
        } else {
            Held::Large(Arc::new(whole))
        })
    }

    /// In a place without an item: nothing but this may be asked of it.
    pub fn is_vacant(&self) -> bool {
        self.bytes().is_empty()
    }

    /// A record with the value put together from two parts; the second may be empty.
    pub fn new(key: &[u8], first: &[u8], second: &[u8]) -> Self {
        let mut record = Self::reserve(key, first.len() + second.len());
        let (head, tail) = record.room().split_at_mut(first.len());
        head.copy_from_slice(first);
        tail[..second.len()].copy_from_slice(second);
        record
    }

    /// The value and the two bytes of the line end after it, to be written. Only before the record is shared.
    pub fn room(&mut self) -> &mut [u8] {
        let start = self.value_start();
        let whole = match &mut self.0 {
            Held::Small(bytes) => bytes,
            Held::Large(bytes) => Arc::get_mut(bytes).expect("a record is filled before it is shared"),
        };
        &mut whole[start..]
    }

    pub fn key(&self) -> &[u8] {
        &self.bytes()[1..self.value_start()]
    }

    pub fn value(&self) -> &[u8] {
        &self.bytes()[self.value_start()..self.bytes().len() - LINE_END.len()]
    }

    /// The value as the text protocols send it.
    pub fn value_line(&self) -> &[u8] {
        &self.bytes()[self.value_start()..]
    }

    /// Whether the two bytes after the value are a line end, as a client must have sent them.
    pub fn is_terminated(&self) -> bool {
        self.bytes().ends_with(LINE_END)
    }

    /// Bytes of memory that the allocator takes for it.
    pub fn footprint(&self) -> usize {
        footprint(self.key().len(), self.value().len())
    }

    fn value_start(&self) -> usize {
        1 + usize::from(self.bytes()[0])
    }

    fn bytes(&self) -> &[u8] {
        match &self.0 {
            Held::Small(bytes) => bytes,
            Held::Large(bytes) => bytes,
        }
    }
}

/// Vacant.
impl Default for Record {
    fn default() -> Self {
        Record(Held::Small(Box::default()))
    }
}

/// What a record with such a key and value will take.
pub fn footprint(key_len: usize, value_len: usize) -> usize {
    let bytes = value_len.saturating_add(1 + key_len + LINE_END.len());
    let counted = if bytes < SHARE_FROM { 0 } else { COUNTED };
    bytes
        .saturating_add(ALLOCATION)
        .max(2 * GRAIN)
        .checked_next_multiple_of(GRAIN)
        .map_or(usize::MAX, |bytes| bytes.saturating_add(counted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_again() {
        let record = Record::new(b"key", b"one", b"two");
        assert_eq!(
            (record.key(), record.value(), record.value_line()),
            (&b"key"[..], &b"onetwo"[..], &b"onetwo\r\n"[..])
        );
        let empty = Record::new(&[b'k'; KEY_MAX], b"", b"");
        assert_eq!((empty.key().len(), empty.value()), (KEY_MAX, &b""[..]));
    }

    #[test]
    fn record_is_two_words_and_large_ones_are_shared() {
        assert_eq!(size_of::<Record>(), 2 * size_of::<usize>());
        let large = Record::new(b"k", &[b'x'; SHARE_FROM], b"");
        assert_eq!(large.value().as_ptr(), large.clone().value().as_ptr());
        let small = Record::new(b"k", b"x", b"");
        assert_ne!(small.value().as_ptr(), small.clone().value().as_ptr());
        assert!(Record::default().is_vacant() && !small.is_vacant());
    }

    #[test]
    fn broken_line_end_is_seen() {
        let mut record = Record::reserve(b"k", 2);
        record.room().copy_from_slice(b"abcd");
        assert!(!record.is_terminated());
        record.room().copy_from_slice(b"ab\r\n");
        assert!(record.is_terminated());
    }
}
