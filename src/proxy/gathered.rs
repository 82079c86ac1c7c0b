//! The pieces of a body as they came, for whoever keeps them.
//!
//! A piece is a slice of the buffer that it was read into, and keeps all of that. A client that sends single bytes would have us keep
//! a buffer for each, so what is kept of several pieces is a copy of them; a single one stays where it is.

use std::mem;

use bytes::{Bytes, BytesMut};

#[derive(Default)]
pub struct Gathered {
    /// The only piece.
    first: Bytes,
    /// All of them, once there are several.
    all: BytesMut,
}

impl Gathered {
    pub fn len(&self) -> usize {
        self.first.len() + self.all.len()
    }

    pub fn push(&mut self, piece: Bytes) {
        if self.len() == 0 {
            self.first = piece;
            return;
        }
        if self.all.is_empty() {
            self.all.extend_from_slice(&mem::take(&mut self.first));
        }
        self.all.extend_from_slice(&piece);
    }

    pub fn join(self) -> Bytes {
        match self.all.is_empty() {
            true => self.first,
            false => self.all.freeze(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_as_they_went_in() {
        let mut gathered = Gathered::default();
        for (piece, length) in [("", 0), ("one", 3), ("", 3), ("two", 6), ("", 6), ("three", 11)] {
            gathered.push(Bytes::from_static(piece.as_bytes()));
            assert_eq!(gathered.len(), length);
        }
        assert_eq!(gathered.join(), "onetwothree");
        assert_eq!(Gathered::default().join(), "");
    }

    #[test]
    fn a_single_piece_is_not_copied() {
        let piece = Bytes::from(vec![7; 10]);
        let mut gathered = Gathered::default();
        gathered.push(Bytes::new());
        gathered.push(piece.clone());
        assert_eq!(gathered.join().as_ptr(), piece.as_ptr());
    }
}
