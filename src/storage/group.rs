//! One replica of the group: openraft with our log, machine and network, and the rules that openraft 0.9 leaves to us:
//! what may be acknowledged, what may be read, who may stand for election, and whose disk is in sync.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use openraft::error::{ClientWriteError, RaftError};
use openraft::metrics::RaftServerMetrics;
use openraft::storage::{RaftLogStorage, Snapshot};
use openraft::{Config, Raft, RaftMetrics, ServerState, SnapshotMeta, SnapshotPolicy};
use tokio::sync::watch;

use super::batch::{Batcher, Flight, Refused};
use super::disk::Disk;
use super::entry::Body;
use super::exact::Exact;
use super::guard::{FRESH, Standing};
use super::insync::{self, Copies, Durable};
use super::log::{LogReader, LogStore, Members, Sizes};
use super::machine::{Driver, Machine};
use super::network::{Clock, Network, Transport};
use super::types::{Checkpoint, LogId, NodeId, Peer, Replies, StoreId, Types, Vote, next_index};
use super::wire::{self, Bad, Envelope, Kind};
use super::{identity, lease, watchers};
use crate::base::{Pieces, Scope};

/// Followers refuse votes this long after they heard the leader; also what the read lease is counted from.
pub const LEASE: Duration = Duration::from_millis(800);

/// How long a member has to say how far its log reaches.
const STANDING: Duration = Duration::from_secs(1);

/// Who this replica is and how careful it is.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub me: NodeId,
    pub copies: Copies,
    pub sizes: Sizes,
}

/// A running replica. Clones are the same.
#[derive(Clone)]
pub struct Group {
    pub(super) raft: Raft<Types>,
    metrics: watch::Receiver<RaftMetrics<NodeId, Peer>>,
    pub(super) network: Network,
    pub(super) settings: Settings,
    pub(super) in_sync: watch::Receiver<BTreeSet<NodeId>>,
    /// Which leader was heard last, and when; the start counts.
    pub(super) heard: Arc<Mutex<(Option<NodeId>, Duration)>>,
    log: LogReader,
    exact: Arc<Mutex<Exact>>,
    /// The end of the log at its start: what may have been acknowledged before.
    opened: Option<LogId>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
    set_back: watch::Sender<bool>,
}

/// Heartbeats leave every 1.5 intervals, and the interval is also the time-out of an append: with messages of at most
/// about 2 MiB that holds down to 15 MB/s.
fn config() -> Config {
    Config {
        cluster_name: "bitrix-node".into(),
        heartbeat_interval: 150,
        election_timeout_min: 500,
        election_timeout_max: LEASE.as_millis() as u64,
        enable_elect: false,
        max_payload_entries: 64,
        snapshot_policy: SnapshotPolicy::Never,
        // A checkpoint purges nothing: how much log is kept goes by bytes (`Group::purge`).
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 1,
        replication_lag_threshold: 1 << 40,
        install_snapshot_timeout: 60_000,
        ..Config::default()
    }
}

impl Group {
    /// Opens the store in `disk` and starts the replica; its tasks belong to `scope`. A new store waits for `initialize`
    /// here or to be added by a leader. Errors mean that the store must not be used.
    pub async fn open(
        settings: Settings,
        disk: Arc<dyn Disk>,
        machine: Box<dyn Machine>,
        transport: Arc<dyn Transport>,
        clock: Clock,
        scope: &Scope,
    ) -> io::Result<Self> {
        let opened = tokio::task::spawn_blocking(move || {
            let store = identity::ensure(&*disk, settings.me)?;
            Ok::<_, io::Error>((store, LogStore::open(disk, settings.sizes)?))
        });
        let (store, (log, thread)) = opened.await.map_err(io::Error::other)??;
        let group = Self::start(settings, store, log, machine, transport, clock, scope).await?;
        *group.thread.lock().expect("no holder of this lock panics") = Some(thread);
        Ok(group)
    }

