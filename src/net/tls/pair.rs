//! Certificates and keys from PEM, and whether they belong together.

use std::io;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::provider;

/// The certificates of a PEM chain, leaf first; at least one.
pub fn chain_of(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(io::Error::other("holds no certificate")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(io::Error::other(error.to_string())),
    }
}

/// Whether that key is the chain's, both PEM.
pub fn check_pair(chain: &str, key: &str) -> io::Result<()> {
    pair(chain, key).map(drop)
}

pub(super) fn pair(chain: &str, key: &str) -> io::Result<CertifiedKey> {
    let private = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| io::Error::other(error.to_string()))?;
    certified(chain_of(chain.as_bytes())?, private)
}

pub(super) fn certified(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> io::Result<CertifiedKey> {
    let signing = provider()
        .key_provider
        .load_private_key(key)
        .map_err(io::Error::other)?;
    let certified = CertifiedKey::new(chain, signing);
    certified
        .keys_match()
        .map_err(|error| io::Error::other(format!("the key does not belong to the certificate ({error})")))?;
    Ok(certified)
}

/// For a certificate that was made for that key, and has an extension that no verifier here knows.
pub(super) fn made(chain: &str, key: &str) -> io::Result<CertifiedKey> {
    let private = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(io::Error::other)?;
    let signing = provider()
        .key_provider
        .load_private_key(private)
        .map_err(io::Error::other)?;
    Ok(CertifiedKey::new(chain_of(chain.as_bytes())?, signing))
}
