//! Under which name a server keeps a key. Pure.
//!
//! Names travel in base64, because a key may hold any byte. The server takes 250 letters of them, which is less than the longest key:
//! beyond that the name is a digest, and the item itself says its key (`envelope`).
//!
//! Before each stands the tag of the session in which it is used: a request of an older one, which the server may carry out at any
//! time later, meets no item of this one.

use data_encoding::BASE64;

use crate::cache::council::Shard;

/// With a tag these make 250 letters at most.
const PLAIN_MAX: usize = 182;
/// Before a digest.
const DIGEST: u8 = 0;
const DIGEST_LEN: usize = 33;
/// Locks of names; two keys seldom meet.
pub const STRIPES: usize = 512;

/// Another one for each session with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub [u8; 4]);

/// Any bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

    /// As the server has it in a list of its items: percent-encoded. `None`: it is not of that session.
    pub fn listed(encoded: &[u8], tag: Tag) -> Option<Self> {
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
        let name = name.strip_prefix(&tag.0)?;
        let fits = (1..=PLAIN_MAX).contains(&name.len());
        fits.then(|| Name(name.into()))
    }

    /// The key, if the name tells it.
    pub fn key(&self) -> Option<&[u8]> {
        (!looks_like_digest(&self.0)).then_some(&self.0)
    }

    /// As it is said to the server.
    pub fn spelled(&self, tag: Tag) -> String {
        BASE64.encode(&[&tag.0, &self.0[..]].concat())
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

    const TAG: Tag = Tag(*b"tag1");

    #[test]
    fn short_keys_are_their_own_names_and_long_ones_have_digests() {
        let plain = Name::of(b"with space\r\n");
        assert_eq!(
            (plain.key(), plain.spelled(TAG)),
            (Some(&b"with space\r\n"[..]), "dGFnMXdpdGggc3BhY2UNCg==".into())
        );
        let longest = Name::of(&[7; PLAIN_MAX]);
        assert_eq!((longest.spelled(TAG).len(), longest.key().is_some()), (248, true));
        for key in [vec![7; PLAIN_MAX + 1], vec![0; DIGEST_LEN], vec![]] {
            let name = Name::of(&key);
            assert_eq!((name.0.len(), name.key()), (DIGEST_LEN, None));
        }
        assert_ne!(Name::of(&[7; 200]), Name::of(&[7; 201]));
    }

    #[test]
    fn listed_names_are_found_again() {
        assert_eq!(Name::listed(b"tag1a%20b%00%FFz", TAG), Some(Name::of(b"a b\0\xffz")));
        let longest = [&TAG.0[..], &[b'a'; PLAIN_MAX]].concat();
        assert_eq!(Name::listed(&longest, TAG), Some(Name::of(&[b'a'; PLAIN_MAX])));
        let longer = [&longest[..], b"a"].concat();
        for bad in [
            &b"tag1%"[..],
            b"tag1%2",
            b"tag1%zz",
            b"",
            b"tag1",
            b"tag2a",
            b"tag",
            &longer,
        ] {
            assert_eq!(Name::listed(bad, TAG), None);
        }
    }
}
