//! The key of the backups: an X25519 identity in the form of the tool `age`. What is sealed for its public half is opened by it alone.

use std::io;
use std::path::Path;
use std::str::FromStr;

use age::secrecy::ExposeSecret;
use age::x25519::{Identity, Recipient};
use data_encoding::HEXLOWER;
use ring::hmac;

use crate::base::file::{Access, replace};

/// The same secret serves no other purpose in the same form.
const PURPOSE: &[u8] = b"bitrix-node backup manifest 1";

#[derive(Clone)]
pub struct Key(Identity);

impl Key {
    pub fn generate() -> Self {
        Key(Identity::generate())
    }

    /// Of a file's text: comments, and one line that is the key.
    pub fn parse(text: &str) -> io::Result<Self> {
        let mut lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        match (lines.next(), lines.next()) {
            (Some(line), None) => Identity::from_str(line)
                .map(Key)
                .map_err(|_| wrong("it holds no key of backups; that begins with AGE-SECRET-KEY-1")),
            _ => Err(wrong("it must hold one key of backups, in a line of its own")),
        }
    }

    pub fn read(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let text = std::fs::read_to_string(path).map_err(named)?;
        Self::parse(&text).map_err(named)
    }

    /// Reads the file, or makes one, for root alone. Whether it was made.
    pub fn ensure(path: &Path) -> io::Result<(Self, bool)> {
        match Self::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = Self::generate();
                key.write(path)?;
                Ok((key, true))
            }
            read => read.map(|key| (key, false)),
        }
    }

    pub fn write(&self, path: &Path) -> io::Result<()> {
        replace(path, self.text().as_bytes(), Access::owned(0o600, 0, 0))
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let secret = self.0.to_string();
        format!("# public key: {}\n{}\n", self.public(), secret.expose_secret())
    }

    /// The public half, as text.
    pub fn public(&self) -> String {
        self.0.to_public().to_string()
    }

    /// Of a manifest: a store may be written by others, and a part alone says only whom it is for.
    pub fn mac(&self, manifest: &[u8]) -> String {
        HEXLOWER.encode(hmac::sign(&self.mac_key(), manifest).as_ref())
    }

    /// Whether the key made it.
    pub fn vouches(&self, manifest: &[u8], mac: &str) -> bool {
        let mac = HEXLOWER.decode(mac.trim().as_bytes()).unwrap_or_default();
        hmac::verify(&self.mac_key(), manifest, &mac).is_ok()
    }

    fn mac_key(&self) -> hmac::Key {
        let secret = self.0.to_string();
        let own = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&own, PURPOSE).as_ref())
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.0
    }
}

/// Whom a part is sealed for.
#[derive(Clone)]
pub struct Recipients(pub(super) Vec<Recipient>);

impl Recipients {
    /// Public halves as text: of the key in use, and others that may open it too.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> io::Result<Self> {
        let one = |text: &str| {
            Recipient::from_str(text).map_err(|_| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{text:?} is no public key; it begins with age1"),
                )
            })
        };
        Ok(Recipients(texts.into_iter().map(one).collect::<io::Result<_>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_key_is_made_once_for_root_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup.key");
        let (key, is_new) = Key::ensure(&path).unwrap();
        assert!(is_new && key.public().starts_with("age1"));
        let (again, is_new) = Key::ensure(&path).unwrap();
        assert!(!is_new && again.public() == key.public());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Key::parse(&key.text()).unwrap().public(), key.public());
    }

    #[test]
    fn a_manifest_that_another_key_made_or_somebody_bent_is_told() {
        let (key, other) = (Key::generate(), Key::generate());
        let mac = key.mac(b"manifest");
        assert!(key.vouches(b"manifest", &mac));
        for (bytes, mac) in [(&b"manifesT"[..], mac.as_str()), (b"manifest", ""), (b"manifest", "zz")] {
            assert!(!key.vouches(bytes, mac));
        }
        assert!(!key.vouches(b"manifest", &other.mac(b"manifest")));
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup.key");
        for bad in ["", "# only a comment\n", "age1xyz\n"] {
            std::fs::write(&path, bad).unwrap();
            assert!(Key::ensure(&path).is_err(), "{bad:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
        }
        let two = Key::generate().text() + &Key::generate().text();
        assert!(Key::parse(&two).is_err());
        assert!(Recipients::parse(["age1nobody"]).is_err());
    }
}
