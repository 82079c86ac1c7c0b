//! Record marking on byte streams (RFC 5531 §11), without I/O: a record is one or more fragments, each behind a word
//! that holds its length and, in the top bit, whether it is the last one.

use bytes::{Buf, Bytes, BytesMut};

use crate::storage::call::DATA_MAX;

/// Longest record: the largest WRITE, with room for the call's header (credential and verifier of 400 bytes each),
/// a handle and the other arguments.
pub const RECORD_MAX: usize = DATA_MAX + 4096;
const HEADER: usize = 4;
const LAST: u32 = 0x8000_0000;
/// A fragment gets its whole room only when this much of it is there: a length alone allocates nothing.
const PROOF: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a record of more than {RECORD_MAX} bytes")]
    TooLong,
}

/// Puts fragments together.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Earlier fragments of the record under way.
    earlier: BytesMut,
}

impl Decoder {
    /// Takes the next whole record from the front of `input`; `None`: more bytes are needed.
    /// A record of one fragment, as all known clients send, is not copied.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, Error> {
        while let Some(word) = input.first_chunk::<HEADER>() {
            let word = u32::from_be_bytes(*word);
            let length = (word & !LAST) as usize;
            if length > RECORD_MAX - self.earlier.len() {
                return Err(Error::TooLong);
            }
            let whole = HEADER + length;
            if input.len() < whole {
                if input.len() >= PROOF {
                    input.reserve(whole - input.len());
                }
                return Ok(None);
            }
            input.advance(HEADER);
            let fragment = input.split_to(length);
            let is_last = word & LAST != 0;
            if is_last && self.earlier.is_empty() {
                return Ok(Some(fragment.freeze()));
            }
            self.earlier.extend_from_slice(&fragment);
            if is_last {
                return Ok(Some(self.earlier.split().freeze()));
            }
        }
        Ok(None)
    }
}

/// The word before a record of `length` bytes that is sent as one fragment.
pub fn header(length: usize) -> [u8; HEADER] {
    let length = u32::try_from(length).expect("replies are below a few MiB");
    (length | LAST).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fragment(data: &[u8], is_last: bool) -> Vec<u8> {
        let mut bytes = header(data.len()).to_vec();
        if !is_last {
            bytes[0] &= 0x7f;
        }
        bytes.extend_from_slice(data);
        bytes
    }

    fn all(decoder: &mut Decoder, input: &mut BytesMut) -> Vec<Bytes> {
        std::iter::from_fn(|| decoder.decode(input).expect("within bounds")).collect()
    }

    #[test]
    fn records_come_out_whole_wherever_the_stream_is_cut() {
        let stream = [
            fragment(b"one", true),
            fragment(b"t", false),
            fragment(b"", false),
            fragment(b"wo", true),
            fragment(b"", true),
        ]
        .concat();
        for cut in 0..=stream.len() {
            let (mut decoder, mut input) = (Decoder::default(), BytesMut::new());
            let mut records = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                input.extend_from_slice(part);
                records.extend(all(&mut decoder, &mut input));
            }
            assert_eq!(records, [&b"one"[..], b"two", b""], "cut at {cut}");
        }
    }

    #[test]
    fn hostile_length_is_refused_before_anything_is_allocated() {
        for word in [0xffff_ffff_u32, 0x7fff_ffff, LAST | (RECORD_MAX as u32 + 1)] {
            let mut input = BytesMut::from(&word.to_be_bytes()[..]);
            assert_eq!(Decoder::default().decode(&mut input), Err(Error::TooLong));
        }
        let mut input = BytesMut::from(&header(RECORD_MAX)[..]);
        assert_eq!(Decoder::default().decode(&mut input), Ok(None));
        assert!(input.capacity() < 1024, "a length alone is no reason for memory");
    }

    #[test]
    fn fragments_together_are_bounded() {
        let (mut decoder, mut input) = (Decoder::default(), BytesMut::new());
        input.extend_from_slice(&fragment(&vec![0; RECORD_MAX], false));
        assert_eq!(decoder.decode(&mut input), Ok(None));
        input.extend_from_slice(&fragment(b"x", true));
        assert_eq!(decoder.decode(&mut input), Err(Error::TooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_never_panic_and_never_grow(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..32)) {
            let (mut decoder, mut input) = (Decoder::default(), BytesMut::new());
            for piece in pieces {
                input.extend_from_slice(&piece);
                loop {
                    match decoder.decode(&mut input) {
                        Ok(Some(record)) => prop_assert!(record.len() <= RECORD_MAX),
                        Ok(None) => break,
                        Err(Error::TooLong) => return Ok(()),
                    }
                }
            }
        }

        #[test]
        fn any_fragments_join_to_their_record(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 1..8)) {
            let mut input = BytesMut::new();
            for (index, part) in parts.iter().enumerate() {
                input.extend_from_slice(&fragment(part, index + 1 == parts.len()));
            }
            let record = Decoder::default().decode(&mut input).expect("within bounds").expect("whole");
            prop_assert_eq!(record, parts.concat());
        }
    }
}
