//! An item as the bytes that a server keeps: what this node must know of it, then its value. Pure.
//!
//! The end of life and the unique are in there because the server's own are not exact enough and differ from server to server.
//! The stamp says which emptying the item came after (`stamp`).

use super::name::Name;
use crate::cache::store::{Copy, Record};

const VERSION: u8 = 1;
const STALE: u8 = 1;
const WON: u8 = 2;
/// Version, marks, stamp, end, unique, flags, length of the key.
const HEAD: usize = 1 + 1 + 8 + 8 + 8 + 4 + 1;
/// Without end.
const NEVER: u64 = u64::MAX;

/// Bytes that `seal` will add.
pub fn size(name: &Name, copy: &Copy) -> usize {
    HEAD + spelled(name, copy).len() + copy.record.value().len()
}

/// The key, where the name does not tell it.
fn spelled<'a>(name: &Name, copy: &'a Copy) -> &'a [u8] {
    match name.key() {
        Some(_) => b"",
        None => copy.record.key(),
    }
}

/// `now`: milliseconds of the clock by which it will be opened.
pub fn seal(name: &Name, copy: &Copy, stamp: u64, now: u64, out: &mut Vec<u8>) {
    let end = copy.left.map_or(NEVER, |left| now.saturating_add(left));
    let stale = if copy.is_stale { STALE } else { 0 };
    let won = if copy.has_winner { WON } else { 0 };
    let key = spelled(name, copy);
    out.extend_from_slice(&[VERSION, stale | won]);
    for number in [stamp, end, copy.cas] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&copy.flags.to_be_bytes());
    out.push(u8::try_from(key.len()).expect("decoders refuse longer keys"));
    out.extend_from_slice(key);
    out.extend_from_slice(copy.record.value());
}

/// The stamp and the item. `None`: its life is over, or it is not one of ours.
pub fn open(name: &Name, bytes: &[u8], now: u64) -> Option<(u64, Copy)> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    let [VERSION, marks, numbers @ .., key_len] = head else {
        return None;
    };
    let number = |from: usize| Some(u64::from_be_bytes(*numbers.get(from..)?.first_chunk()?));
    let (stamp, end, cas) = (number(0)?, number(8)?, number(16)?);
    let flags = u32::from_be_bytes(*numbers.get(24..)?.first_chunk()?);
    let (spelled, value) = rest.split_at_checked(usize::from(*key_len))?;
    let key = match name.key() {
        Some(key) if spelled.is_empty() => key,
        None if Name::of(spelled) == *name => spelled,
        _ => return None,
    };
    let left = match end {
        NEVER => None,
        end => Some(end.checked_sub(now).filter(|left| *left > 0)?),
    };
    let copy = Copy {
        record: Record::new(key, value, b""),
        flags,
        cas,
        left,
        is_stale: marks & STALE != 0,
        has_winner: marks & WON != 0,
    };
    Some((stamp, copy))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn copy(key: &[u8], left: Option<u64>) -> Copy {
        Copy {
            record: Record::new(key, b"value", b""),
            flags: 0x0102_0304,
            cas: 9,
            left,
            is_stale: true,
            has_winner: false,
        }
    }

    #[test]
    fn what_was_sealed_is_found_until_its_end() {
        for key in [&b"k"[..], &[7; 250]] {
            let (name, copy) = (Name::of(key), copy(key, Some(500)));
            let mut bytes = Vec::new();
            seal(&name, &copy, 77, 1_000, &mut bytes);
            assert_eq!(bytes.len(), size(&name, &copy));
            assert_eq!(open(&name, &bytes, 1_000), Some((77, copy.clone())));
            let later = Copy { left: Some(1), ..copy };
            assert_eq!(open(&name, &bytes, 1_499), Some((77, later)));
            assert_eq!(open(&name, &bytes, 1_500), None);
            // Under the name of another key it is nothing.
            assert_eq!(open(&Name::of(&[8; 250]), &bytes, 1_000), None);
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let (name, copy) = (Name::of(b"k"), copy(b"k", None));
        let mut bytes = Vec::new();
        seal(&name, &copy, 1, 5, &mut bytes);
        let numbers = [[0, 0, 0, 0, 0, 0, 0, 1], [255; 8], [0, 0, 0, 0, 0, 0, 0, 9]].concat();
        let wanted = [&[1, 1], &numbers[..], &[1, 2, 3, 4, 0], b"value"].concat();
        assert_eq!(bytes, wanted);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), is_long in any::<bool>()) {
            let name = Name::of(if is_long { &[7; 250] } else { b"k" });
            let mut version = bytes.clone();
            if let Some(first) = version.first_mut() {
                *first = VERSION;
            }
            for bytes in [bytes, version] {
                open(&name, &bytes, 10);
            }
        }
    }
}
