//! Bytes in pieces that lie where they are. What is large passes from hand to hand without being copied into one place.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A piece from this size on is better left where it is; smaller ones are cheaper together.
pub const LARGE: usize = 16 << 10;

/// Most are one piece, and need no memory for a list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pieces {
    first: Bytes,
    rest: Vec<Bytes>,
}

impl Pieces {
    pub fn len(&self) -> usize {
        self.iter().map(Bytes::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// Adds a piece; one without bytes is none.
    pub fn push(&mut self, piece: Bytes) {
        match (piece.is_empty(), self.first.is_empty()) {
            (true, _) => {}
            (false, true) if self.rest.is_empty() => self.first = piece,
            (false, _) => self.rest.push(piece),
        }
    }

    /// The first piece and those behind it.
    pub fn split_first(&self) -> (&Bytes, &[Bytes]) {
        (&self.first, &self.rest)
    }

    /// In one piece; copied where they are several.
    pub fn join(self) -> Bytes {
        match self.rest.is_empty() {
            true => self.first,
            false => {
                let mut all = Vec::with_capacity(self.len());
                self.iter().for_each(|piece| all.extend_from_slice(piece));
                all.into()
            }
        }
    }
}

impl<B: Into<Bytes>> From<B> for Pieces {
    fn from(piece: B) -> Self {
        Pieces {
            first: piece.into(),
            rest: Vec::new(),
        }
    }
}

/// The same bytes, however they are cut.
impl PartialEq for Pieces {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().flatten().eq(other.iter().flatten())
    }
}

impl Eq for Pieces {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_same_bytes_however_they_are_cut() {
        let mut cut = Pieces::default();
        for piece in ["", "one", "", "two", ""] {
            cut.push(Bytes::from_static(piece.as_bytes()));
        }
        assert_eq!((cut.iter().count(), cut.len()), (2, 6));
        assert_eq!(cut, Pieces::from("onetwo"));
        assert_ne!(cut, Pieces::from("onetwp"));
        assert_ne!(cut, Pieces::from("one"));
        assert_eq!(cut.join(), "onetwo");
        assert!(Pieces::default().is_empty());
    }

    #[test]
    fn one_piece_is_not_copied() {
        let bytes = Bytes::from(vec![7; 10]);
        assert_eq!(Pieces::from(bytes.clone()).join().as_ptr(), bytes.as_ptr());
    }
}
