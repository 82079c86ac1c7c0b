//! The section `backup`: where backups are kept, for whom they are sealed, which ones stay.

use std::path::PathBuf;

use serde::Deserialize;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Empty: it is said with each command.
    pub store: PathBuf,
    /// Public keys that may open them too.
    pub recipients: Vec<String>,
    /// MariaDB keeps what logs are made of.
    pub log: bool,
    pub keep_last: usize,
    pub keep_daily: usize,
    pub keep_weekly: usize,
}
