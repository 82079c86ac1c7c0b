//! Arguments from XDR (RFC 4506), with a bound on every length.
//! The decoders of `nfs3_types` are not used for arguments: they allocate whatever length the client claims before they
//! look whether the bytes are there. Results are packed by `nfs3_types`.

use bytes::{Buf, Bytes};
use nfs3_types::xdr_codec::Pack;

/// The arguments are not what the procedure takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("arguments cannot be decoded")]
pub struct Garbage;

/// Reads XDR from the front of a record. Opaque data is shared with the record, not copied.
#[derive(Clone, Debug)]
pub struct Reader(Bytes);

impl Reader {
    pub fn new(bytes: Bytes) -> Self {
        Reader(bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Garbage> {
        self.0.try_get_u32().map_err(|_| Garbage)
    }

    pub fn u64(&mut self) -> Result<u64, Garbage> {
        self.0.try_get_u64().map_err(|_| Garbage)
    }

    pub fn bool(&mut self) -> Result<bool, Garbage> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Garbage),
        }
    }

    /// A value that is there only behind a TRUE.
    pub fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Garbage>) -> Result<Option<T>, Garbage> {
        Ok(if self.bool()? { Some(read(self)?) } else { None })
    }

    /// Variable-length opaque of at most `max` bytes, with its padding.
    pub fn opaque(&mut self, max: usize) -> Result<Bytes, Garbage> {
        let length = self.u32()? as usize;
        if length > max || self.0.len() < length.next_multiple_of(4) {
            return Err(Garbage);
        }
        let data = self.0.split_to(length);
        self.0.advance(length.next_multiple_of(4) - length);
        Ok(data)
    }

    /// What is left.
    pub fn rest(self) -> Bytes {
        self.0
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<(), Garbage> {
        if self.0.is_empty() { Ok(()) } else { Err(Garbage) }
    }
}

/// A value in XDR, at the end of `out`.
pub fn pack(value: &impl Pack, out: &mut Vec<u8>) {
    out.reserve(value.packed_size());
    value
        .pack(out)
        .expect("a Vec takes all, and no value here exceeds 4 GiB");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn opaque_ends_with_its_padding() {
        let mut reader = Reader::new(Bytes::from_static(b"\0\0\0\x05hello\0\0\0\0\0\0\x07"));
        assert_eq!(reader.opaque(5).expect("whole"), &b"hello"[..]);
        assert_eq!(reader.u32(), Ok(7));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn lengths_beyond_the_bound_or_the_bytes_are_garbage() {
        let bytes = Bytes::from_static(b"\0\0\0\x05hello\0\0\0");
        assert_eq!(Reader::new(bytes.clone()).opaque(4), Err(Garbage));
        assert_eq!(Reader::new(bytes.slice(..11)).opaque(64), Err(Garbage));
        assert_eq!(
            Reader::new(Bytes::from_static(&[0xff; 8])).opaque(usize::MAX),
            Err(Garbage)
        );
        assert_eq!(Reader::new(Bytes::from_static(&[0, 0, 0, 2])).bool(), Err(Garbage));
    }

    proptest! {
        #[test]
        fn what_is_packed_is_read_back(data in prop::collection::vec(any::<u8>(), 0..40), number: u64) {
            let mut out = Vec::new();
            pack(&nfs3_types::xdr_codec::Opaque::borrowed(&data), &mut out);
            pack(&number, &mut out);
            let mut reader = Reader::new(out.into());
            prop_assert_eq!(reader.opaque(40).expect("whole"), data);
            prop_assert_eq!(reader.u64(), Ok(number));
            prop_assert_eq!(reader.end(), Ok(()));
        }
    }
}
