//! The faults, each with its statement. Pure.

use super::{Database, Facts, Finding, Table};
use crate::db::create;

/// What the portal expects of the server (`assets/templates/my.cnf`).
const SETTINGS: [(&str, &str, &str); 4] = [
    ("sql_mode", "", "sql_mode = ''"),
    ("innodb_strict_mode", "OFF", "innodb_strict_mode = OFF"),
    (
        "tx_isolation",
        "READ-COMMITTED",
        "transaction_isolation = 'READ-COMMITTED'",
    ),
    (
        "character_set_server",
        "utf8mb4",
        "character_set_server = utf8mb4, GLOBAL collation_server = utf8mb4_unicode_ci",
    ),
];
/// For a database whose own is none of these.
const COLLATION: &str = "utf8mb4_unicode_ci";
const SETS: [&str; 3] = ["utf8mb4", "utf8mb3", "utf8"];
/// Names a row where nothing else does. Nobody sees the column who does not ask for it.
const ROW: &str = "bitrix_node_row";

/// In this order: what is lost on the other nodes, what cannot be named there, what the portal stumbles over.
pub fn inspect(facts: &Facts) -> Vec<Finding> {
    let tables = || facts.tables.iter();
    let engines = tables().filter_map(engine);
    let keys = tables().filter_map(key);
    let settings = SETTINGS.iter().filter_map(|wanted| setting(facts, wanted));
    let databases = facts.databases.iter().filter_map(database);
    let collations = tables().filter_map(|table| collation(facts, table));
    engines
        .chain(keys)
        .chain(settings)
        .chain(databases)
        .chain(collations)
        .collect()
}

fn engine(table: &Table) -> Option<Finding> {
    let is_kept = table.engine.eq_ignore_ascii_case("InnoDB");
    (!is_kept).then(|| Finding {
        object: table.shown(),
        fault: format!("{}: its rows would be on one node only", table.engine),
        statement: format!("ALTER TABLE {} ENGINE=InnoDB", table.quoted()),
        is_safe: true,
    })
}

fn key(table: &Table) -> Option<Finding> {
    if table.has_primary {
        return None;
    }
    let change = match (&table.counter, table.unique.as_slice()) {
        (_, [_, ..]) => format!("ADD PRIMARY KEY ({})", columns(&table.unique)),
        // It need not be unique, but then the statement fails and nothing has changed.
        (Some(counter), []) => format!("ADD PRIMARY KEY ({})", quoted(counter)),
        (None, []) => format!(
            "ADD COLUMN {} BIGINT UNSIGNED NOT NULL AUTO_INCREMENT INVISIBLE PRIMARY KEY",
            quoted(ROW)
        ),
    };
    Some(Finding {
        object: table.shown(),
        fault: "no primary key: the other nodes cannot tell its rows apart".into(),
        statement: format!("ALTER TABLE {} {change}", table.quoted()),
        is_safe: true,
    })
}

fn setting(facts: &Facts, (name, wanted, statement): &(&str, &str, &str)) -> Option<Finding> {
    let (_, value) = facts.settings.iter().find(|(known, _)| known == name)?;
    (!value.eq_ignore_ascii_case(wanted)).then(|| Finding {
        object: (*name).into(),
        fault: match value.is_empty() {
            true => format!("is empty, and should be {wanted}"),
            false if wanted.is_empty() => format!("is {value}, and should be empty"),
            false => format!("is {value}, and should be {wanted}"),
        },
        // Until the next start; from then on our own configuration says it.
        statement: format!("SET GLOBAL {statement}"),
        is_safe: true,
    })
}

fn database(database: &Database) -> Option<Finding> {
    let is_known = SETS.contains(&set(&database.collation));
    (!is_known).then(|| Finding {
        object: database.name.clone(),
        fault: format!("{}: the portal wants utf8mb4", database.collation),
        statement: format!(
            "ALTER DATABASE {} CHARACTER SET utf8mb4 COLLATE {COLLATION}",
            quoted(&database.name)
        ),
        is_safe: false,
    })
}

