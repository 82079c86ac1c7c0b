//! Doors of other nodes answer from memory, and are never behind.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nfs3_types::nfs3::*;
use nfs3_types::xdr_codec::Opaque;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::node::*;
use crate::base::{BoxFuture, Scope};
use crate::net::mesh;
use crate::storage::call::{self, Mutation, PORTAL, Query};
use crate::storage::client;
use crate::storage::command::{Command, Report};
use crate::storage::door::{Calls, RequestKey};
use crate::storage::mesh::{LIMITS, ToSocket};
use crate::storage::operation::Place;
use crate::storage::promise::{Heed, Recalls};

async fn size(client: &mut Client, file: &nfs_fh3) -> u64 {
    let object = file.clone();
    client
        .getattr(&GETATTR3args { object })
        .await
        .unwrap()
        .unwrap()
        .obj_attributes
        .size
}

async fn lookup(client: &mut Client, root: &nfs_fh3, name: &str) -> Option<nfs_fh3> {
    let what = diropargs3 {
        dir: root.clone(),
        name: filename3::from(name.as_bytes()),
    };
    match client.lookup(&LOOKUP3args { what }).await.unwrap() {
        Nfs3Result::Ok(found) => Some(found.object),
        Nfs3Result::Err((nfsstat3::NFS3ERR_NOENT, _)) => None,
        Nfs3Result::Err((status, _)) => panic!("{name}: {status}"),
    }
}

async fn append(client: &mut Client, file: &nfs_fh3, offset: u64) {
    let write = WRITE3args {
        file: file.clone(),
        offset,
        count: 1,
        stable: stable_how::FILE_SYNC,
        data: Opaque::borrowed(b"x"),
    };
    client.write(&write).await.unwrap().unwrap();
}

async fn remove(client: &mut Client, root: &nfs_fh3, name: &str) {
    let object = diropargs3 {
        dir: root.clone(),
        name: filename3::from(name.as_bytes()),
    };
    client.remove(&REMOVE3args { object }).await.unwrap().unwrap();
}

/// Each change through one node's door is seen at all others as soon as it is acknowledged, although they ask all the time and
/// keep what they hear.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_seen_at_every_door_at_once() {
    let nodes = three().await;
    let root = nodes[0].root().await;
    create(&mut nodes[0].client().await, &root, "file", b"").await;
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(node.client().await);
    }
    let file = lookup(&mut clients[0], &root, "file").await.unwrap();
    let mut stale = 0;
    for round in 0..200_u64 {
        let writer = round as usize % 3;
        append(&mut clients[writer], &file, round).await;
        for client in &mut clients {
            stale += u32::from(size(client, &file).await != round + 1);
        }
        let name = format!("name-{}", round / 2);
        match round % 2 {
            0 => create(&mut clients[writer], &root, &name, b"x").await,
            _ => remove(&mut clients[writer], &root, &name).await,
        }
        for client in &mut clients {
            // Twice: the second answer may come from memory, and is kept into the next round.
            for _ in 0..2 {
                stale += u32::from(lookup(client, &root, &name).await.is_some() != (round % 2 == 0));
            }
        }
    }
    assert_eq!(stale, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_again_does_not_reach_the_leader() {
    let nodes = three().await;
    let root = nodes[0].root().await;
    create(&mut nodes[0].client().await, &root, "file", b"content").await;
    let mut client = nodes[1].client().await;
    let file = lookup(&mut client, &root, "file").await.unwrap();
    let (mut asked, mut reached) = (0, 0);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        for _ in 0..50 {
            assert_eq!(size(&mut client, &file).await, 7);
            assert!(lookup(&mut client, &root, "none").await.is_none());
            asked += 2;
        }
        // In the second before.
        let report: Report = nodes[0].command(&Command::Status).await.unwrap();
        reached = report.requests.max(reached);
    }
    let each_second = asked / start.elapsed().as_secs();
    assert!(
        reached < each_second / 4,
        "{each_second} were asked a second, {reached} reached the leader"
    );
}

/// What a kernel would hold, and what it was told to forget.
#[derive(Default)]
struct Told(Mutex<Vec<Recalls>>);

impl Heed for Told {
    fn recalled<'a>(&'a self, recalls: &'a Recalls) -> BoxFuture<'a, ()> {
        if *recalls
            != (Recalls {
                epoch: recalls.epoch,
                last: recalls.last,
                ..Recalls::default()
            })
        {
            self.0.lock().unwrap().push(recalls.clone());
        }
        Box::pin(std::future::ready(()))
    }
}

