//! A node's trust on its disk: the authority's certificate, the node's own and its key; on the node that founded the cluster,
//! the authority's key too.
//!
//! ```text
//! authority.pem   the only root that this node believes
//! authority.key   root alone reads it; every node has it, so that each can sign for the others
//! founded         the cluster's storage was founded, here or by another node; it never is here
//! joining         this node asks to be taken in; until it is, it founds no cluster of its own
//! node.pem        who this node is
//! node.key        root and the modules
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use thiserror::Error;

use super::error::ConnectError;
use super::identity::{self, Authority, Fingerprint, Identity, Name, NodeKey, Validity, certificate_from_pem};
use super::tls::{self, Tls};
use crate::base::Scope;
use crate::base::file::{Access, ensure, ensure_folder, replace};

/// A node renews its certificate when two thirds are over (`Validity::is_due`); the rest is for a cluster that is down so long.
const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How soon a process uses the certificate that was renewed.
const LOOK: Duration = Duration::from_secs(60);

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
    #[error("{} says that this node is joining a cluster; repeat that join, or remove the folder to found one", .0.display())]
    Joining(PathBuf),
    #[error("the renewed certificate is refused: {0}")]
    Foreign(&'static str),
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
        let joining = self.folder.join("joining");
        if joining.exists() {
            return Err(Failure::Joining(joining));
        }
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
        let authority = self.authority()?;
        to.make_folder(None)?;
        to.issue_into(&authority, node, None)
    }

    /// A certificate for a node whose public key (SubjectPublicKeyInfo in DER) this is, as PEM.
    pub fn sign(&self, node: &Name, key: &[u8]) -> Result<String, Failure> {
        Ok(self.authority()?.sign_key(key, node, LIFE)?.pem())
    }

    /// The SHA-256 of the authority's certificate.
    pub fn fingerprint(&self) -> Result<Fingerprint, Failure> {
        Ok(Fingerprint::of(&certificate_from_pem(&self.read("authority.pem")?)?))
    }

    /// PEM of the authority's certificate.
    pub fn authority_pem(&self) -> Result<String, Failure> {
        self.read("authority.pem")
    }

    /// Who this node is, by its certificate.
    pub fn identity(&self) -> Result<Identity, Failure> {
        Ok(Identity::of(&certificate_from_pem(&self.read("node.pem")?)?)?)
    }

    /// How long the node's certificate holds.
    pub fn validity(&self) -> Result<Validity, Failure> {
        Ok(Validity::of(&certificate_from_pem(&self.read("node.pem")?)?)?)
    }

    /// This node's request for a certificate (PKCS #10 in DER).
    pub fn request(&self) -> Result<Vec<u8>, Failure> {
        Ok(NodeKey::from_pem(&self.read("node.key")?)?.request()?.to_vec())
    }

    /// Begins to join, or goes on: makes the key that this node keeps over all attempts.
    pub fn begin_joining(&self, readers: u32) -> Result<(), Failure> {
        self.make_folder(Some(readers))?;
        self.write("joining", "", Access::mode(0o644))?;
        if !self.folder.join("node.key").exists() {
            let key = NodeKey::generate()?.to_pem();
            self.write("node.key", &key, Access::owned(0o640, 0, readers))?;
        }
        Ok(())
    }

    /// The node was taken in; the cluster's secrets are in place.
    pub fn end_joining(&self, authority: &str, certificate: &str, readers: u32) -> Result<(), Failure> {
        self.mark_founded()?;
        self.write("authority.pem", authority, Access::owned(0o644, 0, readers))?;
        self.renew(certificate, Some(readers))?;
        self.remove("joining")
    }

    /// Replaces the node's certificate by one of the same authority for the same key, and of the same name if it has one.
    pub fn renew(&self, certificate: &str, readers: Option<u32>) -> Result<(), Failure> {
        let fresh = certificate_from_pem(certificate)?;
        let key = NodeKey::from_pem(&self.read("node.key")?)?;
        if identity::certified_key(&fresh)? != key.public() {
            return Err(Failure::Foreign("it is not for this node's key"));
        }
        let authority = certificate_from_pem(&self.read("authority.pem")?)?;
        if !tls::is_signed(&fresh, &authority) {
            return Err(Failure::Foreign(
                "this cluster's authority did not sign it, or it does not hold now",
            ));
        }
        if self.exists() && self.identity()? != Identity::of(&fresh)? {
            return Err(Failure::Foreign("it is of another node"));
        }
        self.write("node.pem", certificate, shared(0o644, readers))
    }

    /// Like `tls`, and uses what is renewed from then on, until the scope drains.
    pub fn follow(&self, scope: &Scope) -> Result<Arc<Tls>, Failure> {
        let mut known = self.read("node.pem")?;
        let tls = Arc::new(self.tls()?);
        let (trust, followed, owner) = (self.clone(), tls.clone(), scope.clone());
        scope.spawn(async move {
            loop {
                tokio::select! {
                    () = owner.draining() => return,
                    () = tokio::time::sleep(LOOK) => {}
                }
                let Ok(found) = trust.read("node.pem") else { continue };
                if found == known {
                    continue;
                }
                match trust.replace_in(&followed) {
                    Ok(()) => tracing::info!("the node's certificate was renewed"),
                    Err(error) => tracing::warn!(%error, "the renewed certificate is not used"),
                }
                known = found;
            }
        });
        Ok(tls)
    }

    /// Lets the modules, whose group is `readers`, use what was copied here from the founder. For root.
    pub fn admit(&self, readers: u32) -> Result<(), Failure> {
        self.make_folder(Some(readers))?;
        for (name, mode) in [("node.key", 0o640), ("authority.pem", 0o644), ("node.pem", 0o644)] {
            let (path, content) = (self.folder.join(name), self.read(name)?);
            // Nothing is written anew: a node starts on a full disk too.
            ensure(&path, content.as_bytes(), Access::owned(mode, 0, readers))
                .map_err(|error| Failure::File { path, error })?;
        }
        Ok(())
    }

    /// Makes and accepts connections in the name of this node.
    pub fn tls(&self) -> Result<Tls, Failure> {
        let (authority, certificate, key) = self.credentials()?;
        Ok(Tls::new(&authority, certificate, &key)?)
    }

    fn replace_in(&self, tls: &Tls) -> Result<(), Failure> {
        let (authority, certificate, key) = self.credentials()?;
        Ok(tls.replace(&authority, certificate, &key)?)
    }

    fn credentials(&self) -> Result<(CertificateDer<'static>, CertificateDer<'static>, NodeKey), Failure> {
        let authority = certificate_from_pem(&self.read("authority.pem")?)?;
        let certificate = certificate_from_pem(&self.read("node.pem")?)?;
        Ok((authority, certificate, NodeKey::from_pem(&self.read("node.key")?)?))
    }

    fn authority(&self) -> Result<Authority, Failure> {
        Ok(Authority::from_pem(
            &self.read("authority.pem")?,
            &self.read("authority.key")?,
        )?)
    }

    fn issue_into(&self, authority: &Authority, node: &Name, readers: Option<u32>) -> Result<(), Failure> {
        let key = NodeKey::generate()?;
        let certificate = authority.sign(&key.request()?, node, LIFE)?;
        self.write("node.key", &key.to_pem(), shared(0o640, readers))?;
        self.write("authority.pem", authority.certificate_pem(), shared(0o644, readers))?;
        // The last one: with it the node belongs to the cluster.
        self.write("node.pem", &certificate.pem(), shared(0o644, readers))
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

    fn remove(&self, name: &str) -> Result<(), Failure> {
        let path = self.folder.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failure(&path, error)),
            _ => Ok(()),
        }
    }

    fn failure(&self, path: &Path, error: io::Error) -> Failure {
        Failure::File {
            path: path.to_owned(),
            error,
        }
    }
}

