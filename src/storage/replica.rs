//! The state machine of `state` as the group's `Machine`: entries become operations, the note keeps what `Applied` holds.
//!
//! A checkpoint here is the state's own folder at its last checkpoint. `transfer` copies from it for another replica, and what it
//! receives lies in `incoming` until `install`. The copy is of whatever the sender had applied by then, which may be beyond
//! the entry that Raft knows: entries that a received state has already are not applied again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::storage::Snapshot;
use openraft::{EntryPayload, SnapshotMeta, StoredMembership};

use super::entry::{self, Body};
use super::executor::Executor;
use super::machine::{Applied, Machine};
use super::operation::Operation;
use super::operation_codec;
use super::promise::Callbacks;
use super::state::{self, Failure};
use super::transfer;
use super::types::{Checkpoint, Entry, Replies, Types};
use crate::base::{BoxFuture, Scope};

/// Bytes of entries in one transaction: a replay after a crash brings any number of entries at once.
const TRANSACTION: usize = 8 << 20;
/// Pause before entries that found the disk full are applied again.
const FULL: Duration = Duration::from_secs(1);

/// One replica's state as openraft's driver sees it.
pub struct Replica {
    machine: state::Shared,
    /// Where entries are applied.
    applier: Executor,
    folder: PathBuf,
    applied: Applied,
    /// Index of the last entry that Raft gave or installed; a received state may be ahead of it.
    given: Option<u64>,
    latest: Option<Snapshot<Types>>,
    /// To be told of what changes.
    callbacks: Callbacks,
    /// When it drains, waiting for room on the disk ends.
    scope: Scope,
}

/// Entries made ready for one transaction.
struct Batch {
    entries: Vec<(u64, Vec<Operation>)>,
    /// As of the last entry.
    applied: Applied,
}

impl Batch {
    fn push(&mut self, entry: Entry) -> io::Result<()> {
        self.applied.last = Some(entry.log_id);
        let mut operations = Vec::new();
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                self.applied.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            EntryPayload::Normal(Body::InSync(nodes)) => self.applied.in_sync = nodes,
            EntryPayload::Normal(Body::Operations(encoded)) => {
                // A format that is not known here is of a newer version: to skip it would be to differ from other replicas.
                let decoded = encoded.iter().map(operation_codec::decode).collect();
                operations = Result::<_, _>::map_err(decoded, damaged)?;
            }
        }
        self.entries.push((entry.log_id.index, operations));
        Ok(())
    }

    /// Applies all in one transaction. Blocks.
    fn commit(&self, machine: &state::Machine, callbacks: &Callbacks) -> Result<Vec<Replies>, Failure> {
        let note = serde_json::to_vec(&self.applied).map_err(io::Error::from)?;
        let entries: Vec<_> = self
            .entries
            .iter()
            .map(|(index, operations)| state::Entry {
                index: *index,
                operations,
                note: Some(&note),
            })
            .collect();
        let state::Done { answers, touched } = machine.apply_all(&entries)?;
        callbacks.touched(&touched);
        let mut answers = answers.into_iter();
        let replies = self.entries.iter().map(|(_, operations)| {
            let encoded = answers.by_ref().take(operations.len()).map(|answer| {
                let bytes = state::encode_reply(&answer).expect("mutations answer only with replies that can be kept");
                Bytes::from(bytes)
            });
            Replies(encoded.collect())
        });
        Ok(replies.collect())
    }
}

impl Replica {
    /// `machine` has just been opened in `folder`: it stands at its last checkpoint.
    pub fn new(machine: state::Shared, folder: PathBuf, callbacks: Callbacks, scope: Scope) -> io::Result<Self> {
        let applied = applied_of(&machine.get())?;
        let mut replica = Replica {
            machine,
            applier: Executor::start("apply")?,
            folder,
            given: applied.last.map(|id| id.index),
            applied,
            latest: None,
            callbacks,
            scope,
        };
        replica.latest = replica.applied.last.map(|_| replica.snapshot());
        Ok(replica)
    }

