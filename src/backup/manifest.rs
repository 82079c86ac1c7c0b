//! What a backup says of itself: `manifest.json`, not encrypted, so that it can be listed and judged without the key. It holds
//! names of tables and how many rows they have, nothing of what is in them.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The newest form that is written and read.
const FORMAT: u32 = 1;
/// A portal has some thousand tables.
pub const LONGEST: u64 = 16 << 20;
pub const NAME: &str = "manifest.json";
/// Who has the key made it: SHA-256 HMAC of the manifest, in hex.
pub const MAC: &str = "manifest.mac";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Full,
    Log,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub kind: Kind,
    /// Empty: the node is alone.
    pub cluster: String,
    pub node: String,
    /// Of the executable that made it.
    pub version: String,
    /// In milliseconds since 1970.
    pub began: u64,
    pub ended: u64,
    pub parts: Vec<Part>,
    pub database: Option<Database>,
    pub files: Option<Files>,
    pub log: Option<Log>,
}

/// One file of the backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub name: String,
    /// As it lies in the store.
    pub size: u64,
    /// Of that, in hex.
    pub sha256: String,
    /// Before it was packed.
    pub content: u64,
}

/// The database in a full backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Database {
    pub server: String,
    /// The schema whose tables are listed.
    pub schema: String,
    /// Nothing that was acknowledged later is in it. In milliseconds since 1970.
    pub at: u64,
    /// `None`: the server keeps no binary log, so that no log can continue this backup.
    pub position: Option<Position>,
    /// Rows of each table before and after the copy; `None`: they were not counted.
    pub tables: BTreeMap<String, Option<(u64, u64)>>,
}

/// The portal's files in a full backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// Of the portal's user, whose numbers are in the archive.
    pub uid: u32,
    pub gid: u32,
    /// From when to when they were read, in milliseconds since 1970.
    #[serde(default)]
    pub read: Option<(u64, u64)>,
}

/// A place in the binary log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub file: String,
    pub offset: u64,
    pub gtid: String,
    /// SHA-256 of the file's head, in hex: a server that was made anew counts its files from 1 again.
    pub head: String,
}

/// What a log backup continues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// The full backup.
    pub base: String,
    /// The binary logs in it, in order, whole.
    pub files: Vec<String>,
    /// Of the last one.
    pub head: String,
    /// All that was acknowledged before is in it. In milliseconds since 1970.
    pub until: u64,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("its manifest is damaged: {0}")]
    Damaged(String),
    #[error("its manifest has format {0}, this bitrix-node knows up to {FORMAT}; use a newer one")]
    Newer(u32),
}

impl Manifest {
    pub fn new(kind: Kind, cluster: &str, node: &str, began: u64) -> Self {
        Manifest {
            format: FORMAT,
            kind,
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            began,
            ended: began,
            parts: Vec::new(),
            database: None,
            files: None,
            log: None,
        }
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Form {
            format: u32,
        }
        let damaged = |error: serde_json::Error| Error::Damaged(error.to_string());
        let form: Form = serde_json::from_slice(bytes).map_err(damaged)?;
        if form.format > FORMAT {
            return Err(Error::Newer(form.format));
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(damaged)?;
        match manifest.parts.iter().find(|part| !is_name(&part.name)) {
            Some(part) => Err(Error::Damaged(format!("{:?} is no name of a part", part.name))),
            None => Ok(manifest),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("plain data");
        bytes.push(b'\n');
        bytes
    }

    pub fn part(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == name)
    }

    /// From when to when the files were read, in milliseconds since 1970: what changed meanwhile may be as before or as after.
    pub fn files_read(&self) -> Option<(u64, u64)> {
        let begun = self.database.as_ref().map_or(self.began, |database| database.at);
        self.files.map(|files| files.read.unwrap_or((begun, self.ended)))
    }

    /// In the store.
    pub fn size(&self) -> u64 {
        self.parts.iter().map(|part| part.size).sum()
    }

    /// The moment to which it leads, in milliseconds since 1970.
    pub fn reaches(&self) -> u64 {
        let log = self.log.as_ref().map(|log| log.until);
        log.or(self.database.as_ref().map(|database| database.at))
            .unwrap_or(self.ended)
    }
}

/// The name of a backup that began then.
pub fn id(kind: Kind, began: u64) -> String {
    let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(began)).to_string();
    let digits: String = time.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let kind = match kind {
        Kind::Full => "full",
        Kind::Log => "log",
    };
    format!("{digits}-{kind}")
}

/// A name of a backup or part: nothing that leads out of a folder.
pub fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=128).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let mut manifest = Manifest::new(Kind::Full, "portal-1", "n1", 1_764_213_300_000);
        manifest.parts.push(Part {
            name: "database.mbstream.zst.age".into(),
            size: 7,
            sha256: "00".into(),
            content: 70,
        });
        manifest.database = Some(Database {
            tables: [("b_user".to_owned(), Some((3, 4)))].into(),
            ..Database::default()
        });
        manifest
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Manifest::parse(&manifest().bytes()).unwrap(), manifest());
        assert_eq!(id(Kind::Full, manifest().began), "20251127T031500Z-full");
    }

    #[test]
    fn a_newer_form_and_a_cut_one_are_refused() {
        let newer = String::from_utf8(manifest().bytes()).unwrap();
        let newer = newer.replace("\"format\": 1", "\"format\": 2");
        assert!(matches!(Manifest::parse(newer.as_bytes()), Err(Error::Newer(2))));
        let bytes = manifest().bytes();
        for end in 0..bytes.len() - 2 {
            assert!(
                matches!(Manifest::parse(&bytes[..end]), Err(Error::Damaged(_))),
                "{end}"
            );
        }
    }

    #[test]
    fn parts_stay_in_their_folder() {
        for bad in ["../x", "/etc/passwd", "a/b", "", ".hidden", "a\0b"] {
            let mut manifest = manifest();
            manifest.parts[0].name = bad.into();
            Manifest::parse(&manifest.bytes()).expect_err(bad);
        }
    }
}
