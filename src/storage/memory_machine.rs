//! A state machine for tests: it keeps the operations it applied, in order, and forgets all when dropped.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use openraft::storage::Snapshot;
use openraft::{EntryPayload, SnapshotMeta, StoredMembership};

use super::entry::Body;
use super::machine::{Applied, Machine};
use super::types::{Checkpoint, Entry, LogId, Replies, Types};
use crate::base::{BoxFuture, Pieces};

#[derive(Clone, Default)]
struct State {
    applied: Applied,
    operations: Vec<(LogId, Bytes)>,
    latest: Option<Snapshot<Types>>,
}

/// Checkpoints by the folder they pretend to be in; shared by the machines of a test group.
type Checkpoints = Arc<Mutex<HashMap<PathBuf, State>>>;

/// Clones are the same machine, so that a test can look inside, and can restart a node with what it had.
#[derive(Clone, Default)]
pub struct MemoryMachine {
    state: Arc<Mutex<State>>,
    checkpoints: Checkpoints,
}

impl MemoryMachine {
    /// An empty one that can install the checkpoints of this one.
    pub fn sibling(&self) -> Self {
        MemoryMachine {
            state: Arc::default(),
            checkpoints: self.checkpoints.clone(),
        }
    }

    pub fn operations(&self) -> Vec<(LogId, Bytes)> {
        self.state().operations.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn make_checkpoint(&self) -> Snapshot<Types> {
        let mut state = self.state();
        let id = state.applied.last.map_or("0".into(), |id| id.to_string());
        let folder = PathBuf::from(format!("{:p}/{id}", Arc::as_ptr(&self.state)));
        self.checkpoints.lock().unwrap().insert(folder.clone(), state.clone());
        let snapshot = Snapshot {
            meta: SnapshotMeta {
                last_log_id: state.applied.last,
                last_membership: state.applied.membership.clone(),
                snapshot_id: id,
            },
            snapshot: Box::new(Checkpoint { folder }),
        };
        state.latest = Some(snapshot.clone());
        snapshot
    }
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, io::Result<T>> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Machine for MemoryMachine {
    fn applied(&mut self) -> BoxFuture<'_, io::Result<Applied>> {
        ready(self.state().applied.clone())
    }

    fn apply(&mut self, entries: Vec<Entry>) -> BoxFuture<'_, io::Result<Vec<Replies>>> {
        let mut state = self.state();
        let mut replies = Vec::new();
        for entry in entries {
            let mut reply = Replies::default();
            state.applied.last = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(membership) => {
                    state.applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
                EntryPayload::Normal(Body::InSync(nodes)) => state.applied.in_sync = nodes,
                EntryPayload::Normal(Body::Operations(operations)) => {
                    let operations: Vec<_> = operations.into_iter().map(Pieces::join).collect();
                    reply.0 = operations.clone();
                    state
                        .operations
                        .extend(operations.into_iter().map(|operation| (entry.log_id, operation)));
                }
            }
            replies.push(reply);
        }
        ready(replies)
    }

    fn checkpoint(&mut self) -> BoxFuture<'_, io::Result<Snapshot<Types>>> {
        ready(self.make_checkpoint())
    }

    fn latest(&mut self) -> BoxFuture<'_, io::Result<Option<Snapshot<Types>>>> {
        ready(self.state().latest.clone())
    }

    fn incoming(&mut self) -> BoxFuture<'_, io::Result<Checkpoint>> {
        let folder = PathBuf::from("incoming");
        ready(Checkpoint { folder })
    }

    fn install(&mut self, snapshot: Snapshot<Types>) -> BoxFuture<'_, io::Result<()>> {
        let found = self.checkpoints.lock().unwrap().get(&snapshot.snapshot.folder).cloned();
        let mut state = self.state();
        let found = found.unwrap_or_default();
        state.operations = found.operations;
        state.applied = Applied {
            last: snapshot.meta.last_log_id,
            membership: snapshot.meta.last_membership.clone(),
            in_sync: found.applied.in_sync,
        };
        state.latest = Some(snapshot);
        ready(())
    }
}
