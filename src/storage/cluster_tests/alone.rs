//! A node whose peers are gone: its door answers what its own replica knows, changes wait, and nothing of it is kept.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::node::*;
use super::promise::{ROOT, Told, append, eventually};
use crate::base::Scope;
use crate::net::mesh::trust::Trust;
use crate::net::mesh::{Handler, Server, Services};
use crate::storage::call::{self, Attributes, Change, Creation, Inode, Mutation, PORTAL, Query, Reply};
use crate::storage::charter::Charter;
use crate::storage::client;
use crate::storage::command::Role;
use crate::storage::door::{Calls, RequestKey};
use crate::storage::insync::Copies;
use crate::storage::log::Sizes;
use crate::storage::mesh::{LIMITS, RAFT, REQUESTS, RaftHandler, RequestHandler, ToLeader};
use crate::storage::operation::Place;
use crate::storage::running::{Running, Wanted};

/// A replica put together by hand, so that a door stands right before it.
struct Bare {
    running: Running,
    door: client::Client,
    told: Arc<Told>,
    scope: Scope,
}

impl Bare {
    /// In the place of a node that was killed.
    async fn start(node: &Node) -> Self {
        let (folder, scope) = (node.path("storage"), Scope::new());
        let charter = Charter::load(&folder).unwrap().unwrap();
        let tls = Arc::new(Trust::new(node.path("trust")).tls().unwrap());
        let wanted = Wanted {
            node: node.name.clone(),
            copies: Copies { wanted: 3, least: 1 },
            sizes: Sizes::default(),
        };
        let start = Instant::now();
        let running = loop {
            match Running::start(&folder, &charter, &wanted, Some(tls.clone()), &scope).await {
                Ok(running) => break running,
                // The one before lets go of the folder with its last task.
                Err(error) => assert!(start.elapsed() < PATIENCE, "{error:#}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let leader = running.files.as_ref().map(|files| files.leader.clone());
        let handlers: [(u16, Arc<dyn Handler>); 2] = [
            (RAFT, Arc::new(RaftHandler(running.group.clone()))),
            (REQUESTS, Arc::new(RequestHandler(leader.clone().unwrap()))),
        ];
        let services: Services = handlers.into_iter().collect();
        let server = Arc::new(Server {
            tls,
            services,
            streams: None,
            limits: LIMITS,
        });
        let listener = loop {
            match tokio::net::TcpListener::bind(node.mesh()).await {
                Ok(listener) => break listener,
                Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        scope.spawn(server.serve(listener, scope.clone()));
        let way = ToLeader::new(running.group.clone(), leader, running.links.clone(), &scope);
        let told = Arc::new(Told::default());
        let place = Place(format!("{}/fuse", node.name));
        let door = client::Client::start_door(Arc::new(way), place, &scope, told.clone());
        door.go(false);
        Bare {
            running,
            door,
            told,
            scope,
        }
    }

    async fn stop(self) {
        self.running.group.stop().await;
        self.scope.stop(Duration::ZERO).await;
    }

    async fn attributes(&self, inode: Inode) -> Attributes {
        match self.until_answered(Query::Attributes { inode }).await {
            Ok(Reply::Attributes(of)) => of,
            other => panic!("{other:?}"),
        }
    }

    /// A door's patience: asks again what nobody could answer.
    async fn until_answered(&self, query: Query) -> Result<Reply, call::Error> {
        let start = Instant::now();
        loop {
            match self.door.query(&ROOT, query.clone()).await {
                Err(call::Error::Unavailable) => assert!(start.elapsed() < PATIENCE, "{query:?}"),
                answer => return answer,
            }
        }
    }

    async fn lookup(&self, name: &str) -> Result<Inode, call::Error> {
        let (folder, name) = (PORTAL, name.as_bytes().to_vec());
        match self.until_answered(Query::Lookup { folder, name }).await {
            Ok(Reply::Object { attributes, .. }) => Ok(attributes.inode),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        }
    }

    async fn content(&self, inode: Inode) -> Result<Bytes, call::Error> {
        let (offset, count) = (0, 100);
        match self.door.query(&ROOT, Query::Read { inode, offset, count }).await {
            Ok(Reply::Data { data, .. }) => Ok(data),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        }
    }

    async fn change(&self, xid: u32, mutation: Mutation) {
        let key = RequestKey {
            client: 8,
            xid,
            checksum: 0,
        };
        let start = Instant::now();
        while let Err(error) = self.door.mutate(&ROOT, key, mutation.clone()).await {
            assert_eq!(error, call::Error::Unavailable);
            assert!(start.elapsed() < PATIENCE, "{mutation:?}");
        }
    }

    async fn create(&self, name: &str) -> Result<Reply, call::Error> {
        let key = RequestKey {
            client: 7,
            xid: 1,
            checksum: 0,
        };
        let mutation = Mutation::Create {
            folder: PORTAL,
            name: name.as_bytes().to_vec(),
            how: Creation::Guarded,
            change: Change::default(),
        };
        self.door.mutate(&ROOT, key, mutation).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_what_is_known_here_is_answered_and_changes_wait() {
    let mut nodes = three().await;
    let root = nodes[0].root().await;
    create(&mut nodes[0].client().await, &root, "file", b"content").await;
    let expected = [("file".to_owned(), Bytes::from_static(b"content"))];
    let start = Instant::now();
    while mirror(nodes[2].folder.path()) != expected.clone().into() {
        assert!(start.elapsed() < PATIENCE, "it never arrives");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    nodes[2].kill();
    let mut bare = Bare::start(&nodes[2]).await;
    eventually("it has a lease", || bare.door.lease()).await;
    let inode = bare.lookup("file").await.unwrap();
    bare.told.0.lock().unwrap().clear();
    nodes[0].kill();
    nodes[1].kill();
    eventually("its lease is over", || !bare.door.lease()).await;
    eventually("that is told", || {
        bare.told.0.lock().unwrap().iter().any(|told| told.all)
    })
    .await;

    assert_eq!(bare.attributes(inode).await.size, 7);
    let start = Instant::now();
    assert_eq!(bare.lookup("file").await, Ok(inode));
    assert_eq!(bare.lookup("later").await, Err(call::Error::NotFound));
    let (offset, count) = (0, 100);
    match bare.until_answered(Query::Read { inode, offset, count }).await {
        Ok(Reply::Data { data, .. }) => assert_eq!(data, &b"content"[..]),
        other => panic!("{other:?}"),
    }
    let (folder, cookie, limit) = (PORTAL, 0, 10);
    match bare.until_answered(Query::List { folder, cookie, limit }).await {
        Ok(Reply::List { entries, .. }) => assert_eq!(entries.len(), 1),
        other => panic!("{other:?}"),
    }
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "nobody waits once nobody leads"
    );
    for query in [Query::Attributes { inode }, Query::Attributes { inode: PORTAL }] {
        assert_eq!(bare.door.recall(&ROOT, &query), None, "it is not kept");
    }
    // Started anew it knows what it knew.
    bare.stop().await;
    bare = Bare::start(&nodes[2]).await;
    assert_eq!(bare.lookup("file").await, Ok(inode));
    assert_eq!(bare.attributes(inode).await.size, 7);
    assert_eq!(bare.create("waits").await, Err(call::Error::Unavailable));
    assert_eq!(bare.lookup("waits").await, Err(call::Error::NotFound));

    bare.told.0.lock().unwrap().clear();
    nodes[0].start();
    nodes[1].start();
    let start = Instant::now();
    while let Err(error) = bare.create("waits").await {
        assert_eq!(error, call::Error::Unavailable);
        assert!(start.elapsed() < PATIENCE, "it waits for ever");
    }
    eventually("it has a lease", || bare.door.lease()).await;
    assert!(
        bare.told.0.lock().unwrap().iter().any(|told| told.all),
        "what was answered meanwhile is forgotten"
    );
    assert!(bare.lookup("waits").await.is_ok());
    nodes[1]
        .until("serves", |report| {
            report.leader.is_some() && matches!(report.role, Role::Leader | Role::Follower)
        })
        .await;
    let mut other = nodes[1].client().await;
    create(&mut other, &root, "later", b"").await;
    assert!(bare.lookup("later").await.is_ok());
    let file = super::promise::lookup(&mut other, &root, "file").await.unwrap();
    for length in 8..20 {
        append(&mut other, &file, length - 1).await;
        assert_eq!(bare.attributes(inode).await.size, length);
    }
    bare.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_without_a_quorum_no_content_is_read_that_may_be_half_changed() {
    let mut nodes = three().await;
    let root = nodes[0].root().await;
    create(&mut nodes[0].client().await, &root, "file", b"old content").await;
    nodes[2].kill();
    let mut bare = Bare::start(&nodes[2]).await;
    eventually("it has a lease", || bare.door.lease()).await;
    let inode = bare.lookup("file").await.unwrap();
    let folder = nodes[2].folder.path().to_owned();
    let shows = |content: &'static [u8]| mirror(&folder) == [("file".to_owned(), Bytes::from_static(content))].into();
    eventually("the file is here", || shows(b"old content")).await;
    let machine = bare.running.files.as_ref().unwrap().machine.get();
    let applied = machine.applied();
    bare.running.group.checkpoint().await.unwrap();
    eventually("there is a checkpoint", || machine.durable() >= applied).await;
    drop(machine);
    let change = Change {
        size: Some(0),
        ..Change::default()
    };
    let guard = None;
    bare.change(1, Mutation::Set { inode, change, guard }).await;
    let data = Bytes::from_static(b"another, which is longer");
    let offset = 0;
    bare.change(2, Mutation::Write { inode, offset, data }).await;
    eventually("the change is here", || shows(b"another, which is longer")).await;
    nodes[0].kill();
    nodes[1].kill();
    eventually("nobody leads", || !bare.door.lease()).await;
    let start = Instant::now();
    while bare.content(inode).await != Ok(Bytes::from_static(b"another, which is longer")) {
        assert!(start.elapsed() < PATIENCE, "without a crash it is read alone");
    }
    // What a power cut may leave: the state of the checkpoint, contents of later, and nobody knows what was committed.
    bare.stop().await;
    std::fs::remove_file(nodes[2].path("storage/log/committed")).unwrap();
    bare = Bare::start(&nodes[2]).await;
    assert_eq!(bare.attributes(inode).await.size, 11, "of the checkpoint");
    assert_eq!(bare.content(inode).await, Err(call::Error::Unavailable));
    bare.stop().await;

    nodes.iter_mut().for_each(Node::start);
    nodes[2].until("has a leader", |report| report.leader.is_some()).await;
    // An entry of the new leader, after which all is exact.
    create(&mut nodes[2].client().await, &root, "later", b"").await;
    eventually("it has come", || folder.join("storage/state/tree/later").exists()).await;
    // In order: then they are what the rows say, and a node alone reads them at once.
    nodes[2].stop().await;
    nodes[0].kill();
    nodes[1].kill();
    bare = Bare::start(&nodes[2]).await;
    assert_eq!(bare.attributes(inode).await.size, 24);
    assert_eq!(
        bare.content(inode).await,
        Ok(Bytes::from_static(b"another, which is longer"))
    );
    bare.stop().await;
}
