//! What a supervisor leaves to the executable that takes its place, as text. Pure.
//!
//! The outer part is read by every version: which format the rest has, and every descriptor that is open. Whoever does not know the
//! format closes them all and starts as after a crash; whoever knows it may find more fields than it knows, and passes them over.
//! A field that is added has a default; one that changes its meaning needs a new format.

use std::os::fd::RawFd;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Written by this program; the first one that it reads is `OLDEST`.
pub const FORMAT: u32 = 1;
pub const OLDEST: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Envelope {
    format: u32,
    /// All that the estate names.
    open: Vec<RawFd>,
    estate: Value,
}

/// Everything that outlives the executable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estate {
    /// Version of the predecessor.
    #[serde(default)]
    pub version: String,
    /// The lock of the data folder.
    pub lock: Option<RawFd>,
    /// Where the guard hears that all is well.
    #[serde(default)]
    pub guard: Option<RawFd>,
    /// Listening sockets. Names repeat; the address tells them apart.
    #[serde(default)]
    pub sockets: Vec<Socket>,
    #[serde(default)]
    pub pairs: Vec<Pair>,
    #[serde(default)]
    pub children: Vec<Running>,
    #[serde(default)]
    pub mount: Option<Mount>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    pub name: String,
    pub descriptor: RawFd,
}

/// A pair with a module, both ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    pub name: String,
    pub ours: RawFd,
    pub theirs: RawFd,
}

/// A child. Of several with one name the last is the one that counts; the others finish what they hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub name: String,
    pub pid: u32,
    pub output: Option<RawFd>,
    pub errors: Option<RawFd>,
    #[serde(default)]
    pub is_ready: bool,
    #[serde(default)]
    pub restarts: u32,
}

/// A FUSE mount that is served by the storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub device: RawFd,
    pub memory: RawFd,
    /// Random, one per mount(2).
    pub number: u64,
    /// The kernel's number of the connection; 0: not known.
    #[serde(default)]
    pub connection: u32,
    /// Both ends of each. Those of a version that has none are made by the next one.
    #[serde(default)]
    pub pipes: Vec<[RawFd; 2]>,
}

/// What a text turned out to be.
#[derive(Debug, PartialEq)]
pub enum Found {
    Known(Box<Estate>),
    /// Of another format: everything open is to be closed.
    Foreign {
        format: u32,
        open: Vec<RawFd>,
    },
}

impl Estate {
    pub fn encode(&self) -> String {
        let envelope = Envelope {
            format: FORMAT,
            open: self.open(),
            estate: serde_json::to_value(self).expect("plain data"),
        };
        serde_json::to_string(&envelope).expect("plain data")
    }

    pub fn parse(text: &str) -> Result<Found, serde_json::Error> {
        let envelope: Envelope = serde_json::from_str(text)?;
        if !(OLDEST..=FORMAT).contains(&envelope.format) {
            return Ok(Found::Foreign {
                format: envelope.format,
                open: envelope.open,
            });
        }
        serde_json::from_value(envelope.estate).map(|estate| Found::Known(Box::new(estate)))
    }

    /// Every descriptor, each once.
    pub fn open(&self) -> Vec<RawFd> {
        let single = self.lock.into_iter().chain(self.guard);
        let sockets = self.sockets.iter().map(|socket| socket.descriptor);
        let pairs = self.pairs.iter().flat_map(|pair| [pair.ours, pair.theirs]);
        let pipes = self.children.iter().flat_map(|child| [child.output, child.errors]);
        let mount = self.mount.iter().flat_map(|mount| [mount.device, mount.memory]);
        let ways = self
            .mount
            .iter()
            .flat_map(|mount| mount.pipes.iter().flatten().copied());
        let all = single.chain(sockets).chain(pairs).chain(pipes.flatten());
        let mut all: Vec<RawFd> = all.chain(mount).chain(ways).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estate() -> Estate {
        Estate {
            version: "0.1.0".into(),
            lock: Some(40),
            guard: None,
            sockets: vec![Socket {
                name: "http".into(),
                descriptor: 41,
            }],
            pairs: vec![Pair {
                name: "fuse".into(),
                ours: 42,
                theirs: 43,
            }],
            children: vec![Running {
                name: "proxy".into(),
                pid: 812,
                output: Some(44),
                errors: None,
                is_ready: true,
                restarts: 2,
            }],
            mount: Some(Mount {
                device: 45,
                memory: 46,
                number: u64::MAX,
                connection: 9,
                pipes: vec![[47, 48], [49, 50]],
            }),
        }
    }

    #[test]
    fn an_estate_is_read_as_it_was_written() {
        assert_eq!(
            Estate::parse(&estate().encode()).unwrap(),
            Found::Known(Box::new(estate()))
        );
        assert_eq!(estate().open(), [40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50]);
    }

    #[test]
    fn fields_of_a_later_version_are_passed_over() {
        let mut later: Value = serde_json::from_str(&estate().encode()).unwrap();
        later["estate"]["balcony"] = 1.into();
        later["estate"]["children"][0]["colour"] = "green".into();
        later["whither"] = "on".into();
        let found = Estate::parse(&later.to_string()).unwrap();
        assert_eq!(found, Found::Known(Box::new(estate())));
    }

    #[test]
    fn what_an_earlier_version_did_not_say_has_a_default() {
        let found = Estate::parse(r#"{"format":1,"open":[40],"estate":{"lock":40}}"#).unwrap();
        let expected = Estate {
            lock: Some(40),
            ..Estate::default()
        };
        assert_eq!(found, Found::Known(Box::new(expected)));
    }

    #[test]
    fn another_format_is_known_by_what_is_open() {
        let text = format!(r#"{{"format":{},"open":[40,50],"estate":["whatever"]}}"#, FORMAT + 1);
        let expected = Found::Foreign {
            format: FORMAT + 1,
            open: vec![40, 50],
        };
        assert_eq!(Estate::parse(&text).unwrap(), expected);
        assert!(Estate::parse("{}").is_err());
    }
}
