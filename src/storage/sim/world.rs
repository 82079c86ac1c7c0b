//! A group of simulated nodes and its clients, run millisecond by millisecond, with what can be done to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use openraft::storage::RaftLogStorage;
use openraft::{RaftLogReader, ServerState};

use super::client::Clients;
use super::ledger::Ledger;
use super::machine::Checkpoints;
use super::node::{Acknowledgement, Node, SIZES, Surroundings};
use super::wire::Wire;
use crate::storage::faulty_disk::Random;
use crate::storage::log::LogStore;
use crate::storage::types::{LogId, NodeId, Peer};

const STEP: Duration = Duration::from_millis(1);
/// After this a supervisor starts a process again that ended by itself.
const RESTART: Duration = Duration::from_millis(400);
/// Longest time until the group acknowledges again once all faults are gone.
const RECOVERY: Duration = Duration::from_secs(5);
/// And until all replicas are in sync again, under load.
const COMPLETE: Duration = Duration::from_secs(20);

/// How a node stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Still {
    /// Its process is stopped; time goes on.
    Stopped,
    /// The machine sleeps; only the clock since boot goes on.
    Suspended,
}

pub struct World {
    pub now: Duration,
    pub random: Random,
    pub wire: Wire,
    pub ledger: Ledger,
    pub nodes: BTreeMap<NodeId, Node>,
    pub clients: Clients,
    /// What was done, for the report of a failed run.
    pub story: Vec<String>,
    pub peers: BTreeMap<NodeId, Peer>,
    surroundings: Surroundings,
    still: BTreeMap<NodeId, (Duration, Duration, Still)>,
    /// When each ended process starts again.
    down: BTreeMap<NodeId, Duration>,
    /// The in-sync set that each node saw before this step.
    in_sync: BTreeMap<NodeId, BTreeSet<NodeId>>,
    checked: u64,
}

impl World {
    /// A group of voters with these numbers; those in `witnesses` hold no files.
    pub fn new(seed: u64, count: u64, witnesses: &[NodeId], sessions: u64) -> Self {
        let mut random = Random::new(seed);
        let surroundings = Surroundings {
            wire: Wire::new(random.below(1 << 30)),
            ledger: Ledger::default(),
            checkpoints: Checkpoints::default(),
            copies: 3,
        };
        let nodes: BTreeMap<_, _> = (1..=count).map(|id| (id, Node::new(id, &surroundings))).collect();
        let peer = |(id, node): (&NodeId, &Node)| {
            let peer = Peer {
                name: format!("node{id}"),
                address: format!("node{id}"),
                store: node.store(),
                witness: witnesses.contains(id),
            };
            (*id, peer)
        };
        let peers = nodes.iter().map(peer).collect();
        let (wire, ledger) = (surroundings.wire.clone(), surroundings.ledger.clone());
        let clients = Clients::start(&wire, &ledger, (1..=count).collect(), sessions, &mut random);
        let mut world = World {
            now: Duration::ZERO,
            random,
            wire,
            ledger,
            nodes,
            clients,
            story: Vec::new(),
            peers,
            surroundings,
            still: BTreeMap::new(),
            down: (1..=count).map(|id| (id, Duration::ZERO)).collect(),
            in_sync: BTreeMap::new(),
            checked: 0,
        };
        world.run_for(Duration::from_millis(50));
        let peers = world.peers.clone();
        let first = world.nodes[&1].running().unwrap().group;
        let process = world.nodes[&1].process.as_ref().unwrap();
        process.run(async move { first.initialize(peers).await.unwrap() });
        let data = world.data();
        world.expect("all in sync at first", COMPLETE, |world| world.is_whole(&data));
        world
    }

    /// Members that hold files.
    pub fn data(&self) -> BTreeSet<NodeId> {
        let data = self.peers.iter().filter(|(_, peer)| !peer.witness);
        data.map(|(id, _)| *id).collect()
    }

    pub fn note(&mut self, what: String) {
        self.story.push(format!("{:>6} ms: {what}", self.now.as_millis()));
    }

    /// One millisecond.
    pub fn step(&mut self) {
        self.now += STEP;
        self.wire.deliver(self.now);
        self.wake();
        self.restart();
        let mut leases = Vec::new();
        for (id, node) in &mut self.nodes {
            let Some(process) = node.process.as_ref().filter(|_| !self.still.contains_key(id)) else {
                continue;
            };
            let in_sync = process.look(|group| group.in_sync()).unwrap_or_default();
            self.in_sync.insert(*id, in_sync);
            process.run_until(self.now);
            leases.extend(process.lease().map(|term| (*id, term)));
            if process.has_failed() {
                node.crash(None);
                self.down.insert(*id, self.now + RESTART);
            }
        }
        self.ledger.readable(&leases);
        self.clients.run_until(self.now);
        self.check_acknowledgements();
    }

