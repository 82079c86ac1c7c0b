//! What must be true of a whole group, checked as it happens: every replica applies the same entries, each operation once;
//! what was acknowledged is never missing afterwards, neither from a read nor from a disk; one lease at a time.
//! A fault is noted, not raised: it is found inside a replica's task, and the run reports it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use super::machine::View;
use crate::storage::types::{LogId, NodeId};

/// A session's number and the operation's within it.
pub type Operation = (u64, u64);

#[derive(Default)]
struct State {
    /// Every entry that some replica has applied.
    entries: BTreeMap<u64, (LogId, u64)>,
    leaders: BTreeSet<(NodeId, u64)>,
    /// Last acknowledged operation of each session.
    acknowledged: BTreeMap<u64, u64>,
    /// And the entries that did them first.
    places: BTreeMap<Operation, u64>,
    /// Operations in the longest state that a finished read has seen.
    seen: u64,
    reads: u64,
    faults: Vec<String>,
}

/// What a read that begins now must see at least.
pub struct Floor {
    acknowledged: BTreeMap<u64, u64>,
    seen: u64,
}

/// Clones are the same ledger.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<State>>);

impl Ledger {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn fault(&self, what: String) {
        self.state().faults.push(what);
    }

    pub fn faults(&self) -> Vec<String> {
        self.state().faults.clone()
    }

    /// A replica applied the entry `id`, whose content is `digest`.
    pub fn applied(&self, node: NodeId, id: LogId, digest: u64) {
        let known = *self.state().entries.entry(id.index).or_insert((id, digest));
        if known != (id, digest) {
            self.fault(format!("node {node} applied {id}, another replica {}", known.0));
        }
    }

    pub fn entry(&self, index: u64) -> Option<LogId> {
        self.state().entries.get(&index).map(|(id, _)| *id)
    }

    /// These may answer reads at the same time, in these terms.
    pub fn readable(&self, nodes: &[(NodeId, u64)]) {
        if nodes.len() > 1 {
            self.fault(format!("more than one has a lease: {nodes:?}"));
        }
        self.state().leaders.extend(nodes.iter().copied());
    }

    /// A client learned that its operation was done, by entry `index`.
    pub fn acknowledged(&self, operation: Operation, index: u64) {
        let mut state = self.state();
        state.acknowledged.insert(operation.0, operation.1);
        state.places.insert(operation, index);
    }

    pub fn begin_read(&self) -> Floor {
        let state = self.state();
        Floor {
            acknowledged: state.acknowledged.clone(),
            seen: state.seen,
        }
    }

    pub fn end_read(&self, node: NodeId, floor: &Floor, view: &View) {
        for (session, sequence) in &floor.acknowledged {
            let found = view.last.get(session).map_or(0, |(last, _)| *last);
            if found < *sequence {
                self.fault(format!(
                    "a read from node {node} lacks operation {sequence} of session {session}, acknowledged before"
                ));
            }
        }
        if view.count < floor.seen {
            self.fault(format!(
                "a read from node {node} went back from {} operations to {}",
                floor.seen, view.count
            ));
        }
        let mut state = self.state();
        state.seen = state.seen.max(view.count);
        state.reads += 1;
    }

    pub fn acknowledgements(&self) -> usize {
        self.state().places.len()
    }

    pub fn reads(&self) -> u64 {
        self.state().reads
    }

    /// How many leaders there were.
    pub fn leaders(&self) -> usize {
        self.state().leaders.len()
    }

    /// The state of a replica that has applied everything: each acknowledged operation once, done by the entry that was
    /// named to the client.
    pub fn judge_end(&self, node: NodeId, history: &[(Operation, u64)]) {
        let distinct: BTreeSet<_> = history.iter().map(|(operation, _)| *operation).collect();
        if distinct.len() != history.len() {
            self.fault(format!("node {node} did an operation twice"));
        }
        let found: BTreeMap<_, _> = history.iter().copied().collect();
        let places = self.state().places.clone();
        for (operation, index) in places {
            if found.get(&operation) != Some(&index) {
                self.fault(format!(
                    "{operation:?} was acknowledged with entry {index}; node {node} has it at {:?}",
                    found.get(&operation)
                ));
            }
        }
    }
}
