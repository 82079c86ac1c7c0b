//! Sets of bytes, and small questions about bytes.

/// From here on a table is filled sooner than a set.
const LONG: usize = 256;

/// A set of byte values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByteSet([u64; 4]);

impl ByteSet {
    /// `32-126,9`.
    pub fn parse(text: &str) -> Result<ByteSet, String> {
        let mut set = ByteSet::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            let byte = |text: &str| {
                text.trim()
                    .parse::<u8>()
                    .map_err(|_| format!("no byte or range of them: {part}"))
            };
            for byte in byte(low)?..=byte(high)? {
                set.insert(byte);
            }
        }
        Ok(set)
    }

    pub fn of(bytes: &[u8]) -> ByteSet {
        match bytes.len() > LONG {
            true => ByteSet::of_many(bytes),
            false => {
                let mut set = ByteSet::default();
                bytes.iter().for_each(|byte| set.insert(*byte));
                set
            }
        }
    }

    /// A store for each byte does not wait for the one before it, as a bit in a word does.
    fn of_many(bytes: &[u8]) -> ByteSet {
        let mut seen = [false; 256];
        bytes.iter().for_each(|byte| seen[usize::from(*byte)] = true);
        ByteSet::all(|byte| seen[usize::from(byte)])
    }

    pub fn all(is_meant: impl Fn(u8) -> bool) -> ByteSet {
        let mut set = ByteSet::default();
        let meant = (0..=255).filter(|byte| is_meant(*byte));
        meant.for_each(|byte| set.insert(byte));
        set
    }

    /// As of a text in lower case.
    pub fn lowercase(&self) -> ByteSet {
        // `A` to `Z`, in the second word; small letters are 32 bits on.
        const UPPER: u64 = 0x07ff_fffe;
        let mut words = self.0;
        words[1] = (words[1] & !UPPER) | (words[1] & UPPER) << 32;
        ByteSet(words)
    }

    pub fn is_within(&self, other: &ByteSet) -> bool {
        self.0.iter().zip(other.0).all(|(own, other)| own & !other == 0)
    }

    pub fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    pub fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    pub fn join(&mut self, other: &ByteSet) {
        self.0.iter_mut().zip(other.0).for_each(|(own, other)| *own |= other);
    }

    pub fn meets(&self, other: &ByteSet) -> bool {
        self.0.iter().zip(other.0).any(|(own, other)| own & other != 0)
    }
}

/// A `%` that two hexadecimal digits do not follow.
pub fn has_broken_escape(value: &[u8]) -> bool {
    let is_hex = |at: usize| value.get(at).is_some_and(u8::is_ascii_hexdigit);
    memchr::memchr_iter(b'%', value).any(|at| !(is_hex(at + 1) && is_hex(at + 2)))
}

/// `word` with no letter, digit or underscore beside it.
pub fn has_word(value: &[u8], word: &[u8]) -> bool {
    let is_part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    memchr::memmem::find_iter(value, word).any(|at| {
        let before = at.checked_sub(1).and_then(|at| value.get(at));
        !is_part(before) && !is_part(value.get(at + word.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_long_texts_and_of_lower_case_are_the_same() {
        let text: Vec<u8> = (0..1000u32).map(|at| (at * 7 % 191) as u8).collect();
        let mut one_by_one = ByteSet::default();
        text.iter().for_each(|byte| one_by_one.insert(*byte));
        assert_eq!(ByteSet::of(&text), one_by_one);
        assert_eq!(one_by_one.lowercase(), ByteSet::of(&text.to_ascii_lowercase()));
        assert_eq!(ByteSet::of(b"@[Az`{").lowercase(), ByteSet::of(b"@[az`{"));
        assert!(
            ByteSet::of(b"ab").is_within(&ByteSet::of(b"abc")) && !ByteSet::of(b"abc").is_within(&ByteSet::of(b"ab"))
        );
    }
}
