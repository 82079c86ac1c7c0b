//! Short-lived bytes, cut one after another from one chunk of their thread. Of a hundred clients that are answered in one turn each would
//! otherwise ask the allocator for some pieces.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

/// A piece that is kept keeps this much.
const CHUNK: usize = 16 << 10;
/// A larger piece is worth memory of its own.
const PIECE_MAX: usize = CHUNK / 4;

thread_local! {
    static CURRENT: RefCell<BytesMut> = RefCell::default();
}

/// A copy.
pub fn cut(bytes: &[u8]) -> Bytes {
    if bytes.len() > PIECE_MAX {
        return Bytes::copy_from_slice(bytes);
    }
    CURRENT.with_borrow_mut(|chunk| {
        if chunk.capacity() < bytes.len() {
            // The same memory again, if nobody has any of it.
            chunk.reserve(CHUNK);
        }
        chunk.extend_from_slice(bytes);
        chunk.split().freeze()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_stay_as_they_are_and_memory_is_used_again() {
        let sizes = [0, 1, 700, PIECE_MAX, PIECE_MAX + 1];
        let piece = |number: usize| vec![u8::try_from(number % 251).expect("small"); sizes[number % sizes.len()]];
        let kept: Vec<Bytes> = (0..100).map(|number| cut(&piece(number))).collect();
        for (number, bytes) in kept.iter().enumerate() {
            assert_eq!(bytes[..], piece(number));
        }
        drop(kept);
        let places: std::collections::BTreeSet<_> = (0..1000)
            .map(|_| cut(&[1; 1000]).as_ptr().addr() / (2 * CHUNK))
            .collect();
        assert!(places.len() < 10, "{} places", places.len());
    }
}
