//! Session tickets that every front of a cluster opens, so that a client resumes its session wherever its address has moved, and after
//! a front was replaced (RFC 8446 §4.6.1, RFC 5077 §4): AES-256-GCM, the key's name and a random nonce before it.
//!
//! The keys come from outside and live as long as they say; without one that does, sessions are kept in this process alone. Not by
//! rustls' own `Ticketer`: that makes its keys itself, and takes none.

use std::fmt;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::server::ProducesTickets;

/// Of a key.
pub const NAME: usize = 16;
pub const SECRET: usize = 32;
/// Of a ticket: some hundred bytes are usual. What is longer is not worth a try with the key.
const LONGEST: usize = 2048;

/// One key.
pub struct TicketKey {
    name: [u8; NAME],
    key: LessSafeKey,
    until: Instant,
}

/// Keys of tickets, the one that makes new ones first. They can be replaced while connections go on.
#[derive(Debug, Default)]
pub struct Tickets(RwLock<Arc<Vec<TicketKey>>>);

impl TicketKey {
    /// Good for so long from now on.
    pub fn new(name: [u8; NAME], secret: &[u8; SECRET], life: Duration) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, secret).expect("a key of AES-256 has 32 bytes");
        TicketKey {
            name,
            key: LessSafeKey::new(key),
            until: Instant::now() + life,
        }
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let mut text = plain.to_vec();
        let aad = Aad::from(self.name);
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut text)
            .ok()?;
        Some([&self.name[..], &nonce, &text].concat())
    }

    fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let text = ticket.strip_prefix(&self.name[..])?;
        let (nonce, text) = text.split_first_chunk::<NONCE_LEN>()?;
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.key.open_in_place(nonce, Aad::from(self.name), &mut text);
        plain.ok().map(|plain| plain.to_vec())
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("TicketKey(…)")
    }
}

impl Tickets {
    pub fn replace(&self, keys: Vec<TicketKey>) {
        *self.0.write().expect("nothing panics under this lock") = Arc::new(keys);
    }

    fn keys(&self) -> Arc<Vec<TicketKey>> {
        self.0.read().expect("nothing panics under this lock").clone()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.keys().first().is_some_and(|key| !key.left().is_zero())
    }

    /// As long as the key that makes them lives.
    fn lifetime(&self) -> u32 {
        let left = self.keys().first().map_or(Duration::ZERO, TicketKey::left);
        left.as_secs().try_into().unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys();
        let key = keys.first().filter(|key| !key.left().is_zero())?;
        key.seal(plain).filter(|ticket| ticket.len() <= LONGEST)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > LONGEST {
            return None;
        }
        let keys = self.keys();
        let mut living = keys.iter().filter(|key| !key.left().is_zero());
        living.find_map(|key| key.open(ticket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn key(number: u8, life: Duration) -> TicketKey {
        TicketKey::new([number; NAME], &[number; SECRET], life)
    }

    fn tickets(keys: &[u8]) -> Tickets {
        let tickets = Tickets::default();
        tickets.replace(keys.iter().map(|number| key(*number, DAY)).collect());
        tickets
    }

    #[test]
    fn a_ticket_is_opened_until_its_key_is_gone() {
        let ticket = tickets(&[1]).encrypt(b"session").unwrap();
        assert_eq!(tickets(&[1]).decrypt(&ticket).unwrap(), b"session");
        assert_eq!(tickets(&[2, 1]).decrypt(&ticket).unwrap(), b"session");
        assert_eq!(tickets(&[3, 2]).decrypt(&ticket), None, "two rotations later");
        assert_ne!(
            tickets(&[1]).encrypt(b"session").unwrap(),
            ticket,
            "a nonce of its own each time"
        );
        // The first one seals.
        assert_eq!(
            tickets(&[1]).decrypt(&tickets(&[2, 1]).encrypt(b"session").unwrap()),
            None
        );
    }

    #[test]
    fn whatever_was_changed_is_not_opened() {
        let tickets = tickets(&[1]);
        let ticket = tickets.encrypt(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "cut to {at}");
        }
        let secret = Tickets::default();
        secret.replace(vec![TicketKey::new([1; NAME], &[2; SECRET], DAY)]);
        assert_eq!(secret.decrypt(&ticket), None, "the same name, another key");
        assert_eq!(tickets.encrypt(&[0; LONGEST]), None);
    }

    #[test]
    fn without_a_key_that_lives_there_are_no_tickets() {
        let tickets = Tickets::default();
        assert!(!tickets.enabled() && tickets.encrypt(b"session").is_none());
        tickets.replace(vec![key(1, DAY)]);
        assert!(tickets.enabled() && tickets.lifetime() > 0);
        let ticket = tickets.encrypt(b"session").unwrap();
        tickets.replace(vec![key(1, Duration::ZERO)]);
        assert!(!tickets.enabled() && tickets.lifetime() == 0);
        assert_eq!((tickets.encrypt(b"session"), tickets.decrypt(&ticket)), (None, None));
        assert!(!format!("{tickets:?}").contains("[1, 1"));
    }
}
