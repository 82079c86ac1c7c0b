//! Finds the end of an unsealed segment in its bytes, and tells a torn write from damage.
//!
//! A write that a power cut tore was never acknowledged: its rest is dropped. But when a later write follows the bad place,
//! that place had been synced, and acknowledged entries are damaged: then the log must not be opened.
//! Damage in the very last write looks like a torn one; only the other replicas can tell.

use super::record;
use super::segment::{self, Header, Places};
use crate::storage::types::LogId;

/// What a segment's bytes hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    pub places: Places,
    /// The last good record's.
    pub last: Option<LogId>,
    /// Where the last write begins.
    pub last_write: u32,
    /// A later write follows a bad record: acknowledged entries are damaged.
    pub is_damaged: bool,
}

/// Reads all of a segment, its header included.
pub fn scan(header: Header, bytes: &[u8]) -> Scan {
    let mut scan = Scan {
        places: Places::empty(),
        last_write: segment::HEADER as u32,
        ..Scan::default()
    };
    let mut index = header.first;
    let mut offset = segment::HEADER;
    while let Some(record) = bytes
        .get(offset..)
        .and_then(|rest| record::decode(header.identity, index, rest))
    {
        let place = u32::try_from(offset).expect("segments are shorter than 4 GiB");
        scan.places.offsets.push(place);
        scan.last = Some(record.id);
        if record.first_of_write {
            scan.last_write = place;
        }
        offset += record.size();
        index += 1;
    }
    scan.places.end = u32::try_from(offset).expect("segments are shorter than 4 GiB");
    let rest = bytes.get(offset..).unwrap_or_default();
    let is_zero = rest.iter().all(|byte| *byte == 0);
    scan.is_damaged = !is_zero && later_write(header.identity, index, rest);
    scan
}

/// Whether a record opens a write somewhere behind the place where record `index` should be.
fn later_write(identity: u64, index: u64, rest: &[u8]) -> bool {
    // More records than this cannot lie between.
    let most = (rest.len() / record::HEADER) as u64;
    (1..rest.len()).any(|offset| {
        let bytes = &rest[offset..];
        record::plausible_index(bytes)
            .filter(|found| *found > index && found - index <= most)
            .and_then(|found| record::decode(identity, found, bytes))
            .is_some_and(|record| record.first_of_write)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::types::{Entry, log_id};
    use openraft::EntryPayload;

    const HEADER: Header = Header { identity: 4, first: 5 };

    /// A segment with writes of these many records, and where each record begins.
    fn segment(writes: &[usize]) -> (Vec<u8>, Vec<u32>) {
        let mut bytes = HEADER.encode();
        let mut offsets = Vec::new();
        for write in writes {
            for number in 0..*write {
                let entry = Entry {
                    log_id: log_id(1, 1, HEADER.first + offsets.len() as u64),
                    payload: EntryPayload::Blank,
                };
                offsets.push(bytes.len() as u32);
                record::encode(HEADER.identity, number == 0, &entry, &mut bytes).expect("short");
            }
        }
        bytes.extend([0; 100]);
        (bytes, offsets)
    }

    #[test]
    fn whole_segments_are_read_to_their_end() {
        let (bytes, offsets) = segment(&[2, 1, 3]);
        let scan = scan(HEADER, &bytes);
        assert_eq!(scan.last, Some(log_id(1, 1, 10)));
        assert_eq!(scan.last_write, offsets[3]);
        assert_eq!(scan.places.end as usize, bytes.len() - 100);
        assert_eq!(scan.places.offsets, offsets);
        assert!(!scan.is_damaged);
    }

    #[test]
    fn a_torn_last_write_is_dropped() {
        let (mut bytes, offsets) = segment(&[2, 3]);
        bytes[offsets[3] as usize + 10] ^= 1;
        let scan = scan(HEADER, &bytes);
        assert_eq!(scan.places.offsets, offsets[..3]);
        assert!(!scan.is_damaged);
    }

    #[test]
    fn a_bad_record_before_a_later_write_is_damage() {
        let (bytes, offsets) = segment(&[1, 2, 1]);
        for record in 0..3 {
            let mut flipped = bytes.clone();
            flipped[offsets[record] as usize + 4] ^= 1;
            assert!(scan(HEADER, &flipped).is_damaged, "record {record}");
        }
    }
}
