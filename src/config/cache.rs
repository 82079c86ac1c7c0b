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

    /// What is wrong with `backend`, and what to do about it.
    pub fn backend_fault(&self) -> Option<&'static str> {
        if self.backend.is_empty() {
            return None;
        }
        let Some(address) = self.backend().filter(|address| address.port() != 0) else {
            return Some("is not an address; write it like \"127.0.0.1:11311\", or \"\" for none");
        };
        if !address.ip().is_loopback() {
            return Some("a memcached lets everybody in; let it listen on 127.0.0.1 of this machine");
        }
        let is_taken = address == self.listen || self.composite.contains(&address);
        is_taken.then_some("the cache itself listens there; give memcached another port")
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
