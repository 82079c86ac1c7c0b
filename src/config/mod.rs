//! What the operator says: one struct per section of the file, one field per key.
//! The reference of all keys and their defaults is `assets/config/bitrix-node.toml`; it is parsed, not repeated, here.

mod check;
mod load;
mod units;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

pub use check::check;
pub use load::{DEFAULTS, Loaded, Origin, Problem, load, parse, var};
pub use units::{Period, Size};

/// Where the file lies unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/bitrix-node/config.toml";

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub node: Node,
    pub proxy: Proxy,
    pub portal: Portal,
    pub php: Php,
    pub db: Db,
    pub cache: Cache,
    pub admin: Admin,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    pub name: String,
    pub user: String,
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    pub log_dir: PathBuf,
    pub log: String,
    pub daemons: Daemons,
}

/// Who runs the external daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Daemons {
    Auto,
    Unit,
    Child,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    pub http: Vec<SocketAddr>,
    pub https: Vec<SocketAddr>,
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
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Starts and ends with `/`.
    pub prefix: String,
    /// `http://host:port`; the request's path is passed on unchanged.
    pub upstream: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Portal {
    pub domain: String,
    pub root: PathBuf,
    pub user: String,
    pub fallback: String,
    pub database: String,
    pub database_user: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Php {
    pub binary: PathBuf,
    pub children: usize,
    pub kept_connections: usize,
    pub memory_limit: Size,
    pub max_execution_time: Period,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Db {
    pub listen: SocketAddr,
    pub binary: PathBuf,
    pub data_dir: PathBuf,
    pub buffer_pool: Size,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    pub listen: SocketAddr,
    pub memory: Size,
    pub max_item_size: Size,
    pub max_connections: usize,
    pub workers: usize,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    pub listen: SocketAddr,
}

/// Places that follow from the configuration. One function per place, so that nobody spells a path twice.
impl Config {
    pub fn portal_root(&self) -> PathBuf {
        if self.portal.root.as_os_str().is_empty() {
            self.node.data_dir.join("portal")
        } else {
            self.portal.root.clone()
        }
    }

    /// Generated passwords and tokens, readable by root and, where named so, by one user.
    pub fn secrets(&self) -> PathBuf {
        self.node.data_dir.join("secrets")
    }

    /// PEM chain and key that the front serves with.
    pub fn certificate(&self) -> (PathBuf, PathBuf) {
        if self.proxy.certificate.as_os_str().is_empty() {
            let folder = self.node.data_dir.join("tls");
            (folder.join("portal.crt"), folder.join("portal.key"))
        } else {
            (self.proxy.certificate.clone(), self.proxy.key.clone())
        }
    }

    /// Commands and numbers of the agent, for root and the module user.
    pub fn control_socket(&self) -> PathBuf {
        self.node.run_dir.join("control.sock")
    }

    /// Status of the modules, to the agent.
    pub fn feed_socket(&self) -> PathBuf {
        self.node.run_dir.join("feed.sock")
    }

    /// PHP-FPM's door.
    pub fn php_socket(&self) -> PathBuf {
        self.node.run_dir.join("php").join("fpm.sock")
    }

    /// MariaDB's door for root. In a folder of its own, which `mysql` owns.
    pub fn db_socket(&self) -> PathBuf {
        self.node.run_dir.join("db").join("mariadb.sock")
    }

    /// MariaDB's data folder where bitrix-node runs it itself.
    pub fn db_data(&self) -> PathBuf {
        if self.db.data_dir.as_os_str().is_empty() {
            self.node.data_dir.join("db")
        } else {
            self.db.data_dir.clone()
        }
    }

    /// PHP's temporary files and uploads under way: outside the document root, the portal user's own.
    pub fn portal_temporary(&self) -> PathBuf {
        self.node.data_dir.join("portal-tmp")
    }

    /// `None`: no access log.
    pub fn access_log(&self) -> Option<PathBuf> {
        if self.proxy.access_log.as_os_str().is_empty() {
            return None;
        }
        Some(self.node.log_dir.join(&self.proxy.access_log))
    }

    /// The node's own log where there is no journal.
    pub fn node_log(&self) -> PathBuf {
        self.node.log_dir.join("bitrix-node.log")
    }
}
