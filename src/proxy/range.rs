//! Byte ranges of a request (RFC 9110 §14). Pure.

use std::ops::Range;

/// Most ranges that are answered one by one. Readers of documents ask for a few; more is an attack or nonsense, and gets the whole.
const MAX: usize = 8;

/// What to send.
#[derive(Debug, PartialEq, Eq)]
pub enum Ranges {
    /// The field is absent, malformed, in another unit or not worth it: it is ignored (§14.2).
    Whole,
    /// Non-empty parts within the file, in the order of the request.
    Parts(Vec<Range<u64>>),
    /// None of the ranges lies within the file: 416.
    Unsatisfiable,
}

/// Reads the value of `Range` for a representation of `size` bytes.
pub fn parse(field: &str, size: u64) -> Ranges {
    let Some(set) = field.trim().strip_prefix("bytes=") else {
        return Ranges::Whole;
    };
    let mut parts: Vec<Range<u64>> = Vec::new();
    for (count, range) in set
        .split(',')
        .map(str::trim)
        .filter(|range| !range.is_empty())
        .enumerate()
    {
        match one(range, size) {
            None => return Ranges::Whole,
            _ if count == MAX => return Ranges::Whole,
            Some(part) if part.is_empty() => {}
            Some(part) => parts.push(part),
        }
    }
    if parts.is_empty() {
        // A set without a single range is malformed; one whose ranges all miss is unsatisfiable.
        let is_set = set.split(',').any(|range| !range.trim().is_empty());
        return if is_set { Ranges::Unsatisfiable } else { Ranges::Whole };
    }
    // Overlapping ranges would make us send more than the file (§14.2, §17.15).
    let total = parts
        .iter()
        .fold(0, |total: u64, part| total.saturating_add(part.end - part.start));
    if parts.len() > 1 && total > size {
        Ranges::Whole
    } else {
        Ranges::Parts(parts)
    }
}

/// `first-last`, `first-` or `-suffix`. `None`: malformed; empty: outside the file.
fn one(range: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.trim_end(), last.trim_start());
    if first.is_empty() {
        let suffix = number(last)?;
        return Some(size.saturating_sub(suffix)..size);
    }
    let first = number(first)?;
    let end = if last.is_empty() {
        size
    } else {
        number(last)?.saturating_add(1)
    };
    if end <= first && !last.is_empty() {
        return None;
    }
    let first = first.min(size);
    Some(first..end.clamp(first, size))
}

/// Digits only. A number beyond 64 bits lies beyond every file.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        let part = |range: Range<u64>| Ranges::Parts(vec![range]);
        for (field, expected) in [
            ("bytes=0-0", part(0..1)),
            ("bytes=0-", part(0..100)),
            ("bytes=10-19", part(10..20)),
            ("bytes=90-1000", part(90..100)),
            ("bytes=-1", part(99..100)),
            ("bytes=-500", part(0..100)),
            ("bytes= 5-6 ", part(5..7)),
            ("bytes=0-0, 99-99", Ranges::Parts(vec![0..1, 99..100])),
            ("bytes=0-0,,200-300", part(0..1)),
            ("bytes=0-99999999999999999999", part(0..100)),
            ("bytes=100-", Ranges::Unsatisfiable),
            ("bytes=100-200,300-", Ranges::Unsatisfiable),
            ("bytes=-0", Ranges::Unsatisfiable),
            ("bytes=", Ranges::Whole),
            ("bytes=5-4", Ranges::Whole),
            ("bytes=a-b", Ranges::Whole),
            ("bytes=+1-2", Ranges::Whole),
            ("bytes=1", Ranges::Whole),
            ("bytes=0-1,x", Ranges::Whole),
            ("items=0-1", Ranges::Whole),
            ("bytes=0-,0-,0-", Ranges::Whole),
            ("bytes=0-0,1-1,2-2,3-3,4-4,5-5,6-6,7-7,8-8", Ranges::Whole),
        ] {
            assert_eq!(parse(field, 100), expected, "{field}");
        }
        assert_eq!(parse("bytes=0-", 0), Ranges::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn parts_lie_within_the_file(field in "bytes=[0-9,\\- ]{0,30}", size in any::<u64>()) {
            if let Ranges::Parts(parts) = parse(&field, size) {
                for part in parts {
                    prop_assert!(part.start < part.end && part.end <= size);
                }
            }
        }
    }
}
