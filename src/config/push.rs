//! The section `push`: where PHP publishes, and the bounds of the push server.

use std::net::SocketAddr;

use serde::Deserialize;

use super::Size;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Push {
    pub listen: SocketAddr,
    pub memory: Size,
    pub max_connections: usize,
    pub workers: usize,
}
