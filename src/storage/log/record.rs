//! One entry in a segment: `len u32, crc32c u32, kind u8, term u64, node u64, index u64, body`, little endian.
//!
//! `len` is the body's. The crc covers the segment's identity and everything but itself, so that a record of another
//! segment's past is never taken for one of this. The top bit of `kind` marks the first record of a write: such a record
//! proves that everything before it was synced, for a write starts only after the sync of the one before.

use bytes::{Buf, BufMut};

use crate::storage::entry::{self, MAX_BODY};
use crate::storage::types::{Entry, LogId, log_id};

/// Bytes before the body.
pub const HEADER: usize = 33;
const FIRST_OF_WRITE: u8 = 0x80;
/// Where the checksummed part after the length begins.
const AFTER_CRC: usize = 8;

/// A record whose checksum holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub id: LogId,
    pub kind: u8,
    pub first_of_write: bool,
    pub body: &'a [u8],
}

impl Record<'_> {
    pub fn size(&self) -> usize {
        HEADER + self.body.len()
    }
}

/// Appends a record; `Err` gives the length of a body that is too long.
pub fn encode(identity: u64, first_of_write: bool, entry: &Entry, out: &mut Vec<u8>) -> Result<(), usize> {
    let start = out.len();
    out.put_bytes(0, HEADER);
    let kind = entry::encode(&entry.payload, out);
    let length = out.len() - start - HEADER;
    if length > MAX_BODY {
        out.truncate(start);
        return Err(length);
    }
    let record = &mut out[start..];
    let mut header = &mut record[..HEADER];
    header.put_u32_le(u32::try_from(length).expect("MAX_BODY fits"));
    header.put_u32_le(0);
    header.put_u8(kind | if first_of_write { FIRST_OF_WRITE } else { 0 });
    header.put_u64_le(entry.log_id.leader_id.term);
    header.put_u64_le(entry.log_id.leader_id.node_id);
    header.put_u64_le(entry.log_id.index);
    let crc = checksum(identity, record);
    record[4..AFTER_CRC].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// Reads the record at the start of `bytes` if it is whole, untouched and number `index` of segment `identity`.
pub fn decode(identity: u64, index: u64, bytes: &[u8]) -> Option<Record<'_>> {
    let mut header = bytes;
    let length = header.try_get_u32_le().ok()? as usize;
    let crc = header.try_get_u32_le().ok()?;
    let kind = header.try_get_u8().ok()?;
    let term = header.try_get_u64_le().ok()?;
    let node = header.try_get_u64_le().ok()?;
    if header.try_get_u64_le().ok()? != index || length > MAX_BODY {
        return None;
    }
    let whole = bytes.get(..HEADER + length)?;
    (checksum(identity, whole) == crc).then_some(Record {
        id: log_id(term, node, index),
        kind: kind & !FIRST_OF_WRITE,
        first_of_write: kind & FIRST_OF_WRITE != 0,
        body: &whole[HEADER..],
    })
}

/// The index that a record at the start of `bytes` would have, if its other fields could be a record's too.
/// A cheap sieve before `decode`.
pub fn plausible_index(bytes: &[u8]) -> Option<u64> {
    let mut header = bytes.get(..HEADER)?;
    let length = header.get_u32_le() as usize;
    header.advance(4);
    let kind = header.get_u8() & !FIRST_OF_WRITE;
    header.advance(16);
    (length <= MAX_BODY && kind != 0).then(|| header.get_u64_le())
}

/// `record` is a whole one, with anything in the place of its crc.
fn checksum(identity: u64, record: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&identity.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &record[..4]);
    crc32c::crc32c_append(crc, &record[AFTER_CRC..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::entry::Body;
    use bytes::Bytes;
    use openraft::EntryPayload;

    fn sample() -> (Entry, Vec<u8>) {
        let entry = Entry {
            log_id: log_id(3, 2, 9),
            payload: EntryPayload::Normal(Body::Operations(vec![Bytes::from_static(b"write").into()])),
        };
        let mut bytes = Vec::new();
        encode(7, true, &entry, &mut bytes).expect("short enough");
        (entry, bytes)
    }

    #[test]
    fn a_record_survives_the_round_trip() {
        let (entry, bytes) = sample();
        let record = decode(7, 9, &bytes).expect("whole");
        assert_eq!((record.id, record.first_of_write), (entry.log_id, true));
        assert_eq!(record.size(), bytes.len());
        let payload = entry::decode(record.kind, Bytes::copy_from_slice(record.body));
        assert_eq!(payload, Ok(entry.payload));
        assert_eq!(plausible_index(&bytes), Some(9));
    }

    #[test]
    fn a_record_belongs_to_its_segment_and_place() {
        let (_, bytes) = sample();
        assert_eq!(decode(8, 9, &bytes), None, "another segment");
        assert_eq!(decode(7, 10, &bytes), None, "another index");
        assert_eq!(decode(7, 0, &[0; HEADER]), None, "zeros are no record");
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_seen() {
        let (_, bytes) = sample();
        for end in 0..bytes.len() {
            assert_eq!(decode(7, 9, &bytes[..end]), None, "cut at {end}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(7, 9, &flipped), None, "bit {bit}");
        }
    }
}
