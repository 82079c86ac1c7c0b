//! Raft groups in one process whose replicas are real states on a disk: learners that are behind the purged log, a replica
//! that was away, one that lost its state, a witness. A member ends without a closing step.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::*;
use crate::base::{BoxFuture, Pieces, clock};
use crate::storage::batch::Batcher;
use crate::storage::call::{Caller, Change, Creation, Inode, Mutation, PORTAL, Time};
use crate::storage::disk::Folder;
use crate::storage::group::{Group, Settings};
use crate::storage::insync::Copies;
use crate::storage::log::{self, Sizes};
use crate::storage::machine::Machine as Seam;
use crate::storage::network::{Transport, Unreached};
use crate::storage::operation::{Operation, Place, Session};
use crate::storage::operation_codec;
use crate::storage::promise::Callbacks;
use crate::storage::replica;
use crate::storage::transfer::receive_note;
use crate::storage::types::{NodeId, Peer};
use crate::storage::wire::Envelope;
use crate::storage::witness::{self, Witness};

const PATIENCE: Duration = Duration::from_secs(60);
const SESSION: Session = Session(5);
const LARGE: usize = 600 << 10;

#[derive(Clone)]
struct Member {
    folder: Arc<TempDir>,
    group: Group,
    batcher: Batcher,
    scope: Scope,
    /// A witness has none.
    machine: Option<Shared>,
    leftover: Option<PathBuf>,
}

impl Member {
    async fn start(id: NodeId, folder: Arc<TempDir>, is_witness: bool, links: &Links) -> Member {
        let (state, log_folder) = (folder.path().join("state"), folder.path().join("log"));
        for folder in [&state, &log_folder] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let (scope, disk) = (Scope::new(), Arc::new(Folder::new(log_folder)));
        let purged = log::purged(&*disk).unwrap().map(|id| id.index);
        let (machine, seam): (_, Box<dyn Seam>) = match is_witness {
            true => (None, Box::new(Witness::open(&state, purged).unwrap())),
            false => {
                admit_incoming(&state, &SystemDisk, purged).unwrap();
                let machine = Shared::new(Machine::open(&state, Arc::new(SystemDisk)).unwrap());
                let replica =
                    replica::Replica::new(machine.clone(), state, Callbacks::default(), scope.clone()).unwrap();
                (Some(machine), Box::new(replica))
            }
        };
        let settings = Settings {
            me: id,
            copies: Copies { wanted: 1, least: 1 },
            sizes: Sizes {
                segment: 4096,
                ..Sizes::default()
            },
        };
        let clock = Arc::new(clock::boot);
        let group = Group::open(settings, disk, seam, Arc::new(links.clone()), clock, &scope)
            .await
            .unwrap();
        let leftover = Some(folder.path().join("leftover")).filter(|leftover| leftover.exists());
        let member = Member {
            folder,
            batcher: group.batcher(&scope),
            group,
            scope,
            machine,
            leftover,
        };
        links.members().insert(id, member.clone());
        member
    }

    fn peer(&self, id: NodeId) -> Peer {
        Peer {
            name: format!("n{id}"),
            address: String::new(),
            store: self.group.store(),
            witness: self.machine.is_none(),
        }
    }

    fn machine(&self) -> Arc<Machine> {
        self.machine.as_ref().unwrap().get()
    }

    async fn submit(&self, operation: &Operation) {
        let submitted = self.batcher.submit(operation_codec::encode(operation)).await.unwrap();
        let reply = crate::storage::state::decode_reply(&submitted).unwrap();
        assert!(reply.is_ok(), "{operation:?}: {reply:?}");
    }

    /// A checkpoint, and the log before it goes.
    async fn purge(&self) {
        let (applied, before) = {
            let metrics = self.group.raft().metrics();
            let metrics = metrics.borrow();
            (metrics.last_applied.map(|id| id.index), metrics.purged)
        };
        self.group.checkpoint().await.unwrap();
        let made = eventually("a checkpoint", || {
            let metrics = self.group.raft().metrics().borrow().clone();
            metrics.snapshot.is_some_and(|id| Some(id.index) >= applied)
        });
        made.await;
        self.group.purge(0, None).await.unwrap();
        let purged = || self.group.raft().metrics().borrow().purged > before;
        eventually("a purge", purged).await;
    }

    async fn has_applied(&self, index: Option<u64>) {
        let applied = || self.group.raft().metrics().borrow().last_applied.map(|id| id.index);
        eventually("all is applied", || applied() >= index).await;
    }
}

async fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The members that run, and how each transfer ended.
#[derive(Clone, Default)]
struct Links {
    members: Arc<Mutex<BTreeMap<NodeId, Member>>>,
    transfers: Arc<Mutex<Vec<(NodeId, Counts)>>>,
    holds: Holds,
}

