//! `Record`: key and value of one item in one shared allocation, so that a hit hands out a reference and copies nothing.
//!
//! Layout: length of the key (1 byte), key, value, CR LF. The line end is kept because the text protocols send it after
//! every value; one allocation instead of a key and a `Bytes` saves about 60 bytes an item.

use std::sync::Arc;

/// Longest key of the protocol (protocol.txt, "Keys").
pub const KEY_MAX: usize = 250;
const LINE_END: &[u8; 2] = b"\r\n";
/// Reference counts before the bytes, and the allocator's own word.
const ALLOCATION: usize = 2 * size_of::<usize>() + 8;
/// glibc hands out multiples of this.
const GRAIN: usize = 16;

/// Clones share the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record(Arc<[u8]>);

impl Record {
    /// A record whose value is still to be filled in by `room`. The key has at most `KEY_MAX` bytes.
    pub fn reserve(key: &[u8], value_len: usize) -> Self {
        let length = u8::try_from(key.len()).expect("decoders refuse longer keys");
        let zeros = std::iter::repeat_n(0, 1 + key.len() + value_len + LINE_END.len());
        let mut bytes: Arc<[u8]> = zeros.collect();
        let whole = Arc::get_mut(&mut bytes).expect("nobody else has it yet");
        whole[0] = length;
        whole[1..=key.len()].copy_from_slice(key);
        whole[1 + key.len() + value_len..].copy_from_slice(LINE_END);
        Record(bytes)
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
        let whole = Arc::get_mut(&mut self.0).expect("a record is filled before it is shared");
        &mut whole[start..]
    }

    pub fn key(&self) -> &[u8] {
        &self.0[1..self.value_start()]
    }

    pub fn value(&self) -> &[u8] {
        &self.0[self.value_start()..self.0.len() - LINE_END.len()]
    }

    /// The value as the text protocols send it.
    pub fn value_line(&self) -> &[u8] {
        &self.0[self.value_start()..]
    }

    /// Whether the two bytes after the value are a line end, as a client must have sent them.
    pub fn is_terminated(&self) -> bool {
        self.0.ends_with(LINE_END)
    }

    /// Bytes of memory that the allocator takes for it.
    pub fn footprint(&self) -> usize {
        footprint(self.key().len(), self.value().len())
    }

    fn value_start(&self) -> usize {
        1 + usize::from(self.0[0])
    }
}

/// What a record with such a key and value will take.
pub fn footprint(key_len: usize, value_len: usize) -> usize {
    value_len
        .saturating_add(1 + key_len + LINE_END.len() + ALLOCATION)
        .checked_next_multiple_of(GRAIN)
        .unwrap_or(usize::MAX)
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
    fn broken_line_end_is_seen() {
        let mut record = Record::reserve(b"k", 2);
        record.room().copy_from_slice(b"abcd");
        assert!(!record.is_terminated());
        record.room().copy_from_slice(b"ab\r\n");
        assert!(record.is_terminated());
    }
}
