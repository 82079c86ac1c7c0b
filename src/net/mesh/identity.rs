//! Who is who between nodes: the cluster's certificate authority, the nodes' short-lived certificates, and the
//! identity in them, the URI `bitrix-node://CLUSTER/NODE` (RFC 5280 §4.2.1.6). Where keys are stored is the caller's.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SubjectPublicKeyInfo,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use webpki::EndEntityCert;

use crate::base::clock;

const SCHEME: &str = "bitrix-node://";

/// A label of DNS (RFC 1035 §2.3.4), so that names also fit host names.
const NAME_LIMIT: usize = 63;

/// Ten years: replacing the authority means touching every node, and its key never leaves the registry.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Certificates begin an hour in the past: clocks of fresh machines are often not set yet.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

#[derive(Debug, Error)]
pub enum Error {
    #[error("{0:?} is no name; use 1 to 63 of a-z, 0-9 and -")]
    Name(String),
    #[error("the certificate holds not exactly one identity of the form {SCHEME}CLUSTER/NODE")]
    NoIdentity,
    #[error("the authority's certificate is not one of this program")]
    NotAuthority,
    #[error("the key does not belong to the certificate")]
    ForeignKey,
    #[error("this is no fingerprint; it has 64 hexadecimal digits")]
    Fingerprint,
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    #[error("the certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// Name of a cluster or a node: 1 to 63 of `a-z`, `0-9`, `-`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if text.is_empty() || text.len() > NAME_LIMIT || !text.bytes().all(allowed) {
            return Err(Error::Name(text.chars().take(NAME_LIMIT).collect()));
        }
        Ok(Name(text.into()))
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().into()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// A node, as its certificate names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub cluster: Name,
    pub node: Name,
}

impl Identity {
    /// Reads the identity of a certificate; whether it may be believed is the verifier's matter (`tls`).
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let parsed = EndEntityCert::try_from(certificate).map_err(|error| Error::Unreadable(error.to_string()))?;
        let mut uris = parsed.valid_uri_names();
        match (uris.next(), uris.next()) {
            (Some(uri), None) => uri.parse(),
            _ => Err(Error::NoIdentity),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{SCHEME}{}/{}", self.cluster, self.node)
    }
}

impl FromStr for Identity {
    type Err = Error;

    fn from_str(uri: &str) -> Result<Self, Error> {
        let path = uri.strip_prefix(SCHEME).ok_or(Error::NoIdentity)?;
        let (cluster, node) = path.split_once('/').ok_or(Error::NoIdentity)?;
        Ok(Identity {
            cluster: cluster.parse()?,
            node: node.parse()?,
        })
    }
}

/// SHA-256 of the authority's certificate: what a join token carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        Fingerprint(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(out)
    }
}

impl FromStr for Fingerprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Fingerprint).ok_or(Error::Fingerprint)
    }
}

/// The cluster's certificate authority, with its key.
pub struct Authority {
    cluster: Name,
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A fresh authority for a new cluster.
    pub fn generate(cluster: Name) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let parameters = authority_parameters(&cluster)?;
        let certificate = parameters.self_signed(&key)?;
        Ok(Authority {
            cluster,
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(parameters, key),
        })
    }

    /// Takes up an authority from the texts that `certificate_pem` and `key_pem` gave.
    pub fn from_pem(pem: &str, key: &str) -> Result<Self, Error> {
        let certificate = certificate_from_pem(pem)?;
        let parsed = EndEntityCert::try_from(&certificate).map_err(|error| Error::Unreadable(error.to_string()))?;
        let cluster = parsed.valid_uri_names().find_map(|uri| uri.strip_prefix(SCHEME));
        let cluster = cluster.ok_or(Error::NotAuthority)?.parse()?;
        let key = KeyPair::from_pem(key)?;
        if parsed.subject_public_key_info().as_ref() != key.subject_public_key_info() {
            return Err(Error::ForeignKey);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Authority {
            cluster,
            certificate,
            pem: pem.to_string(),
            issuer,
        })
    }

    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// The key itself, for the one place that stores it.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Signs a node's request. Only the public key is taken from it, and only if its signature proves that the
    /// asker holds the private one; names, usages and life are the authority's choice.
    pub fn sign(
        &self,
        request: &CertificateSigningRequestDer<'_>,
        node: &Name,
        life: Duration,
    ) -> Result<Certificate, Error> {
        let public_key = CertificateSigningRequestParams::from_der(request)?.public_key;
        self.sign_public(&public_key, node, life)
    }

    /// Signs a public key (SubjectPublicKeyInfo in DER) of which somebody else made sure that the asker holds the private one.
    pub fn sign_key(&self, key: &[u8], node: &Name, life: Duration) -> Result<Certificate, Error> {
        self.sign_public(&SubjectPublicKeyInfo::from_der(key)?, node, life)
    }

    fn sign_public(&self, key: &impl PublicKeyData, node: &Name, life: Duration) -> Result<Certificate, Error> {
        let identity = Identity {
            cluster: self.cluster.clone(),
            node: node.clone(),
        };
        let mut parameters = parameters(&identity.to_string(), node.as_str(), life)?;
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        parameters.use_authority_key_identifier_extension = true;
        Ok(parameters.signed_by(key, &self.issuer)?)
    }
}

