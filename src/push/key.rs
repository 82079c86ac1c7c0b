//! The key that PHP and the push server share: signatures of channels, of bodies and of tokens.

use data_encoding::HEXLOWER;
use ring::hmac;

use super::channel::{Id, Item};

/// Checks in constant time.
pub struct Key {
    /// What the portal signs channels with (`signature_algo`).
    sha1: hmac::Key,
    sha256: hmac::Key,
}

impl Key {
    pub fn new(secret: &str) -> Self {
        Key {
            sha1: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes()),
            sha256: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
        }
    }

    /// Whether the portal has signed the item as it stands.
    pub fn has_signed(&self, item: &Item) -> bool {
        let data = match item.public {
            Some(public) => format!("{}:{public}", item.private),
            None => item.private.to_string(),
        };
        let signature = item.signature.as_deref();
        signature.is_some_and(|signature| hmac::verify(&self.sha1, data.as_bytes(), signature).is_ok())
    }

    /// Whether the portal has given out this public id as one to publish to.
    pub fn has_signed_receiver(&self, public: Id, signature: &[u8]) -> bool {
        hmac::verify(&self.sha1, format!("public:{public}").as_bytes(), signature).is_ok()
    }

    /// Of a whole body, in hexadecimal digits.
    pub fn has_signed_body(&self, body: &[u8], signature: &str) -> bool {
        let signature = HEXLOWER.decode(signature.as_bytes());
        signature.is_ok_and(|signature| hmac::verify(&self.sha1, body, &signature).is_ok())
    }

    /// HS256 (RFC 7518 §3.2).
    pub fn has_signed_token(&self, signed: &[u8], signature: &[u8]) -> bool {
        hmac::verify(&self.sha256, signed, signature).is_ok()
    }
}

#[cfg(test)]
impl Key {
    /// What the portal would write behind the dot.
    pub fn sign(&self, data: &str) -> String {
        HEXLOWER.encode(hmac::sign(&self.sha1, data.as_bytes()).as_ref())
    }

    pub fn sign_token(&self, signed: &str) -> String {
        data_encoding::BASE64URL_NOPAD.encode(hmac::sign(&self.sha256, signed.as_bytes()).as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::channel::{self, parse};

    const PRIVATE: &str = "0123456789abcdef0123456789abcdef";
    const PUBLIC: &str = "fedcba9876543210fedcba9876543210";
    const OF_PRIVATE: &str = "5a9a5664b473332fa1acebeeff0e0d2eafcee585";
    const OF_BOTH: &str = "b3f14bc82426cbb104b4c603aea99b66c5e23d9c";
    const OF_RECEIVER: &str = "cf635c3e2d949659b412e1f57753ff4a402e4b02";

    fn key() -> Key {
        Key::new("bitrix-node-test-key")
    }

    fn admits(list: &str) -> bool {
        parse(list)
            .expect("well formed")
            .iter()
            .all(|item| key().has_signed(item))
    }

    #[test]
    fn known_signatures_hold_and_no_others() {
        assert!(admits(&format!("{PRIVATE}.{OF_PRIVATE}")));
        assert!(admits(&format!("{PRIVATE}:{PUBLIC}.{OF_BOTH}")));
        for forged in [
            PRIVATE.to_string(),
            format!("{PRIVATE}.{OF_BOTH}"),
            format!("{PRIVATE}:{PUBLIC}.{OF_PRIVATE}"),
            format!("{PUBLIC}:{PRIVATE}.{OF_BOTH}"),
            format!("{PRIVATE}:{PUBLIC}.{OF_RECEIVER}"),
            format!("{PRIVATE}.{}", &OF_PRIVATE[..38]),
            format!("{PRIVATE}.{OF_PRIVATE}00"),
        ] {
            assert!(!admits(&forged), "{forged}");
        }
    }

    #[test]
    fn receivers_have_a_signature_of_their_own() {
        let holds = |public, signature| {
            let (id, signature) = channel::receiver(public, signature).expect("well formed");
            key().has_signed_receiver(id, &signature)
        };
        assert!(holds(PUBLIC, OF_RECEIVER));
        assert!(!holds(PRIVATE, OF_RECEIVER));
        assert!(!holds(PRIVATE, OF_PRIVATE));
        assert!(!key().has_signed_receiver(Id::parse(PUBLIC).expect("an id"), b""));
    }

    #[test]
    fn a_body_is_signed_as_it_is() {
        // hash_hmac("sha1", "what do ya want for nothing?", "Jefe"): RFC 2202 §3, case 2.
        let key = Key::new("Jefe");
        let signature = "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79";
        assert!(key.has_signed_body(b"what do ya want for nothing?", signature));
        assert!(!key.has_signed_body(b"what do ya want for nothing", signature));
        assert!(!key.has_signed_body(b"what do ya want for nothing?", ""));
        assert!(!key.has_signed_body(b"what do ya want for nothing?", "zz"));
    }
}
