//! What the operator says: one struct per section of the file, one field per key.
//! The reference of all keys and their defaults is `assets/config/bitrix-node.toml`; it is parsed, not repeated, here.

mod acme;
mod backup;
mod cache;
mod cdn;
mod check;
mod db;
mod edit;
mod external;
mod load;
mod places;
mod port;
mod proxy;
mod push;
mod rate;
mod site;
mod storage;
mod units;
mod waf;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

pub use acme::{Acme, Proof, excess, is_host};
pub use backup::{Backup, BackupStore};
pub use cache::{Cache, Flush};
pub use cdn::host_of;
pub use check::check;
pub use db::Db;
pub use edit::{Edit, edit};
pub use external::External;
pub use load::{DEFAULTS, Loaded, Origin, Problem, load, parse, read, var};
pub use port::{GALERA, Port};
pub use proxy::{Affinity, Coding, Proxy, Route};
pub use push::Push;
pub use rate::{Quota, Rate};
pub use site::Site;
pub use storage::{Engine, Export, Files, Mount, Storage};
pub use units::{Period, Size};
pub use waf::{OnFailure, Waf, WafMode};

/// Where the file lies unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/bitrix-node/config.toml";

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub node: Node,
    pub cluster: Cluster,
    pub proxy: Proxy,
    pub waf: Waf,
    pub acme: Acme,
    pub portal: Portal,
    pub php: Php,
    pub db: Db,
    pub cache: Cache,
    pub push: Push,
    pub storage: Storage,
    pub edge: Edge,
    pub cron: Cron,
    pub backup: Backup,
    pub admin: Admin,
    pub upgrade: Upgrade,
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
    /// The kernel is told what many short connections need.
    pub sysctl: bool,
}

/// How this node meets the others.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Empty: there are no others.
    pub address: String,
    pub port: u16,
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
pub struct Upgrade {
    /// PEM of the Ed25519 key whose word counts.
    pub key: PathBuf,
    pub patience: Period,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// Empty: the one that has the address's network.
    pub interface: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cron {
    pub run: bool,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    pub listen: SocketAddr,
}
