//! Ids of messages: 26 decimal digits, unique and growing, which clients hand back to be told what they missed.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Digits in all; the first ten are the era in which it was given out.
const DIGITS: usize = 26;
/// The other sixteen, which clients of generation 3 see as a number.
const SEQUENCE: u128 = 10_000_000_000_000_000;
/// Room for the messages of one microsecond. With it the sixteen digits stay below 2^53, the largest number that a browser counts.
const PER_MICROSECOND: u128 = 1_000_000_000;

/// Begins with each one who gives out ids: Unix seconds, or more where an era of these was there before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Era(u64);

impl Era {
    /// `since`: time since 1970.
    pub fn at(since: Duration) -> Self {
        Era(since.as_secs())
    }

    pub fn next(self) -> Self {
        Era(self.0.saturating_add(1))
    }
}

impl fmt::Display for Era {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// The default is below all that are given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mid(u128);

impl Mid {
    /// 26 digits have no room for more.
    pub const MAX: Mid = Mid(SEQUENCE * 10_000_000_000 - 1);

    pub fn parse(text: &str) -> Option<Self> {
        let is_whole = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
        is_whole.then(|| text.parse().ok().map(Mid)).flatten()
    }

    /// Two digits a byte, read as if they were hexadecimal.
    pub fn bytes(self) -> [u8; DIGITS / 2] {
        let (mut bytes, mut rest) = ([0; DIGITS / 2], self.0);
        for byte in bytes.iter_mut().rev() {
            let pair = u8::try_from(rest % 100).expect("below 100");
            *byte = ((pair / 10) << 4) | (pair % 10);
            rest /= 100;
        }
        bytes
    }

    pub fn era(self) -> Era {
        Era(u64::try_from(self.0 / SEQUENCE).unwrap_or(u64::MAX))
    }

    /// The number that clients of generation 3 know it by.
    pub fn sequence(self) -> u64 {
        u64::try_from(self.0 % SEQUENCE).expect("sixteen digits")
    }
}

impl fmt::Display for Mid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:026}", self.0)
    }
}

/// Gives ids out. A successor begins later and thus higher, whatever its predecessor gave out.
#[derive(Debug)]
pub struct Mids {
    last: Mid,
}

impl Mids {
    /// `since`: time since 1970.
    pub fn new(since: Duration) -> Self {
        Mids::of(Era::at(since), since)
    }

    /// Of an era. Who gives out ids for several nodes knows that nobody did so in it before, as far as anybody remembers; where nobody
    /// does, they differ by the fraction of the second at which they began.
    pub fn of(era: Era, since: Duration) -> Self {
        let start = u128::from(era.0) * SEQUENCE;
        Mids {
            last: Mid(start + u128::from(since.subsec_micros()) * PER_MICROSECOND),
        }
    }

    pub fn take(&mut self) -> Mid {
        self.last = Mid(self.last.0 + 1);
        self.last
    }

    /// The newest that was given out, or one below all that will be.
    pub fn last(&self) -> Mid {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_and_written() {
        let text = "17012345670000000000000042";
        let mid = Mid::parse(text).expect("26 digits");
        assert_eq!(mid.to_string(), text);
        assert_eq!(mid.sequence(), 42);
        assert_eq!(mid.bytes(), [0x17, 0x01, 0x23, 0x45, 0x67, 0, 0, 0, 0, 0, 0, 0, 0x42]);
        let low = Mid::parse("00000000010000000000000007").expect("26 digits");
        assert_eq!(low.to_string(), "00000000010000000000000007");
        for bad in [
            "",
            "1701234567000000000000004",
            "170123456700000000000000421",
            "1701234567000000000000004x",
            "+7012345670000000000000042",
        ] {
            assert_eq!(Mid::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn ids_grow_within_a_process_and_from_one_to_the_next() {
        let mut mids = Mids::new(Duration::new(1_701_234_567, 999_999_999));
        let first = mids.last();
        let mut given: Vec<Mid> = (0..1000).map(|_| mids.take()).collect();
        assert!(given.is_sorted() && given[0] > first);
        given.dedup();
        assert_eq!(given.len(), 1000);
        let mut successor = Mids::new(Duration::new(1_701_234_568, 0));
        assert!(successor.take() > given[999]);
        assert!(given.iter().all(|mid| mid.sequence() < 1 << 53));
    }

    #[test]
    fn ids_of_an_era_are_above_those_of_the_eras_before() {
        let era = Era::at(Duration::from_secs(1_701_234_567));
        let mut before = Mids::new(Duration::new(1_701_234_567, 999_999_999));
        let (mut own, last) = (Mids::of(era.next(), Duration::from_micros(3)), before.take());
        assert!(own.last() > last && last.era() == era);
        assert_eq!(own.take().to_string(), "17012345680000003000000001");
        assert_eq!(own.last().era(), era.next());
    }
}
