//! Replies that wait to be written. Small values are copied to the rest; large ones stay where the store has them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

use super::number::Digits;
use super::seen::Seen;
use super::store::{Record, SHARE_FROM};

/// Room for the replies of one read, so that few of them move; what the allocator hands out quickest.
const FIRST: usize = 1000;
/// Buffers of one thread that wait for the next replies, and the largest of them: beyond what it hands out quickest the allocator takes
/// as long as for all else of a request.
const SPARES: usize = 8;
const SPARE_MAX: usize = 16 << 10;
/// Slices of one write; longer lists gain nothing.
pub const SLICES: usize = 32;

#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    /// The value, and its line end if the flag says so.
    Value(Record, bool),
    Sent(Bytes),
}

impl Piece {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Piece::Bytes(bytes) => bytes,
            Piece::Value(record, true) => record.value_line(),
            Piece::Value(record, false) => record.value(),
            Piece::Sent(value) => value,
        }
    }
}

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug, Default)]
pub struct Output {
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that are written already.
    written: usize,
    pending: usize,
}

impl Output {
    pub fn put(&mut self, bytes: &[u8]) {
        self.write(bytes.len(), |tail| tail.extend_from_slice(bytes));
    }

    /// Appends what `write` does, of about so many bytes.
    pub fn write(&mut self, size: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let tail = self.tail(size);
        let before = tail.len();
        write(tail);
        self.pending += tail.len() - before;
    }

    fn tail(&mut self, size: usize) -> &mut Vec<u8> {
        if !matches!(self.pieces.back(), Some(Piece::Bytes(_))) {
            let spare = SPARE.with_borrow_mut(Vec::pop);
            let bytes = spare.unwrap_or_else(|| Vec::with_capacity(size.max(FIRST)));
            self.pieces.push_back(Piece::Bytes(bytes));
        }
        match self.pieces.back_mut() {
            Some(Piece::Bytes(tail)) => tail,
            _ => unreachable!("it was put there"),
        }
    }

    pub fn put_number(&mut self, number: u64) {
        self.put(Digits::of(number).as_bytes());
    }

    /// The value, with CR LF after it for the text protocols.
    pub fn put_value(&mut self, seen: &Seen, with_line_end: bool) {
        let value = seen.value();
        let end: &[u8] = if with_line_end { b"\r\n" } else { b"" };
        let size = value.len() + end.len();
        if size < SHARE_FROM {
            return self.write(size, |tail| {
                tail.extend_from_slice(value);
                tail.extend_from_slice(end);
            });
        }
        match seen {
            Seen::Kept(record) => {
                self.pending += size;
                self.pieces.push_back(Piece::Value(record.clone(), with_line_end));
            }
            Seen::Sent { value, .. } => {
                self.pending += value.len();
                self.pieces.push_back(Piece::Sent(value.clone()));
                self.put(end);
            }
        }
    }

    /// Bytes not yet written.
    pub fn len(&self) -> usize {
        self.pending
    }

    pub fn is_empty(&self) -> bool {
        self.pending == 0
    }

    /// What to write next.
    pub fn slices<'a>(&'a self, room: &mut [IoSlice<'a>; SLICES]) -> usize {
        let mut count = 0;
        for (slice, piece) in room.iter_mut().zip(&self.pieces) {
            let skip = if count == 0 { self.written } else { 0 };
            *slice = IoSlice::new(piece.as_bytes().get(skip..).unwrap_or_default());
            count += 1;
        }
        count
    }

    /// Notes that `count` bytes are written.
    pub fn advance(&mut self, count: usize) {
        self.pending = self.pending.saturating_sub(count);
        self.written += count;
        while let Some(first) = self.pieces.front() {
            let length = first.as_bytes().len();
            if self.written < length {
                break;
            }
            self.written -= length;
            if let Some(Piece::Bytes(bytes)) = self.pieces.pop_front() {
                give_back(bytes);
            }
        }
    }

    /// Everything as one piece, for tests.
    #[cfg(test)]
    pub fn take(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        for piece in &self.pieces {
            all.extend_from_slice(piece.as_bytes());
        }
        all.drain(..self.written);
        *self = Output::default();
        all
    }
}

/// For the next replies of anybody.
fn give_back(mut bytes: Vec<u8>) {
    if bytes.capacity() <= SPARE_MAX {
        bytes.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARES {
                spare.push(bytes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_in_order_whatever_is_written_at_once() {
        let large = Record::new(b"k", &vec![b'x'; SHARE_FROM], b"");
        let small = Record::new(b"k", b"small", b"");
        let sent = Seen::Sent {
            key: Bytes::from_static(b"k"),
            value: Bytes::from(vec![b'y'; SHARE_FROM]),
        };
        let expected = [
            b"a",
            &b"small\r\n"[..],
            large.value_line(),
            sent.value(),
            b"\r\n",
            sent.value(),
            b"7",
            large.value(),
        ];
        let (expected, small, large) = (expected.concat(), Seen::from(small), Seen::from(large.clone()));
        for step in [1, 3, 1000, usize::MAX] {
            let mut output = Output::default();
            output.put(b"a");
            output.put_value(&small, true);
            output.put_value(&large, true);
            output.put_value(&sent, true);
            output.put_value(&sent, false);
            output.put_number(7);
            output.put_value(&large, false);
            let mut seen = Vec::new();
            while !output.is_empty() {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = output.slices(&mut slices);
                let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                let bytes = &bytes[..bytes.len().min(step)];
                seen.extend_from_slice(bytes);
                let length = bytes.len();
                output.advance(length);
            }
            assert!(seen == expected, "in steps of {step}");
        }
    }
}
