//! The frame of a segment file: a header that names it, and the footer of a sealed one.
//!
//! Header: magic, `identity u64, first index u64, crc32c u32`. Footer, at the very end of the file: magic,
//! `count u32`, one `offset u32` per record, `end of records u32`, `crc32c u32`, `length of the footer u32`.

use bytes::{Buf, BufMut};

pub const HEADER: usize = 28;
/// The last four bytes of a sealed file give the footer's length.
pub const TRAILER: usize = 4;
/// The digit is the format's version.
const HEADER_MAGIC: &[u8; 8] = b"bxnlog 1";
const FOOTER_MAGIC: &[u8; 8] = b"bxnend 1";
/// A footer without offsets.
const EMPTY_FOOTER: usize = 8 + 4 + 4 + 4 + TRAILER;

/// Which segment this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Random; part of the checksum of every record.
    pub identity: u64,
    pub first: u64,
}

impl Header {
    pub fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER);
        out.put_slice(HEADER_MAGIC);
        out.put_u64_le(self.identity);
        out.put_u64_le(self.first);
        out.put_u32_le(crc32c::crc32c(&out));
        out
    }

    pub fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        let (mut fields, mut crc) = bytes.split_at(HEADER - 4);
        let whole = fields.starts_with(HEADER_MAGIC) && crc32c::crc32c(fields) == crc.get_u32_le();
        fields.advance(HEADER_MAGIC.len());
        whole.then(|| Header {
            identity: fields.get_u64_le(),
            first: fields.get_u64_le(),
        })
    }
}

/// Where the records of a segment lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    pub offsets: Vec<u32>,
    /// End of the last record.
    pub end: u32,
}

impl Places {
    /// Those of a segment without records.
    pub fn empty() -> Self {
        Places {
            offsets: Vec::new(),
            end: HEADER as u32,
        }
    }

    /// Offset and length of the `position`th record.
    pub fn record(&self, position: usize) -> Option<(u32, u32)> {
        let start = *self.offsets.get(position)?;
        let end = self.offsets.get(position + 1).copied().unwrap_or(self.end);
        Some((start, end.checked_sub(start)?))
    }

    /// Forgets the `count`th record and all after it.
    pub fn truncate(&mut self, count: usize) {
        if let Some(offset) = self.offsets.get(count) {
            self.end = *offset;
            self.offsets.truncate(count);
        }
    }

    pub fn encode_footer(&self, identity: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(EMPTY_FOOTER + 4 * self.offsets.len());
        out.put_slice(FOOTER_MAGIC);
        out.put_u32_le(u32::try_from(self.offsets.len()).expect("a segment holds fewer records"));
        self.offsets.iter().for_each(|offset| out.put_u32_le(*offset));
        out.put_u32_le(self.end);
        out.put_u32_le(footer_checksum(identity, &out));
        out.put_u32_le(u32::try_from(out.len() + TRAILER).expect("a footer is small"));
        out
    }

    /// Reads a footer, from its magic to the end of the file.
    pub fn decode_footer(identity: u64, bytes: &[u8]) -> Option<Self> {
        let checked = bytes.get(..bytes.len().checked_sub(4 + TRAILER)?)?;
        let mut rest = bytes;
        if rest.len() < EMPTY_FOOTER || !rest.starts_with(FOOTER_MAGIC) {
            return None;
        }
        rest.advance(FOOTER_MAGIC.len());
        let count = rest.get_u32_le() as usize;
        if bytes.len() != count.checked_mul(4)?.checked_add(EMPTY_FOOTER)? {
            return None;
        }
        let offsets = (0..count).map(|_| rest.get_u32_le()).collect();
        let end = rest.get_u32_le();
        (rest.get_u32_le() == footer_checksum(identity, checked)).then_some(Places { offsets, end })
    }
}

fn footer_checksum(identity: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&identity.to_le_bytes()), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_header_is_refused() {
        let header = Header { identity: 5, first: 70 };
        let bytes: [u8; HEADER] = header.encode().try_into().expect("its length");
        assert_eq!(Header::decode(&bytes), Some(header));
        for bit in 0..HEADER * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn a_damaged_footer_is_refused() {
        let places = Places {
            offsets: vec![28, 80, 200],
            end: 260,
        };
        let bytes = places.encode_footer(5);
        assert_eq!(Places::decode_footer(5, &bytes), Some(places));
        assert_eq!(Places::decode_footer(6, &bytes), None, "another segment's");
        for end in 0..bytes.len() {
            assert_eq!(Places::decode_footer(5, &bytes[..end]), None);
        }
        for bit in 0..(bytes.len() - TRAILER) * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Places::decode_footer(5, &flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn records_lie_between_offsets() {
        let mut places = Places {
            offsets: vec![28, 80],
            end: 100,
        };
        assert_eq!(places.record(0), Some((28, 52)));
        assert_eq!(places.record(1), Some((80, 20)));
        assert_eq!(places.record(2), None);
        places.truncate(1);
        assert_eq!((places.end, places.record(1)), (80, None));
    }
}
