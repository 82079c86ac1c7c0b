//! What a certificate says of itself.

use std::io;

use data_encoding::BASE64URL_NOPAD;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use super::is_covered;
use crate::net::tls;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Lower case.
    pub names: Vec<String>,
    pub issuer: String,
    /// Seconds since 1970.
    pub begins: u64,
    pub ends: u64,
    /// What it is asked for by at its authority (RFC 9773 §4.1), if it names one.
    pub id: Option<(String, String)>,
}

impl Facts {
    /// Of the first certificate of a PEM chain.
    pub fn of(chain: &str) -> io::Result<Self> {
        let chain = tls::chain_of(chain.as_bytes())?;
        let leaf = chain.first().ok_or(io::ErrorKind::InvalidData)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(io::Error::other)?;
        let seconds = |time: x509_parser::time::ASN1Time| time.timestamp().try_into().unwrap_or(0);
        Ok(Facts {
            names: names(&parsed),
            issuer: issuer(&parsed),
            begins: seconds(parsed.validity().not_before),
            ends: seconds(parsed.validity().not_after),
            id: id(&parsed),
        })
    }

    /// The first of these names that it is not for.
    pub fn lacks<'a>(&self, names: &'a [String]) -> Option<&'a str> {
        let mut names = names.iter().map(String::as_str);
        names.find(|name| !is_covered(&self.names, name))
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternative)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = alternative.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    names.collect()
}

/// Its common name, else all of it.
fn issuer(certificate: &X509Certificate<'_>) -> String {
    let issuer = certificate.issuer();
    let common = issuer.iter_common_name().next().and_then(|name| name.as_str().ok());
    let text = common.map_or_else(|| issuer.to_string(), str::to_string);
    // It goes to a terminal.
    text.replace(char::is_control, " ")
}

fn id(certificate: &X509Certificate<'_>) -> Option<(String, String)> {
    let mut extensions = certificate.extensions().iter();
    let authority = extensions.find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(authority) => authority.key_identifier.as_ref(),
        _ => None,
    })?;
    Some((
        BASE64URL_NOPAD.encode(authority.0),
        BASE64URL_NOPAD.encode(certificate.raw_serial()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_issuer_are_read_and_what_it_lacks_is_named() {
        let (chain, _) = tls::self_signed(vec!["A.example".into(), "*.b.example".into(), "127.0.0.1".into()]).unwrap();
        let facts = Facts::of(&chain).unwrap();
        assert_eq!(facts.names, ["a.example", "*.b.example"]);
        assert_eq!((facts.issuer.as_str(), &facts.id), ("bitrix-node", &None));
        assert!(facts.begins < facts.ends);
        let wanted = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(facts.lacks(&wanted(&["a.example", "x.b.example"])), None);
        assert_eq!(facts.lacks(&wanted(&["a.example", "b.example"])), Some("b.example"));
        assert!(Facts::of("no certificate").is_err());
    }
}
