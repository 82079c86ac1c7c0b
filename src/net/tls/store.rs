//! Which certificate a client is shown: by the name that it asks for (SNI, RFC 6066 §3), exact names before wildcards; without one of
//! those, that of the files. All of it can be replaced while connections go on.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, RwLock};

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use super::pair::{made, pair};
use super::tickets::Tickets;
use super::{Certificate, challenge, provider, server};

type Key = Arc<CertifiedKey>;

/// Certificates by name, and those of challenges.
#[derive(Debug, Default)]
pub struct Named {
    certificates: BTreeMap<String, Key>,
    challenges: BTreeMap<String, Key>,
    /// Shown to who asks for no name.
    usual: String,
}

impl Named {
    pub fn new(usual: impl Into<String>) -> Self {
        Named {
            usual: usual.into(),
            ..Named::default()
        }
    }

    /// For each of these names, in lower case, that has none yet: whoever comes first is shown. PEM.
    pub fn add(&mut self, names: &[String], chain: &str, key: &str) -> io::Result<()> {
        let certified = Arc::new(pair(chain, key)?);
        for name in names {
            self.certificates
                .entry(name.clone())
                .or_insert_with(|| certified.clone());
        }
        Ok(())
    }

    /// Answers the tls-alpn-01 challenge of that name.
    pub fn add_challenge(&mut self, name: &str, authorization: &str) -> io::Result<()> {
        let (chain, key) = challenge::certificate(name, authorization)?;
        self.challenges.insert(name.to_string(), Arc::new(made(&chain, &key)?));
        Ok(())
    }

    fn find(&self, name: &str) -> Option<Key> {
        let name = name.to_ascii_lowercase();
        let wildcard = || {
            // A wildcard stands for one label (RFC 6125 §6.4.3).
            let (_, parent) = name.split_once('.')?;
            self.certificates.get(&format!("*.{parent}"))
        };
        self.certificates.get(&name).or_else(wildcard).cloned()
    }
}

#[derive(Debug)]
pub struct Store {
    file: Arc<Certificate>,
    named: RwLock<Arc<Named>>,
    tickets: Arc<Tickets>,
}

impl Store {
    /// `file`: for all names that have none of their own.
    pub fn new(file: Arc<Certificate>) -> Arc<Self> {
        Arc::new(Store {
            file,
            named: RwLock::default(),
            tickets: Arc::default(),
        })
    }

    pub fn file(&self) -> &Certificate {
        &self.file
    }

    /// Of all doors that show these certificates.
    pub fn tickets(&self) -> &Tickets {
        &self.tickets
    }

    /// Handshakes from now on see these.
    pub fn replace(&self, named: Named) {
        *self.named.write().expect("nothing panics under this lock") = Arc::new(named);
    }

    /// An acceptor for these protocols (ALPN), most wanted first, and for challenges. TLS 1.2 and 1.3.
    pub fn acceptor(self: &Arc<Self>, protocols: &[&[u8]]) -> TlsAcceptor {
        let protocols = [protocols, &[challenge::PROTOCOL]].concat();
        let mut config = server(Arc::new(Resolver(self.clone())), &protocols);
        config.ticketer = self.tickets.clone();
        TlsAcceptor::from(Arc::new(config))
    }

    /// The same certificates for a protocol over QUIC, which is TLS 1.3 alone (RFC 9001 §4.2). Early data stays refused.
    pub fn quic(self: &Arc<Self>, protocol: &[u8]) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring has the suites of TLS 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(self.clone())));
        config.alpn_protocols = vec![protocol.to_vec()];
        config.ticketer = self.tickets.clone();
        config
    }
}

