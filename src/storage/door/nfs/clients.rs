//! Who may connect over TCP.

use std::net::SocketAddr;

use ipnet::IpNet;

/// Ports below this one only root may bind: a caller's uid and gid are believed because its kernel vouches for them.
const PRIVILEGED: u16 = 1024;

/// Allowed clients. Peers on loopback always are, the rest only from the listed networks.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    /// `storage.clients`.
    pub networks: Vec<IpNet>,
    /// Also believe peers whose port any user can bind. Whoever can connect can then act as any uid.
    pub allows_any_port: bool,
}

/// How far a peer is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its connection is closed.
    Refused,
    /// It may ask whether the programs are there and at which port, as mount.nfs does from any port.
    Ping,
    /// Its callers are who they say.
    Full,
}

impl Clients {
    pub fn trust(&self, peer: SocketAddr) -> Trust {
        let address = peer.ip().to_canonical();
        let is_listed = || self.networks.iter().any(|network| network.contains(&address));
        match () {
            () if !address.is_loopback() && !is_listed() => Trust::Refused,
            () if self.allows_any_port || peer.port() < PRIVILEGED => Trust::Full,
            () => Trust::Ping,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_listed_networks_are_trusted_and_only_from_privileged_ports() {
        let clients = Clients {
            networks: vec!["10.1.0.0/16".parse().expect("network")],
            allows_any_port: false,
        };
        for (peer, expected) in [
            ("127.0.0.1:900", Trust::Full),
            ("[::1]:900", Trust::Full),
            ("127.0.0.1:1024", Trust::Ping),
            ("10.1.2.3:900", Trust::Full),
            ("[::ffff:10.1.2.3]:900", Trust::Full),
            ("10.1.2.3:40000", Trust::Ping),
            ("10.2.0.1:900", Trust::Refused),
            ("[fe80::1]:900", Trust::Refused),
        ] {
            assert_eq!(clients.trust(peer.parse().expect("address")), expected, "{peer}");
        }
        let any = Clients {
            allows_any_port: true,
            ..clients
        };
        assert_eq!(any.trust("127.0.0.1:40000".parse().expect("address")), Trust::Full);
        assert_eq!(any.trust("10.2.0.1:40000".parse().expect("address")), Trust::Refused);
    }
}
