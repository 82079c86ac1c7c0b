//! The machine of a witness: a voter that keeps the log and no files, so that two data replicas and a small third node go on
//! when one of the two is lost.
//!
//! It remembers what it has applied of memberships and the in-sync set, and that is all. It never counts as a copy, serves
//! no calls, and has no checkpoint to give: when it leads, it does so to hand its log to a data replica that lacks it. So it must not purge
//! what a data replica lacks (`purgeable`); if it has all the same, that replica waits for another one and never leads.
//! Its log is applied again from the last checkpoint, so nothing is written but then.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use openraft::storage::Snapshot;
use openraft::{EntryPayload, SnapshotMeta, StoredMembership};
use serde::{Deserialize, Serialize};

use super::entry::Body;
use super::insync::Durable;
use super::machine::{Applied, Machine};
use super::network::Unreached;
use super::replica::blocking;
use super::transfer::NOTE;
use super::types::{Checkpoint, Entry, NodeId, Replies, Types, next_index};
use crate::base::BoxFuture;
use crate::base::file::{self, Access};

/// The file with what was applied at the last checkpoint.
const FILE: &str = "witness";
/// Raised with the format.
const VERSION: u32 = 1;

/// Index of the last entry that a witness may purge: every data replica has it on its disk. `durable` has for each the index after its
/// last entry, as the replicas say themselves; one that has not said stops it.
pub fn purgeable(data: &BTreeSet<NodeId>, durable: &Durable) -> Option<u64> {
    let known: Option<Vec<u64>> = data.iter().map(|node| durable.get(node).copied()).collect();
    known?.into_iter().min()?.checked_sub(1)
}

/// What a witness answers instead of sending a checkpoint.
pub fn refusal() -> Unreached {
    Unreached::Refused("a witness has no files to send".into())
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    applied: Applied,
}

pub struct Witness {
    folder: PathBuf,
    applied: Applied,
    latest: Option<Snapshot<Types>>,
}

impl Witness {
    /// Opens what `folder` has; `purged` is the index of the last entry that the log lacks. If that needs a note that has arrived, the note
    /// is taken, as it would have been before a crash. Blocks.
    pub fn open(folder: &Path, purged: Option<u64>) -> io::Result<Self> {
        let mut witness = Witness {
            folder: folder.to_owned(),
            applied: load(folder)?,
            latest: None,
        };
        if purged > witness.index() {
            witness.applied = note(folder)?;
            witness.save()?;
        }
        if purged > witness.index() {
            return Err(damaged("the log lacks entries that the witness needs"));
        }
        witness.latest = witness.applied.last.map(|_| witness.snapshot());
        Ok(witness)
    }

    fn index(&self) -> Option<u64> {
        self.applied.last.map(|id| id.index)
    }

    fn snapshot(&self) -> Snapshot<Types> {
        Snapshot {
            meta: SnapshotMeta {
                last_log_id: self.applied.last,
                last_membership: self.applied.membership.clone(),
                snapshot_id: self.applied.last.map_or("none".into(), |id| id.to_string()),
            },
            snapshot: Box::new(self.place()),
        }
    }

    fn place(&self) -> Checkpoint {
        Checkpoint {
            folder: self.folder.clone(),
        }
    }

    fn save(&self) -> io::Result<()> {
        let stored = Stored {
            version: VERSION,
            applied: self.applied.clone(),
        };
        file::replace(
            &self.folder.join(FILE),
            &serde_json::to_vec(&stored)?,
            Access::mode(0o600),
        )
    }

    fn apply_one(&mut self, entry: Entry) -> Replies {
        // A note may be ahead of the entry that Raft was told.
        if next_index(self.applied.last) > entry.log_id.index {
            return Replies::default();
        }
        self.applied.last = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Replies::default(),
            EntryPayload::Membership(membership) => {
                self.applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                Replies::default()
            }
            EntryPayload::Normal(Body::InSync(nodes)) => {
                self.applied.in_sync = nodes;
                Replies::default()
            }
            // Nobody may take these for answers: an empty one cannot be read.
            EntryPayload::Normal(Body::Operations(operations)) => Replies(vec![Bytes::new(); operations.len()]),
        }
    }

    async fn make_checkpoint(&mut self) -> io::Result<Snapshot<Types>> {
        self.save_later().await?;
        let snapshot = self.snapshot();
        self.latest = Some(snapshot.clone());
        Ok(snapshot)
    }

    async fn save_later(&self) -> io::Result<()> {
        let copy = Witness {
            folder: self.folder.clone(),
            applied: self.applied.clone(),
            latest: None,
        };
        blocking(move || copy.save()).await
    }

    async fn take_note(&mut self, snapshot: Snapshot<Types>) -> io::Result<()> {
        let folder = self.folder.clone();
        let applied = blocking(move || note(&folder)).await?;
        if applied.last < snapshot.meta.last_log_id {
            return Err(damaged("the note is older than Raft was told"));
        }
        self.applied = applied;
        self.save_later().await?;
        self.latest = Some(snapshot);
        Ok(())
    }
}