/// A node's private key. `Debug` is missing on purpose.
pub struct NodeKey(KeyPair);

impl NodeKey {
    pub fn generate() -> Result<Self, Error> {
        Ok(NodeKey(KeyPair::generate()?))
    }

    pub fn from_pem(text: &str) -> Result<Self, Error> {
        Ok(NodeKey(KeyPair::from_pem(text)?))
    }

    /// The key itself, for the one place that stores it.
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// A request for a certificate of this key (PKCS #10, RFC 2986).
    pub fn request(&self) -> Result<CertificateSigningRequestDer<'static>, Error> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        Ok(parameters.serialize_request(&self.0)?.into())
    }

    /// The public key, SubjectPublicKeyInfo in DER.
    pub fn public(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    pub(super) fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }
}

/// Reads one PEM certificate.
pub fn certificate_from_pem(text: &str) -> Result<CertificateDer<'static>, Error> {
    CertificateDer::from_pem_slice(text.as_bytes()).map_err(|error| Error::Unreadable(error.to_string()))
}

/// The public key (SubjectPublicKeyInfo in DER) of a request that proves that its maker holds the private one.
pub fn requested_key(request: &[u8]) -> Result<Vec<u8>, Error> {
    let request = CertificateSigningRequestDer::from(request);
    Ok(CertificateSigningRequestParams::from_der(&request)?
        .public_key
        .subject_public_key_info())
}

/// The public key of a certificate, SubjectPublicKeyInfo in DER.
pub fn certified_key(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, Error> {
    let parsed = EndEntityCert::try_from(certificate).map_err(|error| Error::Unreadable(error.to_string()))?;
    Ok(parsed.subject_public_key_info().to_vec())
}

/// From when until when a certificate is valid, as time since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub from: Duration,
    pub until: Duration,
}

impl Validity {
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let parsed = x509_parser::parse_x509_certificate(certificate);
        let (_, parsed) = parsed.map_err(|error| Error::Unreadable(error.to_string()))?;
        let seconds = |time: x509_parser::time::ASN1Time| Duration::from_secs(time.timestamp().try_into().unwrap_or(0));
        let validity = parsed.validity();
        Ok(Validity {
            from: seconds(validity.not_before),
            until: seconds(validity.not_after),
        })
    }

    /// Whether it is time for the next one: two thirds of its life are over, or it has not begun, because a clock was set.
    pub fn is_due(&self, now: Duration) -> bool {
        let life = self.until.saturating_sub(self.from);
        now < self.from || now >= self.from + life * 2 / 3
    }
}

fn authority_parameters(cluster: &Name) -> Result<CertificateParams, Error> {
    let mut parameters = parameters(
        &format!("{SCHEME}{cluster}"),
        &format!("bitrix-node authority of {cluster}"),
        AUTHORITY_LIFE,
    )?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(parameters)
}

