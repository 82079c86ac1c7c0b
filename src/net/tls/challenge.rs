//! The certificate that answers a tls-alpn-01 challenge (RFC 8737 §3): self-signed, for one name, with the digest of the key
//! authorization in a critical extension. Shown to whoever offers `acme-tls/1` alone, and to nobody else.

use std::io;

use rcgen::{CertificateParams, CustomExtension, KeyPair};

/// The protocol's name in ALPN.
pub const PROTOCOL: &[u8] = b"acme-tls/1";

/// PEM chain and key.
pub fn certificate(name: &str, authorization: &str) -> io::Result<(String, String)> {
    let digest = ring::digest::digest(&ring::digest::SHA256, authorization.as_bytes());
    let make = || -> Result<_, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(vec![name.to_string()])?;
        parameters.custom_extensions = vec![CustomExtension::new_acme_identifier(digest.as_ref())];
        Ok((parameters.self_signed(&key)?.pem(), key.serialize_pem()))
    };
    make().map_err(io::Error::other)
}
