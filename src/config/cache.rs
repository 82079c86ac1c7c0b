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
    /// For the portal's composite storage, which flushes all that it sees.
    pub composite: Vec<SocketAddr>,
    pub flush: Flush,
    pub sync_prefixes: Vec<String>,
    pub memory: Size,
    pub max_item_size: Size,
    pub max_connections: usize,
    pub workers: usize,
}

/// What `flush_all` on the cache's own address empties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flush {
    All,
    Composite,
    Off,
}