impl Links {
    fn members(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Member>> {
        self.members.lock().unwrap()
    }

    fn member(&self, id: NodeId) -> Result<Member, Unreached> {
        let found = self.members().get(&id).cloned();
        found.ok_or_else(|| Unreached::Refused("it does not run".into()))
    }

    fn sent_to(&self, id: NodeId) -> Vec<Counts> {
        let transfers = self.transfers.lock().unwrap();
        transfers
            .iter()
            .filter(|(to, _)| *to == id)
            .map(|(_, counts)| *counts)
            .collect()
    }

    async fn kill(&self, id: NodeId) {
        let member = self.members().remove(&id).unwrap();
        member.group.stop().await;
        member.scope.stop(Duration::ZERO).await;
    }

    async fn bring(&self, to: NodeId, header: Bytes) -> Result<Bytes, Unreached> {
        let (envelope, _) = Envelope::open(header.clone()).unwrap();
        let (source, target) = (self.member(envelope.from)?, self.member(to)?);
        let source = source.machine.ok_or_else(witness::refusal)?;
        let (one, other) = tokio::io::duplex(64 * 1024);
        let group = target.group.clone();
        let place = group.incoming().await.unwrap();
        let install = |header: Bytes, place: Checkpoint| async move { group.install(header, place).await };
        let progress = Arc::new(Progress::default());
        let counts = progress.clone();
        let receiving = async {
            match target.machine.clone() {
                None => receive_note(one, place, install).await,
                Some(machine) => {
                    let local = Local {
                        machine,
                        disk: Arc::new(SystemDisk),
                        leftover: target.leftover.clone(),
                    };
                    receive(one, place, local, &target.scope, progress, install).await
                }
            }
        };
        let sent = Arc::default();
        let (received, answer) = tokio::join!(receiving, send(other, header, &source, &self.holds, &sent));
        self.transfers.lock().unwrap().push((to, counts.counts()));
        let answer = received.and(answer);
        answer.map_err(|error| Unreached::Lost(error.to_string()))
    }
}

impl Transport for Links {
    fn call<'a>(
        &'a self,
        node: NodeId,
        _peer: &'a Peer,
        request: Pieces,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Bytes, Unreached>> {
        Box::pin(async move {
            let group = self.member(node)?.group;
            let answer = tokio::time::timeout(deadline, group.serve(request.join())).await;
            answer.map_err(|_| Unreached::Lost("no answer".into()))
        })
    }

    fn send_checkpoint<'a>(
        &'a self,
        node: NodeId,
        _peer: &'a Peer,
        header: Bytes,
        _checkpoint: &'a Checkpoint,
    ) -> BoxFuture<'a, Result<Bytes, Unreached>> {
        Box::pin(self.bring(node, header))
    }
}

/// What one door writes.
struct Writer {
    sequence: u64,
}

impl Writer {
    async fn begin(leader: &Member) -> Writer {
        let begin = Operation::Begin {
            session: SESSION,
            place: Place("test".into()),
            adopts: false,
        };
        leader.submit(&begin).await;
        Writer { sequence: 0 }
    }

    async fn mutate(&mut self, leader: &Member, mutation: Mutation) -> Inode {
        self.sequence += 1;
        let fresh = Inode(100 + self.sequence);
        let operation = Operation::Mutate {
            session: SESSION,
            sequence: self.sequence,
            acknowledged: self.sequence - 1,
            key: None,
            caller: Caller {
                uid: 0,
                gid: 0,
                groups: Vec::new(),
            },
            time: Time::default(),
            fresh,
            mutation,
        };
        leader.submit(&operation).await;
        fresh
    }

    async fn file(&mut self, leader: &Member, data: Vec<u8>) -> Inode {
        let create = Mutation::Create {
            folder: PORTAL,
            name: format!("file {}", self.sequence).into_bytes(),
            how: Creation::Guarded,
            change: Change::default(),
        };
        let inode = self.mutate(leader, create).await;
        self.write(leader, inode, data).await;
        inode
    }

    /// Several segments of the log.
    async fn files(&mut self, leader: &Member) {
        for number in 0..40_u8 {
            self.file(leader, vec![number; 300]).await;
        }
    }

    async fn write(&mut self, leader: &Member, inode: Inode, data: Vec<u8>) {
        let data = Bytes::from(data);
        self.mutate(leader, Mutation::Write { inode, offset: 0, data }).await;
    }
}

async fn leads(member: &Member) {
    eventually("it leads", || member.group.is_readable()).await;
}

/// Both have applied all, and every content and every name of the mirror is the same.
async fn assert_same(leader: &Member, other: &Member) {
    let last = leader.group.raft().metrics().borrow().last_applied.map(|id| id.index);
    other.has_applied(last).await;
    let (one, two) = (leader.machine(), other.machine());
    let facts = one.manifest(Inode(0), 10_000).unwrap();
    assert_eq!(facts, two.manifest(Inode(0), 10_000).unwrap());
    for fact in facts {
        let checked = one.verify(fact.inode).unwrap().unwrap();
        assert_eq!(checked.found, fact.size);
        assert_eq!(two.verify(fact.inode).unwrap(), Some(checked));
    }
    let names = |member: &Member| listed(&member.folder.path().join("state/tree"));
    assert_eq!(names(leader), names(other));
}

