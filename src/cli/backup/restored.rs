//! Which backup was put onto this node, while its files still have to follow into the running storage: they are of the same backup,
//! whatever was made since, and until they are there this node makes none.

use std::fs;
use std::io;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::base::file::{Access, replace};
use crate::config::Config;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The full backup.
    pub backup: String,
    /// Where it lies, as the operator said it.
    pub from: String,
}

impl Restored {
    /// `None`: no files are missing.
    pub fn read(config: &Config) -> anyhow::Result<Option<Self>> {
        let path = config.restored();
        let named = || path.display().to_string();
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => Ok(Some(
                serde_json::from_slice(&read.with_context(named)?).with_context(named)?,
            )),
        }
    }

    pub fn write(&self, config: &Config) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(self).expect("plain data");
        replace(&config.restored(), &bytes, Access::mode(0o600)).context("remember which backup it was")
    }

    /// The files are there.
    pub fn forget(config: &Config) -> anyhow::Result<()> {
        match fs::remove_file(config.restored()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context("forget that files are missing")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn it_is_remembered_until_the_files_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("[node]\ndata_dir = {:?}", folder.path());
        let config = parse(&text, std::iter::empty()).unwrap().config;
        assert_eq!(Restored::read(&config).unwrap(), None);
        let restored = Restored {
            backup: "20261127T031500Z-full".into(),
            from: "/mnt/backups".into(),
        };
        restored.write(&config).unwrap();
        assert_eq!(Restored::read(&config).unwrap(), Some(restored));
        Restored::forget(&config).unwrap();
        Restored::forget(&config).unwrap();
        assert_eq!(Restored::read(&config).unwrap(), None);
    }
}