/// A table that is not as its database. Its texts may be written in another set than they are called: that is for people to see.
fn collation(facts: &Facts, table: &Table) -> Option<Finding> {
    let database = facts.databases.iter().find(|known| known.name == table.database)?;
    let wanted = match SETS.contains(&set(&database.collation)) {
        true => database.collation.as_str(),
        false => COLLATION,
    };
    let is_same = table.collation == wanted;
    (!is_same).then(|| Finding {
        object: table.shown(),
        fault: format!("{}: its database is {wanted}", table.collation),
        statement: format!(
            "ALTER TABLE {} CONVERT TO CHARACTER SET {} COLLATE {wanted}",
            table.quoted(),
            set(wanted)
        ),
        is_safe: false,
    })
}

/// The character set of a collation.
fn set(collation: &str) -> &str {
    collation.split('_').next().unwrap_or_default()
}

impl Table {
    fn shown(&self) -> String {
        format!("{}.{}", self.database, self.name)
    }

    fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.database), quoted(&self.name))
    }
}

fn columns(names: &[String]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

fn quoted(name: &str) -> String {
    create::name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> Table {
        Table {
            database: "site".into(),
            name: name.into(),
            engine: "InnoDB".into(),
            collation: COLLATION.into(),
            has_primary: true,
            unique: Vec::new(),
            counter: None,
        }
    }

    fn statements(tables: Vec<Table>) -> Vec<String> {
        let facts = Facts {
            databases: vec![Database {
                name: "site".into(),
                collation: COLLATION.into(),
            }],
            tables,
            settings: Vec::new(),
        };
        inspect(&facts).into_iter().map(|finding| finding.statement).collect()
    }

    #[test]
    fn a_database_as_the_portal_makes_it_has_no_fault() {
        assert_eq!(statements(vec![table("b_user"), table("b_file")]), [""; 0]);
    }

    #[test]
    fn rows_that_would_stay_on_one_node_are_found_first() {
        let mut odd = table("b_stat");
        (odd.engine, odd.has_primary) = ("MyISAM".into(), false);
        assert_eq!(
            statements(vec![odd]),
            [
                "ALTER TABLE `site`.`b_stat` ENGINE=InnoDB",
                "ALTER TABLE `site`.`b_stat` ADD COLUMN `bitrix_node_row` BIGINT UNSIGNED NOT NULL AUTO_INCREMENT INVISIBLE PRIMARY KEY",
            ]
        );
    }

    #[test]
    fn what_tells_rows_apart_already_becomes_the_key() {
        let (mut unique, mut counter) = (table("a`b"), table("c"));
        (unique.has_primary, unique.unique) = (false, vec!["X".into(), "y`".into()]);
        (counter.has_primary, counter.counter) = (false, Some("ID".into()));
        assert_eq!(
            statements(vec![unique, counter]),
            [
                "ALTER TABLE `site`.`a``b` ADD PRIMARY KEY (`X`, `y```)",
                "ALTER TABLE `site`.`c` ADD PRIMARY KEY (`ID`)",
            ]
        );
    }

    #[test]
    fn texts_are_left_to_those_who_know_them() {
        let mut latin = table("b_old");
        latin.collation = "latin1_swedish_ci".into();
        let facts = Facts {
            databases: vec![Database {
                name: "site".into(),
                collation: "utf8mb3_unicode_ci".into(),
            }],
            tables: vec![latin],
            settings: Vec::new(),
        };
        let findings = inspect(&facts);
        assert_eq!(
            findings[0].statement,
            "ALTER TABLE `site`.`b_old` CONVERT TO CHARACTER SET utf8mb3 COLLATE utf8mb3_unicode_ci"
        );
        assert!(!findings[0].is_safe && findings.len() == 1);
    }

    #[test]
    fn settings_are_compared_as_the_server_says_them() {
        let settings = [
            ("sql_mode", "STRICT_TRANS_TABLES"),
            ("innodb_strict_mode", "off"),
            ("tx_isolation", "REPEATABLE-READ"),
            ("character_set_server", "utf8mb4"),
        ];
        let facts = Facts {
            settings: settings.map(|(name, value)| (name.into(), value.into())).into(),
            ..Facts::default()
        };
        let findings = inspect(&facts);
        let said: Vec<(&str, &str)> = findings
            .iter()
            .map(|f| (f.object.as_str(), f.statement.as_str()))
            .collect();
        assert_eq!(
            said,
            [
                ("sql_mode", "SET GLOBAL sql_mode = ''"),
                ("tx_isolation", "SET GLOBAL transaction_isolation = 'READ-COMMITTED'"),
            ]
        );
    }
}
