//! The modules' ports on the mesh: six in a row, of which the agent's is the first (`cluster.port`). And those that are Galera's own.

use std::net::SocketAddr;

/// Of replication, of catching up, and of copying: what administrators know, and firewalls have to let through.
pub const GALERA: [u16; 3] = [4567, 4568, 4444];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Agent = 0,
    Storage = 1,
    Cache = 2,
    Push = 3,
    Proxy = 4,
    Db = 5,
}

impl Port {
    pub const ALL: [Port; 6] = [
        Port::Agent,
        Port::Storage,
        Port::Cache,
        Port::Push,
        Port::Proxy,
        Port::Db,
    ];
    /// Of the agent, unless `cluster.port` says otherwise.
    pub const FIRST: u16 = 7400;

    /// Where the module listens on the node whose agent listens at `agent`; `None`: there is no such port.
    pub fn counted_from(self, agent: SocketAddr) -> Option<SocketAddr> {
        Some(SocketAddr::new(agent.ip(), agent.port().checked_add(self as u16)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_one_is_the_default() {
        let config = crate::config::parse("", std::iter::empty()).unwrap().config;
        assert_eq!(config.cluster.port, Port::FIRST);
    }

    #[test]
    fn ports_are_counted_from_the_agents() {
        let agent = "10.0.0.1:7400".parse().unwrap();
        assert_eq!(Port::Agent.counted_from(agent), Some(agent));
        assert_eq!(Port::Db.counted_from(agent), "10.0.0.1:7405".parse().ok());
        assert_eq!(Port::Storage.counted_from("[::1]:65535".parse().unwrap()), None);
    }
}
