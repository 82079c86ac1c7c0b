//! `[storage]`: what keeps the portal's files.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::Deserialize;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    pub engine: Engine,
    pub external: String,
    pub listen: SocketAddr,
    pub clients: Vec<IpNet>,
    pub copies: usize,
    pub min_copies: usize,
}

/// What keeps the portal's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    None,
    Replicated,
    External,
}
