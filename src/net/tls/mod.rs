//! TLS by rustls with ring as its one crypto provider: as fast as aws-lc here, 2.4 MB smaller,
//! and built by a C compiler alone. Certificates can be replaced while connections go on.

mod challenge;
mod client;
mod pair;
mod store;
mod tickets;

use std::io;
use std::path::Path;
use std::sync::{Arc, RwLock};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ProtocolVersion, ServerConfig, crypto::CryptoProvider};
pub use tokio_rustls::TlsAcceptor;
pub use tokio_rustls::server::TlsStream;

pub use challenge::PROTOCOL as CHALLENGE;
pub use client::Connector;
use pair::certified;
pub use pair::{chain_of, check_pair};
pub use store::{Named, Store};
pub use tickets::{TicketKey, Tickets};

use super::mesh::identity::Validity;

/// A certificate with its key, and how to replace it.
#[derive(Debug)]
pub struct Certificate {
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads a PEM chain (leaf first) and its PEM key, and checks that they belong together.
    pub fn read(chain: &Path, key: &Path) -> io::Result<Arc<Self>> {
        let current = RwLock::new(Arc::new(read(chain, key)?));
        Ok(Arc::new(Certificate { current }))
    }

    /// Reads the files again; on failure the old certificate stays.
    pub fn reload(&self, chain: &Path, key: &Path) -> io::Result<()> {
        let fresh = Arc::new(read(chain, key)?);
        *self.current.write().expect("nothing panics under this lock") = fresh;
        Ok(())
    }

    /// An acceptor for these protocols (ALPN), most wanted first. TLS 1.2 and 1.3.
    pub fn acceptor(self: &Arc<Self>, protocols: &[&[u8]]) -> TlsAcceptor {
        TlsAcceptor::from(Arc::new(server(Arc::new(Resolver(self.clone())), protocols)))
    }

    fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.current.read().ok().map(|current| current.clone())
    }
}

#[derive(Debug)]
struct Resolver(Arc<Certificate>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.current()
    }
}

/// Version of an accepted connection, as logs name it.
pub fn version<S>(stream: &TlsStream<S>) -> &'static str {
    match stream.get_ref().1.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "TLS",
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn read(chain: &Path, key: &Path) -> io::Result<CertifiedKey> {
    let named = |path: &Path, error: &dyn std::fmt::Display| io::Error::other(format!("{}: {error}", path.display()));
    let certificates =
        chain_of(&std::fs::read(chain).map_err(|error| named(chain, &error))?).map_err(|error| named(chain, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| named(key, &error))?;
    certified(certificates, private).map_err(|error| named(key, &error))
}

fn server(resolver: Arc<dyn ResolvesServerCert>, protocols: &[&[u8]]) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has the suites of TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// SubjectPublicKeyInfo in DER, from PEM.
pub fn public_key(pem: &[u8]) -> io::Result<Vec<u8>> {
    let key = SubjectPublicKeyInfoDer::from_pem_slice(pem);
    key.map(|key| key.to_vec())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

/// How long the certificate of that PEM chain holds.
pub fn validity(chain: &Path) -> io::Result<Validity> {
    let leaf = CertificateDer::from_pem_file(chain).map_err(io::Error::other)?;
    Validity::of(&leaf).map_err(io::Error::other)
}

/// A self-signed certificate for these names: PEM chain and PEM key. Browsers warn; that is all they can do.
pub fn self_signed(names: Vec<String>) -> Result<(String, String), rcgen::Error> {
    let key = rcgen::KeyPair::generate()?;
    let mut parameters = rcgen::CertificateParams::new(names)?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters
        .distinguished_name
        .push(rcgen::DnType::CommonName, "bitrix-node");
    let certificate = parameters.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_key_is_refused() {
        let folder = tempfile::tempdir().expect("temp dir");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let (chain, key) = self_signed(vec!["a.example".into()]).expect("made");
        let (_, other) = self_signed(vec!["b.example".into()]).expect("made");
        let (chain, key, other) = (write("chain", &chain), write("key", &key), write("other", &other));
        let certificate = Certificate::read(&chain, &key).expect("belongs together");
        assert!(certificate.reload(&chain, &other).is_err());
        assert!(Certificate::read(&key, &key).is_err(), "a key is no chain");
    }
}
