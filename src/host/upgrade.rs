//! How the last change of the executable went: a file in the data folder, written by root, read by the operator and the agent.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::base::clock;
use crate::base::file::{Access, replace};
use crate::config::Config;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When it began, in milliseconds of the machine's boot clock: tells one change from the next.
    pub begun: u64,
    /// Version that gives way.
    pub from: String,
    pub to: String,
    /// BLAKE3 of the new file; empty where it is the same as before.
    #[serde(default)]
    pub hash: String,
    pub stage: Stage,
    /// Why it failed, or what is under way.
    #[serde(default)]
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Under way.
    Trial,
    /// The new executable serves.
    Done,
    /// Nothing was changed, or all was changed back.
    Failed,
}

impl Record {
    pub fn begin(to: &str, hash: String) -> Self {
        Record {
            begun: u64::try_from(clock::boot().as_millis()).unwrap_or(u64::MAX),
            from: env!("CARGO_PKG_VERSION").to_owned(),
            to: to.to_owned(),
            hash,
            stage: Stage::Trial,
            detail: String::new(),
        }
    }

    pub fn path(config: &Config) -> PathBuf {
        config.node.data_dir.join("upgrade.json")
    }

    /// `None`: the executable was never changed, or nobody knows.
    pub fn read(config: &Config) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Record::path(config)).ok()?).ok()
    }

    pub fn write(&self, config: &Config) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self).expect("plain data");
        replace(&Record::path(config), &text, Access::mode(0o644))
    }

    /// Ends the one that is under way, if one is.
    pub fn end(config: &Config, stage: Stage, detail: &str) -> io::Result<()> {
        match Record::read(config).filter(|record| record.stage == Stage::Trial) {
            None => Ok(()),
            Some(record) => Record {
                stage,
                detail: detail.to_owned(),
                ..record
            }
            .write(config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_under_way_is_ended() {
        let folder = tempfile::tempdir().expect("temp dir");
        let text = format!("[node]\ndata_dir = {:?}\n", folder.path());
        let config = crate::config::parse(&text, std::iter::empty()).expect("valid").config;
        assert_eq!(Record::read(&config), None);
        Record::end(&config, Stage::Done, "").expect("nothing to do");
        assert_eq!(Record::read(&config), None);
        let record = Record::begin("0.2.0", "ab".into());
        record.write(&config).expect("written");
        Record::end(&config, Stage::Failed, "it ended").expect("written");
        Record::end(&config, Stage::Done, "").expect("nothing to do");
        let read = Record::read(&config).expect("there");
        assert_eq!(
            (read.stage, read.detail.as_str(), read.begun),
            (Stage::Failed, "it ended", record.begun)
        );
    }
}
