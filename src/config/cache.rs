//! The section `cache`: where PHP finds it, its bounds, and which of its keys outlive a node.

use std::net::SocketAddr;

use serde::Deserialize;

use super::Size;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Here; else another node's is reached under the same address.
    pub run: bool,
    /// The caches of all nodes are one.
    pub shared: bool,
    pub listen: SocketAddr,
    /// A memcached that keeps the items.
    backend: String,
    /// For the portal's composite storage, which flushes all that it sees.
    pub composite: Vec<SocketAddr>,
    pub flush: Flush,
    pub sync_prefixes: Vec<String>,
    pub memory: Size,
    pub max_item_size: Size,
    pub max_connections: usize,
    pub workers: usize,
}

impl Cache {
    /// `None`: this node's memory keeps the items.
    pub fn backend(&self) -> Option<SocketAddr> {
        self.backend.parse().ok()
    }

    /// Whether the key says something that can be understood.
    pub fn is_backend_valid(&self) -> bool {
        let is_local =
            |address: SocketAddr| address.ip().is_loopback() && address.port() != 0 && address != self.listen;
        self.backend.is_empty() || self.backend().is_some_and(is_local)
    }
}

/// What `flush_all` on the cache's own address empties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flush {
    All,
    Composite,
    Off,
}