/// A session that heeds, at the leader's own node and at another one.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_answered_by_a_door_hears_of_every_change_before_it_is_acknowledged() {
    let nodes = three().await;
    let root = nodes[0].root().await;
    let caller = call::Caller {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
    };
    for (number, node) in nodes.iter().take(2).enumerate() {
        let (scope, told) = (Scope::new(), Arc::new(Told::default()));
        let stream = UnixStream::connect(node.path("storage.sock")).await.unwrap();
        let way = Arc::new(ToSocket::new(mesh::Caller::start(stream, LIMITS, &scope)));
        let door = client::Client::start_door(way, Place(format!("n{number}/fuse")), &scope, told.clone());
        eventually("it has a lease", || door.lease()).await;
        assert!(
            told.0.lock().unwrap()[0].all,
            "what was kept before is not known to anybody"
        );
        let lookup = |name: &str| {
            let (folder, name) = (PORTAL, name.as_bytes().to_vec());
            Query::Lookup { folder, name }
        };
        let (name, other) = (format!("new-{number}"), format!("other-{number}"));
        for name in [&name, &other] {
            let start = Instant::now();
            while door.recall(&caller, &lookup(name)) != Some(Err(call::Error::NotFound)) {
                assert_eq!(door.query(&caller, lookup(name)).await, Err(call::Error::NotFound));
                assert!(start.elapsed() < PATIENCE, "it is never kept");
            }
        }
        told.0.lock().unwrap().clear();
        create(&mut nodes[2].client().await, &root, &name, b"x").await;
        let heard = std::mem::take(&mut *told.0.lock().unwrap());
        let named = (PORTAL, name.clone().into_bytes());
        // On a busy machine the lease may have run out.
        let is_all = heard.iter().any(|recalls| recalls.all);
        assert!(
            is_all || heard.iter().any(|recalls| recalls.names.contains(&named)),
            "{heard:?}"
        );
        assert!(door.recall(&caller, &lookup(&name)).is_none());
        assert!(
            is_all || door.recall(&caller, &lookup(&other)).is_some(),
            "another name is as it was"
        );
        assert!(door.query(&caller, lookup(&name)).await.is_ok());
        scope.stop(Duration::ZERO).await;
    }
}

/// A door that has answered an open by itself says so when it hears that the name is gone, which it was not promised to hear.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_door_has_open_outlives_its_name_and_the_rest_is_freed() {
    let nodes = three().await;
    let root = nodes[0].root().await;
    let caller = call::Caller {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
    };
    let (scope, told) = (Scope::new(), Arc::new(Told::default()));
    let stream = UnixStream::connect(nodes[1].path("storage.sock")).await.unwrap();
    let way = Arc::new(ToSocket::new(mesh::Caller::start(stream, LIMITS, &scope)));
    let door = client::Client::start_door(way, Place("n2/fuse".into()), &scope, told.clone());
    let mut other = nodes[2].client().await;
    let mut inodes = Vec::new();
    for name in ["open", "not"] {
        create(&mut other, &root, name, b"content").await;
        let query = Query::Lookup {
            folder: PORTAL,
            name: name.into(),
        };
        match door.query(&caller, query).await {
            Ok(call::Reply::Object { attributes, .. }) => inodes.push(attributes.inode),
            other => panic!("{other:?}"),
        }
        // What was promised is used up: of what comes now it would not hear.
        let file = lookup(&mut other, &root, name).await.unwrap();
        append(&mut other, &file, 7).await;
    }
    eventually("it has a lease", || door.lease()).await;
    told.0.lock().unwrap().clear();
    for name in ["open", "not"] {
        remove(&mut other, &root, name).await;
    }
    let has_heard = |inode| {
        let told = told.0.lock().unwrap();
        told.iter()
            .any(|recalls| recalls.all || recalls.inodes.contains(&inode))
    };
    eventually("it hears of both", || inodes.iter().all(|inode| has_heard(*inode))).await;
    let (open, not) = (inodes[0], inodes[1]);
    let key = |xid| RequestKey {
        client: 1,
        xid,
        checksum: 0,
    };
    let opened = door.mutate(&caller, key(1), Mutation::Open { inode: open }).await;
    assert!(matches!(opened, Ok(call::Reply::Attributes(of)) if of.links == 0));
    let attributes = |inode| door.query(&caller, Query::Attributes { inode });
    let start = Instant::now();
    while attributes(not).await != Err(call::Error::Stale) {
        assert!(start.elapsed() < PATIENCE, "it is never freed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(attributes(open).await.is_ok());
    door.mutate(&caller, key(2), Mutation::Close { inode: open })
        .await
        .unwrap();
    assert_eq!(attributes(open).await, Err(call::Error::Stale));
    scope.stop(Duration::ZERO).await;
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
