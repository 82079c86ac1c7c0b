//! What a commit asks for: guards that must hold, and writes that then happen together.

use super::Revision;
use super::record::Record;

/// Longest summary in the history.
const SUMMARY_MAX: usize = 200;

/// All or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub guards: Vec<Guard>,
    pub writes: Vec<Write>,
}

/// What must hold in the version that the change derives from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nothing at all was committed since.
    Revision(Revision),
    /// This record is there, exactly so.
    Is(Record),
    /// There is no such record.
    Absent(Key),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Makes the record or replaces it.
    Put(Record),
    /// Removes it, if it is there. Roles stay: a seat without a holder keeps its epoch.
    Remove(Key),
    /// One line for the operator.
    Event(String),
}

/// Which record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Cluster,
    Node(String),
    /// Role and seat.
    Role(String, String),
    Token(String),
    Setting(String),
}

impl Change {
    pub fn put(record: Record) -> Self {
        Change::default().and(Write::Put(record))
    }

    pub fn and(mut self, write: Write) -> Self {
        self.writes.push(write);
        self
    }

    pub fn when(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }

    /// What it changes, for the history: "node n1, role cron, -token t1".
    pub fn summary(&self) -> String {
        let parts = self.writes.iter().map(|write| match write {
            Write::Put(record) => record.key().to_string(),
            Write::Remove(key) => format!("-{key}"),
            Write::Event(_) => "event".to_string(),
        });
        let mut summary = parts.collect::<Vec<_>>().join(", ");
        if summary.len() > SUMMARY_MAX {
            let cut = (0..=SUMMARY_MAX - 3).rev().find(|at| summary.is_char_boundary(*at));
            summary.truncate(cut.unwrap_or_default());
            summary.push('…');
        }
        summary
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Key::Cluster => out.write_str("cluster"),
            Key::Node(name) => write!(out, "node {name}"),
            Key::Role(role, seat) if seat.is_empty() => write!(out, "role {role}"),
            Key::Role(role, seat) => write!(out, "role {role}/{seat}"),
            Key::Token(id) => write!(out, "token {id}"),
            Key::Setting(key) => write!(out, "setting {key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Setting;
    use super::*;

    #[test]
    fn summary_names_what_changes_within_its_bound() {
        let setting = |key: &str| {
            Record::Setting(Setting {
                key: key.into(),
                value: String::new(),
            })
        };
        let change = Change::put(setting("a"))
            .and(Write::Remove(Key::Token("t1".into())))
            .and(Write::Event("moved".into()));
        assert_eq!(change.summary(), "setting a, -token t1, event");
        let long = (0..99).fold(Change::default(), |change, _| change.and(Write::Put(setting("äää"))));
        assert!(long.summary().len() <= SUMMARY_MAX && long.summary().ends_with('…'));
    }
}