    /// Starts the replica with an opened log whose worker is the caller's.
    pub(super) async fn start(
        settings: Settings,
        store: StoreId,
        mut log: LogStore,
        machine: Box<dyn Machine>,
        transport: Arc<dyn Transport>,
        clock: Clock,
        scope: &Scope,
    ) -> io::Result<Self> {
        let driver = Driver::new(machine).await?;
        let network = Network {
            me: settings.me,
            store,
            transport,
            contacts: Arc::default(),
            held: Arc::default(),
            log: log.reader(),
            clock,
        };
        let config = Arc::new(config().validate().map_err(io::Error::other)?);
        let (reader, in_sync) = (log.reader(), driver.in_sync());
        let opened = reader.last();
        let vote = log.read_vote().await.map_err(io::Error::other)?;
        let members: Arc<OnceLock<watch::Receiver<_>>> = Arc::default();
        let told = members.clone();
        log.run_ahead(settings.me, move || told.get().map(members_of).unwrap_or_default());
        let heard = Arc::new(Mutex::new((None, (network.clock)())));
        let raft = Raft::new(settings.me, config, network.clone(), log, driver).await;
        let raft = raft.map_err(io::Error::other)?;
        // Before that it does not run ahead.
        let _ = members.set(raft.server_metrics());
        let group = Group {
            metrics: raft.metrics(),
            raft,
            network,
            settings,
            in_sync,
            heard,
            log: reader,
            exact: Arc::new(Mutex::new(Exact::after(vote.as_ref()))),
            opened,
            thread: Arc::default(),
            set_back: watch::Sender::new(false),
        };
        scope.spawn(watchers::guard_elections(group.clone(), scope.clone()));
        scope.spawn(watchers::keep_in_sync(group.clone(), scope.clone()));
        Ok(group)
    }

    /// What other nodes must know of this one before it can join.
    pub fn store(&self) -> StoreId {
        self.network.store
    }

    pub fn me(&self) -> NodeId {
        self.settings.me
    }

