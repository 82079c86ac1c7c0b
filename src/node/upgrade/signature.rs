//! Who vouches for an executable: the holder of one Ed25519 key, whose public half lies on each node. A signature is the 64 bytes
//! of RFC 8032 over the whole file.

use std::io;
use std::path::Path;

use ring::signature::{ED25519, UnparsedPublicKey};

use crate::net::tls;

/// SubjectPublicKeyInfo of an Ed25519 key up to the key itself (RFC 8410 §4).
const HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const LENGTH: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key([u8; LENGTH]);

impl Key {
    /// `None`: there is no such file, so nobody's word counts.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        match std::fs::read(path) {
            Ok(text) => Key::parse(&text).map(Some).map_err(named),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(named(error)),
        }
    }

    /// PEM.
    pub fn parse(text: &[u8]) -> io::Result<Self> {
        Key::of_der(&tls::public_key(text)?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "is not an Ed25519 public key"))
    }

    /// SubjectPublicKeyInfo.
    pub fn of_der(key: &[u8]) -> Option<Self> {
        let key = key.strip_prefix(&HEAD)?;
        key.try_into().ok().map(Key)
    }

    /// Whether its holder signed exactly this.
    pub fn has_signed(&self, content: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(content, signature)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    /// RFC 8032 §7.1, test 1: the key of 32 given bytes, as `openssl pkey -pubout` writes it.
    const PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
                       MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
                       -----END PUBLIC KEY-----\n";
    const SEED: [u8; 32] = [
        0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49,
        0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
    ];

    #[test]
    fn only_the_holder_signs_and_only_what_is_there() {
        let key = Key::parse(PEM.as_bytes()).expect("readable");
        let holder = Ed25519KeyPair::from_seed_unchecked(&SEED).expect("a seed");
        assert_eq!(holder.public_key().as_ref(), key.0);
        let signature = holder.sign(b"program");
        assert!(key.has_signed(b"program", signature.as_ref()));
        assert!(!key.has_signed(b"programs", signature.as_ref()));
        assert!(!key.has_signed(b"program", &signature.as_ref()[..63]));
        assert!(!key.has_signed(b"program", b""));
        let other = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed");
        assert!(!key.has_signed(b"program", other.sign(b"program").as_ref()));
    }

    #[test]
    fn another_kind_of_key_is_refused() {
        assert!(Key::parse(b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2Vu\n-----END PUBLIC KEY-----\n").is_err());
        assert!(Key::parse(b"key").is_err());
        assert_eq!(Key::read(Path::new("/no/such/key.pem")).expect("absent is fine"), None);
    }
}
