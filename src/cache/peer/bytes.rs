//! The letters of the protocol between nodes: numbers of variable length (LEB128) and counted bytes. A reader trusts nothing.

use thiserror::Error;

/// A message that is no message: cut off, or with a value that nobody writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a message between caches is damaged")]
pub struct Damaged;

/// The rest of a message.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn byte(&mut self) -> Result<u8, Damaged> {
        let (first, rest) = self.0.split_first().ok_or(Damaged)?;
        self.0 = rest;
        Ok(*first)
    }

    pub fn number(&mut self) -> Result<u64, Damaged> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                return Err(Damaged);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Damaged)
    }

    /// A number that fits the type.
    pub fn small<T: TryFrom<u64>>(&mut self) -> Result<T, Damaged> {
        T::try_from(self.number()?).map_err(|_| Damaged)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Damaged> {
        let length: usize = self.small()?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Damaged)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// How many things follow; each has a byte at least, so a count is never larger than what is there.
    pub fn count(&mut self) -> Result<usize, Damaged> {
        let count = self.small()?;
        if count > self.0.len() { Err(Damaged) } else { Ok(count) }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

pub fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(value: u64, text: Vec<u8>) {
            let mut out = Vec::new();
            put_number(&mut out, value);
            put_bytes(&mut out, &text);
            let mut reader = Reader(&out);
            prop_assert_eq!(reader.number(), Ok(value));
            prop_assert_eq!(reader.bytes(), Ok(&text[..]));
            prop_assert!(reader.is_empty());
        }
    }

    #[test]
    fn numbers_beyond_64_bits_and_cut_ones_are_damaged() {
        for bad in [
            &[][..],
            &[0x80],
            &[0xff; 10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ] {
            assert_eq!(Reader(bad).number(), Err(Damaged), "{bad:?}");
        }
        assert_eq!(Reader(&[5, 1, 2]).bytes(), Err(Damaged));
        assert_eq!(Reader(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1]).bytes(), Err(Damaged));
        assert_eq!(Reader(&[3, 1, 2]).count(), Err(Damaged));
    }
}
