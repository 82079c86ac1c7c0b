//! The first meeting of a machine with a cluster that it wants to join: TLS 1.3 in which the node alone shows a certificate. The
//! machine knows nothing but the SHA-256 of the authority's certificate, from its token. The node sends that certificate behind
//! its own, and the machine goes on only with exactly this authority: until then it has sent nothing that is secret.

use std::sync::Arc;

use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig, version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client};

use super::error::ConnectError;
use super::expect::{Expect, Judge, Shown};
use super::identity::{Fingerprint, Identity, Name, NodeKey};
use super::tls::{HANDSHAKE, explain};

/// What is spoken (ALPN, RFC 7301). The number is the version.
pub const PROTOCOL: &[u8] = b"bn-join/1";

/// Makes sure that the other end of `stream` is a node of the cluster whose authority has that fingerprint, and says which cluster.
pub async fn connect<S>(stream: S, authority: Fingerprint) -> Result<(client::TlsStream<S>, Name), ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let provider = Arc::new(ring::default_provider());
    let expected = Expect {
        judge: OfAuthority(authority),
        provider: provider.clone(),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(ConnectError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(expected))
        .with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    // No server name is sent; the verifier knows whom to expect.
    let name = ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into());
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = tokio::time::timeout(HANDSHAKE, handshake)
        .await
        .map_err(|_| ConnectError::TimedOut)?
        .map_err(explain)?;
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(PROTOCOL) {
        return Err(ConnectError::NoProtocol);
    }
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let identity = Identity::of(certificate.ok_or(ConnectError::NoCertificate)?);
    let cluster = identity.map_err(ConnectError::NoIdentity)?.cluster;
    Ok((stream, cluster))
}

/// `chain`: the node's certificate, then the authority's.
pub(super) fn server_config(
    provider: &Arc<CryptoProvider>,
    chain: Vec<CertificateDer<'static>>,
    key: &NodeKey,
) -> Result<Arc<ServerConfig>, ConnectError> {
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(ConnectError::Tls)?
        .with_no_client_auth()
        .with_single_cert(chain, key.to_der())
        .map_err(ConnectError::Tls)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The chain ends in the one authority that the token names.
#[derive(Debug)]
struct OfAuthority(Fingerprint);

impl Judge for OfAuthority {
    fn judge(&self, shown: &Shown<'_>) -> Result<(), rustls::Error> {
        let [authority] = shown.others else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        if Fingerprint::of(authority) != self.0 {
            return Err(CertificateError::UnknownIssuer.into());
        }
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let parsed = ParsedCertificate::try_from(shown.certificate)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], shown.now, shown.algorithms)
    }
}
