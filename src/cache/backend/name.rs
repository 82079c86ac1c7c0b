//! Under which name a server keeps a key. Pure.
//!
//! Names travel in base64, because a key may hold any byte. The server takes 250 letters of them, which is less than the longest key:
//! beyond that the name is a digest, and the item itself says its key (`envelope`).

use data_encoding::BASE64;

use crate::cache::council::Shard;

/// Bytes that make 250 letters at most.
const PLAIN_MAX: usize = 186;
/// Before a digest.
const DIGEST: u8 = 0;
const DIGEST_LEN: usize = 33;
/// Locks of names; two keys seldom meet.
pub const STRIPES: usize = 512;

/// Any bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(Box<[u8]>);

impl Name {
    pub fn of(key: &[u8]) -> Self {
        let is_plain = (1..=PLAIN_MAX).contains(&key.len()) && !looks_like_digest(key);
        if is_plain {
            return Name(key.into());
        }
        let digest = blake3::hash(key);
        Name([&[DIGEST], &digest.as_bytes()[..]].concat().into())
    }

    /// As the server has it in a list of its items: percent-encoded.
    pub fn listed(encoded: &[u8]) -> Option<Self> {
        let mut name = Vec::with_capacity(encoded.len());
        let mut rest = encoded;
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            name.push(match byte {
                b'%' => {
                    let (digits, after) = rest.split_at_checked(2)?;
                    rest = after;
                    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
                }
                byte => *byte,
            });
        }
        let fits = (1..=PLAIN_MAX).contains(&name.len());
        fits.then(|| Name(name.into()))
    }

    /// The key, if the name tells it.
    pub fn key(&self) -> Option<&[u8]> {
        (!looks_like_digest(&self.0)).then_some(&self.0)
    }

    pub fn encoded(&self) -> String {
        BASE64.encode(&self.0)
    }

    /// Which lock, and with it which connection.
    pub fn stripe(&self) -> usize {
        Shard::of(&self.0).index() % STRIPES
    }
}

fn looks_like_digest(name: &[u8]) -> bool {
    name.len() == DIGEST_LEN && name.first() == Some(&DIGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_keys_are_their_own_names_and_long_ones_have_digests() {
        let plain = Name::of(b"with space\r\n");
        assert_eq!(
            (plain.key(), plain.encoded()),
            (Some(&b"with space\r\n"[..]), "d2l0aCBzcGFjZQ0K".into())
        );
        let longest = Name::of(&[7; PLAIN_MAX]);
        assert_eq!((longest.encoded().len(), longest.key().is_some()), (248, true));
        for key in [vec![7; PLAIN_MAX + 1], vec![0; DIGEST_LEN], vec![]] {
            let name = Name::of(&key);
            assert_eq!((name.0.len(), name.key()), (DIGEST_LEN, None));
        }
        assert_ne!(Name::of(&[7; 200]), Name::of(&[7; 201]));
    }

    #[test]
    fn listed_names_are_found_again() {
        assert_eq!(Name::listed(b"a%20b%00%FFz"), Some(Name::of(b"a b\0\xffz")));
        for bad in [&b"%"[..], b"%2", b"%zz", b"", &[b'a'; 187]] {
            assert_eq!(Name::listed(bad), None);
        }
    }
}
