//! The records that the registry keeps, and their bounds. What an image has of them all is bounded by `image`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Error;
use super::change::Key;

/// Names of nodes, roles, seats, labels, tokens, keys of settings.
const NAME_MAX: usize = 63;
/// A line of text: addresses, values of labels, versions, events.
pub const LINE_MAX: usize = 512;
/// Certificate of the CA.
const TEXT_MAX: usize = 16 << 10;
/// Values of settings: a certificate of the portal with all names that one can have, and an order for its successor (`config::excess`).
const SETTING_MAX: usize = 64 << 10;
const LABELS_MAX: usize = 32;

/// One fact. Its `key` says which one it replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Cluster(Cluster),
    Node(Node),
    Role(Role),
    Token(Token),
    Setting(Setting),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cluster {
    pub name: String,
    /// PEM of the cluster's CA. The CA's key is never in the registry.
    pub certificate: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    pub name: String,
    /// Where other nodes reach it; empty while it is the only one.
    pub address: String,
    pub state: NodeState,
    pub labels: BTreeMap<String, String>,
    /// Of its bitrix-node.
    pub version: String,
}

/// What the operator wants of a node; whether it lives is for the heartbeats to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    Joining,
    Member,
    Draining,
    /// It keeps its name, so that nobody else gets it.
    Left,
}

/// A seat of a role. It is never removed, so that its epoch only grows (I7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Role {
    pub role: String,
    /// Tells the seats of a role apart: an address, a node; empty where there is only one.
    pub seat: String,
    /// Name of a node.
    pub holder: Option<String>,
    /// Fencing number; grows with every new holder.
    pub epoch: u64,
}

/// A one-time secret, of which only the hash is known.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Token {
    pub id: String,
    #[serde(skip_serializing)]
    pub hash: [u8; 32],
    /// Milliseconds since 1970.
    pub expires: u64,
}

/// Never a secret: settings are shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    pub key: String,
    pub value: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Token({})", self.id)
    }
}

impl NodeState {
    pub const ALL: [NodeState; 4] = [
        NodeState::Joining,
        NodeState::Member,
        NodeState::Draining,
        NodeState::Left,
    ];

    pub fn name(self) -> &'static str {
        match self {
            NodeState::Joining => "joining",
            NodeState::Member => "member",
            NodeState::Draining => "draining",
            NodeState::Left => "left",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl Record {
    pub fn key(&self) -> Key {
        match self {
            Record::Cluster(_) => Key::Cluster,
            Record::Node(node) => Key::Node(node.name.clone()),
            Record::Role(role) => Key::Role(role.role.clone(), role.seat.clone()),
            Record::Token(token) => Key::Token(token.id.clone()),
            Record::Setting(setting) => Key::Setting(setting.key.clone()),
        }
    }

    /// The bounds of the record itself.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Record::Cluster(cluster) => {
                name(&cluster.name)?;
                text(&cluster.certificate, TEXT_MAX)
            }
            Record::Node(node) => {
                name(&node.name)?;
                line(&node.address)?;
                line(&node.version)?;
                if node.labels.len() > LABELS_MAX {
                    return Err(invalid(format!("a node has at most {LABELS_MAX} labels")));
                }
                node.labels.iter().try_for_each(|(label, value)| {
                    name(label)?;
                    line(value)
                })
            }
            Record::Role(role) => {
                name(&role.role)?;
                line(&role.seat)?;
                role.holder.as_deref().map_or(Ok(()), name)?;
                match role.epoch {
                    0 => Err(invalid("epochs begin at 1")),
                    _ => Ok(()),
                }
            }
            Record::Token(token) => name(&token.id),
            Record::Setting(setting) => {
                name(&setting.key)?;
                text(&setting.value, SETTING_MAX)
            }
        }
    }
}

pub fn invalid(why: impl Into<String>) -> Error {
    Error::Invalid(why.into())
}

/// Names end up in names of files: letters, digits, dot, dash, underscore, no dot first.
pub fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with('.')
}

fn name(name: &str) -> Result<(), Error> {
    match is_name(name) {
        true => Ok(()),
        false => Err(invalid(format!(
            "{name:?} is not a name: up to {NAME_MAX} letters, digits, dots, dashes, underscores"
        ))),
    }
}

/// One line that a terminal shows as it is.
pub fn line(line: &str) -> Result<(), Error> {
    match line.chars().any(char::is_control) {
        true => Err(invalid(format!("{line:?} has control characters"))),
        false => text(line, LINE_MAX),
    }
}

fn text(text: &str, most: usize) -> Result<(), Error> {
    match text.len() {
        length if length > most => Err(invalid(format!("a text of {length} bytes; at most {most}"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fit_for_files() {
        for good in ["n1", "node-1.example.org", "a_b"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", "a\0", &"x".repeat(64)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn states_are_read_as_they_are_written() {
        for state in NodeState::ALL {
            assert_eq!(NodeState::parse(state.name()), Some(state));
        }
        assert_eq!(NodeState::parse("dead"), None);
    }

    #[test]
    fn a_token_does_not_show_its_hash() {
        let token = Token {
            id: "t1".into(),
            hash: [171; 32],
            expires: 1,
        };
        let shown = format!("{token:?}{}", serde_json::to_string(&token).unwrap());
        assert!(!shown.contains("171") && !shown.contains("hash"), "{shown}");
    }
}
