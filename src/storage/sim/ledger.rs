//! What must be true of a whole group, checked as it happens: every replica applies the same entries, each operation once;
//! what was acknowledged is never missing afterwards, neither from a read nor from a disk; no number names two objects; one lease at
//! a time.
//! A fault is noted, not raised: it is found inside a replica's task, and the run reports it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use super::machine::View;
use super::object::{Act, Known, Objects};
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
    /// Who made the object of each number that was ever given.
    made: BTreeMap<u64, Operation>,
    known: Known,
    /// Objects whose removal has begun.
    leaving: BTreeSet<u64>,
    /// Operations in the longest state that a finished read has seen.
    seen: u64,
    reads: u64,
    faults: Vec<String>,
}

/// What a read that begins now must see at least.
pub struct Floor {
    acknowledged: BTreeMap<u64, u64>,
    known: Known,
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

    /// A replica made an object under a number, of the operation `maker`.
    pub fn made(&self, node: NodeId, number: u64, maker: Operation) {
        let known = *self.state().made.entry(number).or_insert(maker);
        if known != maker {
            self.fault(format!(
                "node {node} gave {maker:?} the number {number}, which {known:?} has"
            ));
        }
    }

    /// A client is about to have an object removed.
    pub fn leaves(&self, number: u64) {
        self.state().leaving.insert(number);
    }

    /// A client learned that its operation was done, by entry `index`, to the object `number`.
    pub fn acknowledged(&self, operation: Operation, act: Act, (index, number): (u64, u64)) {
        let mut state = self.state();
        state.acknowledged.insert(operation.0, operation.1);
        state.places.insert(operation, index);
        state.known.acknowledged(operation, act, number);
    }

    pub fn begin_read(&self) -> Floor {
        let state = self.state();
        Floor {
            acknowledged: state.acknowledged.clone(),
            known: state.known.clone(),
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
        self.judge_objects(node, &floor.known, &view.objects);
        let mut state = self.state();
        state.seen = state.seen.max(view.count);
        state.reads += 1;
    }

    fn judge_objects(&self, node: NodeId, known: &Known, found: &Objects) {
        let wrong = known.judge(found, &self.state().leaving);
        if let Some(wrong) = wrong {
            self.fault(format!("node {node}: {wrong}"));
        }
    }

    /// How many objects were made.
    pub fn objects(&self) -> usize {
        self.state().made.len()
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
    pub fn judge_end(&self, node: NodeId, history: &[(Operation, u64)], objects: &Objects) {
        let known = self.state().known.clone();
        self.judge_objects(node, &known, objects);
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
