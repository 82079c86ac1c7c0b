//! What this replica was made as: its number in the group, whether it holds files, and what all replicas share, so that a
//! file's handle is the same on every node. Written once, before anything else of the store. The key in it is a secret.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::door::nfs::Handles;
use super::types::NodeId;
use crate::base::file::{self, Access};

const NAME: &str = "charter.json";
const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charter {
    version: u32,
    pub number: NodeId,
    /// It still has to make the group. Never again after that: a founder that lost its store must not make another.
    pub founds: bool,
    /// Votes and keeps the log, but holds no files.
    pub witness: bool,
    pub shared: Shared,
}

/// The same on all replicas of a group.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    cluster: u64,
    key: [u8; 16],
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Shared({:x})", self.cluster)
    }
}

impl Charter {
    /// Of the first replica of a new group.
    pub fn found() -> io::Result<Self> {
        let mut bytes = [0; 24];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        let (cluster, key) = bytes.split_first_chunk().expect("it has 24 bytes");
        Ok(Charter {
            version: VERSION,
            number: 1,
            founds: true,
            witness: false,
            shared: Shared {
                cluster: u64::from_be_bytes(*cluster),
                key: key.try_into().expect("16 bytes are left"),
            },
        })
    }

    /// Of a replica that joins.
    pub fn join(number: NodeId, witness: bool, shared: Shared) -> Self {
        Charter {
            version: VERSION,
            number,
            founds: false,
            witness,
            shared,
        }
    }

    /// `None`: there is no replica in `folder` yet.
    pub fn load(folder: &Path) -> io::Result<Option<Self>> {
        let damaged = |why: String| {
            let text = format!("{NAME} is damaged ({why}); put it back from a backup, or make this replica anew");
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let bytes = match std::fs::read(folder.join(NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        let charter: Charter = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        match charter.version {
            VERSION => Ok(Some(charter)),
            version => Err(damaged(format!("unknown version {version}"))),
        }
    }

    pub fn save(&self, folder: &Path) -> io::Result<()> {
        self.save_for(folder, None)
    }

    /// Saves it for a user and group, who alone may read it.
    pub fn save_for(&self, folder: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        file::replace(&folder.join(NAME), &text, Access { mode: 0o600, owner })
    }

    /// The group was made.
    pub fn founded(&self) -> Self {
        Charter {
            founds: false,
            ..self.clone()
        }
    }

    pub fn handles(&self) -> Handles {
        Handles::new(self.shared.cluster, self.shared.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charter_lasts_and_a_damaged_one_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(Charter::load(folder.path()).expect("read"), None);
        let charter = Charter::found().expect("made");
        charter.save(folder.path()).expect("saved");
        assert_eq!(Charter::load(folder.path()).expect("read"), Some(charter.clone()));
        assert!(!format!("{charter:?}").contains("key"), "the key is in no log");
        std::fs::write(folder.path().join(NAME), "{").expect("written");
        assert!(Charter::load(folder.path()).is_err());
    }
}
