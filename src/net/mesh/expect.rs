//! The dialling side's check of whom it met. What a chain must be is the judge's matter; signatures are of TLS 1.3 only.

use std::fmt::Debug;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, SignatureVerificationAlgorithm, UnixTime};
use rustls::{DigitallySignedStruct, Error, PeerIncompatible};

/// Of certificates, the peer's first.
pub struct Shown<'a> {
    pub certificate: &'a CertificateDer<'a>,
    pub others: &'a [CertificateDer<'a>],
    pub now: UnixTime,
    pub algorithms: &'a [&'a dyn SignatureVerificationAlgorithm],
}

pub trait Judge: Debug + Send + Sync {
    fn judge(&self, shown: &Shown<'_>) -> Result<(), Error>;
}

#[derive(Debug)]
pub struct Expect<J> {
    pub judge: J,
    pub provider: Arc<CryptoProvider>,
}

impl<J: Judge> ServerCertVerifier for Expect<J> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge.judge(&Shown {
            certificate: end_entity,
            others: intermediates,
            now,
            algorithms: self.provider.signature_verification_algorithms.all,
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