    /// Who leads, as far as this replica knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.raft.server_metrics().borrow().current_leader
    }

    pub fn raft(&self) -> &Raft<Types> {
        &self.raft
    }

    /// Makes a new group of these voters. Once, on one of them.
    pub async fn initialize(&self, peers: BTreeMap<NodeId, Peer>) -> io::Result<()> {
        self.raft.initialize(peers).await.map_err(io::Error::other)
    }

    /// A batcher that writes into this group.
    pub fn batcher(&self, scope: &Scope) -> Batcher {
        let group = self.clone();
        Batcher::start(scope, move |operations, flight| {
            group.clone().propose(operations, flight)
        })
    }

    async fn propose(self, operations: Vec<Pieces>, flight: Flight) -> Result<Replies, Refused> {
        if self.is_witness() {
            return Err(Refused::NotLeader { leader: None });
        }
        let write = self.raft.client_write(Body::Operations(operations));
        let written = self.while_leading(write).await;
        drop(flight);
        let written = written.ok_or_else(|| Refused::Unknown("this node leads no longer".into()))?;
        let written = written.map_err(refusal)?;
        self.acknowledgeable(written.log_id.index).await?;
        Ok(written.data)
    }

    /// Waits for what is written into the log, as long as this node leads; `None`: it leads no longer, and whether the entry stays is
    /// not known. openraft answers when an entry is applied or cut off, but never when a received checkpoint covers it.
    pub(super) async fn while_leading<T>(&self, written: impl Future<Output = T>) -> Option<T> {
        let mut metrics = self.raft.server_metrics();
        let term = metrics.borrow_and_update().vote.leader_id;
        tokio::select! {
            biased;
            written = written => Some(written),
            _ = metrics.wait_for(|now| now.vote.leader_id != term) => None,
        }
    }

    /// Waits until the committed entry `index` is on the disks of the in-sync replicas.
    async fn acknowledgeable(&self, index: u64) -> Result<(), Refused> {
        let mut progress = self.raft.data_metrics();
        let mut in_sync = self.in_sync.clone();
        loop {
            let durable = self
                .durable()
                .ok_or_else(|| Refused::Unknown("this node leads no longer".into()))?;
            if insync::is_safe(index, &in_sync.borrow_and_update(), &durable, self.settings.copies) {
                return Ok(());
            }
            let changed = tokio::select! {
                changed = progress.changed() => changed,
                changed = in_sync.changed() => changed,
            };
            changed.map_err(|_| Refused::Stopping)?;
        }
    }

    /// How far each replica's disk is, this one's included; `None` when this node does not lead. A follower answers an
    /// append only after its fsync, so what it has matched is on its disk.
    pub fn durable(&self) -> Option<Durable> {
        let metrics = self.raft.data_metrics();
        let metrics = metrics.borrow();
        let replication = metrics.replication.as_ref()?;
        let mut durable: Durable = replication.iter().map(|(node, id)| (*node, next_index(*id))).collect();
        // openraft counts its own copy before.
        durable.insert(self.settings.me, next_index(self.log.last()));
        Some(durable)
    }

    /// Whether what was read from the machine before this call may be answered. Twice for each query: it copies nothing.
    pub fn is_readable(&self) -> bool {
        self.readable_until().is_some()
    }

    /// Until when no other node can lead, if this one leads and may answer now.
    pub fn readable_until(&self) -> Option<Duration> {
        let metrics = self.metrics.borrow();
        if metrics.state != ServerState::Leader {
            return None;
        }
        let (vote, members) = (metrics.vote, metrics.membership_config.membership());
        // Entries of earlier leaders are all applied once one of its own is. A leader that ended in order, or is alone, goes on in
        // its term: then its own of before must be applied too.
        let own = metrics
            .last_applied
            .is_some_and(|id| id.leader_id == vote.leader_id && Some(id) >= self.opened);
        let me = self.settings.me;
        let is_witness = members.get_node(&me).is_some_and(|peer| peer.witness);
        // The lease is judged last: all that is above took its time before.
        let now = (self.network.clock)();
        let heard = self.majority_heard(vote, members.get_joint_config(), now)?;
        let end = lease::end(heard, LEASE);
        (own && !is_witness && now < end).then_some(end)
    }

    /// Whether the machine's contents are known to be those of its rows (`exact`): then they may be read though nobody leads.
    pub fn is_exact(&self) -> bool {
        let applied = self.metrics.borrow().last_applied;
        self.is_readable() || applied >= self.opened && self.exact().is_so(applied)
    }

    fn exact(&self) -> MutexGuard<'_, Exact> {
        self.exact.lock().expect("no holder of this lock panics")
    }

    fn majority_heard(&self, vote: Vote, voters: &[BTreeSet<NodeId>], now: Duration) -> Option<Duration> {
        let contacts = self.network.contacts.lock().expect("no holder of this lock panics");
        contacts.majority(vote, self.settings.me, voters, now)
    }

    /// Whether this node leads and a majority took something from it lately.
    fn leads_freshly(&self) -> bool {
        let (vote, state) = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow();
            (metrics.vote, metrics.state)
        };
        let now = (self.network.clock)();
        let heard = self.majority_heard(vote, &self.voters(), now);
        state == ServerState::Leader && heard.is_some_and(|heard| now < heard + FRESH)
    }

    /// Voters as of the latest membership; two sets while it changes.
    pub fn voters(&self) -> Vec<BTreeSet<NodeId>> {
        let metrics = self.raft.server_metrics();
        let membership = metrics.borrow().membership_config.clone();
        membership.membership().get_joint_config().clone()
    }

    /// All members, learners and witnesses too.
    pub fn peers(&self) -> BTreeMap<NodeId, Peer> {
        let metrics = self.raft.server_metrics();
        let membership = metrics.borrow().membership_config.clone();
        membership.nodes().map(|(node, peer)| (*node, peer.clone())).collect()
    }

    /// Whether this node votes but holds no files: it leads only to hand on what others lack.
    pub(super) fn is_witness(&self) -> bool {
        self.peers().get(&self.settings.me).is_some_and(|peer| peer.witness)
    }

    /// Data replicas that must have an entry before it is acknowledged.
    pub fn in_sync(&self) -> BTreeSet<NodeId> {
        self.in_sync.borrow().clone()
    }

    /// Makes a checkpoint of the machine; the log before it can then be purged.
    pub async fn checkpoint(&self) -> io::Result<()> {
        self.raft.trigger().snapshot().await.map_err(io::Error::other)
    }

    /// Purges what the last checkpoint covers, but keeps at least `bytes` of log for followers that return, and all after
    /// entry `limit`.
    pub async fn purge(&self, bytes: u64, limit: Option<u64>) -> io::Result<()> {
        let point = self.log.purge_point(bytes);
        match point.map(|point| limit.map_or(point, |limit| point.min(limit))) {
            Some(index) => self.raft.trigger().purge_log(index).await.map_err(io::Error::other),
            None => Ok(()),
        }
    }

    /// Bytes of log behind entry `index`, roughly: whole segments.
    pub fn log_after(&self, index: Option<u64>) -> u64 {
        self.log.bytes_after(index)
    }

    /// How far the other members' logs reach, as they say themselves: the index after the last entry.
    pub async fn ends_of_logs(&self) -> Durable {
        let peers = self.peers();
        let others = peers.iter().filter(|(node, _)| **node != self.settings.me);
        let ends = others.map(|(node, peer)| async move {
            let call = self.network.call(Kind::Standing, *node, peer, &[], STANDING);
            let answer = call.await.ok()?.ok()?;
            let standing: Standing = wire::from_json(&answer).ok()?;
            Some((*node, next_index(standing.last_log)))
        });
        futures_util::future::join_all(ends)
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    /// Resolves when the replica has failed for good; the process must end then.
    pub async fn failed(&self) -> String {
        // The state itself stands in metrics that change with every entry; those of the server end with it and change rarely.
        let mut server = self.raft.server_metrics();
        let ended = async { while server.changed().await.is_ok() {} };
        tokio::select! {
            () = ended => {}
            // openraft hears of it with the next entry only.
            failure = self.log.failed() => return format!("its log has failed: {failure}"),
        }
        let metrics = self.raft.metrics();
        let fatal = metrics.borrow().running_state.as_ref().err().map(ToString::to_string);
        fatal.unwrap_or_else(|| "the replica has ended".into())
    }

    /// Resolves when a leader has found that this store lacks what it had. The replica has ended then; its store must
    /// never be taken for what it was (`identity::renew`).
    pub async fn set_back(&self) {
        // The sender is this group's own.
        let _ = self.set_back.subscribe().wait_for(|is_so| *is_so).await;
    }

    /// Stops the replica and its log's thread. Tasks in the scope end when that drains.
    pub async fn stop(&self) {
        let _ = self.raft.shutdown().await;
        let thread = self.thread.lock().expect("no holder of this lock panics").take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Answers a request of another replica.
    pub async fn serve(&self, request: Bytes) -> Bytes {
        let answer = match self.admit(request) {
            Ok((envelope, body)) => self.dispatch(envelope.kind, body).await,
            Err(bad) => Err(bad),
        };
        match answer {
            Ok(body) => wire::accept(&body),
            Err(bad) => wire::refuse(&bad.to_string()),
        }
    }

    /// Refuses a node whose store is not the one it joined with, and messages for the store that this node had before.
    fn admit(&self, request: Bytes) -> Result<(Envelope, Bytes), Bad> {
        let (envelope, body) = Envelope::open(request)?;
        if envelope.to_store != self.network.store {
            return Err(Bad::Refused(format!("node {} has another store now", self.settings.me)));
        }
        match self.peers().get(&envelope.from) {
            Some(peer) if peer.store != envelope.from_store => Err(Bad::Refused(format!(
                "node {} lost its store; join it under a new number",
                envelope.from
            ))),
            _ => Ok((envelope, body)),
        }
    }

    async fn dispatch(&self, kind: Kind, body: Bytes) -> Result<Vec<u8>, Bad> {
        let failed = |error: RaftError<NodeId>| Bad::Refused(error.to_string());
        match kind {
            Kind::Append => {
                let request = wire::decode_append(body)?;
                let (vote, committed) = (request.vote, request.leader_commit);
                let response = self.raft.append_entries(request).await.map_err(failed)?;
                if !matches!(response, openraft::raft::AppendEntriesResponse::HigherVote(_)) {
                    self.hear(vote.leader_id.node_id);
                    self.exact().hear(&vote, committed);
                }
                Ok(wire::to_json(&response))
            }
            Kind::Vote => {
                let response = self.raft.vote(wire::from_json(&body)?).await.map_err(failed)?;
                Ok(wire::to_json(&response))
            }
            Kind::Standing => Ok(wire::to_json(&self.standing())),
            Kind::Checkpoint => Err(Bad::Refused("a checkpoint comes with its files".into())),
            Kind::SetBack => {
                // No vote leaves any more.
                let _ = self.raft.shutdown().await;
                self.set_back.send_replace(true);
                Ok(Vec::new())
            }
        }
    }

    fn hear(&self, leader: NodeId) {
        *self.heard.lock().expect("no holder of this lock panics") = (Some(leader), (self.network.clock)());
    }

    /// The leader heard last, and how long ago.
    pub(super) fn silence(&self) -> (Option<NodeId>, Duration) {
        let (leader, at) = *self.heard.lock().expect("no holder of this lock panics");
        (leader, (self.network.clock)().saturating_sub(at))
    }

    /// Who leads, if that was heard just now; `leader` may be of before.
    pub fn heard_leader(&self) -> Option<NodeId> {
        let (leader, silence) = self.silence();
        match self.leads_freshly() {
            true => Some(self.settings.me),
            false => leader.filter(|_| silence < FRESH),
        }
    }

    /// What this node says of itself to one that thinks of standing for election.
    pub(super) fn standing(&self) -> Standing {
        Standing {
            last_log: self.last_log(),
            is_witness: self.is_witness(),
            has_leader: self.heard_leader().is_some(),
        }
    }

    pub fn last_log(&self) -> Option<LogId> {
        self.raft.data_metrics().borrow().last_log
    }

    /// A place for the files of a checkpoint that a leader sends.
    pub async fn incoming(&self) -> io::Result<Checkpoint> {
        let place = self.raft.begin_receiving_snapshot().await.map_err(io::Error::other)?;
        Ok(*place)
    }

    /// Installs a checkpoint whose files are complete and on the disk; the result is the answer to the sender.
    pub async fn install(&self, header: Bytes, checkpoint: Checkpoint) -> Bytes {
        let installed = async {
            let (_, body) = self.admit(header)?;
            let (vote, meta): (Vote, SnapshotMeta<NodeId, Peer>) = wire::from_json(&body)?;
            let snapshot = Box::new(checkpoint);
            // Before: nobody reads the contents that come and takes them for exact.
            *self.exact() = Exact::after(Some(&vote));
            let response = self.raft.install_full_snapshot(vote, Snapshot { meta, snapshot }).await;
            self.hear(vote.leader_id.node_id);
            Ok::<_, Bad>(wire::to_json(
                &response.map_err(|error| Bad::Refused(error.to_string()))?,
            ))
        };
        match installed.await {
            Ok(body) => wire::accept(&body),
            Err(bad) => wire::refuse(&bad.to_string()),
        }
    }
}

/// Who votes as of the last entry of openraft's log.
fn members_of(metrics: &watch::Receiver<RaftServerMetrics<NodeId, Peer>>) -> Members {
    let metrics = metrics.borrow();
    let members = &metrics.membership_config;
    Members {
        since: *members.log_id(),
        voters: members.membership().get_joint_config().clone(),
    }
}

fn refusal(error: RaftError<NodeId, ClientWriteError<NodeId, Peer>>) -> Refused {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => Refused::NotLeader {
            leader: forward.leader_id,
        },
        other => Refused::Unknown(other.to_string()),
    }
}