    fn snapshot(&self) -> Snapshot<Types> {
        let folder = self.folder.clone();
        Snapshot {
            meta: SnapshotMeta {
                last_log_id: self.applied.last,
                last_membership: self.applied.membership.clone(),
                snapshot_id: self.applied.last.map_or("none".into(), |id| id.to_string()),
            },
            snapshot: Box::new(Checkpoint { folder }),
        }
    }

    async fn apply_all(&mut self, entries: Vec<Entry>) -> io::Result<Vec<Replies>> {
        let mut replies = Vec::with_capacity(entries.len());
        self.given = self.given.max(entries.last().map(|entry| entry.log_id.index));
        let mut entries = entries.into_iter().peekable();
        let known = self.applied.last.map(|id| id.index);
        // Nobody waits for their replies: whoever proposed them led before this state was copied.
        while entries.next_if(|entry| Some(entry.log_id.index) <= known).is_some() {
            replies.push(Replies::default());
        }
        while entries.peek().is_some() {
            let mut batch = Batch {
                entries: Vec::new(),
                applied: self.applied.clone(),
            };
            let mut size = 0;
            while let Some(entry) = entries.next_if(|_| size < TRANSACTION) {
                size += entry::size(&entry.payload);
                batch.push(entry)?;
            }
            let applied = batch.applied.clone();
            replies.extend(self.commit(Arc::new(batch)).await?);
            self.applied = applied;
        }
        Ok(replies)
    }

    /// Applies a batch; waits while the disk is full, for no entry may be skipped.
    async fn commit(&self, batch: Arc<Batch>) -> io::Result<Vec<Replies>> {
        loop {
            let (machine, again, callbacks) = (self.machine.get(), batch.clone(), self.callbacks.clone());
            match self.applier.run(move || again.commit(&machine, &callbacks)).await? {
                Ok(replies) => return Ok(replies),
                Err(Failure::NoSpace) => tracing::error!("the disk is full; changes wait until there is room"),
                Err(failure) => return Err(io::Error::other(failure)),
            }
            tokio::select! {
                () = tokio::time::sleep(FULL) => {}
                () = self.scope.draining() => return Err(io::ErrorKind::StorageFull.into()),
            }
        }
    }

    async fn make_checkpoint(&mut self) -> io::Result<Snapshot<Types>> {
        if let Some(latest) = self.latest.clone()
            && self.given < self.applied.last.map(|id| id.index)
        {
            // Raft must not hear of entries that it has not given yet.
            return Ok(latest);
        }
        let machine = self.machine.get();
        let index = blocking(move || machine.checkpoint().map_err(io::Error::other)).await?;
        if index != self.applied.last.map(|id| id.index) {
            return Err(damaged("the checkpoint is of another entry"));
        }
        let snapshot = self.snapshot();
        self.latest = Some(snapshot.clone());
        let place = self.place();
        blocking(move || transfer::discard(&place)).await?;
        Ok(snapshot)
    }

    /// Where a state arrives that another replica sends.
    fn place(&self) -> Checkpoint {
        let folder = state::Incoming::of(&self.folder).folder;
        Checkpoint { folder }
    }

    async fn install_received(&mut self, snapshot: Snapshot<Types>) -> io::Result<()> {
        if *snapshot.snapshot != self.place() {
            return Err(damaged("the received state lies elsewhere"));
        }
        let (machine, last) = (self.machine.clone(), snapshot.meta.last_log_id);
        self.applied = blocking(move || {
            machine.install().map_err(io::Error::other)?;
            applied_of(&machine.get())
        })
        .await?;
        self.callbacks.forget();
        if self.applied.last.map(|id| id.index) < last.map(|id| id.index) {
            return Err(damaged("the received state is older than Raft was told"));
        }
        tracing::info!(applied = ?self.applied.last, "a state from another replica was installed");
        self.given = last.map(|id| id.index);
        self.latest = Some(Snapshot {
            snapshot: Box::new(Checkpoint {
                folder: self.folder.clone(),
            }),
            ..snapshot
        });
        Ok(())
    }
}

