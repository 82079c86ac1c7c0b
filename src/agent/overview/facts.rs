//! What a node knows of itself beside its services. All of it may be missing: of an older program, or because it was not to be had.

use serde::{Deserialize, Serialize};

use crate::storage::command::{Report, Role};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Percent, of the last seconds.
    pub cpu: Option<u8>,
    pub memory: Option<u8>,
    /// Of the file system that `node.data_dir` is on.
    pub disk: Option<u8>,
    /// The disk under its database is full.
    pub is_database_full: bool,
    /// Its wall clock when it was asked, in milliseconds since 1970.
    pub clock: u64,
    /// What its storage says, where one runs.
    pub storage: Option<Report>,
    /// Where the files are if no storage of ours runs: "local" or the external server.
    pub files: String,
    /// The one that browsers see, and the one that other nodes see.
    pub portal_certificate: Option<Certificate>,
    pub node_certificate: Option<Certificate>,
    /// Extensions that the portal needs and PHP here lacks.
    pub missing_extensions: Vec<String>,
    /// Packages, by this machine's names, without which its part in the database is not played.
    pub missing_packages: Vec<String>,
    /// Settings of the kernel that it should have, as sysctl(8) writes them.
    pub sysctl: Vec<String>,
}

/// In seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub from: u64,
    pub until: u64,
    /// Nobody vouches for it: browsers warn.
    pub is_self_signed: bool,
}

impl Facts {
    /// Whether this node's copy of the files is whole, and whether its storage leads.
    pub fn copy(&self) -> (bool, bool) {
        let Some(report) = &self.storage else {
            return (false, false);
        };
        let mut members = report.members.iter();
        let is_whole = members.any(|member| member.name == report.node && member.in_sync && !member.witness);
        (is_whole, report.role == Role::Leader)
    }
}

impl Certificate {
    /// Whole days that are left; negative when it has ended.
    pub fn days(&self, now: u64) -> i64 {
        let seconds = i128::from(self.until) - i128::from(now);
        i64::try_from(seconds.div_euclid(24 * 3600)).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_whole_and_go_below_zero() {
        let until = |until| Certificate {
            until,
            ..Certificate::default()
        };
        let day = 24 * 3600;
        assert_eq!(until(10 * day).days(day / 2), 9);
        assert_eq!(until(day).days(day), 0);
        assert_eq!(until(day).days(day + 1), -1);
    }

    #[test]
    fn facts_of_another_version_are_read() {
        let facts: Facts = serde_json::from_str("{\"cpu\":7,\"of a later version\":1}").unwrap();
        assert_eq!((facts.cpu, facts.disk), (Some(7), None));
    }
}
