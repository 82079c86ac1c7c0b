//! Decimal numbers of the text protocols, read as memcached reads them and written without allocation.

/// Digits of the largest u64.
pub const DIGITS_MAX: usize = 20;

/// A number as digits.
#[derive(Clone, Copy, Debug)]
pub struct Digits {
    bytes: [u8; DIGITS_MAX],
    start: usize,
}

impl Digits {
    pub fn of(mut value: u64) -> Self {
        let mut digits = Digits {
            bytes: [b'0'; DIGITS_MAX],
            start: DIGITS_MAX,
        };
        for place in digits.bytes.iter_mut().rev() {
            *place = b'0' + u8::try_from(value % 10).expect("a remainder by 10");
            digits.start -= 1;
            value /= 10;
            if value == 0 {
                break;
            }
        }
        digits
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// An unsigned number that is the whole token.
pub fn parse(token: &[u8]) -> Option<u64> {
    if token.is_empty() {
        return None;
    }
    token.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// A number that fits 32 bits, as client flags do.
pub fn parse_u32(token: &[u8]) -> Option<u32> {
    parse(token).and_then(|value| u32::try_from(value).ok())
}

/// A signed number, as expiry times are.
pub fn parse_signed(token: &[u8]) -> Option<i64> {
    match token.strip_prefix(b"-") {
        Some(digits) => parse(digits).and_then(|value| 0i64.checked_sub_unsigned(value)),
        None => parse(token).and_then(|value| i64::try_from(value).ok()),
    }
}

/// A stored value that incr and decr may count: digits, then nothing or the spaces of an earlier, longer number.
pub fn parse_stored(value: &[u8]) -> Option<u64> {
    parse(value.trim_ascii_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_and_read() {
        for value in [0, 7, 10, 4294967296, u64::MAX] {
            let digits = Digits::of(value);
            assert_eq!(digits.as_bytes(), value.to_string().as_bytes());
            assert_eq!(parse(digits.as_bytes()), Some(value));
        }
        for bad in ["", "-1", "+1", " 1", "1 ", "1a", "18446744073709551616"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse_signed(b"-5"), Some(-5));
        assert_eq!(parse_signed(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_signed(b"--5"), None);
        assert_eq!(parse_u32(b"4294967296"), None);
        assert_eq!(parse_stored(b"12  "), Some(12));
        assert_eq!(parse_stored(b"   "), None);
    }
}
