//! Groups of replicas in one process, over links that can be cut and disks that outlive their replica: nothing that was
//! acknowledged is lost, a node that returns disturbs nobody, and acknowledgements wait for the in-sync set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::ServerState;

use super::batch::{Batcher, Refused};
use super::faulty_disk::FaultyDisk;
use super::group::{Group, Settings};
use super::insync::Copies;
use super::log::Sizes;
use super::memory_machine::MemoryMachine;
use super::network::{Transport, Unreached};
use super::types::{Checkpoint, NodeId, Peer, StoreId};
use super::wire::Envelope;
use crate::base::{BoxFuture, Pieces, Scope, clock};

/// Patience of a test that waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// An append is its entries, 1 MiB of them or a single one, and a head.
const LONGEST: usize = (1 << 20) + (64 << 10);

async fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[derive(Default)]
struct Links {
    groups: BTreeMap<NodeId, Group>,
    /// From and to.
    cut: BTreeSet<(NodeId, NodeId)>,
}

#[derive(Clone, Default)]
struct Local(Arc<Mutex<Links>>);

impl Local {
    fn links(&self) -> MutexGuard<'_, Links> {
        self.0.lock().unwrap()
    }

    /// The receiver, unless there is none or the link is cut.
    fn way(&self, from: NodeId, to: NodeId) -> Option<Group> {
        let links = self.links();
        let is_cut = links.cut.contains(&(from, to));
        links.groups.get(&to).filter(|_| !is_cut).cloned()
    }

    async fn deliver(&self, to: NodeId, request: Bytes) -> Result<Bytes, Unreached> {
        assert!(
            request.len() < LONGEST,
            "{} bytes may not pass within a heartbeat",
            request.len()
        );
        let (envelope, _) = Envelope::open(request.clone()).unwrap();
        match self.way(envelope.from, to) {
            Some(group) => {
                let answer = group.serve(request).await;
                // The answer travels on the link back.
                match self.way(to, envelope.from) {
                    Some(_) => Ok(answer),
                    None => std::future::pending().await,
                }
            }
            None => std::future::pending().await,
        }
    }
}

impl Transport for Local {
    fn call<'a>(
        &'a self,
        node: NodeId,
        _peer: &'a Peer,
        request: Pieces,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Bytes, Unreached>> {
        Box::pin(async move {
            let answer = tokio::time::timeout(deadline, self.deliver(node, request.join())).await;
            answer.unwrap_or_else(|_| Err(Unreached::Lost("no answer".into())))
        })
    }

    fn send_checkpoint<'a>(
        &'a self,
        node: NodeId,
        _peer: &'a Peer,
        header: Bytes,
        checkpoint: &'a Checkpoint,
    ) -> BoxFuture<'a, Result<Bytes, Unreached>> {
        Box::pin(async move {
            let (envelope, _) = Envelope::open(header.clone()).unwrap();
            let group = self
                .way(envelope.from, node)
                .ok_or_else(|| Unreached::Refused("cut".into()))?;
            group.incoming().await.unwrap();
            Ok(group.install(header, checkpoint.clone()).await)
        })
    }
}

/// What of a node outlives its process, and the process.
struct Node {
    disk: FaultyDisk,
    machine: MemoryMachine,
    running: Option<(Group, Batcher, Scope)>,
}

struct World {
    local: Local,
    nodes: BTreeMap<NodeId, Node>,
    peers: BTreeMap<NodeId, Peer>,
}

impl World {
    async fn new(count: u64) -> Self {
        let first = MemoryMachine::default();
        let node = |id| {
            let node = Node {
                disk: FaultyDisk::default(),
                machine: first.sibling(),
                running: None,
            };
            (id, node)
        };
        let mut world = World {
            local: Local::default(),
            nodes: (1..=count).map(node).collect(),
            peers: BTreeMap::new(),
        };
        for id in 1..=count {
            world.start(id).await;
            let store = world.group(id).store();
            let peer = Peer {
                name: format!("node{id}"),
                address: format!("node{id}"),
                store,
                witness: false,
            };
            world.peers.insert(id, peer);
        }
        world.group(1).initialize(world.peers.clone()).await.unwrap();
        let all: BTreeSet<NodeId> = (1..=count).collect();
        world.in_sync_becomes(&all).await;
        world
    }

