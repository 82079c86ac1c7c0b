//! Texts that only nodes of this cluster can read, in places that others may see: AES-256-GCM, a random nonce before it, and what the
//! text is for as associated data, so that one cannot be put in another's place.

use std::fmt;
use std::io;
use std::path::Path;

use data_encoding::BASE64;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

/// What the key is derived for: a secret that were used twice must not give the same key.
const PURPOSE: &[u8] = b"bitrix-node certificates 1";

/// Nonce, ciphertext and tag, in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub String);

/// Seals and opens. `Debug` shows no key.
#[derive(Clone)]
pub struct Sealer(LessSafeKey);

impl Sealer {
    /// By the text of the cluster's secret.
    pub fn new(secret: &str) -> Self {
        let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.trim().as_bytes());
        let derived = ring::hmac::sign(&secret, PURPOSE);
        let key = UnboundKey::new(&AES_256_GCM, derived.as_ref()).expect("HMAC-SHA256 gives the 32 bytes of the key");
        Sealer(LessSafeKey::new(key))
    }

    pub fn read(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let secret = std::fs::read_to_string(path).map_err(named)?;
        match secret.trim() {
            "" => Err(named(io::Error::other("is empty"))),
            secret => Ok(Self::new(secret)),
        }
    }

    /// `what`: which text it is; needed to open it.
    pub fn seal(&self, what: &str, text: &str) -> io::Result<Sealed> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
        let mut bytes = text.as_bytes().to_vec();
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(what.as_bytes()),
                &mut bytes,
            )
            .map_err(|_| io::Error::other("the text cannot be sealed"))?;
        Ok(Sealed(BASE64.encode(&[&nonce[..], &bytes].concat())))
    }

    /// Fails for what another cluster's secret has sealed, or was changed since.
    pub fn open(&self, what: &str, sealed: &Sealed) -> io::Result<String> {
        let foreign = || io::Error::other("it was sealed with another cluster's secrets/cert.key, or changed since");
        let bytes = BASE64.decode(sealed.0.as_bytes()).map_err(|_| foreign())?;
        let (nonce, text) = bytes.split_first_chunk::<NONCE_LEN>().ok_or_else(foreign)?;
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.0.open_in_place(nonce, Aad::from(what.as_bytes()), &mut text);
        let opened = opened.map_err(|_| foreign())?;
        String::from_utf8(opened.to_vec()).map_err(|_| foreign())
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Sealer(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_secret_opens_and_only_in_its_own_place() {
        let sealer = Sealer::new("secret\n");
        let sealed = sealer.seal("key of a", "text").unwrap();
        assert_eq!(Sealer::new("secret").open("key of a", &sealed).unwrap(), "text");
        assert!(sealer.open("key of b", &sealed).is_err());
        assert!(Sealer::new("other").open("key of a", &sealed).is_err());
        assert_ne!(
            sealer.seal("key of a", "text").unwrap(),
            sealed,
            "a nonce of its own each time"
        );
        assert!(!format!("{sealer:?}{sealed:?}").contains("text"));
    }

    #[test]
    fn whatever_was_changed_is_not_opened() {
        let sealer = Sealer::new("secret");
        let sealed = BASE64.decode(sealer.seal("x", "text").unwrap().0.as_bytes()).unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(sealer.open("x", &Sealed(BASE64.encode(&changed))).is_err(), "byte {at}");
            assert!(
                sealer.open("x", &Sealed(BASE64.encode(&sealed[..at]))).is_err(),
                "cut to {at}"
            );
        }
        assert!(sealer.open("x", &Sealed("no base64!".into())).is_err());
    }
}