/// For root, and for the group of the modules where it is known.
fn shared(mode: u32, readers: Option<u32>) -> Access {
    match readers {
        Some(group) => Access::owned(mode, 0, group),
        None => Access::mode(mode),
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

    #[test]
    fn a_node_joins_with_one_key_over_all_attempts_and_then_signs_for_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let (founder, joiner) = (Trust::new(folder.path().join("a")), Trust::new(folder.path().join("b")));
        founder.found(name("c1"), &name("n1"), None).expect("founded");
        let gid = nix::unistd::getegid().as_raw();
        joiner.begin_joining(gid).expect("begun");
        assert!(matches!(
            joiner.found(name("c2"), &name("n2"), None),
            Err(Failure::Joining(_))
        ));
        let asked = || identity::requested_key(&joiner.request().expect("made")).expect("sound");
        let first = asked();
        joiner.begin_joining(gid).expect("again");
        assert_eq!(asked(), first);
        let certificate = founder.sign(&name("n2"), &first).expect("signed");
        let (authority, key) = (
            founder.read("authority.pem").expect("there"),
            founder.read("authority.key").expect("there"),
        );
        joiner
            .write("authority.key", &key, Access::mode(0o600))
            .expect("written");
        joiner.end_joining(&authority, &certificate, gid).expect("joined");
        assert!(joiner.is_founder() && joiner.has_founded() && !folder.path().join("b/joining").exists());
        assert_eq!(joiner.identity().expect("read").to_string(), "bitrix-node://c1/n2");
        assert_eq!(
            joiner.fingerprint().expect("read"),
            founder.fingerprint().expect("read")
        );
        let renewed = joiner.sign(&name("n2"), &first).expect("signed");
        joiner.renew(&renewed, None).expect("renewed");
        for (foreign, why) in [
            (founder.sign(&name("n3"), &first).expect("signed"), "another node"),
            (founder.read("node.pem").expect("there"), "key"),
        ] {
            let refused = joiner.renew(&foreign, None).expect_err(why).to_string();
            assert!(refused.contains(why), "{refused}");
        }
        let other = Trust::new(folder.path().join("c"));
        other.found(name("c1"), &name("n1"), None).expect("founded");
        let foreign = other.sign(&name("n2"), &first).expect("signed");
        assert!(matches!(joiner.renew(&foreign, None), Err(Failure::Foreign(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_certificate_is_used_within_a_minute() {
        let folder = tempfile::tempdir().expect("a folder");
        let trust = Trust::new(folder.path().join("a"));
        trust.found(name("c1"), &name("n1"), None).expect("founded");
        let scope = Scope::new();
        let tls = trust.follow(&scope).expect("usable");
        let mut renewal = tls.renewed();
        let key = NodeKey::from_pem(&trust.read("node.key").expect("there")).expect("read");
        let renewed = trust.sign(&name("n1"), &key.public()).expect("signed");
        trust.renew(&renewed, None).expect("renewed");
        tokio::time::timeout(LOOK * 2, renewal.next())
            .await
            .expect("in that time");
        scope.stop(Duration::ZERO).await;
    }
}
