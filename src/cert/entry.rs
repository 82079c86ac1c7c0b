//! An entry: the names of one certificate, the certificate, and what is under way for it; as JSON in a setting of the registry.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Sealed;
use super::name;

/// Of the settings that hold entries; the key of the names follows.
pub const PREFIX: &str = "cert.of.";
/// Of the settings that hold accounts, sealed; the key of the directory's URL follows.
pub const ACCOUNT: &str = "cert.account.";

/// What a newer program writes with another number is left alone.
const VERSION: u32 = 1;
/// Seconds by which the clocks of nodes may differ.
const ASTRAY: u64 = 3600;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub version: u32,
    /// Lower case; the first one is what people call it by.
    pub names: Vec<String>,
    pub source: Source,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// When a new one is to be got, in seconds since 1970. An imported one is not renewed.
    #[serde(default)]
    pub renew_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// Where its certificates come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum Source {
    Acme {
        /// URL.
        directory: String,
        by: ByWhom,
    },
    Import,
}

/// Who wants an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ByWhom {
    /// `acme.names`: it goes when these change.
    Config,
    Operator,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// PEM, leaf first.
    pub chain: String,
    /// PEM, sealed as `Entry::sealed_as`.
    pub key: Sealed,
}

/// An order under way (RFC 8555 §7.1.3): whoever has the seat goes on with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub url: String,
    /// Of the certificate to come; PEM, sealed.
    pub key: Sealed,
    /// When it was placed, in seconds since 1970.
    pub since: u64,
    #[serde(default)]
    pub challenges: Vec<Challenge>,
}

/// What every front answers. Nothing of it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    pub kind: Kind,
    pub name: String,
    pub token: String,
    /// Token and the account key's thumbprint (RFC 8555 §8.1).
    pub authorization: String,
}

/// How a directory looks whether a name is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    #[serde(rename = "http-01")]
    Http,
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn,
}

/// The last attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub why: String,
    /// In a row.
    pub count: u32,
    /// When, and when it is tried again; seconds since 1970.
    pub at: u64,
    pub again: u64,
}

impl Entry {
    pub fn new(names: Vec<String>, source: Source) -> Self {
        Entry {
            version: VERSION,
            names,
            source,
            certificate: None,
            renew_at: 0,
            order: None,
            failure: None,
        }
    }

    /// `None`: unreadable, or of a newer version.
    pub fn parse(text: &str) -> Option<Self> {
        let entry: Entry = serde_json::from_str(text).ok()?;
        (entry.version == VERSION && !entry.names.is_empty()).then_some(entry)
    }

    /// What people call it by.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// Of its setting.
    pub fn key(&self) -> String {
        format!("{PREFIX}{}", name::key(&self.names))
    }

    /// What its private keys are sealed as.
    pub fn sealed_as(&self) -> String {
        format!("key of {}", self.key())
    }

    pub fn is_imported(&self) -> bool {
        self.source == Source::Import
    }

    /// Whether somebody shall do something about it at that time, in seconds since 1970.
    pub fn is_due(&self, now: u64) -> bool {
        // One of the future is of a clock that was wrong, and so is its pause.
        let waits = |failure: &Failure| failure.again > now && failure.at <= now + ASTRAY;
        let waits = self.failure.as_ref().is_some_and(waits);
        !self.is_imported() && !waits && (self.order.is_some() || self.renew_at <= now)
    }
}

/// Into the text of a setting.
impl std::fmt::Display for Entry {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&serde_json::to_string(self).expect("plain data"))
    }
}

/// All entries that can be read, in the order of their keys.
pub fn entries(settings: &BTreeMap<String, String>) -> Vec<Entry> {
    let from = settings.range(PREFIX.to_string()..);
    let ours = from.take_while(|(key, _)| key.starts_with(PREFIX));
    ours.filter_map(|(_, text)| Entry::parse(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_its_text_and_a_newer_one_is_left_alone() {
        let source = Source::Acme {
            directory: "https://ca.example/dir".into(),
            by: ByWhom::Config,
        };
        let mut entry = Entry::new(vec!["a.example".into()], source);
        entry.order = Some(Order {
            url: "https://ca.example/order/1".into(),
            key: Sealed("x".into()),
            since: 5,
            challenges: vec![Challenge {
                kind: Kind::Http,
                name: "a.example".into(),
                token: "t".into(),
                authorization: "t.k".into(),
            }],
        });
        let text = entry.to_string();
        assert_eq!(Entry::parse(&text), Some(entry.clone()));
        assert_eq!(Entry::parse(&text.replace("\"version\":1", "\"version\":2")), None);
        let settings = [
            (entry.key(), text),
            ("cert.account.x".into(), "y".into()),
            ("cert.of.z".into(), "{}".into()),
        ];
        assert_eq!(entries(&settings.into()), [entry]);
    }

    #[test]
    fn what_failed_waits_and_what_was_imported_is_not_renewed() {
        let source = Source::Acme {
            directory: String::new(),
            by: ByWhom::Operator,
        };
        let mut entry = Entry::new(vec!["a.example".into()], source);
        assert!(entry.is_due(1));
        entry.renew_at = 100;
        assert!(!entry.is_due(99) && entry.is_due(100));
        entry.failure = Some(Failure {
            why: String::new(),
            count: 1,
            at: 100,
            again: 160,
        });
        assert!(!entry.is_due(159) && entry.is_due(160));
        entry.failure = Some(Failure {
            why: String::new(),
            count: 1,
            at: 40_000_000,
            again: 40_000_060,
        });
        assert!(entry.is_due(160), "of a clock that was wrong");
        entry.source = Source::Import;
        assert!(!entry.is_due(160));
    }
}
