//! The first meeting of a machine with a cluster that it wants to join: TLS 1.3 in which the node alone shows a certificate. The
//! machine knows nothing but the SHA-256 of the authority's certificate, from its token. The node sends that certificate behind
//! its own, and the machine goes on only with exactly this authority: until then it has sent nothing that is secret.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme, version,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client};

use super::error::ConnectError;
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
    let expected = ExpectAuthority {
        authority,
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

/// The machine's check: the chain ends in the one authority that the token names.
#[derive(Debug)]
struct ExpectAuthority {
    authority: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ExpectAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let [authority] = intermediates else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        if Fingerprint::of(authority) != self.authority {
            return Err(CertificateError::UnknownIssuer.into());
        }
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
