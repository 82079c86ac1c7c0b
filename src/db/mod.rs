//! MariaDB on this machine: its configuration, a new data folder, the portal's database, whether it answers.
//! Starting and watching it is the supervisor's. `backup`: its data out and in again. `galera`: where it is one of several;
//! `recovery`: how those come up again; `inspect`: whether the portal's data can be there; `need`: what must be installed for it.
//!
//! `Db` is the module between the nodes: where MariaDB runs elsewhere it is the way there, where it runs here it lets the others in.

pub mod backup;
pub mod create;
pub mod galera;
pub mod inspect;
mod module;
pub mod need;
mod packet;
pub mod probe;
mod readers;
pub mod recovery;
pub mod render;
mod root;

pub use module::Db;

use std::path::PathBuf;

use crate::config::Config;
use crate::host::command;

/// Where Red Hat's package has the server.
const ASIDE: &str = "/usr/libexec/mariadbd";

/// The server that the configuration names, else the installed one.
pub fn find(config: &Config) -> Option<PathBuf> {
    if config.db.binary.as_os_str().is_empty() {
        command::find("mariadbd").or_else(|| Some(PathBuf::from(ASIDE)).filter(|path| path.is_file()))
    } else {
        Some(config.db.binary.clone()).filter(|path| path.is_file())
    }
}
