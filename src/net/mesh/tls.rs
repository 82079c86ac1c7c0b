//! Mutual TLS 1.3 between nodes: the cluster's authority is the only root, both sides show a certificate, and a
//! dialler accepts exactly the node it dialled. Sessions are never resumed, so that every connection looks at
//! certificates anew. The own certificate can be replaced at run time; connections follow (`peer`, `server`).

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{Acceptor, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, InvalidMessage, OtherError,
    RootCertStore, ServerConfig, ServerConnection, SignatureScheme, version,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, TlsConnector, client, server};

use super::error::ConnectError;
use super::expect::{Expect, Judge, Shown};
use super::guest;
use super::identity::{Error, Identity, Name, NodeKey};

/// A handshake takes two round trips and under a millisecond of work; after this the peer counts as dead.
pub const HANDSHAKE: Duration = Duration::from_secs(3);

/// What is spoken over a connection (ALPN, RFC 7301). The number is the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Framed calls.
    Call,
    /// HTTP/2.
    Streams,
}

impl Protocol {
    fn token(self) -> &'static [u8] {
        match self {
            Protocol::Call => b"bn-call/1",
            Protocol::Streams => b"h2",
        }
    }
}

/// One certificate of this node, ready for use.
struct Credentials {
    identity: Identity,
    /// Without the name of a node: that is the dial's.
    client: ClientConfig,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    server: Arc<ServerConfig>,
    guests: Arc<ServerConfig>,
}

/// Makes and accepts connections in the name of this node.
pub struct Tls {
    current: watch::Sender<Arc<Credentials>>,
    /// Their certificates hold still, and are refused.
    left: Mutex<BTreeSet<Name>>,
}

/// Who came to a port where machines that are no nodes yet are heard, too.
pub enum Came<S> {
    Node(server::TlsStream<S>, Identity, Protocol),
    Guest(server::TlsStream<S>),
}

impl Tls {
    /// `certificate` is this node's, `authority` the cluster's.
    pub fn new(
        authority: &CertificateDer<'static>,
        certificate: CertificateDer<'static>,
        key: &NodeKey,
    ) -> Result<Self, ConnectError> {
        let credentials = Credentials::new(authority, certificate, key)?;
        Ok(Tls {
            current: watch::Sender::new(Arc::new(credentials)),
            left: Mutex::default(),
        })
    }

    /// Nodes that left the cluster. When there is a new one among them, connections are made anew, as after a renewal, and its
    /// own are not.
    pub fn keep_out(&self, left: BTreeSet<Name>) {
        let known = std::mem::replace(
            &mut *self.left.lock().expect("no holder of this lock panics"),
            left.clone(),
        );
        if !left.is_subset(&known) {
            self.current.send_modify(|_| {});
        }
    }

    fn admit(&self, node: &Name) -> Result<(), ConnectError> {
        match self.left.lock().expect("no holder of this lock panics").contains(node) {
            true => Err(ConnectError::Left(node.clone())),
            false => Ok(()),
        }
    }

    /// Uses another certificate from now on; connections made with the old one are replaced by their owners.
    /// On failure the old one stays.
    pub fn replace(
        &self,
        authority: &CertificateDer<'static>,
        certificate: CertificateDer<'static>,
        key: &NodeKey,
    ) -> Result<(), ConnectError> {
        let credentials = Credentials::new(authority, certificate, key)?;
        self.current.send_replace(Arc::new(credentials));
        Ok(())
    }

    /// Watches for replacements from now on.
    pub fn renewed(&self) -> Renewal {
        Renewal(self.current.subscribe())
    }

    pub fn identity(&self) -> Identity {
        self.current.borrow().identity.clone()
    }

