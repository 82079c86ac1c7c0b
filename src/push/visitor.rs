//! Who a client is: decided from its query alone, before anything else of it is read. Pure.

use super::channel::{self, Address};
use super::frame::Dialect;
use super::hub::Wanted;
use super::key::Key;
use super::message::Sender;
use super::query::Query;
use super::refusal::Refusal;
use super::token;

#[derive(Clone, Debug)]
pub struct Visitor {
    pub dialect: Dialect,
    pub wanted: Wanted,
    /// In whose name it publishes; `None`: it may not.
    pub sender: Option<Sender>,
}

impl Visitor {
    /// Someone whose channels the portal has signed. `now`: Unix seconds.
    pub fn recognise(query: &Query, key: &Key, now: u64) -> Result<Self, Refusal> {
        let mut visitor = match &query.token {
            Some(token) => Self::by_token(token, key, now)?,
            None => Self::by_channels(query.channels.as_deref().unwrap_or_default(), key)?,
        };
        visitor.dialect = query.dialect();
        visitor.wanted.after = query.after;
        Ok(visitor)
    }

    fn by_channels(list: &str, key: &Key) -> Result<Self, Refusal> {
        let items = channel::parse(list)?;
        if !items.iter().all(|item| key.has_signed(item)) {
            return Err(Refusal::WrongChannel);
        }
        let own = items.first().ok_or(Refusal::WrongChannel)?;
        let public = items.iter().find_map(|item| item.public);
        Ok(Visitor {
            dialect: Dialect::Text,
            wanted: Wanted {
                addresses: distinct(items.iter().flat_map(|item| item.addresses())),
                after: None,
                own: own.addresses().collect(),
                is_bounded: own.public.is_some(),
            },
            sender: public.map(Sender::Client),
        })
    }

    fn by_token(token: &str, key: &Key, now: u64) -> Result<Self, Refusal> {
        let claims = token::read(token, key, now).map_err(|_| Refusal::WrongChannel)?;
        let user = claims.user.map(Address::User);
        let channels = claims.channels.into_iter().map(Address::Private);
        let addresses = distinct(user.into_iter().chain(channels));
        Ok(Visitor {
            dialect: Dialect::Rpc,
            wanted: Wanted {
                own: addresses.first().copied().into_iter().collect(),
                addresses,
                after: None,
                is_bounded: user.is_some(),
            },
            sender: claims.user.map(Sender::User),
        })
    }
}

fn distinct(addresses: impl Iterator<Item = Address>) -> Vec<Address> {
    let mut seen = Vec::new();
    for address in addresses {
        if !seen.contains(&address) {
            seen.push(address);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::channel::Id;

    const PRIVATE: &str = "0123456789abcdef0123456789abcdef";
    const PUBLIC: &str = "fedcba9876543210fedcba9876543210";
    const SHARED: &str = "00000000000000000000000000000001";

    fn key() -> Key {
        Key::new("bitrix-node-test-key")
    }

    fn id(text: &str) -> Id {
        Id::parse(text).expect("an id")
    }

    fn recognise(query: &str) -> Result<Visitor, Refusal> {
        Visitor::recognise(&Query::parse(query), &key(), 1_000)
    }

    #[test]
    fn the_first_channel_is_the_clients_own() {
        let both = key().sign(&format!("{PRIVATE}:{PUBLIC}"));
        let list = format!("{PRIVATE}:{PUBLIC}.{both}/{SHARED}.{}", key().sign(SHARED));
        let visitor = recognise(&format!("CHANNEL_ID={list}&binaryMode=true")).expect("signed");
        let own = [Address::Private(id(PRIVATE)), Address::Public(id(PUBLIC))];
        assert_eq!(visitor.wanted.own, own);
        assert_eq!(visitor.wanted.addresses, [own[0], own[1], Address::Private(id(SHARED))]);
        assert_eq!(visitor.sender, Some(Sender::Client(id(PUBLIC))));
        assert!(visitor.wanted.is_bounded);
    }

    #[test]
    fn a_guest_of_a_shared_channel_publishes_nothing() {
        let visitor = recognise(&format!("CHANNEL_ID={SHARED}.{}", key().sign(SHARED))).expect("signed");
        assert_eq!((visitor.sender, visitor.wanted.is_bounded), (None, false));
    }

    #[test]
    fn one_unsigned_channel_makes_all_worthless() {
        let good = format!("{SHARED}.{}", key().sign(SHARED));
        for list in [
            String::new(),
            SHARED.into(),
            format!("{good}/{PRIVATE}"),
            format!("{good}/{PRIVATE}.{}", key().sign(SHARED)),
        ] {
            assert_eq!(
                recognise(&format!("CHANNEL_ID={list}")).err(),
                Some(Refusal::WrongChannel),
                "{list}"
            );
        }
        assert_eq!(recognise("").err(), Some(Refusal::WrongChannel));
    }

    #[test]
    fn a_token_stands_for_a_user_and_its_channels() {
        let header = r#"{"typ":"JWT","alg":"HS256"}"#;
        let token = token::issue(
            &key(),
            header,
            &format!(r#"{{"exp":2000,"sub":"7","chan":"{SHARED}"}}"#),
        );
        let visitor = recognise(&format!("token={token}&jsonRpc=true")).expect("signed");
        assert_eq!(
            visitor.wanted.addresses,
            [Address::User(7), Address::Private(id(SHARED))]
        );
        assert_eq!(visitor.wanted.own, [Address::User(7)]);
        assert_eq!(visitor.sender, Some(Sender::User(7)));
        let old = token::issue(&key(), header, r#"{"exp":900,"sub":"7"}"#);
        assert_eq!(
            recognise(&format!("token={old}&jsonRpc=true")).err(),
            Some(Refusal::WrongChannel)
        );
    }
}
