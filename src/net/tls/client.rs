//! TLS to servers of the public web: trusts Mozilla's roots, which are part of this program, and those of one more file.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{chain_of, provider};

#[derive(Clone)]
pub struct Connector(TlsConnector);

impl Connector {
    /// `roots`: PEM of further authorities, such as a company's own.
    pub fn new(roots: Option<&Path>) -> io::Result<Self> {
        let mut trusted = RootCertStore::empty();
        trusted.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if let Some(path) = roots {
            let named = |error: &dyn std::fmt::Display| io::Error::other(format!("{}: {error}", path.display()));
            let pem = std::fs::read(path).map_err(|error| named(&error))?;
            for root in chain_of(&pem).map_err(|error| named(&error))? {
                trusted.add(root).map_err(|error| named(&error))?;
            }
        }
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has the suites of TLS 1.2 and 1.3")
            .with_root_certificates(trusted)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Connector(TlsConnector::from(Arc::new(config))))
    }

    /// `host`: a name or an address, which the server's certificate must have.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_string()).map_err(io::Error::other)?;
        self.0.connect(name, stream).await
    }
}
