//! A node's trust on its disk: the authority's certificate, the node's own and its key; on the node that founded the cluster,
//! the authority's key too.
//!
//! ```text
//! authority.pem   the only root that this node believes
//! authority.key   root alone reads it
//! founded         the cluster's storage was founded here; it never is again
//! node.pem        who this node is
//! node.key        root and the modules
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::error::ConnectError;
use super::identity::{self, Authority, Name, NodeKey, certificate_from_pem};
use super::tls::Tls;
use crate::base::file::{Access, ensure_folder, replace};

/// Until renewal by itself exists, a node's certificate must outlive the time between two visits of its admin.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(Debug, Error)]
pub enum Failure {
    #[error("{path}: {error}", path = path.display())]
    File { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error("the certificate cannot be used: {0}")]
    Tls(#[from] ConnectError),
    #[error("{} is there already; a node's certificate is issued once", .0.display())]
    Exists(PathBuf),
}

/// The folder of these files.
#[derive(Clone, Debug)]
pub struct Trust {
    folder: PathBuf,
}

impl Trust {
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Trust { folder: folder.into() }
    }

    /// Whether this node belongs to a cluster.
    pub fn exists(&self) -> bool {
        self.folder.join("node.pem").exists()
    }

    /// Whether this node founded it.
    pub fn is_founder(&self) -> bool {
        self.folder.join("authority.key").exists()
    }

    /// Whether the cluster's storage was founded here once.
    pub fn has_founded(&self) -> bool {
        self.folder.join("founded").exists()
    }

    /// Remembers that it was.
    pub fn mark_founded(&self) -> Result<(), Failure> {
        self.write("founded", "", Access::mode(0o644))
    }

    /// Makes a new cluster's authority and the certificate of its first node. `readers` is the group of the modules.
    pub fn found(&self, cluster: Name, node: &Name, readers: Option<u32>) -> Result<(), Failure> {
        let authority = Authority::generate(cluster)?;
        self.make_folder(readers)?;
        self.write("authority.key", &authority.key_pem(), Access::mode(0o600))?;
        self.issue_into(&authority, node, readers)
    }

    /// Signs another node and writes what it needs into `to`, which must not be a node's folder yet.
    pub fn issue(&self, node: &Name, to: &Trust) -> Result<(), Failure> {
        if to.exists() {
            return Err(Failure::Exists(to.folder.join("node.pem")));
        }
        let authority = Authority::from_pem(&self.read("authority.pem")?, &self.read("authority.key")?)?;
        to.make_folder(None)?;
        to.issue_into(&authority, node, None)
    }

    /// Lets the modules, whose group is `readers`, use what was copied here from the founder. For root.
    pub fn admit(&self, readers: u32) -> Result<(), Failure> {
        self.make_folder(Some(readers))?;
        for (name, mode) in [("node.key", 0o640), ("authority.pem", 0o644), ("node.pem", 0o644)] {
            self.write(name, &self.read(name)?, Access::owned(mode, 0, readers))?;
        }
        Ok(())
    }

    /// Makes and accepts connections in the name of this node.
    pub fn tls(&self) -> Result<Tls, Failure> {
        let authority = certificate_from_pem(&self.read("authority.pem")?)?;
        let certificate = certificate_from_pem(&self.read("node.pem")?)?;
        let key = NodeKey::from_pem(&self.read("node.key")?)?;
        Ok(Tls::new(&authority, certificate, &key)?)
    }

    fn issue_into(&self, authority: &Authority, node: &Name, readers: Option<u32>) -> Result<(), Failure> {
        let key = NodeKey::generate()?;
        let certificate = authority.sign(&key.request()?, node, LIFE)?;
        let shared = |mode| match readers {
            Some(group) => Access::owned(mode, 0, group),
            None => Access::mode(mode),
        };
        self.write("node.key", &key.to_pem(), shared(0o640))?;
        self.write("authority.pem", authority.certificate_pem(), shared(0o644))?;
        // The last one: with it the node belongs to the cluster.
        self.write("node.pem", &certificate.pem(), shared(0o644))
    }

    fn make_folder(&self, readers: Option<u32>) -> Result<(), Failure> {
        let access = match readers {
            Some(group) => Access::owned(0o750, 0, group),
            None => Access::mode(0o700),
        };
        ensure_folder(&self.folder, access).map_err(|error| self.failure(&self.folder, error))
    }

    fn read(&self, name: &str) -> Result<String, Failure> {
        let path = self.folder.join(name);
        std::fs::read_to_string(&path).map_err(|error| self.failure(&path, error))
    }

    fn write(&self, name: &str, text: &str, access: Access) -> Result<(), Failure> {
        let path = self.folder.join(name);
        replace(&path, text.as_bytes(), access).map_err(|error| self.failure(&path, error))
    }

    fn failure(&self, path: &Path, error: io::Error) -> Failure {
        Failure::File {
            path: path.to_owned(),
            error,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    #[test]
    fn a_founder_issues_a_second_node_of_the_same_cluster() {
        let folder = tempfile::tempdir().expect("a folder");
        let (first, second) = (Trust::new(folder.path().join("a")), Trust::new(folder.path().join("b")));
        assert!(!first.exists());
        first.found(name("c1"), &name("n1"), None).expect("founded");
        first.issue(&name("n2"), &second).expect("issued");
        assert!(first.is_founder() && second.exists() && !second.is_founder());
        let identities = [&first, &second].map(|trust| trust.tls().expect("usable").identity().to_string());
        assert_eq!(identities, ["bitrix-node://c1/n1", "bitrix-node://c1/n2"]);
        assert!(matches!(first.issue(&name("n2"), &second), Err(Failure::Exists(_))));
        if nix::unistd::geteuid().is_root() {
            second.admit(7).expect("admitted");
            let key = std::fs::metadata(folder.path().join("b/node.key")).expect("there");
            assert_eq!((key.permissions().mode() & 0o777, key.gid()), (0o640, 7));
        }
        let key = std::fs::metadata(folder.path().join("a/authority.key")).expect("there");
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
    }
}
