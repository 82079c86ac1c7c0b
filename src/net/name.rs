//! Names to addresses, without NSS: a static executable must not load the C library's resolver plug-ins.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For one of several addresses.
const CONNECT: Duration = Duration::from_secs(5);

/// Resolves by /etc/hosts and the servers of /etc/resolv.conf.
#[derive(Clone)]
pub struct Names {
    resolver: TokioResolver,
}

impl Names {
    /// Reads the system's resolver configuration.
    pub fn system() -> io::Result<Self> {
        let builder = TokioResolver::builder_tokio().map_err(io::Error::other)?;
        Ok(Names {
            resolver: builder.build().map_err(io::Error::other)?,
        })
    }

    /// All addresses of a host; an address stands for itself.
    pub async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let literal = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(address) = literal.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let found = self.resolver.lookup_ip(host).await.map_err(io::Error::other)?;
        Ok(found.iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    /// To the first of its addresses that takes the connection, each within five seconds.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let mut failure = io::Error::other("the name has no address");
        for address in self.resolve(host, port).await? {
            match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failure = error,
                Err(_) => failure = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hosts_file_and_literals_resolve_without_a_server() {
        let names = Names::system().expect("resolver");
        let local = names.resolve("localhost", 80).await.expect("in /etc/hosts");
        assert!(local.iter().all(|address| address.ip().is_loopback()) && !local.is_empty());
        let literal = names.resolve("[::1]", 8080).await.expect("literal");
        assert_eq!(literal, ["[::1]:8080".parse().expect("address")]);
    }
}