fn listed(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect()
}

fn new_folder() -> Arc<TempDir> {
    Arc::new(temporary())
}

/// A leader with files whose log begins behind them.
async fn founded(links: &Links) -> (Member, Writer) {
    let leader = Member::start(1, new_folder(), false, links).await;
    leader.group.initialize([(1, leader.peer(1))].into()).await.unwrap();
    leads(&leader).await;
    let mut writer = Writer::begin(&leader).await;
    writer.file(&leader, vec![200; LARGE]).await;
    writer.files(&leader).await;
    leader.purge().await;
    (leader, writer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_behind_the_purged_log_catches_up_while_writes_go_on() {
    let links = Links::default();
    let (leader, mut writer) = founded(&links).await;
    let learner = Member::start(2, new_folder(), false, &links).await;
    let added = leader.group.raft().add_learner(2, learner.peer(2), false);
    added.await.unwrap();
    let mut written = Vec::new();
    // Until the learner is in sync, and then some.
    let start = Instant::now();
    while !leader.group.in_sync().contains(&2) || written.len() < 200 {
        assert!(start.elapsed() < PATIENCE, "the learner never caught up");
        let number = written.len();
        written.push(writer.file(&leader, vec![number as u8; 50 + number]).await);
        if number % 3 == 0 {
            writer.write(&leader, written[number / 2], b"changed".to_vec()).await;
        }
    }
    assert!(!links.sent_to(2).is_empty(), "it came as files");
    assert_eq!(links.holds.floor(), None);
    assert_same(&leader, &learner).await;
    links.kill(1).await;
    links.kill(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_returns_gets_what_changed_and_one_without_state_what_differs() {
    let links = Links::default();
    let (leader, mut writer) = founded(&links).await;
    let other = Member::start(2, new_folder(), false, &links).await;
    leader.group.raft().add_learner(2, other.peer(2), false).await.unwrap();
    eventually("in sync", || leader.group.in_sync().contains(&2)).await;
    let folder = other.folder.clone();
    drop(other);
    links.kill(2).await;
    let changed = writer.file(&leader, vec![7; 1000]).await;
    writer.files(&leader).await;
    leader.purge().await;
    writer.write(&leader, changed, vec![8; 10]).await;
    let back = Member::start(2, folder.clone(), false, &links).await;
    eventually("in sync", || leader.group.in_sync().contains(&2)).await;
    assert_same(&leader, &back).await;
    let sent = links.sent_to(2);
    let last = sent.last().unwrap();
    assert!(
        sent.len() > 1 && last.sent < LARGE as u64 / 2,
        "the large content was linked: {sent:?}"
    );

    // Its state is damaged: what of it can be used is a leftover for a new number.
    drop(back);
    links.kill(2).await;
    let state = folder.path().join("state");
    std::fs::rename(state.join("data"), folder.path().join("leftover")).unwrap();
    std::fs::remove_dir_all(state).unwrap();
    std::fs::remove_dir_all(folder.path().join("log")).unwrap();
    let wiped = Member::start(3, folder, false, &links).await;
    leader.group.raft().add_learner(3, wiped.peer(3), false).await.unwrap();
    eventually("in sync", || leader.group.in_sync().contains(&3)).await;
    assert_same(&leader, &wiped).await;
    let sent = links.sent_to(3);
    assert!(sent.last().unwrap().sent < LARGE as u64 / 2, "{sent:?}");
    links.kill(1).await;
    links.kill(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_behind_the_purged_log_follows_and_gives_no_files() {
    let links = Links::default();
    let (leader, mut writer) = founded(&links).await;
    let folder = new_folder();
    let third = Member::start(3, folder.clone(), true, &links).await;
    leader.group.raft().add_learner(3, third.peer(3), true).await.unwrap();
    writer.file(&leader, vec![1; 10]).await;
    let last = leader.group.raft().metrics().borrow().last_applied.map(|id| id.index);
    third.has_applied(last).await;
    assert!(!leader.group.in_sync().contains(&3), "no copy");
    assert_eq!(third.group.in_sync(), leader.group.in_sync());
    let files = std::fs::read_dir(folder.path().join("state")).unwrap().count();
    assert!(files <= 2, "only its own marks");
    links.kill(3).await;
    let third = Member::start(3, folder, true, &links).await;
    writer.file(&leader, vec![2; 10]).await;
    let last = leader.group.raft().metrics().borrow().last_applied.map(|id| id.index);
    third.has_applied(last).await;
    links.kill(1).await;
    links.kill(3).await;
}
