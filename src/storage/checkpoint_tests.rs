//! A replica that needs log which is gone gets the state over the real mesh.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::charter::Charter;
use super::checkpoints::Receiving;
use super::insync::Copies;
use super::log::Sizes;
use super::mesh::{LIMITS, RAFT, RaftHandler, SCRUB};
use super::opening;
use super::running::{Running, Wanted};
use super::scrub::ScrubHandler;
use super::types::{NodeId, Peer};
use crate::base::Scope;
use crate::net::mesh::trust::Trust;
use crate::net::mesh::{Handler, Server, Services, Streams};
use crate::storage::call::{Caller, Change, Creation, Mutation, PORTAL, Reply};
use crate::storage::operation::{Place, Session};
use crate::storage::request::{Request, Response};

const PATIENCE: Duration = Duration::from_secs(60);
const FILES: u64 = 60;

struct Node {
    folder: TempDir,
    running: Running,
    peer: Peer,
}

async fn start(name: &str, charter: Charter, trust: &Trust, scope: &Scope) -> Node {
    let folder = tempfile::tempdir().unwrap();
    opening::prepare(folder.path(), charter.witness).unwrap();
    let tls = Arc::new(trust.tls().unwrap());
    let wanted = Wanted {
        node: name.into(),
        copies: Copies { wanted: 3, least: 1 },
        sizes: Sizes {
            segment: 4096,
            ..Sizes::default()
        },
    };
    let running = Running::start(folder.path(), &charter, &wanted, Some(tls.clone()), scope)
        .await
        .unwrap();
    let files = running.files.clone().unwrap();
    let receiving: Arc<dyn Streams> = Arc::new(Receiving {
        group: running.group.clone(),
        own: Some(files.machine.clone()),
        progress: running.sending.progress.clone(),
        scope: scope.clone(),
    });
    let handlers: [(u16, Arc<dyn Handler>); 2] = [
        (RAFT, Arc::new(RaftHandler(running.group.clone()))),
        (SCRUB, Arc::new(ScrubHandler(files.machine))),
    ];
    let services: Services = handlers.into_iter().collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = Peer {
        name: name.into(),
        address: listener.local_addr().unwrap().to_string(),
        store: running.group.store(),
        witness: false,
    };
    let server = Arc::new(Server {
        tls,
        services,
        streams: Some(receiving),
        limits: LIMITS,
    });
    scope.spawn(server.serve(listener, scope.clone()));
    Node { folder, running, peer }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn answer(node: &Node, request: Request) -> Reply {
    let leader = &node.running.files.as_ref().unwrap().leader;
    let start = Instant::now();
    loop {
        match leader.answer(request.clone()).await {
            Response::Answer(answer) => return answer.unwrap(),
            _ => assert!(start.elapsed() < PATIENCE, "it never leads"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn mutate(sequence: u64, mutation: Mutation) -> Request {
    Request::Mutate {
        session: Session(1),
        sequence,
        acknowledged: sequence - 1,
        key: None,
        caller: Caller {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
        },
        mutation,
    }
}

async fn write_files(node: &Node) {
    let begin = Request::Begin {
        session: Session(1),
        place: Place("n1/test".into()),
        adopts: false,
    };
    answer(node, begin).await;
    for number in 0..FILES {
        let create = Mutation::Create {
            folder: PORTAL,
            name: number.to_string().into_bytes(),
            how: Creation::Guarded,
            change: Change::default(),
        };
        let Reply::Object { attributes, .. } = answer(node, mutate(2 * number + 1, create)).await else {
            panic!("an object")
        };
        let write = Mutation::Write {
            inode: attributes.inode,
            offset: 0,
            data: vec![number as u8; 1000].into(),
        };
        answer(node, mutate(2 * number + 2, write)).await;
    }
}

fn has_all(folder: &Path) -> bool {
    (0..FILES).all(|number| {
        let found = std::fs::read(folder.join("state/tree").join(number.to_string()));
        found.is_ok_and(|data| data == vec![number as u8; 1000])
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_log_is_gone_gets_the_state_and_a_rotten_file_is_mended() {
    let trusts = tempfile::tempdir().unwrap();
    let [first, second, third] = ["n1", "n2", "n3"].map(|name| Trust::new(trusts.path().join(name)));
    first
        .found("test".parse().unwrap(), &"n1".parse().unwrap(), None)
        .unwrap();
    first.issue(&"n2".parse().unwrap(), &second).unwrap();
    first.issue(&"n3".parse().unwrap(), &third).unwrap();
    let scope = Scope::new();
    let charter = Charter::found().unwrap();
    let n1 = start("n1", charter.clone(), &first, &scope).await;
    n1.running
        .group
        .initialize([(1, n1.peer.clone())].into())
        .await
        .unwrap();
    write_files(&n1).await;
    n1.running.group.checkpoint().await.unwrap();
    let metrics = n1.running.group.raft().metrics();
    eventually("a checkpoint", || metrics.borrow().snapshot.is_some()).await;
    n1.running.group.purge(0, None).await.unwrap();
    eventually("a purge", || metrics.borrow().purged.is_some()).await;
    let mut copies = Vec::new();
    for (number, name, trust) in [(2 as NodeId, "n2", &second), (3, "n3", &third)] {
        let node = start(name, Charter::join(number, false, charter.shared), trust, &scope).await;
        let added = n1
            .running
            .group
            .raft()
            .add_learner(number, node.peer.clone(), false)
            .await;
        added.unwrap();
        eventually("in sync", || n1.running.group.in_sync().contains(&number)).await;
        eventually("the files are there", || has_all(node.folder.path())).await;
        assert!(
            node.running.sending.progress.counts().files_total >= FILES,
            "it came as files"
        );
        copies.push(node);
    }
    eventually("all know of three copies", || {
        copies[0].running.group.in_sync().len() == 3
    })
    .await;
    // Bits rot on one of three.
    let file = std::fs::canonicalize(copies[0].folder.path().join("state/tree/7")).unwrap();
    std::fs::write(&file, vec![0xee; 1000]).unwrap();
    let scrub = copies[0].running.files.as_ref().unwrap().scrub.clone();
    let (running, tasks) = (scrub.clone(), scope.clone());
    scope.spawn(async move { running.run(PATIENCE * 100, tasks).await });
    scrub.start_now();
    eventually("a pass", || scrub.counts().passes == 1).await;
    assert_eq!((scrub.counts().mended, scrub.counts().undecided), (1, 0));
    assert!(has_all(copies[0].folder.path()));
    for node in copies.iter().chain([&n1]) {
        node.running.group.stop().await;
    }
    scope.stop(Duration::ZERO).await;
}