/// What the machine's note says.
fn applied_of(machine: &state::Machine) -> io::Result<Applied> {
    let applied: Applied = match machine.note().as_slice() {
        [] => Applied::default(),
        note => serde_json::from_slice(note)?,
    };
    match applied.last.map(|id| id.index) == machine.applied() {
        true => Ok(applied),
        false => Err(damaged("the state's note is of another entry")),
    }
}

fn damaged(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Runs `work` where it may block.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn ready<T: Send + 'static>(result: io::Result<T>) -> BoxFuture<'static, io::Result<T>> {
    Box::pin(std::future::ready(result))
}

impl Machine for Replica {
    fn applied(&mut self) -> BoxFuture<'_, io::Result<Applied>> {
        ready(Ok(self.applied.clone()))
    }

    fn apply(&mut self, entries: Vec<Entry>) -> BoxFuture<'_, io::Result<Vec<Replies>>> {
        Box::pin(self.apply_all(entries))
    }

    fn checkpoint(&mut self) -> BoxFuture<'_, io::Result<Snapshot<Types>>> {
        Box::pin(self.make_checkpoint())
    }

    fn latest(&mut self) -> BoxFuture<'_, io::Result<Option<Snapshot<Types>>>> {
        ready(Ok(self.latest.clone()))
    }

    fn incoming(&mut self) -> BoxFuture<'_, io::Result<Checkpoint>> {
        ready(Ok(self.place()))
    }

    fn install(&mut self, snapshot: Snapshot<Types>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.install_received(snapshot))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use openraft::RaftMetrics;

    use super::*;
    use crate::base::clock;
    use crate::storage::batch::Batcher;
    use crate::storage::call::{Caller, Change, Creation, Inode, Mutation, PORTAL, Query, Time};
    use crate::storage::disk::Folder;
    use crate::storage::group::{Group, Settings};
    use crate::storage::insync::Copies;
    use crate::storage::log::Sizes;
    use crate::storage::network::Alone;
    use crate::storage::operation::{Place, Session};
    use crate::storage::state::disk::SystemDisk;
    use crate::storage::types::{NodeId, Peer, log_id};

    const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));
    const SESSION: Session = Session(5);
    /// `Operation::Begin` of session 5 at the place "a".
    const BEGIN: [u8; 10] = [3, 0, 0, 0, 0, 0, 5, 1, b'a', 0];

    fn caller() -> Caller {
        Caller {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
        }
    }

    fn creation(sequence: u64) -> Operation {
        Operation::Mutate {
            session: SESSION,
            sequence,
            acknowledged: sequence - 1,
            key: None,
            caller: caller(),
            time: Time::default(),
            fresh: Inode(100 + sequence),
            mutation: Mutation::Create {
                folder: PORTAL,
                name: sequence.to_string().into_bytes(),
                how: Creation::Guarded,
                change: Change::default(),
            },
        }
    }

    fn open(folder: &Path, scope: &Scope) -> (state::Shared, Replica) {
        let machine = state::Shared::new(state::Machine::open(folder, Arc::new(SystemDisk)).unwrap());
        let replica = Replica::new(machine.clone(), folder.to_owned(), Callbacks::default(), scope.clone()).unwrap();
        (machine, replica)
    }

    /// A replica with a log of small segments.
    async fn start(folder: &Path, scope: &Scope) -> (state::Shared, Group, Batcher) {
        let (machine, replica) = open(&folder.join("state"), scope);
        let settings = Settings {
            me: 1,
            copies: Copies { wanted: 1, least: 1 },
            sizes: Sizes {
                segment: 4096,
                ..Sizes::default()
            },
        };
        let disk = Arc::new(Folder::new(folder.join("log")));
        let clock = Arc::new(clock::boot);
        let group = Group::open(settings, disk, Box::new(replica), Arc::new(Alone), clock, scope).await;
        let group = group.unwrap();
        if !group.raft().is_initialized().await.unwrap() {
            let peer = Peer::default();
            group.initialize([(1, peer)].into()).await.unwrap();
        }
        let batcher = group.batcher(scope);
        (machine, group, batcher)
    }

    async fn until(group: &Group, what: &str, happened: impl Fn(&RaftMetrics<NodeId, Peer>) -> bool + Send) {
        group.raft().wait(PATIENCE).metrics(happened, what).await.unwrap();
    }

    #[tokio::test]
    async fn a_replica_comes_back_from_its_checkpoint_and_the_log_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["state", "log"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let scope = Scope::new();
        let (machine, group, batcher) = start(folder.path(), &scope).await;
        until(&group, "leads", |metrics| metrics.current_leader == Some(1)).await;
        let submit = async |operation: &Operation| {
            let reply = batcher.submit(operation_codec::encode(operation)).await.unwrap();
            state::decode_reply(&reply).unwrap().unwrap()
        };
        submit(&Operation::Begin {
            session: SESSION,
            place: Place("node1/test".into()),
            adopts: false,
        })
        .await;
        for sequence in 1..=100 {
            submit(&creation(sequence)).await;
        }
        group.checkpoint().await.unwrap();
        until(&group, "checkpoint", |metrics| metrics.snapshot.is_some()).await;
        group.purge(0, None).await.unwrap();
        until(&group, "purge", |metrics| metrics.purged.is_some()).await;
        let durable = machine.get().durable();
        assert!(group.raft().metrics().borrow().purged.map(|id| id.index) <= durable);
        for sequence in 101..=110 {
            submit(&creation(sequence)).await;
        }
        group.stop().await;
        scope.stop(Duration::ZERO).await;
        drop((machine, group, batcher));

        let scope = Scope::new();
        let (_, mut replica) = open(&folder.path().join("state"), &scope);
        let (applied, latest) = (
            replica.applied().await.unwrap(),
            replica.latest().await.unwrap().unwrap(),
        );
        assert_eq!(applied.last.map(|id| id.index), durable, "at the checkpoint");
        assert_eq!(
            (latest.meta.last_log_id, latest.meta.last_membership),
            (applied.last, applied.membership)
        );
        assert_eq!(applied.in_sync, [1].into());
        drop(replica);

        let (machine, group, _batcher) = start(folder.path(), &scope).await;
        let last = durable.map(|index| index + 10);
        until(&group, "applies the rest", |metrics| {
            metrics.last_applied.map(|id| id.index) >= last
        })
        .await;
        for sequence in 1..=110_u64 {
            let name = sequence.to_string().into_bytes();
            let found = machine
                .get()
                .query(SESSION, &caller(), &Query::Lookup { folder: PORTAL, name });
            assert!(found.is_ok(), "{sequence}: {found:?}");
        }
        group.stop().await;
        scope.stop(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn an_operation_of_an_unknown_format_is_not_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let (machine, mut replica) = open(folder.path(), &Scope::new());
        let entry = |index, operation: &'static [u8]| Entry {
            log_id: log_id(1, 1, index),
            payload: EntryPayload::Normal(Body::Operations(vec![Bytes::from_static(operation).into()])),
        };
        let refused = replica.apply(vec![entry(0, &BEGIN), entry(1, &[9, 9])]).await;
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(
            (machine.get().applied(), replica.applied().await.unwrap().last),
            (None, None)
        );
        let replies = replica.apply(vec![entry(0, &BEGIN)]).await.unwrap();
        assert_eq!((replies.len(), machine.get().applied()), (1, Some(0)));
    }
}
