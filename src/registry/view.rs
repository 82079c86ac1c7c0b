//! `View`: one version of the registry, as everybody reads it; and what a change makes of it. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::change::{Change, Guard, Key, Write};
use super::record::{self, Cluster, Node, Record, Role, Setting, Token, invalid};
use super::{Error, Revision};

/// Rows of the history and of the events. A commit whose outcome is unclear is looked up in the history:
/// it must be longer than `publish::VERSIONS_KEPT`.
pub const RING: usize = 256;

/// The whole registry at one version; never changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// 0: nothing was committed yet.
    pub revision: Revision,
    /// Versions below this one are removed.
    pub floor: Revision,
    /// Random, the same in all versions of one registry.
    pub lineage: u64,
    /// It comes from this machine's disk; the registry may have gone on since.
    pub is_last_seen: bool,
    records: BTreeMap<Key, Record>,
    /// Oldest first.
    pub events: Vec<Event>,
    /// Oldest first.
    pub history: Vec<Commit>,
}

/// Something that happened, for the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    pub number: u64,
    pub revision: Revision,
    /// Milliseconds since 1970.
    pub time: u64,
    pub node: String,
    pub text: String,
}

/// How a version came to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Commit {
    pub revision: Revision,
    /// Random, of the one attempt that succeeded.
    #[serde(skip_serializing)]
    pub attempt: u64,
    /// Milliseconds since 1970.
    pub time: u64,
    pub author: String,
    pub summary: String,
}

/// Who commits, when, and the attempt's random number.
#[derive(Clone, Debug)]
pub struct Stamp {
    pub author: String,
    pub time: u64,
    pub attempt: u64,
    /// Versions kept behind the new one, itself included.
    pub kept: u64,
}

impl View {
    pub fn from_records(records: impl IntoIterator<Item = Record>) -> Self {
        View {
            records: records.into_iter().map(|record| (record.key(), record)).collect(),
            ..View::default()
        }
    }

    pub fn get(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)
    }

    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    pub fn cluster(&self) -> Option<&Cluster> {
        self.records().find_map(|record| match record {
            Record::Cluster(cluster) => Some(cluster),
            _ => None,
        })
    }

    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes().find(|node| node.name == name)
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.records().filter_map(|record| match record {
            Record::Node(node) => Some(node),
            _ => None,
        })
    }

    pub fn roles(&self) -> impl Iterator<Item = &Role> {
        self.records().filter_map(|record| match record {
            Record::Role(role) => Some(role),
            _ => None,
        })
    }

    pub fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.records().filter_map(|record| match record {
            Record::Token(token) => Some(token),
            _ => None,
        })
    }

    pub fn settings(&self) -> impl Iterator<Item = &Setting> {
        self.records().filter_map(|record| match record {
            Record::Setting(setting) => Some(setting),
            _ => None,
        })
    }

    pub fn setting(&self, key: &str) -> Option<&str> {
        let mut settings = self.settings();
        settings
            .find(|setting| setting.key == key)
            .map(|setting| setting.value.as_str())
    }

    /// Which attempt made this version, as far back as the history goes.
    pub fn attempt_of(&self, revision: Revision) -> Option<u64> {
        let commit = self.history.iter().find(|commit| commit.revision == revision);
        commit.map(|commit| commit.attempt)
    }

    /// The next version: `Stale` when a guard does not hold, `Invalid` when a write breaks a rule.
    pub fn apply(&self, change: &Change, stamp: &Stamp) -> Result<View, Error> {
        self.admit(change)?;
        let mut next = self.clone();
        next.revision += 1;
        // Never lower, whoever commits with another number of kept versions.
        next.floor = (next.revision + 1).saturating_sub(stamp.kept).max(self.floor).max(1);
        if self.revision == 0 {
            next.lineage = stamp.attempt;
        }
        for write in &change.writes {
            next.write(write, stamp)?;
        }
        next.history.push(Commit {
            revision: next.revision,
            attempt: stamp.attempt,
            time: stamp.time,
            author: stamp.author.clone(),
            summary: change.summary(),
        });
        trim(&mut next.history);
        trim(&mut next.events);
        Ok(next)
    }

    fn admit(&self, change: &Change) -> Result<(), Error> {
        for guard in &change.guards {
            let fault = match guard {
                Guard::Revision(wanted) if *wanted != self.revision => {
                    format!("it is at version {}, not {wanted}", self.revision)
                }
                Guard::Is(record) if self.get(&record.key()) != Some(record) => {
                    format!("{} is not as expected", record.key())
                }
                Guard::Absent(key) if self.get(key).is_some() => format!("{key} is there"),
                _ => continue,
            };
            return Err(Error::Stale(fault));
        }
        Ok(())
    }

    fn write(&mut self, write: &Write, stamp: &Stamp) -> Result<(), Error> {
        match write {
            Write::Put(record) => {
                record.check()?;
                let key = record.key();
                if let (Some(Record::Role(old)), Record::Role(new)) = (self.get(&key), record) {
                    follows(old, new)?;
                }
                self.records.insert(key, record.clone());
            }
            Write::Remove(key @ Key::Role(..)) => {
                return Err(invalid(format!("{key} stays; put it without a holder")));
            }
            Write::Remove(key) => {
                self.records.remove(key);
            }
            Write::Event(text) => {
                record::line(text)?;
                self.events.push(Event {
                    number: self.events.last().map_or(1, |last| last.number + 1),
                    revision: self.revision,
                    time: stamp.time,
                    node: stamp.author.clone(),
                    text: text.clone(),
                });
            }
        }
        Ok(())
    }
}

