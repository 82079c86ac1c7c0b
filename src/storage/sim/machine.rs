//! The state machine of the simulation: it keeps which operation was done when, does each once to its object, and loses at a crash
//! all that is not in its last checkpoint, as the real one does.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Buf, BufMut, Bytes};
use openraft::storage::Snapshot;
use openraft::{EntryPayload, SnapshotMeta, StoredMembership};

use super::ledger::{Ledger, Operation};
use super::object::{Act, Object, Objects};
use crate::base::{BoxFuture, Pieces};
use crate::storage::call::Inode;
use crate::storage::entry::{self, Body};
use crate::storage::machine::{Applied, Machine};
use crate::storage::types::{Checkpoint, Entry, NodeId, Replies, Types};

#[derive(Clone, Default)]
struct State {
    applied: Applied,
    history: Vec<(Operation, u64)>,
    /// Of each session the last operation, and what it was answered.
    last: BTreeMap<u64, (u64, Done)>,
    objects: Objects,
    /// The highest number that any operation brought along, used or not.
    highest: u64,
}

/// What a read gets.
pub struct View {
    pub count: u64,
    pub last: BTreeMap<u64, (u64, Done)>,
    pub objects: Objects,
}

/// An operation's answer: the entry that did it, and the number of its object.
pub type Done = (u64, u64);

/// An operation as its session repeats it.
#[derive(Clone, Copy)]
pub struct Submission {
    pub operation: Operation,
    pub act: Act,
    pub padding: usize,
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

/// An operation as it stands in the log, with the number that the leader chose for what it may make.
pub fn encode(submission: Submission, fresh: u64) -> Bytes {
    let (verb, target) = match submission.act {
        Act::Make => (0, 0),
        Act::Write(number) => (1, number),
        Act::Remove(number) => (2, number),
    };
    let mut out = Vec::with_capacity(40 + submission.padding);
    for word in [submission.operation.0, submission.operation.1, fresh, verb, target] {
        out.put_u64_le(word);
    }
    out.put_bytes(0, submission.padding);
    out.into()
}

pub fn decode_done(mut bytes: Bytes) -> Done {
    (bytes.get_u64_le(), bytes.get_u64_le())
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
            objects: state.objects.clone(),
        }
    }

    /// All numbers up to this one may have been given.
    pub fn highest(&self) -> Inode {
        Inode(self.state().highest)
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
                let perform = |operation: Pieces| self.perform(&mut state, operation.join(), index);
                replies.0.extend(operations.into_iter().map(perform));
            }
        }
        replies
    }

    /// Does an operation unless it was done.
    fn perform(&self, state: &mut State, mut bytes: Bytes, index: u64) -> Bytes {
        let [session, sequence, fresh, verb, target] = std::array::from_fn(|_| bytes.get_u64_le());
        let operation = (session, sequence);
        state.highest = state.highest.max(fresh);
        let last = state.last.get(&session).copied().unwrap_or_default();
        let (_, done) = match last.0 < sequence {
            false => last,
            true => {
                let number = self.act(&mut state.objects, operation, (verb, fresh, target));
                state.history.push((operation, index));
                let last = (sequence, (index, number));
                state.last.insert(session, last);
                last
            }
        };
        [done.0.to_le_bytes(), done.1.to_le_bytes()].concat().into()
    }

    fn act(&self, objects: &mut Objects, operation: Operation, (verb, fresh, target): (u64, u64, u64)) -> u64 {
        let written = operation.1;
        let is_there = match verb {
            0 => {
                self.ledger.made(self.node, fresh, operation);
                let maker = operation;
                objects.insert(fresh, Object { maker, written });
                return fresh;
            }
            1 => objects
                .get_mut(&target)
                .map(|object| object.written = written)
                .is_some(),
            _ => objects.remove(&target).is_some(),
        };
        if !is_there {
            let fault = format!("node {}: {operation:?} finds no object {target}", self.node);
            self.ledger.fault(fault);
        }
        target
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
