//! What killed or stalled other servers: repeated requests, floods, hostile lengths, connections cut off.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use nfs3_types::nfs3::*;
use nfs3_types::xdr_codec::Opaque;

use super::procedure::{at, create};
use super::*;

fn mkdir(xid: u32, root: &nfs_fh3, name: &str) -> Vec<u8> {
    let args = MKDIR3args {
        where_: at(root, name),
        attributes: sattr3::default(),
    };
    nfs(xid, 9, &packed(&args))
}

fn write(xid: u32, file: &nfs_fh3, data: &[u8]) -> Vec<u8> {
    let args = WRITE3args {
        file: file.clone(),
        offset: 0,
        count: data.len() as u32,
        stable: stable_how::FILE_SYNC,
        data: Opaque::borrowed(data),
    };
    nfs(xid, 7, &packed(&args))
}

/// Memory of this process in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_reply_from_anywhere() {
    let world = World::start().await;
    let root = world.root().await;
    let mut first = world.raw().await;
    let port = first.0.local_addr().unwrap().port();
    let request = mkdir(5, &root, "folder");
    let reply = first.ask(&request).await.unwrap();
    assert_eq!(status(&reply), 0);
    assert_eq!(first.ask(&request).await.unwrap(), reply, "same connection");
    // Reset, so that the port is free at once.
    first.0.set_zero_linger().unwrap();
    drop(first);
    assert_eq!(
        world.raw_from(port).await.ask(&request).await.unwrap(),
        reply,
        "same port"
    );
    assert_eq!(world.raw().await.ask(&request).await.unwrap(), reply, "another port");
    assert_eq!(world.memory.mutations.load(Ordering::Relaxed), 1);
    let mut raw = world.raw().await;
    assert_eq!(
        status(&raw.ask(&mkdir(6, &root, "folder")).await.unwrap()),
        17,
        "another number: EXIST"
    );
    assert_eq!(
        status(&raw.ask(&mkdir(5, &root, "other")).await.unwrap()),
        0,
        "another name: another request"
    );
}

#[tokio::test]
async fn a_request_repeated_while_it_runs_is_executed_once() {
    let world = World::start().await;
    let root = world.root().await;
    world.memory.gate.send_replace(false);
    let (mut one, mut other) = (world.raw().await, world.raw().await);
    let request = mkdir(5, &root, "folder");
    one.send(&request).await;
    other.send(&request).await;
    // The second connection's next call is answered: its first one has been taken up.
    other.send(&nfs(6, 0, &[])).await;
    assert_eq!(other.receive().await.unwrap()[..4], 6_u32.to_be_bytes());
    world.memory.gate.send_replace(true);
    assert_eq!(one.receive().await.unwrap(), other.receive().await.unwrap());
    assert_eq!(world.memory.mutations.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn three_thousand_pipelined_writes_are_all_answered() {
    let world = World::start().await;
    let root = world.root().await;
    let file = create(&mut world.client(0).await, &root, "file").await;
    let (mut input, mut output) = world.raw().await.0.into_split();
    let sending = async {
        for xid in 0..3000 {
            output.write_all(&write(xid, &file, &[xid as u8; 4096])).await.unwrap();
        }
    };
    let receiving = async {
        let mut answered = HashSet::new();
        while answered.len() < 3000 {
            let mark = input.read_u32().await.unwrap();
            let mut reply = vec![0; (mark & 0x7fff_ffff) as usize];
            input.read_exact(&mut reply).await.unwrap();
            assert_eq!(status(&reply), 0);
            assert!(answered.insert(reply[..4].to_vec()), "one reply each");
        }
    };
    tokio::join!(sending, receiving);
    assert_eq!(world.memory.mutations.load(Ordering::Relaxed), 3001);
}

#[tokio::test]
async fn a_client_that_floods_without_reading_is_no_longer_read() {
    let world = World::start().await;
    let root = world.root().await;
    let file = create(&mut world.client(0).await, &root, "file").await;
    world.memory.gate.send_replace(false);
    let raw = world.raw().await;
    let request = write(0, &file, &vec![0; 1 << 20]);
    // With the gate closed nothing is answered; sooner or later the door takes no more.
    let mut sent = 0;
    let flood = async {
        let mut stream = raw.0;
        loop {
            stream.write_all(&request).await.unwrap();
            sent += request.len();
            assert!(sent < 64 << 20, "back-pressure");
        }
    };
    let stalled = tokio::time::timeout(Duration::from_secs(1), flood).await;
    assert!(stalled.is_err());
    // Another client is served meanwhile.
    tokio::time::timeout(PATIENCE, world.client(0).await.null())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn hostile_lengths_cost_no_memory_and_only_their_connection() {
    let world = World::start().await;
    let before = resident();
    for mark in [0xffff_ffff_u32, 0x7fff_ffff] {
        let mut open = Vec::new();
        for _ in 0..4 {
            let mut raw = world.raw().await;
            raw.send(&mark.to_be_bytes()).await;
            open.push(raw);
        }
        for mut raw in open {
            assert_eq!(raw.receive().await, None, "closed");
        }
    }
    let mut raw = world.raw().await;
    // A path of 4 GiB, in a record that holds none of it.
    let reply = raw
        .ask(&call(1, nfs3_types::mount::PROGRAM, 1, &words(&[u32::MAX])))
        .await;
    assert_eq!(reply.unwrap()[20..], words(&[4]));
    assert_eq!(raw.ask(&words(&[0x8000_0004, 1])).await, None, "no call: closed");
    assert!(resident() < before + (64 << 20), "other tests run beside this one");
}

#[tokio::test]
async fn three_thousand_connections_cut_off_leave_the_door_open() {
    let world = World::start().await;
    for _ in 0..3000 {
        let raw = world.raw().await;
        raw.0.set_zero_linger().unwrap();
    }
    let mut client = world.client(0).await;
    tokio::time::timeout(PATIENCE, client.null()).await.unwrap().unwrap();
}

#[tokio::test]
async fn draining_finishes_calls_under_way() {
    let world = World::start().await;
    let root = world.root().await;
    world.memory.gate.send_replace(false);
    let mut raw = world.raw().await;
    raw.send(&mkdir(1, &root, "folder")).await;
    raw.send(&nfs(2, 0, &[])).await;
    assert_eq!(
        raw.receive().await.unwrap()[..4],
        2_u32.to_be_bytes(),
        "the first one is under way"
    );
    world.scope.drain();
    world.memory.gate.send_replace(true);
    assert_eq!(status(&raw.receive().await.unwrap()), 0);
    assert_eq!(raw.receive().await, None, "closed when done");
    assert!(world.scope.stop(PATIENCE).await);
}
