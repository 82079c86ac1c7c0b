//! Names in the registry's folder, and which of them are garbage. Pure.
//!
//! `v<N>`: version N. `t<N>.<node>.<boot>.<sequence>`: a file on its way to become version N; the author's boot and sequence
//! numbers make it one of its kind for ever. `current.db`: another name of the newest version, for people. Others are left alone.

use std::collections::BTreeSet;

use super::Revision;

/// Removed after one commit at most. A commit makes at most two names, so garbage shrinks.
const REMOVED_AT_ONCE: usize = 16;
/// A name of the newest version; may lag behind.
pub const CURRENT: &str = "current.db";
/// The heartbeats' folder.
pub const HEARTS: &str = "hb";

pub fn version(revision: Revision) -> String {
    format!("v{revision}")
}

pub fn temporary(revision: Revision, node: &str, boot: u64, sequence: u64) -> String {
    format!("t{revision}.{node}.{boot:016x}.{sequence}")
}

pub fn heart(node: &str) -> String {
    format!("{HEARTS}/{node}")
}

/// What the folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub versions: BTreeSet<Revision>,
    /// With the version that each one was meant to become.
    temporaries: Vec<(Revision, String)>,
}

impl Listing {
    pub fn parse(names: &[String]) -> Self {
        let mut listing = Listing::default();
        for name in names {
            if let Some(revision) = name.strip_prefix('v').and_then(number) {
                listing.versions.insert(revision);
            } else if let Some((revision, _)) = name.strip_prefix('t').and_then(|rest| rest.split_once('.'))
                && let Some(revision) = number(revision)
            {
                listing.temporaries.push((revision, name.clone()));
            }
        }
        listing
    }

    /// 0: there is none.
    pub fn newest(&self) -> Revision {
        self.versions.last().copied().unwrap_or_default()
    }

    /// Names to remove, where `floor` is what a published version says. A temporary file goes only when its version is below
    /// the floor: its author may be asleep, and while the file is there nobody else gets its file id.
    pub fn garbage(&self, floor: Revision) -> Vec<String> {
        let versions = self.versions.range(..floor).map(|revision| version(*revision));
        let is_old = |(revision, _): &&(Revision, String)| *revision < floor;
        let temporaries = self.temporaries.iter().filter(is_old).map(|(_, name)| name.clone());
        versions.chain(temporaries).take(REMOVED_AT_ONCE).collect()
    }
}

/// A number as it is printed: `v01` and `v+1` are no versions.
fn number(text: &str) -> Option<Revision> {
    let number: Revision = text.parse().ok()?;
    (number > 0 && number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(names: &[&str]) -> Listing {
        Listing::parse(&names.iter().map(|name| name.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn only_exact_names_are_versions() {
        let listing = listing(&[
            "v1",
            "v12",
            "v012",
            "v+3",
            "v0",
            "v",
            "v-1",
            "V4",
            "vx",
            "v99999999999999999999",
            "hb",
        ]);
        assert_eq!(listing.versions.iter().copied().collect::<Vec<_>>(), [1, 12]);
        assert_eq!(listing.newest(), 12);
        assert_eq!(Listing::default().newest(), 0);
    }

    #[test]
    fn garbage_is_what_lies_below_the_floor_and_nothing_else() {
        let sleeper = temporary(4, "n1", 7, 1);
        let waiting = temporary(5, "n-2.example.org", 8, 2);
        let listing = listing(&[
            "v3", "v4", "v5", "v60", &sleeper, &waiting, CURRENT, HEARTS, "notes", "t", "tx.1",
        ]);
        assert_eq!(listing.garbage(5), ["v3".to_string(), "v4".into(), sleeper]);
        assert!(listing.garbage(1).is_empty());
    }

    #[test]
    fn garbage_is_bounded_at_once() {
        let names: Vec<String> = (1..100).map(version).collect();
        assert_eq!(Listing::parse(&names).garbage(90).len(), REMOVED_AT_ONCE);
    }
}