fn parameters(uri: &str, common_name: &str, life: Duration) -> Result<CertificateParams, Error> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    let now = date_time_ymd(1970, 1, 1) + clock::unix();
    parameters.not_before = now - CLOCK_SKEW;
    parameters.not_after = now + life;
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(60);

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    #[test]
    fn certificate_carries_the_name_that_the_authority_chose() {
        let authority = Authority::generate(name("c1")).expect("made");
        let key = NodeKey::generate().expect("made");
        let signed = authority
            .sign(&key.request().expect("made"), &name("n1"), LIFE)
            .expect("signed");
        let identity = Identity::of(signed.der()).expect("has one");
        assert_eq!(identity.to_string(), "bitrix-node://c1/n1");
    }

    #[test]
    fn authority_lives_on_in_its_texts() {
        let authority = Authority::generate(name("c1")).expect("made");
        let again = Authority::from_pem(authority.certificate_pem(), &authority.key_pem()).expect("read");
        assert_eq!(again.cluster(), authority.cluster());
        assert_eq!(
            Fingerprint::of(again.certificate()),
            Fingerprint::of(authority.certificate())
        );
        let other = Authority::generate(name("c1")).expect("made");
        assert!(matches!(
            Authority::from_pem(authority.certificate_pem(), &other.key_pem()),
            Err(Error::ForeignKey)
        ));
        assert_ne!(
            Fingerprint::of(other.certificate()),
            Fingerprint::of(authority.certificate())
        );
    }

    #[test]
    fn request_with_a_broken_signature_is_refused() {
        let authority = Authority::generate(name("c1")).expect("made");
        let mut request = NodeKey::generate().expect("made").request().expect("made").to_vec();
        *request.last_mut().expect("not empty") ^= 1;
        assert!(authority.sign(&request.into(), &name("n1"), LIFE).is_err());
    }

    #[test]
    fn a_key_is_signed_as_a_request_for_it_is() {
        let authority = Authority::generate(name("c1")).expect("made");
        let key = NodeKey::generate().expect("made");
        let public = requested_key(&key.request().expect("made")).expect("sound");
        assert_eq!(public, key.public());
        let signed = authority.sign_key(&public, &name("n1"), LIFE).expect("signed");
        assert_eq!(certified_key(signed.der()).expect("has one"), public);
        assert_eq!(Identity::of(signed.der()).expect("has one").node, name("n1"));
        let mut forged = key.request().expect("made").to_vec();
        *forged.last_mut().expect("not empty") ^= 1;
        assert!(requested_key(&forged).is_err() && requested_key(b"").is_err());
        assert!(authority.sign_key(b"", &name("n1"), LIFE).is_err());
    }

    #[test]
    fn renewal_is_due_at_two_thirds_of_the_life_and_when_clocks_were_wrong() {
        let authority = Authority::generate(name("c1")).expect("made");
        let key = NodeKey::generate().expect("made").public();
        let life = Duration::from_secs(8 * 3600);
        let signed = authority.sign_key(&key, &name("n1"), life).expect("signed");
        let validity = Validity::of(signed.der()).expect("read");
        assert_eq!(validity.until - validity.from, life + CLOCK_SKEW);
        let after = |hours: u64| validity.is_due(validity.from + Duration::from_secs(hours * 3600));
        assert!(!after(0) && !after(5) && after(6) && after(100));
        assert!(validity.is_due(validity.from - Duration::from_secs(1)));
    }

    #[test]
    fn only_plain_names_pass() {
        for bad in ["", "A", "a/b", "a.b", "ä", "a\0", &"a".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        for bad in [
            "bitrix-node://c",
            "bitrix-node://c/",
            "bitrix-node://c/n/x",
            "https://c/n",
            "",
        ] {
            assert!(bad.parse::<Identity>().is_err(), "{bad}");
        }
    }

    #[test]
    fn fingerprint_survives_its_text() {
        let authority = Authority::generate(name("c1")).expect("made");
        let fingerprint = Fingerprint::of(authority.certificate());
        assert_eq!(
            fingerprint.to_string().parse::<Fingerprint>().expect("read"),
            fingerprint
        );
        for bad in ["", "00", &"g".repeat(64), &"ä".repeat(32)] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }
}
