//! `Secrets`: what all nodes of a cluster have and root alone keeps, gathered for one that joins, and placed there by its own root.
//!
//! What PHP needs beside these lies on the shared files already (`portal::settings`). Not shared: a node's own key and the token of
//! its admin port.

use std::io;
use std::path::Path;

use anyhow::Context;
use tracing::info;

use crate::backup;
use crate::base::file::{Access, ensure_folder, replace};
use crate::base::secret::Secret;
use crate::config::Config;
use crate::host::verb::{Answer, Secrets};

/// A chain of certificates has a few KiB.
const LONGEST: usize = 32 << 10;

/// Who reads a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Root,
    /// Root and the modules.
    Modules,
    All,
}

impl Reader {
    fn access(self, group: u32) -> Access {
        match self {
            Reader::Root => Access::owned(0o600, 0, 0),
            Reader::Modules => Access::owned(0o640, 0, group),
            Reader::All => Access::owned(0o644, 0, 0),
        }
    }
}

/// That a storage was founded comes before the authority's key: whoever has the one without the other founds a storage.
const FOUNDED: &str = "trust/founded";
const AUTHORITY: &str = "trust/authority.key";
const CHAIN: &str = "tls/portal.crt";
const KEY: &str = "tls/portal.key";
/// Made when a node starts; the portal signs with it, and its settings are the same on all nodes.
const PUSH_KEY: &str = "secrets/push.key";
/// All nodes seal for the same one: whichever of them makes the backups, one copy of the key in a safe is enough. Made here if there was
/// no backup yet.
const BACKUP_KEY: &str = "secrets/backup.key";
/// What private keys are sealed with in the registry.
const CERT_KEY: &str = "secrets/cert.key";
/// Made here if the portal was not installed yet.
const MADE: [&str; 2] = ["secrets/database.password", "secrets/portal.crypto-key"];

/// All of them, in the order in which they are written. A chain without its key would be taken for a whole pair.
const SHARED: [(&str, Reader); 9] = [
    (MADE[0], Reader::Root),
    (MADE[1], Reader::Root),
    (BACKUP_KEY, Reader::Root),
    (PUSH_KEY, Reader::Modules),
    (CERT_KEY, Reader::Modules),
    (KEY, Reader::Modules),
    (CHAIN, Reader::All),
    (FOUNDED, Reader::All),
    (AUTHORITY, Reader::Root),
];

/// For a node that joins.
pub fn gather(config: &Config) -> Answer {
    match read(config) {
        Ok(secrets) => {
            let files = secrets.files.len();
            info!(
                files,
                "the cluster's secrets are handed to the agent, for a node that joins"
            );
            Answer::Secrets(secrets)
        }
        Err(error) => Answer::refused(format!("{error:#}")),
    }
}

fn read(config: &Config) -> anyhow::Result<Secrets> {
    for name in MADE {
        Secret::ensure(&config.node.data_dir.join(name), Reader::Root.access(0))?;
    }
    // What is there is handed on as it is.
    if !config.backup_key().exists() {
        backup::Key::ensure(&config.backup_key())?;
    }
    let (chain, key) = config.certificate();
    let mut files = Vec::new();
    for (name, _) in SHARED {
        let path = match name {
            FOUNDED => {
                files.push((name.to_owned(), String::new()));
                continue;
            }
            // The operator may have put them elsewhere.
            CHAIN => chain.clone(),
            KEY => key.clone(),
            _ => config.node.data_dir.join(name),
        };
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && name == AUTHORITY => {
                anyhow::bail!("this node has not the authority's key; ask another one")
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && matches!(name, PUSH_KEY | CERT_KEY) => {
                continue;
            }
            read => read.with_context(|| path.display().to_string())?,
        };
        anyhow::ensure!(text.len() <= LONGEST, "{} is too long", path.display());
        files.push((name.to_owned(), text));
    }
    Ok(Secrets { files })
}

/// Writes what another node gathered below the data folder: these names and no others, each for its readers. `group`: that of the
/// modules. Can be repeated.
pub fn place(data_dir: &Path, secrets: &Secrets, group: u32) -> anyhow::Result<()> {
    for (name, text) in &secrets.files {
        let is_known = SHARED.iter().any(|(known, _)| known == name);
        anyhow::ensure!(is_known && text.len() <= LONGEST, "{name:?} is no secret of a cluster");
    }
    for (name, reader) in SHARED {
        let Some((_, text)) = secrets.files.iter().find(|(given, _)| given == name) else {
            continue;
        };
        let path = data_dir.join(name);
        let folder = path.parent().context("the name has a folder")?;
        ensure_folder(folder, Access::owned(0o750, 0, group)).with_context(|| folder.display().to_string())?;
        replace(&path, text.as_bytes(), reader.access(group)).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::mesh::trust::Trust;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn config(folder: &Path) -> Config {
        let text = format!("[node]\ndata_dir = {folder:?}\n");
        crate::config::parse(&text, std::iter::empty()).expect("valid").config
    }

    #[test]
    fn a_node_gets_what_another_one_has_with_its_readers() {
        let (here, there) = (
            tempfile::tempdir().expect("temp dir"),
            tempfile::tempdir().expect("temp dir"),
        );
        let founder = config(here.path());
        for name in ["secrets", "tls"] {
            std::fs::create_dir(here.path().join(name)).expect("made");
        }
        std::fs::write(here.path().join(CHAIN), "chain").expect("written");
        std::fs::write(here.path().join(KEY), "key").expect("written");
        std::fs::write(here.path().join(PUSH_KEY), "push").expect("written");
        std::fs::write(here.path().join(CERT_KEY), "cert").expect("written");
        assert!(matches!(gather(&founder), Answer::Refused { why } if why.contains("ask another one")));
        let trust = Trust::new(founder.trust());
        let name = |text: &str| text.parse().expect("a name");
        trust.found(name("c1"), &name("n1"), None).expect("founded");
        let Answer::Secrets(secrets) = gather(&founder) else {
            panic!("gathered")
        };
        place(there.path(), &secrets, 7).expect("placed");
        place(there.path(), &secrets, 7).expect("placed again");
        for (name, reader) in SHARED.into_iter().filter(|(name, _)| *name != FOUNDED) {
            let read = |folder: &Path| std::fs::read(folder.join(name)).expect("there");
            assert_eq!(read(here.path()), read(there.path()), "{name}");
            let found = std::fs::metadata(there.path().join(name)).expect("there");
            let access = reader.access(7);
            assert_eq!(
                (found.permissions().mode() & 0o777, Some((found.uid(), found.gid()))),
                (access.mode, access.owner),
                "{name}"
            );
        }
        let joined = Trust::new(there.path().join("trust"));
        assert!(joined.is_founder() && joined.has_founded(), "it founds no storage");
    }

    #[test]
    fn other_names_are_not_written() {
        let there = tempfile::tempdir().expect("temp dir");
        for bad in ["../escape", "/etc/escape", "trust/node.key", "secrets/admin.token"] {
            let files = vec![(MADE[0].to_owned(), "x".to_owned()), (bad.to_owned(), "x".to_owned())];
            place(there.path(), &Secrets { files }, 0).expect_err(bad);
        }
        assert_eq!(std::fs::read_dir(there.path()).expect("listed").count(), 0);
    }
}
