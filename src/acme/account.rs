//! The account at a directory (RFC 8555 §7.1.2): one for the cluster, whose key is sealed in the registry.

use std::path::Path;

use instant_acme::NewAccount;

use super::error::Error;
use super::http::Http;
use crate::net::name::Names;
use crate::net::tls::Connector;

pub type Account = instant_acme::Account;

/// Opens the account that `known` says, or makes one: then its text comes back, which is as secret as a private key. `roots`: PEM
/// of what a directory is trusted by beside Mozilla's roots. `contact`: a mail address, or nothing.
pub async fn open(
    directory: &str,
    contact: &str,
    roots: Option<&Path>,
    known: Option<&str>,
) -> Result<(Account, Option<String>), Error> {
    let http = Http {
        connector: Connector::new(roots).map_err(Error::unreachable)?,
        names: Names::system().map_err(Error::unreachable)?,
    };
    let builder = Account::builder_with_http(Box::new(http));
    if let Some(known) = known {
        let known = serde_json::from_str(known).map_err(|error| Error {
            kind: super::Kind::NoAccount,
            text: format!("the account in the registry cannot be read: {error}"),
        })?;
        return Ok((builder.from_credentials(known).await?, None));
    }
    let contact = (!contact.is_empty()).then(|| format!("mailto:{contact}"));
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let wanted = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let (account, made) = builder.create(&wanted, directory.to_string(), None).await?;
    let text = serde_json::to_string(&made).expect("plain data");
    Ok((account, Some(text)))
}
