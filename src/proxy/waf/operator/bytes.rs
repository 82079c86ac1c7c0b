//! Sets of bytes, and small questions about bytes.

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
        let mut set = ByteSet::default();
        for byte in bytes {
            set.insert(*byte);
        }
        set
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
