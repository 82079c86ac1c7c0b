//! Generated secrets in files. The text never goes to a log; `Debug` hides it.

use std::fmt;
use std::io;
use std::path::Path;

use super::file::{self, Access};

/// 32 letters and digits: 190 bits.
const LENGTH: usize = 32;
const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Text that must not be printed by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A fresh one from the kernel's random numbers.
    pub fn generate() -> io::Result<Self> {
        let mut text = String::with_capacity(LENGTH);
        while text.len() < LENGTH {
            let mut bytes = [0u8; 64];
            getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
            // 248 = 4 · 62: bytes beyond would make the first letters likelier.
            let fair = bytes
                .iter()
                .filter(|byte| **byte < 248)
                .map(|byte| char::from(LETTERS[usize::from(*byte % 62)]));
            text.extend(fair.take(LENGTH - text.len()));
        }
        Ok(Secret(text))
    }

    /// Reads the file, or makes one with a fresh secret.
    pub fn ensure(path: &Path, access: Access) -> io::Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) if !text.trim().is_empty() => Ok(Secret(text.trim().to_string())),
            Ok(_) => Err(io::Error::other(format!(
                "{} is empty; remove it to have it made anew",
                path.display()
            ))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let secret = Self::generate()?;
                file::replace(path, format!("{}\n", secret.0).as_bytes(), access)?;
                Ok(secret)
            }
            Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        }
    }

    /// The text itself, for the one place that must send or write it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_last() {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("s");
        let first = Secret::ensure(&path, Access::mode(0o600)).expect("made");
        assert_eq!(first.expose().len(), LENGTH);
        assert_eq!(Secret::ensure(&path, Access::mode(0o600)).expect("read"), first);
        assert_ne!(Secret::generate().expect("made"), first);
        assert!(!format!("{first:?}").contains(first.expose()));
    }
}
