//! Where a request comes from: whom the connection is of, or whom a trusted proxy says it is for.
//!
//! The address of the connection counts. Only if it is a trusted proxy's, the PROXY protocol (`preface`) at the connection's begin
//! and the forwarded fields (`forwarded`) of each request are believed, in that order; nobody else gets a word in.
//! Not believed of anybody: X-Forwarded-Host, X-Forwarded-Port, Forwarded. A proxy must pass `Host` on as the client sent it.

mod forwarded;
pub mod preface;

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Port 0: not known.
    pub client: SocketAddr,
    /// The client's own connection is by TLS.
    pub is_secure: bool,
}

/// Which proxies are believed.
#[derive(Debug, Default)]
pub struct Trust {
    networks: Vec<IpNet>,
    announces: bool,
}

impl Trust {
    /// `announces`: they speak the PROXY protocol.
    pub fn new(networks: Vec<IpNet>, announces: bool) -> Self {
        Trust { networks, announces }
    }

    /// No proxy is believed.
    pub fn is_nobody(&self) -> bool {
        self.networks.is_empty()
    }

    pub fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Whether a connection from there begins with the PROXY protocol.
    pub fn announces(&self, peer: IpAddr) -> bool {
        self.announces && self.has(peer)
    }

    /// `peer`: of the connection, as far as that is known by now. `has_tls`: it is by TLS.
    pub fn origin(&self, peer: SocketAddr, has_tls: bool, headers: &HeaderMap) -> Origin {
        if !self.has(peer.ip()) {
            return Origin {
                client: peer,
                is_secure: has_tls,
            };
        }
        Origin {
            client: forwarded::client(headers, |address| self.has(address)).unwrap_or(peer),
            is_secure: forwarded::is_secure(headers).unwrap_or(has_tls),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(peer: &str, fields: &[(&'static str, &'static str)]) -> (String, bool) {
        let networks = ["10.0.0.0/8", "fd00::/64"].map(|network| network.parse().expect("a network"));
        let trust = Trust::new(networks.to_vec(), false);
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        let origin = trust.origin(peer.parse().expect("an address"), false, &headers);
        (origin.client.to_string(), origin.is_secure)
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let said = [("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https")];
        assert_eq!(origin("198.51.100.1:5", &said), ("198.51.100.1:5".into(), false));
        assert_eq!(origin("11.0.0.1:5", &said), ("11.0.0.1:5".into(), false));
        for proxy in ["10.1.2.3:5", "[::ffff:10.1.2.3]:5", "[fd00::1]:5"] {
            assert_eq!(origin(proxy, &said), ("192.0.2.7:0".into(), true), "{proxy}");
        }
    }

    #[test]
    fn a_proxy_that_says_nothing_is_the_client() {
        assert_eq!(origin("10.0.0.1:5", &[]), ("10.0.0.1:5".into(), false));
        let garbled = [("x-forwarded-for", "unknown"), ("x-forwarded-proto", "gopher")];
        assert_eq!(origin("10.0.0.1:5", &garbled), ("10.0.0.1:5".into(), false));
    }
}
