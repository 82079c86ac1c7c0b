//! The seam to the state machine, and the adapter that shows it to openraft.
//! Every `StorageError` from here is fatal for the node.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{
    AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, SnapshotMeta, StorageIOError, StoredMembership,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};

use super::entry::Body;
use super::types::{Checkpoint, Entry, LogId, NodeId, Peer, Replies, StorageError, Types};
use crate::base::BoxFuture;

/// What a machine has on its disk, all from one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    pub last: Option<LogId>,
    pub membership: StoredMembership<NodeId, Peer>,
    /// From the last `Body::InSync` entry.
    pub in_sync: BTreeSet<NodeId>,
}

/// A replica's state. Calls come one at a time.
pub trait Machine: Send + 'static {
    fn applied(&mut self) -> BoxFuture<'_, io::Result<Applied>>;
    /// Applies entries in order and remembers their `Applied` with them; one answer per entry.
    /// May see entries again after a crash: everything after what `applied` says.
    fn apply(&mut self, entries: Vec<Entry>) -> BoxFuture<'_, io::Result<Vec<Replies>>>;
    /// Makes a snapshot that outlives a crash.
    fn checkpoint(&mut self) -> BoxFuture<'_, io::Result<Snapshot<Types>>>;
    /// The latest snapshot made or installed.
    fn latest(&mut self) -> BoxFuture<'_, io::Result<Option<Snapshot<Types>>>>;
    /// An empty place for a snapshot to come.
    fn incoming(&mut self) -> BoxFuture<'_, io::Result<Checkpoint>>;
    /// Becomes what a received snapshot says. The log before it may be gone already: once called, a crash must not lose
    /// the snapshot, and the next start must finish what this began.
    fn install(&mut self, snapshot: Snapshot<Types>) -> BoxFuture<'_, io::Result<()>>;
}

/// Shows a machine to openraft and the in-sync set to the group.
#[derive(Clone)]
pub struct Driver {
    machine: Arc<Mutex<Box<dyn Machine>>>,
    in_sync: Arc<watch::Sender<BTreeSet<NodeId>>>,
}

impl Driver {
    /// Reads the in-sync set of what the machine has applied.
    pub async fn new(mut machine: Box<dyn Machine>) -> io::Result<Self> {
        let applied = machine.applied().await?;
        Ok(Driver {
            machine: Arc::new(Mutex::new(machine)),
            in_sync: Arc::new(watch::Sender::new(applied.in_sync)),
        })
    }

    /// The in-sync set as of the last applied entry.
    pub fn in_sync(&self) -> watch::Receiver<BTreeSet<NodeId>> {
        self.in_sync.subscribe()
    }
}

fn read_error(error: io::Error) -> StorageError {
    StorageIOError::read_state_machine(AnyError::new(&error)).into()
}

fn write_error(error: io::Error) -> StorageError {
    StorageIOError::write_state_machine(AnyError::new(&error)).into()
}

impl RaftSnapshotBuilder<Types> for Driver {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        self.machine.lock().await.checkpoint().await.map_err(write_error)
    }
}

impl RaftStateMachine<Types> for Driver {
    type SnapshotBuilder = Driver;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership<NodeId, Peer>), StorageError> {
        let applied = self.machine.lock().await.applied().await.map_err(read_error)?;
        Ok((applied.last, applied.membership))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Replies>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let in_sync = entries.iter().rev().find_map(|entry| match &entry.payload {
            EntryPayload::Normal(Body::InSync(nodes)) => Some(nodes.clone()),
            _ => None,
        });
        let replies = self.machine.lock().await.apply(entries).await.map_err(write_error)?;
        if let Some(nodes) = in_sync {
            self.in_sync.send_replace(nodes);
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Driver {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Checkpoint>, StorageError> {
        let place = self.machine.lock().await.incoming().await;
        place.map(Box::new).map_err(write_error)
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<NodeId, Peer>,
        snapshot: Box<Checkpoint>,
    ) -> Result<(), StorageError> {
        let meta = meta.clone();
        let mut machine = self.machine.lock().await;
        machine
            .install(Snapshot { meta, snapshot })
            .await
            .map_err(write_error)?;
        let applied = machine.applied().await.map_err(read_error)?;
        self.in_sync.send_replace(applied.in_sync);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        self.machine.lock().await.latest().await.map_err(read_error)
    }
}