    async fn start(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        let settings = Settings {
            me: id,
            copies: Copies { wanted: 3, least: 1 },
            sizes: Sizes {
                segment: 4096,
                ..Sizes::default()
            },
        };
        let scope = Scope::new();
        let (disk, machine) = (Arc::new(node.disk.clone()), Box::new(node.machine.clone()));
        let (transport, clock) = (Arc::new(self.local.clone()), Arc::new(clock::boot));
        let group = Group::open(settings, disk, machine, transport, clock, &scope)
            .await
            .unwrap();
        let batcher = group.batcher(&scope);
        self.local.links().groups.insert(id, group.clone());
        node.running = Some((group, batcher, scope));
    }

    /// Ends the process of a node; what it did not sync is there, as after a kill.
    async fn kill(&mut self, id: NodeId) {
        self.local.links().groups.remove(&id);
        let (group, batcher, scope) = self.nodes.get_mut(&id).unwrap().running.take().unwrap();
        drop(batcher);
        group.stop().await;
        scope.stop(Duration::ZERO).await;
    }

    /// Cuts a node off from all others, or joins it again.
    fn cut(&self, id: NodeId, cut: bool) {
        let mut links = self.local.links();
        for other in self.nodes.keys().filter(|other| **other != id) {
            for link in [(id, *other), (*other, id)] {
                match cut {
                    true => links.cut.insert(link),
                    false => links.cut.remove(&link),
                };
            }
        }
    }

    fn group(&self, id: NodeId) -> &Group {
        &self.nodes[&id].running.as_ref().unwrap().0
    }

    fn batcher(&self, id: NodeId) -> &Batcher {
        &self.nodes[&id].running.as_ref().unwrap().1
    }

    fn running(&self) -> impl Iterator<Item = NodeId> {
        self.nodes
            .iter()
            .filter(|(_, node)| node.running.is_some())
            .map(|(id, _)| *id)
    }

    fn term(&self, id: NodeId) -> u64 {
        self.group(id).raft().metrics().borrow().current_term
    }

    /// The node that leads with a lease, if any.
    fn leader(&self) -> Option<NodeId> {
        self.running().find(|id| self.group(*id).is_readable())
    }

    async fn wait_for_leader(&self) -> NodeId {
        eventually("a leader", || self.leader().is_some()).await;
        self.leader().unwrap_or(1)
    }

    async fn in_sync_becomes(&self, wanted: &BTreeSet<NodeId>) {
        let is_so = || self.leader().is_some_and(|id| self.group(id).in_sync() == *wanted);
        eventually(&format!("in sync: {wanted:?}"), is_so).await;
    }

    /// Writes one operation as a door would: again and again, wherever a leader is, until it is acknowledged.
    async fn write(&self, text: &str) {
        let start = Instant::now();
        loop {
            for id in self.running().collect::<Vec<_>>() {
                let submit = self.batcher(id).submit(Bytes::copy_from_slice(text.as_bytes()));
                if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(300), submit).await {
                    return;
                }
            }
            assert!(start.elapsed() < PATIENCE, "{text} was never acknowledged");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn operations(&self, id: NodeId) -> Vec<String> {
        let operations = self.nodes[&id].machine.operations();
        operations
            .iter()
            .map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned())
            .collect()
    }

    fn has(&self, id: NodeId, text: &str) -> bool {
        self.operations(id).iter().any(|operation| operation == text)
    }

    async fn stop(mut self) {
        for id in self.running().collect::<Vec<_>>() {
            self.kill(id).await;
        }
    }
}