/// Epochs only grow, and a new holder has a new one.
fn follows(old: &Role, new: &Role) -> Result<(), Error> {
    let is_new_holder = new.holder.is_some() && new.holder != old.holder;
    match new.epoch > old.epoch || (new.epoch == old.epoch && !is_new_holder) {
        true => Ok(()),
        false => Err(invalid(format!(
            "role {} is at epoch {}; a new holder needs a higher one than that",
            old.role, old.epoch
        ))),
    }
}

fn trim<T>(ring: &mut Vec<T>) {
    ring.drain(..ring.len().saturating_sub(RING));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp {
            author: "n1".into(),
            time: 5,
            attempt: 7,
            kept: 3,
        }
    }

    fn role(holder: Option<&str>, epoch: u64) -> Record {
        Record::Role(Role {
            role: "cron".into(),
            seat: String::new(),
            holder: holder.map(str::to_string),
            epoch,
        })
    }

    fn after(view: &View, change: Change) -> Result<View, Error> {
        view.apply(&change, &stamp())
    }

    #[test]
    fn guards_decide_before_anything_is_written() {
        let view = after(&View::default(), Change::put(role(Some("n1"), 1))).unwrap();
        let key = role(None, 1).key();
        let put = || Change::put(role(Some("n2"), 2));
        for broken in [
            Guard::Revision(0),
            Guard::Is(role(Some("n2"), 1)),
            Guard::Absent(key.clone()),
        ] {
            assert!(matches!(after(&view, put().when(broken)), Err(Error::Stale(_))));
        }
        let held = put()
            .when(Guard::Revision(1))
            .when(Guard::Is(role(Some("n1"), 1)))
            .when(Guard::Absent(Key::Cluster));
        assert_eq!(after(&view, held).unwrap().get(&key), Some(&role(Some("n2"), 2)));
    }

    #[test]
    fn epochs_only_grow_and_a_seat_stays() {
        let view = after(&View::default(), Change::put(role(Some("n1"), 4))).unwrap();
        for (record, is_allowed) in [
            (role(None, 4), true),
            (role(Some("n1"), 4), true),
            (role(Some("n2"), 5), true),
            (role(Some("n2"), 4), false),
            (role(Some("n1"), 3), false),
            (role(None, 3), false),
        ] {
            assert_eq!(
                after(&view, Change::put(record.clone())).is_ok(),
                is_allowed,
                "{record:?}"
            );
        }
        let released = after(&view, Change::put(role(None, 4))).unwrap();
        assert!(
            after(&released, Change::put(role(Some("n1"), 4))).is_err(),
            "also the same holder again"
        );
        let remove = Change::default().and(Write::Remove(role(None, 4).key()));
        assert!(matches!(after(&view, remove), Err(Error::Invalid(_))));
    }

    #[test]
    fn rings_are_bounded_and_the_floor_never_sinks() {
        let mut view = View::default();
        for number in 1..=RING as u64 + 20 {
            view = after(&view, Change::default().and(Write::Event(format!("event {number}")))).unwrap();
            assert_eq!(view.floor, number.saturating_sub(2).max(1));
        }
        assert_eq!((view.events.len(), view.history.len()), (RING, RING));
        assert_eq!(view.events.last().unwrap().number, view.revision);
        assert_eq!((view.attempt_of(view.revision), view.attempt_of(1)), (Some(7), None));
        let mut more = stamp();
        more.kept = 100;
        assert_eq!(view.apply(&Change::default(), &more).unwrap().floor, view.floor);
    }
}
