//! Signed addresses: `bn-until=SECONDS&bn-sig=CODE` in the query. The code is HMAC-SHA-256 of path and time, in base64url. Pure but for
//! `Key::read`.
//!
//! The time is a round one, so that all pages of a while have the same address and the network keeps one copy.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use data_encoding::BASE64URL_NOPAD;
use ring::hmac;

const UNTIL: &str = "bn-until";
const CODE: &str = "bn-sig";

/// What the code is for, so that the key signs nothing else with it.
const PURPOSE: &str = "bitrix-node cdn 1";

/// Shorter keys can be guessed.
const SHORTEST: usize = 32;

pub struct Key(hmac::Key);

pub struct Signer {
    key: Key,
    /// Folders whose files are given out to signed addresses alone.
    folders: Vec<String>,
    period: Duration,
}

impl Key {
    /// `None`: too short.
    pub fn new(secret: &[u8]) -> Option<Self> {
        (secret.len() >= SHORTEST).then(|| Key(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// What the file holds, but for the end of its line.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let secret = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
        Key::new(secret.trim_ascii_end()).with_context(|| {
            let file = file.display();
            format!(
                "{file} holds less than {SHORTEST} bytes; make one by `openssl rand -hex 32`, the same on all nodes"
            )
        })
    }
}

impl Signer {
    /// An address holds for one to two periods.
    pub fn new(key: Key, folders: Vec<String>, period: Duration) -> Self {
        Signer { key, folders, period }
    }

    /// Whether what lies at this path, decoded and normalised, needs a signature.
    pub fn has(&self, path: &str) -> bool {
        self.folders.iter().any(|folder| path.starts_with(folder.as_str()))
    }

    /// What follows the path.
    pub fn query(&self, path: &str, wall: SystemTime) -> String {
        let period = self.period.as_secs().max(1);
        let until = (seconds(wall) / period + 2) * period;
        let code = hmac::sign(&self.key.0, &message(path, until));
        format!("{UNTIL}={until}&{CODE}={}", BASE64URL_NOPAD.encode(code.as_ref()))
    }

    /// Whether a request may have the file: it needs no signature, or has one that holds.
    pub fn allows(&self, path: &str, query: &str, wall: SystemTime) -> bool {
        !self.has(path) || self.is_signed(path, query, wall).unwrap_or(false)
    }

    fn is_signed(&self, path: &str, query: &str, wall: SystemTime) -> Option<bool> {
        let field = |wanted: &str| {
            let mut fields = query.split('&').filter_map(|field| field.split_once('='));
            fields.find(|(name, _)| *name == wanted).map(|(_, value)| value)
        };
        let until: u64 = field(UNTIL)?.parse().ok()?;
        let code = BASE64URL_NOPAD.decode(field(CODE)?.as_bytes()).ok()?;
        // Takes as long whatever differs.
        let is_ours = hmac::verify(&self.key.0, &message(path, until), &code).is_ok();
        Some(is_ours && seconds(wall) < until)
    }
}

fn message(path: &str, until: u64) -> Vec<u8> {
    format!("{PURPOSE}\n{until}\n{path}").into_bytes()
}

fn seconds(wall: SystemTime) -> u64 {
    wall.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn signer(secret: u8) -> Signer {
        let key = Key::new(&[secret; 32]).expect("long enough");
        Signer::new(key, vec!["/upload/private/".into()], Duration::from_secs(100))
    }

    const PATH: &str = "/upload/private/a b.png";

    #[test]
    fn addresses_hold_for_one_to_two_periods() {
        let signer = signer(1);
        let query = signer.query(PATH, at(1050));
        assert!(query.starts_with("bn-until=1200&bn-sig="), "{query}");
        assert_eq!(signer.query(PATH, at(1000)), signer.query(PATH, at(1099)));
        assert_ne!(signer.query(PATH, at(1099)), signer.query(PATH, at(1100)));
        assert!(signer.allows(PATH, &query, at(1199)));
        assert!(signer.allows(PATH, &format!("v=1&{query}&x=2"), at(1199)));
        assert!(!signer.allows(PATH, &query, at(1200)), "over");
    }

    #[test]
    fn nothing_else_opens_a_folder() {
        let signer_of = signer(1);
        let query = signer_of.query(PATH, at(1050));
        let (time, code) = query.split_once('&').expect("two fields");
        let later = query.replace("1200", "9200");
        let mut flipped = query.clone().into_bytes();
        if let Some(byte) = flipped.get_mut(20 + 10) {
            *byte = if *byte == b'A' { b'B' } else { b'A' };
        }
        let flipped = String::from_utf8(flipped).expect("ASCII");
        let short = query.get(..query.len() - 4).unwrap_or_default();
        for wrong in [
            "",
            time,
            code,
            &later,
            &flipped,
            short,
            "bn-until=x&bn-sig=AA",
            "bn-until=9999&bn-sig=",
        ] {
            assert!(!signer_of.allows(PATH, wrong, at(1060)), "{wrong}");
        }
        assert!(!signer_of.allows("/upload/private/other.png", &query, at(1060)));
        assert!(!signer(2).allows(PATH, &query, at(1060)), "another key");
        assert!(signer_of.allows("/upload/a.png", "", at(1060)));
        assert!(Key::new(&[1; 31]).is_none());
    }
}