fn load(folder: &Path) -> io::Result<Applied> {
    let bytes = match std::fs::read(folder.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Applied::default()),
        other => other?,
    };
    let stored: Stored = serde_json::from_slice(&bytes)?;
    match stored.version {
        VERSION => Ok(stored.applied),
        other => Err(damaged(&format!("the witness has the unknown version {other}"))),
    }
}

/// What `transfer::receive_note` left.
fn note(folder: &Path) -> io::Result<Applied> {
    Ok(serde_json::from_slice(&std::fs::read(folder.join(NOTE))?)?)
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, io::Result<T>> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Machine for Witness {
    fn applied(&mut self) -> BoxFuture<'_, io::Result<Applied>> {
        ready(self.applied.clone())
    }

    fn apply(&mut self, entries: Vec<Entry>) -> BoxFuture<'_, io::Result<Vec<Replies>>> {
        ready(entries.into_iter().map(|entry| self.apply_one(entry)).collect())
    }

    fn checkpoint(&mut self) -> BoxFuture<'_, io::Result<Snapshot<Types>>> {
        Box::pin(self.make_checkpoint())
    }

    fn latest(&mut self) -> BoxFuture<'_, io::Result<Option<Snapshot<Types>>>> {
        ready(self.latest.clone())
    }

    fn incoming(&mut self) -> BoxFuture<'_, io::Result<Checkpoint>> {
        ready(self.place())
    }

    fn install(&mut self, snapshot: Snapshot<Types>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.take_note(snapshot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::types::log_id;

    fn entry(index: u64, payload: EntryPayload<Types>) -> Entry {
        Entry {
            log_id: log_id(1, 1, index),
            payload,
        }
    }

    fn in_sync(nodes: &[NodeId]) -> EntryPayload<Types> {
        EntryPayload::Normal(Body::InSync(nodes.iter().copied().collect()))
    }

    #[test]
    fn nothing_is_purged_that_a_data_replica_may_lack() {
        let data = BTreeSet::from([1, 2]);
        let durable = |list: &[(NodeId, u64)]| list.iter().copied().collect::<Durable>();
        assert_eq!(purgeable(&data, &durable(&[(1, 9), (2, 5), (3, 1)])), Some(4));
        assert_eq!(purgeable(&data, &durable(&[(1, 9)])), None, "one is not heard");
        assert_eq!(purgeable(&data, &durable(&[(1, 9), (2, 0)])), None, "one has nothing");
        assert_eq!(purgeable(&BTreeSet::new(), &durable(&[(1, 9)])), None);
    }

    #[tokio::test]
    async fn it_comes_back_at_its_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let mut witness = Witness::open(folder.path(), None).unwrap();
        assert_eq!(witness.latest().await.unwrap().map(|latest| latest.meta), None);
        let body = Body::Operations(vec!["one".into(), "two".into()]);
        let entries = vec![
            entry(0, EntryPayload::Blank),
            entry(1, in_sync(&[1, 2])),
            entry(2, EntryPayload::Normal(body)),
        ];
        let replies = witness.apply(entries).await.unwrap();
        assert_eq!(replies.iter().map(|reply| reply.0.len()).collect::<Vec<_>>(), [0, 0, 2]);
        let made = witness.checkpoint().await.unwrap();
        witness.apply(vec![entry(3, in_sync(&[1]))]).await.unwrap();
        let mut again = Witness::open(folder.path(), Some(2)).unwrap();
        let applied = again.applied().await.unwrap();
        assert_eq!((applied.last, applied.in_sync), (Some(log_id(1, 1, 2)), [1, 2].into()));
        assert_eq!(again.latest().await.unwrap().unwrap().meta, made.meta);
        assert!(Witness::open(folder.path(), Some(3)).is_err(), "the log lacks entry 3");
    }

    #[tokio::test]
    async fn a_note_is_installed_also_by_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let applied = Applied {
            last: Some(log_id(2, 1, 70)),
            in_sync: [1, 2].into(),
            ..Applied::default()
        };
        std::fs::write(folder.path().join(NOTE), serde_json::to_vec(&applied).unwrap()).unwrap();
        let mut untouched = Witness::open(folder.path(), None).unwrap();
        assert_eq!(
            untouched.applied().await.unwrap(),
            Applied::default(),
            "the log has everything"
        );
        let mut snapshot = untouched.snapshot();
        snapshot.meta.last_log_id = Some(log_id(2, 1, 65));
        untouched.install(snapshot.clone()).await.unwrap();
        assert_eq!(untouched.applied().await.unwrap(), applied);
        let known = untouched.apply(vec![entry(66, in_sync(&[9]))]).await.unwrap();
        assert_eq!((known.len(), untouched.applied().await.unwrap()), (1, applied.clone()));
        std::fs::remove_file(folder.path().join(FILE)).unwrap();
        let mut crashed = Witness::open(folder.path(), Some(65)).unwrap();
        assert_eq!(crashed.applied().await.unwrap(), applied);
        snapshot.meta.last_log_id = Some(log_id(2, 1, 71));
        assert!(crashed.install(snapshot).await.is_err());
    }
}
