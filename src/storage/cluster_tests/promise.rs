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

pub async fn lookup(client: &mut Client, root: &nfs_fh3, name: &str) -> Option<nfs_fh3> {
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

pub async fn append(client: &mut Client, file: &nfs_fh3, offset: u64) {
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
pub struct Told(pub Mutex<Vec<Recalls>>);

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

pub static ROOT: call::Caller = call::Caller {
    uid: 0,
    gid: 0,
    groups: Vec::new(),
};

/// A door that heeds, over the storage's socket of a node; it has its lease.
async fn door(node: &Node, number: usize) -> (client::Client, Arc<Told>, Scope) {
    let (scope, told) = (Scope::new(), Arc::new(Told::default()));
    let stream = UnixStream::connect(node.path("storage.sock")).await.unwrap();
    let way = Arc::new(ToSocket::new(mesh::Caller::start(stream, LIMITS, &scope)));
    let door = client::Client::start_door(way, Place(format!("n{number}/fuse")), &scope, told.clone());
    door.go(false);
    eventually("it has a lease", || door.lease()).await;
    (door, told, scope)
}

/// A session that heeds, at the leader's own node and at another one.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_answered_by_a_door_hears_of_every_change_before_it_is_acknowledged() {
    let nodes = three().await;
    let root = nodes[0].root().await;
    for (number, node) in nodes.iter().take(2).enumerate() {
        let (door, told, scope) = door(node, number).await;
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
            while door.recall(&ROOT, &lookup(name)) != Some(Err(call::Error::NotFound)) {
                assert_eq!(door.query(&ROOT, lookup(name)).await, Err(call::Error::NotFound));
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
        assert!(door.recall(&ROOT, &lookup(&name)).is_none());
        assert!(
            is_all || door.recall(&ROOT, &lookup(&other)).is_some(),
            "another name is as it was"
        );
        assert!(door.query(&ROOT, lookup(&name)).await.is_ok());
        scope.stop(Duration::ZERO).await;
    }
}

/// A door that has answered an open by itself says so when it hears that the name is gone, which it was not promised to hear.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_door_has_open_outlives_its_name_and_the_rest_is_freed() {
    let nodes = three().await;
    let root = nodes[0].root().await;
    let (door, told, scope) = door(&nodes[1], 2).await;
    let mut other = nodes[2].client().await;
    let mut inodes = Vec::new();
    for name in ["open", "not"] {
        create(&mut other, &root, name, b"content").await;
        let query = Query::Lookup {
            folder: PORTAL,
            name: name.into(),
        };
        match door.query(&ROOT, query).await {
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
    let opened = door.mutate(&ROOT, key(1), Mutation::Open { inode: open }).await;
    assert!(matches!(opened, Ok(call::Reply::Attributes(of)) if of.links == 0));
    let attributes = |inode| door.query(&ROOT, Query::Attributes { inode });
    let start = Instant::now();
    while attributes(not).await != Err(call::Error::Stale) {
        assert!(start.elapsed() < PATIENCE, "it is never freed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(attributes(open).await.is_ok());
    door.mutate(&ROOT, key(2), Mutation::Close { inode: open })
        .await
        .unwrap();
    assert_eq!(attributes(open).await, Err(call::Error::Stale));
    scope.stop(Duration::ZERO).await;
}

/// Two doors after one lock: whoever holds it hears that it is wanted, whoever was refused it that it may be free.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_wanted_and_a_lock_that_is_free_are_told() {
    let nodes = three().await;
    let root = nodes[0].root().await;
    create(&mut nodes[0].client().await, &root, "file", b"").await;
    let mut doors = Vec::new();
    for (number, node) in nodes.iter().take(2).enumerate() {
        doors.push(door(node, number).await);
    }
    let query = Query::Lookup {
        folder: PORTAL,
        name: b"file".to_vec(),
    };
    let Ok(call::Reply::Object { attributes, .. }) = doors[0].0.query(&ROOT, query).await else {
        panic!("it is there");
    };
    let inode = attributes.inode;
    let lock = call::Lock {
        family: call::LockFamily::Flock,
        owner: u64::MAX,
        is_exclusive: true,
        start: 0,
        end: u64::MAX,
        pid: 0,
    };
    let mut xid = 0;
    let mut act = async |door: usize, takes: bool| {
        xid += 1;
        let key = RequestKey {
            client: 1,
            xid,
            checksum: 0,
        };
        let lock = lock.clone();
        let mutation = match takes {
            true => Mutation::Lock { inode, lock },
            false => Mutation::Unlock { inode, lock },
        };
        doors[door].0.mutate(&ROOT, key, mutation).await
    };
    let hears = async |door: usize, what: &str| {
        let told = &doors[door].1.0;
        let has_heard = |recalls: &Recalls| recalls.all || recalls.locks.contains(&inode);
        eventually(what, || told.lock().unwrap().iter().any(has_heard)).await;
        told.lock().unwrap().clear();
    };
    for (_, told, _) in &doors {
        told.0.lock().unwrap().clear();
    }
    act(0, true).await.unwrap();
    for round in 0..3 {
        let (holder, other) = (round % 2, (round + 1) % 2);
        assert_eq!(act(other, true).await, Err(call::Error::Locked));
        hears(holder, "the holder hears that it is wanted").await;
        act(holder, false).await.unwrap();
        hears(other, "the other hears that it is free").await;
        act(other, true).await.unwrap();
    }
    // The second door holds it now, and is gone.
    assert_eq!(act(0, true).await, Err(call::Error::Locked));
    doors[1].0.end().await;
    hears(0, "the end of a session is told").await;
    act(0, true).await.unwrap();
    for (_, _, scope) in doors {
        scope.stop(Duration::ZERO).await;
    }
}

pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