    /// Makes sure that the other end of `stream` is `node` of this cluster. The peer looks at our certificate only
    /// after this returns (TLS 1.3, RFC 8446 §4.4): a refusal shows at the first read.
    pub async fn connect<S>(
        &self,
        stream: S,
        node: &Name,
        protocol: Protocol,
    ) -> Result<client::TlsStream<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.admit(node)?;
        let config = self.current.borrow().client(node, protocol);
        // No server name is sent; the verifier knows whom to expect.
        let name = ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into());
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let stream = tokio::time::timeout(HANDSHAKE, handshake)
            .await
            .map_err(|_| ConnectError::TimedOut)?
            .map_err(explain)?;
        match stream.get_ref().1.alpn_protocol() {
            Some(chosen) if chosen == protocol.token() => Ok(stream),
            _ => Err(ConnectError::NoProtocol),
        }
    }

    /// Accepts a node of this cluster and says which.
    pub async fn accept<S>(&self, stream: S) -> Result<(server::TlsStream<S>, Identity, Protocol), ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.current.borrow().server.clone();
        let handshake = TlsAcceptor::from(config).accept(stream);
        let stream = tokio::time::timeout(HANDSHAKE, handshake)
            .await
            .map_err(|_| ConnectError::TimedOut)?
            .map_err(explain)?;
        let (identity, protocol) = self.met(stream.get_ref().1)?;
        Ok((stream, identity, protocol))
    }

    /// Like `accept`, but a machine that asks for `guest::PROTOCOL` and nothing else gets in without a certificate.
    pub async fn welcome<S>(&self, stream: S) -> Result<Came<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let current = self.current.borrow().clone();
        let handshake = async {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            let is_guest = hello
                .client_hello()
                .alpn()
                .is_some_and(|mut asked| asked.next() == Some(guest::PROTOCOL) && asked.next().is_none());
            let config = if is_guest { &current.guests } else { &current.server };
            Ok((hello.into_stream(config.clone()).await?, is_guest))
        };
        let (stream, is_guest) = tokio::time::timeout(HANDSHAKE, handshake)
            .await
            .map_err(|_| ConnectError::TimedOut)?
            .map_err(explain)?;
        if is_guest {
            return Ok(Came::Guest(stream));
        }
        let (identity, protocol) = self.met(stream.get_ref().1)?;
        Ok(Came::Node(stream, identity, protocol))
    }

    /// Whom a finished handshake has shown.
    fn met(&self, session: &ServerConnection) -> Result<(Identity, Protocol), ConnectError> {
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        let identity = Identity::of(certificate.ok_or(ConnectError::NoCertificate)?);
        let identity = identity.map_err(ConnectError::NoIdentity)?;
        self.admit(&identity.node)?;
        let chosen = session.alpn_protocol();
        let protocol = [Protocol::Call, Protocol::Streams]
            .into_iter()
            .find(|protocol| chosen == Some(protocol.token()))
            .ok_or(ConnectError::NoProtocol)?;
        Ok((identity, protocol))
    }
}

/// Tells of replaced certificates.
pub struct Renewal(watch::Receiver<Arc<Credentials>>);

impl Renewal {
    /// Resolves at the next replacement; never, once the `Tls` is gone. Cancel safe.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Credentials {
    fn new(
        authority: &CertificateDer<'static>,
        certificate: CertificateDer<'static>,
        key: &NodeKey,
    ) -> Result<Self, ConnectError> {
        let identity = Identity::of(&certificate).map_err(ConnectError::NoIdentity)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).map_err(ConnectError::Tls)?;
        let roots = Arc::new(roots);
        let provider = Arc::new(ring::default_provider());
        let server = server_config(&roots, &provider, &identity.cluster, &certificate, key)?;
        let guests = guest::server_config(&provider, vec![certificate.clone(), authority.clone()], key)?;
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(ConnectError::Tls)?
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(vec![certificate], key.to_der())
            .map_err(ConnectError::Tls)?;
        Ok(Credentials {
            identity,
            client,
            roots,
            provider,
            server,
            guests,
        })
    }

    fn client(&self, node: &Name, protocol: Protocol) -> ClientConfig {
        let mut config = self.client.clone();
        let wanted = Identity {
            cluster: self.identity.cluster.clone(),
            node: node.clone(),
        };
        let expected = Expect {
            judge: Node {
                wanted,
                roots: self.roots.clone(),
            },
            provider: self.provider.clone(),
        };
        config.dangerous().set_certificate_verifier(Arc::new(expected));
        config.alpn_protocols = vec![protocol.token().to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        config
    }
}

fn server_config(
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
    cluster: &Name,
    certificate: &CertificateDer<'static>,
    key: &NodeKey,
) -> Result<Arc<ServerConfig>, ConnectError> {
    let chain = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| ConnectError::Tls(rustls::Error::General(error.to_string())))?;
    let members = ExpectMember {
        cluster: cluster.clone(),
        chain,
    };
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(ConnectError::Tls)?
        .with_client_cert_verifier(Arc::new(members))
        .with_single_cert(vec![certificate.clone()], key.to_der())
        .map_err(ConnectError::Tls)?;
    config.alpn_protocols = [Protocol::Call, Protocol::Streams].map(|p| p.token().to_vec()).into();
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Signed by the authority, and exactly this node.
#[derive(Debug)]
struct Node {
    wanted: Identity,
    roots: Arc<RootCertStore>,
}

impl Judge for Node {
    fn judge(&self, shown: &Shown<'_>) -> Result<(), rustls::Error> {
        let parsed = ParsedCertificate::try_from(shown.certificate)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, shown.others, shown.now, shown.algorithms)?;
        let found = member(shown.certificate, &self.wanted.cluster)?;
        if found.node != self.wanted.node {
            return Err(mismatch(Mismatch::Node(self.wanted.node.clone(), found.node)));
        }
        Ok(())
    }
}

