//! The section `proxy`: where the front listens, its bounds, and whom it passes requests to.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::{Period, Size};

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    pub http: Vec<SocketAddr>,
    pub https: Vec<SocketAddr>,
    /// Where the push server answers and nothing else does.
    pub push_http: Vec<SocketAddr>,
    pub push_https: Vec<SocketAddr>,
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub workers: usize,
    pub max_connections: usize,
    pub max_connections_per_address: usize,
    pub max_header_size: Size,
    pub max_headers: usize,
    pub max_body_size: Size,
    pub header_timeout: Period,
    pub idle_timeout: Period,
    pub body_timeout: Period,
    pub upstream_timeout: Period,
    pub follow_symlinks: bool,
    pub access_log: PathBuf,
    pub routes: Vec<Route>,
    pub affinity: Affinity,
}

/// Whether requests of one session go to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Affinity {
    None,
    Session,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Starts and ends with `/`.
    pub prefix: String,
    /// `http://host:port`; the request's path is passed on unchanged.
    pub upstream: String,
}
