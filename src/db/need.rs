//! What a node's part in the database takes of the distribution, and what of that is not here. Pure but for `missing`.

use crate::config::Config;
use crate::host::command;
use crate::host::package::Need;

use super::{find, galera};

/// What a node is to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Another node has it.
    None,
    /// It has all of it.
    Alone,
    /// It has the data like others: a node of a Galera cluster.
    Member,
    /// It has no data, and breaks ties.
    Arbiter,
}

impl Part {
    pub fn of(config: &Config) -> Self {
        let db = &config.db;
        match (db.run, db.galera, db.arbiter.is_empty()) {
            (true, true, _) => Part::Member,
            (true, false, _) => Part::Alone,
            (false, _, false) => Part::Arbiter,
            (false, _, true) => Part::None,
        }
    }

    pub fn needs(self) -> &'static [Need] {
        match self {
            Part::None => &[],
            Part::Alone => &[Need::MariaDb],
            Part::Member => &[Need::MariaDb, Need::Galera, Need::MariaBackup, Need::Socat],
            Part::Arbiter => &[Need::Arbiter],
        }
    }
}

/// What is to be installed yet.
pub fn missing(config: &Config) -> Vec<Need> {
    let is_missing = |need: &Need| match need {
        Need::MariaDb => find(config).is_none(),
        Need::Galera => galera::render::provider().is_none(),
        Need::MariaBackup => command::find("mariadb-backup").is_none(),
        Need::Socat => command::find("socat").is_none(),
        Need::Arbiter => command::find("garbd").is_none(),
        Need::Php | Need::PhpExtension(_) => false,
    };
    let needs = Part::of(config).needs().iter().copied();
    needs.filter(is_missing).collect()
}

/// What the operator calls it.
pub fn program(need: Need) -> &'static str {
    match need {
        Need::MariaDb => "mariadb",
        Need::Galera => "galera",
        Need::MariaBackup => "mariadb-backup",
        Need::Socat => "socat",
        Need::Arbiter => "garbd",
        Need::Php | Need::PhpExtension(_) => "php",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::host::package::{Family, names};

    fn packages(db: &str, family: Family) -> Vec<String> {
        let text = format!("[cluster]\naddress = \"10.0.0.1\"\n[storage]\nengine = \"replicated\"\n[db]\n{db}");
        let config = parse(&text, std::iter::empty()).expect("valid").config;
        names(family, Part::of(&config).needs())
    }

    #[test]
    fn each_part_takes_its_own_packages() {
        use Family::{Debian, RedHat};
        let arbiter = "run = false\narbiter = [\"10.0.0.2\", \"10.0.0.3\"]";
        for (db, family, expected) in [
            ("run = false", Debian, ""),
            ("run = true", Debian, "mariadb-server"),
            ("run = true", RedHat, "mariadb-server"),
            ("galera = true", Debian, "mariadb-server galera-4 mariadb-backup socat"),
            (
                "galera = true",
                RedHat,
                "mariadb-server mariadb-server-galera galera mariadb-backup socat",
            ),
            (arbiter, Debian, "galera-arbitrator-4"),
            (arbiter, RedHat, "galera"),
        ] {
            assert_eq!(packages(db, family).join(" "), expected, "{db:?} {family:?}");
        }
    }

    #[test]
    fn what_a_part_does_not_take_is_not_missed() {
        let text = "[db]\nbinary = \"/nonexistent/mariadbd\"";
        let config = parse(text, std::iter::empty()).expect("valid").config;
        assert_eq!(missing(&config), [Need::MariaDb]);
    }
}
