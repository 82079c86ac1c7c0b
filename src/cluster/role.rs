//! The exclusive roles: a seat of one of these has at most one holder at a time (I7).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Fit;

/// Setting: what the nodes of a Galera cluster know of it together. Where it is there, any of them can be the one that is written to.
pub const GALERA: &str = "db.cluster";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Holds a floating address; a seat per address, written `10.0.0.10/24`.
    Edge,
    /// Runs the portal's `cron_events.php`.
    Cron,
    /// The database that PHP writes to.
    Db,
    /// The cache that sessions lie in.
    Cache,
    /// Gets and renews the portal's certificates.
    Acme,
    /// Makes the scheduled backups, where any node could.
    Backup,
}

impl Role {
    pub const ALL: [Role; 6] = [Role::Edge, Role::Cron, Role::Db, Role::Cache, Role::Acme, Role::Backup];

    /// As the registry and the command line spell it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Edge => "edge",
            Role::Cron => "cron",
            Role::Db => "db",
            Role::Cache => "cache",
            Role::Acme => "acme",
            Role::Backup => "backup",
        }
    }

    /// What a node must be fit for to hold it.
    pub fn needs(self) -> Fit {
        match self {
            Role::Edge => Fit::EDGE,
            Role::Cron => Fit::CRON,
            Role::Db => Fit::DB,
            Role::Cache => Fit::CACHE,
            Role::Acme => Fit::ACME,
            Role::Backup => Fit::BACKUP,
        }
    }

    /// It goes from node to node; the others stay with what they hold. `settings`: those of the cluster.
    pub fn moves(self, settings: &BTreeMap<String, String>) -> bool {
        match self {
            Role::Edge | Role::Cron | Role::Acme => true,
            Role::Db | Role::Backup => settings.contains_key(GALERA),
            Role::Cache => false,
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_as_they_are_written() {
        for role in Role::ALL {
            assert_eq!(Role::parse(role.name()), Some(role));
        }
        assert_eq!(Role::parse("web"), None);
    }

    #[test]
    fn the_database_moves_where_all_nodes_have_the_data() {
        let mut settings = BTreeMap::new();
        assert!(Role::Cron.moves(&settings) && !Role::Db.moves(&settings));
        settings.insert(GALERA.to_string(), String::new());
        assert!(Role::Db.moves(&settings) && !Role::Cache.moves(&settings));
    }
}
