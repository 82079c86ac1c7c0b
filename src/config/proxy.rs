//! The section `proxy`: where the front listens, its bounds, and whom it passes requests to.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;

use super::{Period, Rate, Site, Size};

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    pub http: Vec<SocketAddr>,
    pub https: Vec<SocketAddr>,
    /// HTTP/3 on the same ports of UDP.
    pub http3: bool,
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
    /// Where they may lead to.
    pub symlink_folders: Vec<PathBuf>,
    pub file_memory: Size,
    /// Memory for answers of PHP and upstreams; 0: none is kept.
    pub cache: Size,
    pub cache_max_size: Size,
    /// Hosts whose stored pages are served; `*` is any.
    pub composite: Vec<String>,
    /// Stores of objects that PHP may send clients to: `host` or `host:port`, and what lies below.
    pub cloud_hosts: Vec<String>,
    /// PEM of a root beside the public ones.
    pub cloud_authority: PathBuf,
    /// Host of a content delivery network, perhaps with a port; empty: none.
    pub cdn_host: String,
    /// Of what is led there: folders, and ends of names.
    pub cdn_paths: Vec<String>,
    pub cdn_extensions: Vec<String>,
    /// Folders whose files need signed addresses.
    pub cdn_signed: Vec<String>,
    pub cdn_signed_for: Period,
    /// File with what signs them.
    pub cdn_key: PathBuf,
    pub access_log: PathBuf,
    pub sites: Vec<Site>,
    pub routes: Vec<Route>,
    pub affinity: Affinity,
    /// Most wanted first.
    pub compress: Vec<Coding>,
    pub compress_min_size: Size,
    /// Proxies before this front, whose word on their clients counts.
    pub trusted: Vec<IpNet>,
    pub proxy_protocol: bool,
    pub limit_address: Rate,
    pub limit_address_dynamic: Rate,
    pub limit_session: Rate,
    pub limit_rest: Rate,
}

/// A content coding of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    Zstd,
    #[serde(rename = "br")]
    Brotli,
    Gzip,
}

impl Coding {
    /// Its name in `Content-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Brotli => "br",
            Coding::Gzip => "gzip",
        }
    }
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