#[derive(Debug)]
struct Resolver(Arc<Store>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Key> {
        let named = self.0.named.read().ok()?.clone();
        let name = hello.server_name();
        let is_challenge = hello
            .alpn()
            .is_some_and(|mut protocols| protocols.next() == Some(challenge::PROTOCOL) && protocols.next().is_none());
        if is_challenge {
            // Without such a challenge there is no handshake.
            return named.challenges.get(&name?.to_ascii_lowercase()).cloned();
        }
        let found = named.find(name.unwrap_or(&named.usual));
        found.or_else(|| self.0.file.current())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::ServerName;
    use rustls::pki_types::pem::PemObject;
    use rustls::{ClientConfig, HandshakeKind, RootCertStore, quic};
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::net::tls::{TicketKey, self_signed};

    struct Bed {
        store: Arc<Store>,
        chains: BTreeMap<&'static str, Vec<u8>>,
    }

    fn bed() -> Bed {
        let folder = tempfile::tempdir().unwrap();
        let (mut named, mut chains) = (Named::new("a.example"), BTreeMap::new());
        let mut make = |name: &'static str| {
            let (chain, key) = self_signed(vec![name.into()]).unwrap();
            let leaf = rustls::pki_types::CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
            chains.insert(name, leaf.to_vec());
            (chain, key)
        };
        for name in ["a.example", "*.b.example", "c.b.example"] {
            let (chain, key) = make(name);
            named.add(&[name.to_string()], &chain, &key).unwrap();
        }
        let (chain, key) = make("file");
        let path = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let file = Certificate::read(&path("chain", &chain), &path("key", &key)).unwrap();
        named.add_challenge("a.example", "token.thumb").unwrap();
        let store = Store::new(file);
        store.replace(named);
        Bed { store, chains }
    }

    impl Bed {
        /// The leaf that is shown, and the protocol.
        async fn shown(&self, name: &str, protocols: &[&[u8]]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
            let (near, far) = tokio::io::duplex(32 << 10);
            let mut config = ClientConfig::builder_with_provider(super::super::provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            config.dangerous().set_certificate_verifier(Arc::new(trusting::All));
            let acceptor = self.store.acceptor(&[b"h2", b"http/1.1"]);
            let name = ServerName::try_from(name.to_string()).unwrap();
            let (served, met) = tokio::join!(
                acceptor.accept(near),
                TlsConnector::from(Arc::new(config)).connect(name, far)
            );
            served.ok()?;
            let met = met.ok()?;
            let (_, session) = met.get_ref();
            let leaf = session.peer_certificates()?.first()?.to_vec();
            Some((leaf, session.alpn_protocol().map(<[u8]>::to_vec)))
        }
    }

    /// Of a client that looks at what it is shown by itself.
    mod trusting {
        use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
        use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
        use rustls::{DigitallySignedStruct, Error, SignatureScheme};

        #[derive(Debug)]
        pub struct All;

        impl ServerCertVerifier for All {
            fn verify_server_cert(
                &self,
                _: &CertificateDer<'_>,
                _: &[CertificateDer<'_>],
                _: &ServerName<'_>,
                _: &[u8],
                _: UnixTime,
            ) -> Result<ServerCertVerified, Error> {
                Ok(ServerCertVerified::assertion())
            }

            fn verify_tls12_signature(
                &self,
                _: &[u8],
                _: &CertificateDer<'_>,
                _: &DigitallySignedStruct,
            ) -> Result<HandshakeSignatureValid, Error> {
                Ok(HandshakeSignatureValid::assertion())
            }

            fn verify_tls13_signature(
                &self,
                _: &[u8],
                _: &CertificateDer<'_>,
                _: &DigitallySignedStruct,
            ) -> Result<HandshakeSignatureValid, Error> {
                Ok(HandshakeSignatureValid::assertion())
            }

            fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
                vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]
            }
        }
    }

    #[tokio::test]
    async fn a_client_is_shown_the_certificate_of_the_name_that_it_asks_for() {
        let bed = bed();
        for (asked, expected) in [
            ("a.example", "a.example"),
            ("A.Example", "a.example"),
            ("x.b.example", "*.b.example"),
            ("c.b.example", "c.b.example"),
            ("x.y.b.example", "file"),
            ("b.example", "file"),
            // An address is no name: nothing is asked for.
            ("127.0.0.1", "a.example"),
        ] {
            let (leaf, protocol) = bed.shown(asked, &[b"h2"]).await.unwrap();
            assert_eq!(leaf, bed.chains[expected], "{asked}");
            assert_eq!(protocol.as_deref(), Some(&b"h2"[..]));
        }
    }

    /// What one end of QUIC has to say, to the other one; whether it was anything.
    fn say(from: &mut quic::Connection, to: &mut quic::Connection) -> bool {
        let mut is_any = false;
        loop {
            // Of one level of keys each time.
            let mut words = Vec::new();
            let change = from.write_hs(&mut words);
            if words.is_empty() && change.is_none() {
                return is_any;
            }
            to.read_hs(&words).unwrap();
            is_any |= !words.is_empty();
        }
    }

    #[test]
    fn a_session_over_quic_is_resumed_by_who_has_the_key_and_without_early_data() {
        let stores = [bed().store, bed().store, bed().store];
        for (store, number) in stores.iter().zip([1, 1, 2]) {
            let key = TicketKey::new([number; 16], &[number; 32], Duration::from_secs(60));
            store.tickets().replace(vec![key]);
        }
        let mut client = ClientConfig::builder_with_provider(super::super::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        client.alpn_protocols = vec![b"h3".to_vec()];
        client.enable_early_data = true;
        client.dangerous().set_certificate_verifier(Arc::new(trusting::All));
        let client = Arc::new(client);
        let kind = |store: &Arc<Store>| {
            let name = ServerName::try_from("a.example").unwrap();
            let near = quic::ClientConnection::new(client.clone(), quic::Version::V1, name, Vec::new()).unwrap();
            let server = Arc::new(store.quic(b"h3"));
            let far = quic::ServerConnection::new(server, quic::Version::V1, Vec::new()).unwrap();
            let (mut near, mut far) = (quic::Connection::from(near), quic::Connection::from(far));
            assert!(near.zero_rtt_keys().is_none());
            while say(&mut near, &mut far) | say(&mut far, &mut near) {}
            near.handshake_kind()
        };
        assert_eq!(kind(&stores[0]), Some(HandshakeKind::Full));
        assert_eq!(kind(&stores[1]), Some(HandshakeKind::Resumed));
        assert_eq!(kind(&stores[2]), Some(HandshakeKind::Full), "of another cluster");
    }

    #[tokio::test]
    async fn a_challenge_is_answered_to_who_offers_its_protocol_alone() {
        let bed = bed();
        let (leaf, protocol) = bed.shown("a.example", &[challenge::PROTOCOL]).await.unwrap();
        assert_eq!(protocol.as_deref(), Some(challenge::PROTOCOL));
        assert!(!bed.chains.values().any(|chain| *chain == leaf));
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA256, b"token.thumb");
        // id-pe-acmeIdentifier (RFC 8737 §6.1), an OCTET STRING of the digest.
        let found = parsed
            .extensions()
            .iter()
            .find(|one| one.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
        let found = found.unwrap();
        assert!(found.critical && found.value == [&[4, 32], digest.as_ref()].concat());
        let (leaf, protocol) = bed.shown("a.example", &[challenge::PROTOCOL, b"h2"]).await.unwrap();
        assert_eq!(
            (leaf, protocol),
            (bed.chains["a.example"].clone(), Some(b"h2".to_vec()))
        );
        assert!(bed.shown("c.b.example", &[challenge::PROTOCOL]).await.is_none());
    }
}