/// The acceptor's check: signed by the authority, and any node of this cluster.
#[derive(Debug)]
struct ExpectMember {
    cluster: Name,
    chain: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for ExpectMember {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        member(end_entity, &self.cluster)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Our own reasons, carried through rustls and back.
#[derive(Debug, thiserror::Error)]
enum Mismatch {
    #[error("of cluster {1}, not {0}")]
    Cluster(Name, Name),
    #[error("of node {1}, not {0}")]
    Node(Name, Name),
    #[error(transparent)]
    Identity(Error),
}

fn mismatch(reason: Mismatch) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(reason))).into()
}

fn member(certificate: &CertificateDer<'_>, cluster: &Name) -> Result<Identity, rustls::Error> {
    let found = Identity::of(certificate).map_err(|error| mismatch(Mismatch::Identity(error)))?;
    if found.cluster != *cluster {
        return Err(mismatch(Mismatch::Cluster(cluster.clone(), found.cluster)));
    }
    Ok(found)
}

/// Whether the authority signed it, for a node, and it holds now.
pub(super) fn is_signed(certificate: &CertificateDer<'_>, authority: &CertificateDer<'static>) -> bool {
    let mut roots = RootCertStore::empty();
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else {
        return false;
    };
    let algorithms = ring::default_provider().signature_verification_algorithms.all;
    roots.add(authority.clone()).is_ok()
        && verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], UnixTime::now(), algorithms).is_ok()
}

/// Says in the mesh's words why a handshake failed.
pub(super) fn explain(error: io::Error) -> ConnectError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        None => ConnectError::Io(error),
        Some(rustls::Error::InvalidCertificate(reason)) => certificate(reason),
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => ConnectError::PlainText,
        Some(rustls::Error::NoCertificatesPresented) => ConnectError::NoCertificate,
        Some(rustls::Error::NoApplicationProtocol) => ConnectError::NoProtocol,
        Some(rustls::Error::AlertReceived(alert)) => ConnectError::Refused(format!("{alert:?}")),
        Some(other) => ConnectError::Tls(other.clone()),
    }
}

fn certificate(reason: &CertificateError) -> ConnectError {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidYet, NotValidYetContext, Other, UnknownIssuer,
    };
    match reason {
        Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => ConnectError::Expired,
        // A foreign authority of the same name fails by its signature.
        UnknownIssuer | BadSignature => ConnectError::ForeignAuthority,
        Other(OtherError(inner)) => match inner.downcast_ref::<Mismatch>() {
            Some(Mismatch::Cluster(wanted, found)) => ConnectError::WrongCluster {
                wanted: wanted.clone(),
                found: found.clone(),
            },
            Some(Mismatch::Node(wanted, found)) => ConnectError::WrongNode {
                wanted: wanted.clone(),
                found: found.clone(),
            },
            Some(Mismatch::Identity(_)) => ConnectError::NoIdentity(Error::NoIdentity),
            None => ConnectError::Tls(reason.clone().into()),
        },
        other => ConnectError::Tls(other.clone().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::mesh::identity::Authority;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    #[tokio::test(start_paused = true)]
    async fn handshake_that_is_never_answered_ends_in_time() {
        let authority = Authority::generate(name("c")).expect("made");
        let key = NodeKey::generate().expect("made");
        let signed = authority.sign(&key.request().expect("made"), &name("n"), HANDSHAKE);
        let signed = signed.expect("signed").der().clone();
        let tls = Tls::new(authority.certificate(), signed, &key).expect("usable");
        let (near, _far) = tokio::io::duplex(4096);
        let dialled = tls.connect(near, &name("n2"), Protocol::Call).await;
        assert!(matches!(dialled, Err(ConnectError::TimedOut)));
        let (near, _far) = tokio::io::duplex(4096);
        assert!(matches!(tls.accept(near).await, Err(ConnectError::TimedOut)));
    }

    /// The dialler's own check stands before this one in the way of honest programs, so it is asked directly.
    #[test]
    fn acceptor_wants_a_certificate_of_this_cluster() {
        let authority = Authority::generate(name("c")).expect("made");
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().clone()).expect("taken");
        let provider = Arc::new(ring::default_provider());
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let chain = chain.build().expect("built");
        let mut members = ExpectMember {
            cluster: name("c"),
            chain,
        };
        let request = NodeKey::generate().expect("made").request().expect("made");
        let signed = authority.sign(&request, &name("n"), Duration::from_secs(60));
        let signed = signed.expect("signed").der().clone();
        assert!(members.client_auth_mandatory());
        assert!(members.verify_client_cert(&signed, &[], UnixTime::now()).is_ok());
        members.cluster = name("d");
        assert!(members.verify_client_cert(&signed, &[], UnixTime::now()).is_err());
    }
}
