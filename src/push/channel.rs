//! Whom messages are for: ids of channels as PHP and clients spell them, and the addresses under which the hub knows them.

use std::fmt;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};

use super::refusal::Refusal;

/// Channels in one request, and receivers of one message.
pub const MOST: usize = 100;
/// Hexadecimal digits of a signature: from MD5 to SHA-512.
const SIGNATURE: std::ops::RangeInclusive<usize> = 32..=128;

/// A channel's id: PHP makes it by MD5.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Id(pub [u8; 16]);

impl Id {
    /// 32 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        Self::of(&HEXLOWER.decode(text.as_bytes()).ok()?)
    }

    pub fn of(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Id)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Where messages arrive. A private channel and its public id are two addresses of one subscriber, so that nobody needs to know which
/// public id belongs to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Address {
    Private(Id),
    /// What other clients may publish to.
    Public(Id),
    /// All connections of a user; generation 5.
    User(u64),
    /// Those who want to be told when a user comes and goes.
    Followers(u64),
}

/// One channel of a request: `priv[:pub][.sig]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub private: Id,
    pub public: Option<Id>,
    pub signature: Option<Vec<u8>>,
}

impl Item {
    fn parse(text: &str) -> Option<Self> {
        let (ids, signature) = match text.split_once('.') {
            None => (text, None),
            Some((ids, signature)) if SIGNATURE.contains(&signature.len()) => {
                (ids, Some(HEXLOWER.decode(signature.as_bytes()).ok()?))
            }
            Some(_) => return None,
        };
        let (private, public) = match ids.split_once(':') {
            None => (ids, None),
            Some((private, public)) => (private, Some(Id::parse(public)?)),
        };
        Some(Item {
            private: Id::parse(private)?,
            public,
            signature,
        })
    }

    pub fn addresses(&self) -> impl Iterator<Item = Address> + use<> {
        let public = self.public.map(Address::Public);
        std::iter::once(Address::Private(self.private)).chain(public)
    }
}

/// The items of `CHANNEL_ID`, joined by `/`. One that is malformed makes all worthless.
pub fn parse(list: &str) -> Result<Vec<Item>, Refusal> {
    let mut items = Vec::new();
    for text in list.split('/') {
        if items.len() == MOST {
            return Err(Refusal::TooManyChannels);
        }
        items.push(Item::parse(text).ok_or(Refusal::WrongChannel)?);
    }
    Ok(items)
}

/// A receiver as clients of generation 5 name it: `pub.sig`, or the two apart.
pub fn receiver(public: &str, signature: &str) -> Option<(Id, Vec<u8>)> {
    let signature = HEXLOWER_PERMISSIVE.decode(signature.as_bytes()).ok()?;
    Some((Id::parse(public)?, signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVATE: &str = "0123456789abcdef0123456789abcdef";
    const PUBLIC: &str = "fedcba9876543210fedcba9876543210";
    const SIGNATURE: &str = "5a9a5664b473332fa1acebeeff0e0d2eafcee585";

    #[test]
    fn grammar_is_strict() {
        let items = parse(&format!("{PRIVATE}:{PUBLIC}.{SIGNATURE}/{PRIVATE}")).expect("two items");
        assert_eq!(items[0].public.expect("a public id").to_string(), PUBLIC);
        assert_eq!(items[0].signature.as_ref().expect("signed").len(), 20);
        assert_eq!((items[1].public, &items[1].signature), (None, &None));
        let upper = PRIVATE.to_uppercase();
        for bad in [
            "",
            "/",
            &PRIVATE[1..],
            &format!("{PRIVATE}0"),
            &upper,
            &format!("{PRIVATE}:"),
            &format!("{PRIVATE}."),
            &format!("{PRIVATE}:{PUBLIC}:{PUBLIC}"),
            &format!("{PRIVATE}.{}", &SIGNATURE[9..]),
            &format!("{PRIVATE}.{SIGNATURE}0"),
            &format!("{PRIVATE}.{}", "0".repeat(130)),
            &format!("{PRIVATE}.{SIGNATURE}:{PUBLIC}"),
            &format!("{PRIVATE}/"),
            &format!("{PRIVATE}//{PRIVATE}"),
            &format!("{}\u{e9}", &PRIVATE[2..]),
        ] {
            assert_eq!(parse(bad), Err(Refusal::WrongChannel), "{bad}");
        }
    }

    #[test]
    fn a_hundred_channels_and_no_more() {
        let list = |count: usize| vec![PRIVATE; count].join("/");
        assert_eq!(parse(&list(100)).expect("as many as may be").len(), 100);
        assert_eq!(parse(&list(101)), Err(Refusal::TooManyChannels));
    }
}
