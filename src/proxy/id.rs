//! The id of a request: 16 hexadecimal digits that go to targets, to the client and to the log. Carried by value, since all of these want it.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;

use super::digits::hexadecimal;

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Id([u8; 16]);

impl Id {
    fn of(word: u64) -> Self {
        Id(hexadecimal(word))
    }

    /// Of another front. `None`: that is none.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: [u8; 16] = text.as_bytes().try_into().ok()?;
        digits.iter().all(u8::is_ascii_hexdigit).then_some(Id(digits))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits")
    }

    pub fn value(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).expect("hexadecimal digits")
    }
}

impl Deref for Id {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// Numbers that no two requests of a cluster share, and that say nothing of their order.
#[derive(Debug)]
pub struct Ids {
    base: u64,
    next: AtomicU64,
}

impl Ids {
    pub fn new() -> anyhow::Result<Self> {
        let base = getrandom::u64().map_err(|error| anyhow::anyhow!("read random bytes: {error}"))?;
        Ok(Ids {
            base,
            next: AtomicU64::new(0),
        })
    }

    pub fn next(&self) -> Id {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        Id::of(mix(self.base.wrapping_add(count)))
    }
}

/// The finaliser of SplitMix64: one to one, so that different counts stay different.
pub fn mix(count: u64) -> u64 {
    let mut word = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ() {
        let ids = Ids::new().expect("random");
        let all: std::collections::HashSet<String> = (0..1000).map(|_| ids.next().to_string()).collect();
        assert_eq!(all.len(), 1000);
        assert!(all.iter().all(|id| Id::parse(id).is_some_and(|read| *read == **id)));
    }

    #[test]
    fn nothing_else_is_an_id() {
        for text in [
            "",
            "0123456789abcde",
            "0123456789abcdef0",
            "0123456789abcdeg",
            "0123456789abcd\u{e9}",
        ] {
            assert_eq!(Id::parse(text), None, "{text}");
        }
    }
}
