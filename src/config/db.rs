//! The section `db`: whether MariaDB runs here, alone or as one of several, and where PHP finds it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

use super::Size;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Db {
    /// Here; else another node's is reached under the same address.
    pub run: bool,
    /// The data are on all nodes that have this; one of them is written to.
    pub galera: bool,
    /// The nodes for which this one breaks ties; none: it does not.
    pub arbiter: Vec<IpAddr>,
    pub listen: SocketAddr,
    reads: String,
    pub binary: PathBuf,
    pub data_dir: PathBuf,
    pub buffer_pool: Size,
}

impl Db {
    /// Where what only reads finds a database; `None`: nowhere but at `listen`.
    pub fn reads(&self) -> Option<SocketAddr> {
        self.reads.parse().ok()
    }

    /// What is wrong with `reads`, and what to do about it.
    pub fn reads_fault(&self) -> Option<&'static str> {
        if self.reads.is_empty() {
            return None;
        }
        let Some(address) = self.reads() else {
            return Some("is not an address; write it like \"127.0.0.1:3307\", or \"\" for none");
        };
        if !address.ip().is_loopback() {
            return Some("must be a loopback address");
        }
        if self.run && !self.galera {
            return Some("is for a cluster with db.galera = true: a single database is read at db.listen");
        }
        (address == self.listen).then_some("must be another address than db.listen")
    }
}