    fn wake(&mut self) {
        let due: Vec<_> = self
            .still
            .extract_if(.., |_, (_, until, _)| *until <= self.now)
            .collect();
        for (id, (since, _, still)) in due {
            let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_ref()) else {
                continue;
            };
            match still {
                Still::Stopped => process.skip(self.now - since),
                Still::Suspended => process.suspend(self.now - since),
            }
        }
    }

    fn restart(&mut self) {
        let due: Vec<_> = self.down.extract_if(.., |_, at| *at <= self.now).collect();
        for (id, _) in due {
            let node = self.nodes.get_mut(&id).unwrap();
            if !node.start(self.now, &mut self.random) {
                self.down.insert(id, self.now + RESTART);
            }
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step();
        }
    }

    /// Runs until something is so; a fault if that takes longer. Says how long it took.
    pub fn expect(&mut self, what: &str, within: Duration, is_so: impl Fn(&World) -> bool) -> Duration {
        let began = self.now;
        while !is_so(self) {
            self.step();
            if self.now > began + within {
                let state = self.describe();
                self.ledger.fault(format!("not within {within:?}: {what}; {state}"));
                break;
            }
        }
        self.now - began
    }

    /// The node that leads with a lease.
    pub fn leader(&self) -> Option<NodeId> {
        let leads = |(id, node): (&NodeId, &Node)| {
            let process = node.process.as_ref().filter(|_| !self.still.contains_key(id))?;
            process.look(|group| group.is_readable())?.then_some(*id)
        };
        self.nodes.iter().find_map(leads)
    }

    /// Whether all of `data` are in sync.
    pub fn is_whole(&self, data: &BTreeSet<NodeId>) -> bool {
        let process = self.leader().and_then(|id| self.nodes[&id].process.as_ref());
        process.and_then(|process| process.look(|group| group.in_sync() == *data)) == Some(true)
    }

    /// The last entry that a running node knows to be committed, and whether its disk would still hold it after a power cut now.
    pub fn committed(&self, id: NodeId) -> Option<(LogId, bool)> {
        let node = &self.nodes[&id];
        let last = node.running()?.group.raft().data_metrics().borrow().last_applied?;
        Some((last, holds(node, last.index, Some(last))))
    }

    pub fn term(&self) -> u64 {
        let term = |node: &Node| {
            let process = node.process.as_ref()?;
            process.look(|group| group.raft().server_metrics().borrow().vote.leader_id.term)
        };
        self.nodes.values().filter_map(term).max().unwrap_or_default()
    }

    fn describe(&self) -> String {
        let describe = |(id, node): (&NodeId, &Node)| {
            let process = node.process.as_ref();
            let look = process.and_then(|process| {
                process.look(|group| {
                    let metrics = group.raft().metrics().borrow().clone();
                    format!(
                        "{:?} vote {} last {:?} applied {:?} readable {} in sync {:?} durable {:?} heard {:?}",
                        metrics.state,
                        metrics.vote,
                        metrics.last_log_index,
                        metrics.last_applied.map(|id| id.index),
                        group.is_readable(),
                        group.in_sync(),
                        (metrics.state == ServerState::Leader).then(|| group.durable()),
                        group.silence(),
                    )
                })
            });
            format!("\n    node {id}: {}", look.unwrap_or("down".into()))
        };
        self.nodes.iter().map(describe).collect()
    }

    pub fn crash(&mut self, id: NodeId, for_: Duration, is_power_cut: bool) {
        self.still.remove(&id);
        let power = is_power_cut.then_some(&mut self.random);
        self.nodes.get_mut(&id).unwrap().crash(power);
        self.down.insert(id, self.now + for_);
    }

    /// Stops a running node for a while.
    pub fn hold(&mut self, id: NodeId, for_: Duration, still: Still) {
        if self.nodes[&id].process.is_some() {
            self.still.entry(id).or_insert((self.now, self.now + for_, still));
        }
    }

    /// Cuts all links between the two sides, both ways, for a while.
    pub fn part(&mut self, one: &[NodeId], other: &[NodeId], for_: Duration) {
        for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
            self.wire.cut(a, b, for_);
            self.wire.cut(b, a, for_);
        }
    }

    pub fn others(&self, id: NodeId) -> Vec<NodeId> {
        self.nodes.keys().copied().filter(|other| *other != id).collect()
    }

    /// Gives a crashed node an empty disk.
    pub fn wipe(&mut self, id: NodeId) {
        self.nodes.insert(id, Node::new(id, &self.surroundings));
    }

    /// Starts another node, which belongs to no group yet; says how a group will know it.
    pub fn add(&mut self, id: NodeId) -> Peer {
        let mut node = Node::new(id, &self.surroundings);
        let store = node.store();
        node.start(self.now, &mut self.random);
        self.nodes.insert(id, node);
        Peer {
            name: format!("node{id}"),
            address: format!("node{id}"),
            store,
            witness: false,
        }
    }

    /// Ends all faults.
    pub fn heal(&mut self) {
        self.note("all is healed".into());
        self.wire.heal();
        self.still.values_mut().for_each(|(_, until, _)| *until = self.now);
        self.down.values_mut().for_each(|at| *at = self.now);
        self.mend_disks();
    }

    pub fn mend_disks(&mut self) {
        for node in self.nodes.values() {
            node.disk.limit(usize::MAX);
            node.slowness.store(3, Ordering::Relaxed);
        }
    }

    /// The group must work again, be whole again, and all replicas must agree. Ends the work.
    pub fn settle(&mut self) -> Duration {
        self.heal();
        let before = self.ledger.acknowledgements();
        let stall = self.expect("acknowledgements go on", RECOVERY, |world| {
            world.ledger.acknowledgements() > before
        });
        let data = self.data();
        self.expect("all are in sync under load", COMPLETE, |world| world.is_whole(&data));
        self.clients.finish();
        self.run_for(Duration::from_secs(2));
        let machines: BTreeMap<_, _> = self
            .nodes
            .iter()
            .filter(|(id, _)| self.peers.contains_key(id))
            .map(|(id, node)| (*id, node.running().map(|running| running.machine)))
            .collect();
        for (id, machine) in &machines {
            match machine {
                Some(machine) => self.ledger.judge_end(*id, &machine.history(), &machine.view().objects),
                None => self.ledger.fault(format!("node {id} does not run at the end")),
            }
        }
        stall
    }

    /// I1: what a node has just acknowledged is on the disks it should be on, should the power fail everywhere now.
    fn check_acknowledgements(&mut self) {
        let mut given = Vec::new();
        for node in self.nodes.values().filter_map(|node| node.process.as_ref()) {
            given.append(&mut node.acknowledgements.lock().unwrap());
        }
        for acknowledgement in given {
            self.checked += 1;
            if self.checked.is_multiple_of(8) {
                self.check_acknowledgement(&acknowledgement);
            }
        }
    }

    fn check_acknowledgement(&self, given: &Acknowledgement) {
        let id = self.ledger.entry(given.index);
        let have: BTreeSet<_> = self
            .nodes
            .iter()
            .filter(|(_, node)| holds(node, given.index, id))
            .map(|(id, _)| *id)
            .collect();
        // The set may have changed since the decision, within the same step.
        let is_safe = |in_sync: &BTreeSet<NodeId>| {
            !in_sync.is_empty() && in_sync.intersection(&have).count() >= self.surroundings.copies.min(in_sync.len())
        };
        let before = self.in_sync.get(&given.node).cloned().unwrap_or_default();
        let majority = self.peers.keys().filter(|id| have.contains(id)).count() > self.peers.len() / 2;
        if !(is_safe(&given.in_sync) || is_safe(&before)) || !majority {
            self.ledger.fault(format!(
                "node {} acknowledged entry {} with {:?} in sync, but only {have:?} have it on disk",
                given.node, given.index, given.in_sync
            ));
        }
    }
}

/// Whether the node's disk would still hold the entry after a power cut now.
fn holds(node: &Node, index: u64, id: Option<LogId>) -> bool {
    let Ok((mut log, _)) = LogStore::prepare(Arc::new(node.disk.as_synced()), SIZES) else {
        return false;
    };
    let state = log.get_log_state().now_or_never().and_then(Result::ok);
    if state.is_some_and(|state| state.last_purged_log_id.is_some_and(|purged| purged.index >= index)) {
        return true;
    }
    let read = log.try_get_log_entries(index..=index).now_or_never();
    let found = read
        .and_then(Result::ok)
        .and_then(|entries| Some(entries.first()?.log_id));
    found.is_some() && found == id
}
