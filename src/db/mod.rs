//! MariaDB on this machine: its configuration, a new data folder, the portal's database, whether it answers.
//! Starting and watching it is the supervisor's. One node; Galera is not here.

pub mod create;
pub mod probe;
pub mod render;

use std::path::PathBuf;

use crate::config::Config;
use crate::host::command;

/// The server that the configuration names, else the installed one.
pub fn find(config: &Config) -> Option<PathBuf> {
    if config.db.binary.as_os_str().is_empty() {
        command::find("mariadbd")
    } else {
        Some(config.db.binary.clone()).filter(|path| path.is_file())
    }
}