fn all() -> BTreeSet<NodeId> {
    BTreeSet::from([1, 2, 3])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_voter_acknowledges_and_comes_back() {
    let mut world = World::new(1).await;
    for number in 0..50 {
        world.write(&format!("op{number}")).await;
    }
    world.kill(1).await;
    world.start(1).await;
    world.write("after").await;
    // On a busy machine a write is repeated that was done.
    let operations = world.operations(1);
    let distinct: BTreeSet<_> = operations.iter().collect();
    assert_eq!(
        (distinct.len(), operations.last().map(String::as_str)),
        (51, Some("after"))
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_leaders_die_or_are_cut_off() {
    let mut world = World::new(3).await;
    let mut acknowledged = Vec::new();
    let mut stalls = Vec::new();
    for round in 0..6 {
        let leader = world.wait_for_leader().await;
        for number in 0..20 {
            let text = format!("round {round} op {number}");
            world.write(&text).await;
            acknowledged.push(text);
        }
        let is_kill = round % 2 == 0;
        let start = Instant::now();
        match is_kill {
            true => world.kill(leader).await,
            false => world.cut(leader, true),
        }
        let elected = || world.running().any(|id| id != leader && world.group(id).is_readable());
        eventually("another leader", elected).await;
        let election = start.elapsed();
        let text = format!("round {round} after the fault");
        world.write(&text).await;
        acknowledged.push(text);
        stalls.push((if is_kill { "killed" } else { "cut" }, election, start.elapsed()));
        match is_kill {
            true => world.start(leader).await,
            false => world.cut(leader, false),
        }
        world.in_sync_becomes(&all()).await;
    }
    // Shown with --nocapture; a loaded machine says nothing about time.
    let mut out = std::io::stderr();
    std::io::Write::write_fmt(&mut out, format_args!("fault, leader after, write after: {stalls:?}\n")).unwrap();
    eventually("all replicas apply the same", || {
        world.operations(1) == world.operations(2) && world.operations(2) == world.operations(3)
    })
    .await;
    let found = world.operations(1);
    let firsts: Vec<_> = acknowledged
        .iter()
        .map(|text| found.iter().position(|other| other == text))
        .collect();
    assert!(firsts.iter().all(Option::is_some), "an acknowledged operation is lost");
    assert!(firsts.is_sorted(), "acknowledged operations changed their order");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_cut_off_returns_without_an_election() {
    let world = World::new(3).await;
    let leader = world.wait_for_leader().await;
    let term = world.term(leader);
    let follower = all().into_iter().find(|id| *id != leader).unwrap();
    world.cut(follower, true);
    world.write("while it is away").await;
    // Long past every election time-out: the leader has dropped it after two seconds.
    eventually("the follower is dropped", || {
        !world.group(leader).in_sync().contains(&follower)
    })
    .await;
    world.cut(follower, false);
    world.in_sync_becomes(&all()).await;
    assert!(world.has(follower, "while it is away"));
    for id in all() {
        assert_eq!(world.term(id), term, "node {id}");
    }
    assert_eq!(world.leader(), Some(leader));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_waits_for_every_in_sync_replica_until_it_is_dropped() {
    let world = World::new(3).await;
    let leader = world.wait_for_leader().await;
    let follower = all().into_iter().find(|id| *id != leader).unwrap();
    for number in 0..10 {
        let text = format!("to all {number}");
        world.batcher(leader).submit(text.clone()).await.unwrap();
        for id in all() {
            let is_safe = world.nodes[&id].disk.has_synced(text.as_bytes());
            assert!(is_safe, "node {id} does not have {text}");
        }
    }
    world.cut(follower, true);
    let answer = world.batcher(leader).submit(Bytes::from_static(b"without it")).await;
    assert!(answer.is_ok());
    assert!(
        !world.group(leader).in_sync().contains(&follower),
        "it was acknowledged before the set shrank"
    );
    assert!(!world.nodes[&follower].disk.has_synced(b"without it"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_answers_neither_reads_nor_writes() {
    let world = World::new(3).await;
    let old = world.wait_for_leader().await;
    world.cut(old, true);
    eventually("its lease ends", || !world.group(old).is_readable()).await;
    assert_eq!(
        world.group(old).raft().metrics().borrow().state,
        ServerState::Leader,
        "it does not know"
    );
    let write = world.batcher(old).submit(Bytes::from_static(b"lost"));
    let write = async { tokio::time::timeout(Duration::from_secs(2), write).await };
    let (answer, new) = tokio::join!(write, world.wait_for_leader());
    assert!(answer.is_err(), "no majority, no answer");
    assert_ne!(new, old);
    world.write("by the new one").await;
    world.cut(old, false);
    world.in_sync_becomes(&all()).await;
    assert!(!world.has(old, "lost") && world.has(old, "by the new one"));
    let refused = world.batcher(old).submit(Bytes::new()).await;
    assert_eq!(refused, Err(Refused::NotLeader { leader: world.leader() }));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_is_refused_under_its_old_number() {
    let mut world = World::new(3).await;
    let leader = world.wait_for_leader().await;
    let wiped = all().into_iter().find(|id| *id != leader).unwrap();
    world.kill(wiped).await;
    let node = world.nodes.get_mut(&wiped).unwrap();
    node.disk = FaultyDisk::default();
    node.machine = node.machine.sibling();
    world.start(wiped).await;
    world.write("after the loss").await;
    eventually("the wiped node is dropped", || {
        !world.group(leader).in_sync().contains(&wiped)
    })
    .await;
    let metrics = world.group(wiped).raft().metrics().borrow().clone();
    assert_eq!(
        (metrics.last_log_index, metrics.current_term),
        (None, 0),
        "it was given nothing"
    );
    assert_ne!(world.group(wiped).store(), world.peers[&wiped].store);
    let claim = Envelope {
        kind: super::wire::Kind::Standing,
        from: wiped,
        from_store: world.group(wiped).store(),
        to_store: world.peers[&leader].store,
    };
    let refusal = super::wire::answer(world.group(leader).serve(claim.seal(&[])).await);
    assert!(refusal.is_err_and(|bad| bad.to_string().contains("lost its store")));
    assert_ne!(claim.from_store, StoreId::default());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_behind_the_purged_log_gets_a_checkpoint() {
    let mut world = World::new(3).await;
    let leader = world.wait_for_leader().await;
    let late = all().into_iter().find(|id| *id != leader).unwrap();
    world.kill(late).await;
    for number in 0..100 {
        world.write(&format!("{number:0200}")).await;
    }
    let group = world.group(leader);
    group.checkpoint().await.unwrap();
    eventually("a checkpoint", || group.raft().metrics().borrow().snapshot.is_some()).await;
    group.purge(4096, None).await.unwrap();
    eventually("the log is purged", || {
        group.raft().metrics().borrow().purged.is_some_and(|id| id.index > 20)
    })
    .await;
    world.start(late).await;
    world.in_sync_becomes(&all()).await;
    eventually("the same operations", || {
        world.operations(late) == world.operations(leader)
    })
    .await;
    assert!(
        world.group(late).raft().metrics().borrow().snapshot.is_some(),
        "it came as a checkpoint"
    );
    world.write("and on it goes").await;
    world.stop().await;
}

/// Without a bound by bytes a follower far behind stays stuck for ever: each append to it is too long for its time-out.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_behind_by_many_large_entries_catches_up() {
    let world = World::new(3).await;
    let leader = world.wait_for_leader().await;
    let late = all().into_iter().find(|id| *id != leader).unwrap();
    world.cut(late, true);
    let (mut left, start): (Vec<u8>, _) = ((0..48).collect(), Instant::now());
    // Again where another came to lead meanwhile, as it may on a busy machine.
    while !left.is_empty() {
        assert!(start.elapsed() < PATIENCE, "{left:?} were never acknowledged");
        let batcher = world.batcher(world.wait_for_leader().await);
        let writes = left.iter().map(|number| batcher.submit(vec![*number; 1 << 20]));
        let answers = futures_util::future::join_all(writes).await;
        let refused = left.into_iter().zip(&answers).filter(|(_, answer)| answer.is_err());
        left = refused.map(|(number, _)| number).collect();
    }
    world.cut(late, false);
    world.in_sync_becomes(&all()).await;
    eventually("the same operations", || {
        world.operations(late) == world.operations(leader)
    })
    .await;
    world.stop().await;
}

/// I9: an image of its own disk, taken while it ran, comes back in its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_set_back_is_found_out_and_never_votes_again() {
    let mut world = World::new(3).await;
    let leader = world.wait_for_leader().await;
    let victim = 1 + leader % 3;
    world.write("before").await;
    let image = world.nodes[&victim].disk.as_synced();
    for number in 0..10 {
        world.write(&format!("after{number}")).await;
    }
    eventually("it has all", || world.has(victim, "after9")).await;
    world.kill(victim).await;
    world.write("meanwhile").await;
    let node = world.nodes.get_mut(&victim).unwrap();
    (node.disk, node.machine) = (image, node.machine.sibling());
    world.start(victim).await;
    tokio::time::timeout(PATIENCE, world.group(victim).set_back())
        .await
        .expect("it is told");
    assert!(!world.has(victim, "after9"), "it got nothing more");
    world.kill(victim).await;
    // Under the identity that it takes then it is a stranger.
    let disk = world.nodes[&victim].disk.clone();
    super::identity::renew(&disk, victim).unwrap();
    world.start(victim).await;
    world.write("more").await;
    assert!(!world.has(victim, "more") && world.term(victim) <= world.term(leader));
    world.stop().await;
}
