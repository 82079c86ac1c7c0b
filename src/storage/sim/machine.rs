//! The state machine of the simulation: it keeps which operation was done when, does each once, and loses at a crash
//! all that is not in its last checkpoint, as the real one does.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Buf, BufMut, Bytes};
use openraft::storage::Snapshot;
use openraft::{EntryPayload, SnapshotMeta, StoredMembership};

use super::ledger::{Ledger, Operation};
use crate::base::BoxFuture;
use crate::storage::entry::{self, Body};
use crate::storage::machine::{Applied, Machine};
use crate::storage::types::{Checkpoint, Entry, NodeId, Replies, Types};

#[derive(Clone, Default)]
struct State {
    applied: Applied,
    history: Vec<(Operation, u64)>,
    /// Of each session the last operation, and the entry that did it.
    last: BTreeMap<u64, (u64, u64)>,
}

/// What a read gets.
pub struct View {
    pub count: u64,
    pub last: BTreeMap<u64, (u64, u64)>,
}

/// The checkpoints of all replicas, by their folder.
#[derive(Clone, Default)]
pub struct Checkpoints(Arc<Mutex<BTreeMap<PathBuf, State>>>);

/// What of a machine outlives a crash: its last checkpoint.
pub type Kept = Arc<Mutex<Option<Snapshot<Types>>>>;

/// Clones are the same machine.
#[derive(Clone)]
pub struct SimMachine {
    node: NodeId,
    state: Arc<Mutex<State>>,
    kept: Kept,
    checkpoints: Checkpoints,
    ledger: Ledger,
}

/// An operation as its session repeats it.
pub fn encode((session, sequence): Operation, padding: usize) -> Bytes {
    let mut out = Vec::with_capacity(16 + padding);
    out.put_u64_le(session);
    out.put_u64_le(sequence);
    out.put_bytes(0, padding);
    out.into()
}

impl SimMachine {
    /// Starts with the last checkpoint.
    pub fn open(node: NodeId, kept: Kept, checkpoints: Checkpoints, ledger: Ledger) -> Self {
        let folder = kept.lock().unwrap().as_ref().map(|kept| kept.snapshot.folder.clone());
        let state = folder.map(|folder| checkpoints.0.lock().unwrap()[&folder].clone());
        SimMachine {
            node,
            state: Arc::new(Mutex::new(state.unwrap_or_default())),
            kept,
            checkpoints,
            ledger,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn view(&self) -> View {
        let state = self.state();
        View {
            count: state.history.len() as u64,
            last: state.last.clone(),
        }
    }

    pub fn history(&self) -> Vec<(Operation, u64)> {
        self.state().history.clone()
    }

    fn apply_one(&self, entry: Entry) -> Replies {
        let mut state = self.state();
        let (id, index) = (entry.log_id, entry.log_id.index);
        self.ledger.applied(self.node, id, digest(&entry));
        if state.applied.last.is_some_and(|last| last.index + 1 != index) {
            self.ledger.fault(format!(
                "node {} applied {id} after {:?}",
                self.node, state.applied.last
            ));
        }
        state.applied.last = Some(id);
        let mut replies = Replies::default();
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                state.applied.membership = StoredMembership::new(Some(id), membership);
            }
            EntryPayload::Normal(Body::InSync(nodes)) => state.applied.in_sync = nodes,
            EntryPayload::Normal(Body::Operations(operations)) => {
                replies
                    .0
                    .extend(operations.into_iter().map(|bytes| state.perform(bytes, index)));
            }
        }
        replies
    }

    fn make_checkpoint(&self) -> Snapshot<Types> {
        let state = self.state().clone();
        let id = state.applied.last.map_or("none".into(), |id| id.to_string());
        let folder = PathBuf::from(format!("{}/{id}", self.node));
        let snapshot = Snapshot {
            meta: SnapshotMeta {
                last_log_id: state.applied.last,
                last_membership: state.applied.membership.clone(),
                snapshot_id: id,
            },
            snapshot: Box::new(Checkpoint { folder: folder.clone() }),
        };
        self.checkpoints.0.lock().unwrap().insert(folder, state);
        *self.kept.lock().unwrap() = Some(snapshot.clone());
        snapshot
    }
}

impl State {
    /// Does an operation unless it was done; answers with the entry that did it.
    fn perform(&mut self, mut bytes: Bytes, index: u64) -> Bytes {
        let (session, sequence) = (bytes.get_u64_le(), bytes.get_u64_le());
        let last = self.last.entry(session).or_default();
        if last.0 < sequence {
            *last = (sequence, index);
            self.history.push(((session, sequence), index));
        }
        Bytes::copy_from_slice(&last.1.to_le_bytes())
    }
}

fn digest(entry: &Entry) -> u64 {
    let mut bytes = Vec::new();
    entry::encode(&entry.payload, &mut bytes);
    u64::from(crc32c::crc32c(&bytes))
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, io::Result<T>> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Machine for SimMachine {
    fn applied(&mut self) -> BoxFuture<'_, io::Result<Applied>> {
        ready(self.state().applied.clone())
    }

    fn apply(&mut self, entries: Vec<Entry>) -> BoxFuture<'_, io::Result<Vec<Replies>>> {
        ready(entries.into_iter().map(|entry| self.apply_one(entry)).collect())
    }

    fn checkpoint(&mut self) -> BoxFuture<'_, io::Result<Snapshot<Types>>> {
        ready(self.make_checkpoint())
    }

    fn latest(&mut self) -> BoxFuture<'_, io::Result<Option<Snapshot<Types>>>> {
        ready(self.kept.lock().unwrap().clone())
    }

    fn incoming(&mut self) -> BoxFuture<'_, io::Result<Checkpoint>> {
        ready(Checkpoint {
            folder: PathBuf::from("incoming"),
        })
    }

    fn install(&mut self, snapshot: Snapshot<Types>) -> BoxFuture<'_, io::Result<()>> {
        let found = self.checkpoints.0.lock().unwrap()[&snapshot.snapshot.folder].clone();
        if found.applied.last < self.state().applied.last {
            self.ledger
                .fault(format!("node {} went back to a checkpoint", self.node));
        }
        *self.state() = found;
        *self.kept.lock().unwrap() = Some(snapshot);
        ready(())
    }
}
