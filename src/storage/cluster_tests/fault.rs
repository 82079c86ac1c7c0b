//! Nodes join, die and come back; no acknowledged byte is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::node::*;
use crate::storage::command::{Command, Report, Role};

#[tokio::test(flavor = "multi_thread")]
async fn nodes_join_and_any_door_serves_the_same_files() {
    let nodes = three().await;
    let root = nodes[0].root().await;
    for node in &nodes {
        assert_eq!(node.root().await, root, "handles are the same everywhere");
        create(&mut node.client().await, &root, &node.name, node.name.as_bytes()).await;
    }
    let expected: BTreeSet<_> = nodes
        .iter()
        .map(|node| (node.name.clone(), Bytes::from(node.name.clone())))
        .collect();
    for node in &nodes {
        let start = Instant::now();
        while mirror(node.folder.path()) != expected {
            assert!(
                start.elapsed() < PATIENCE,
                "{}: {:?}",
                node.name,
                mirror(node.folder.path())
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let again = Command::Add {
        name: "n2".into(),
        address: nodes[1].mesh(),
        witness: false,
    };
    nodes[2]
        .command::<()>(&again)
        .await
        .expect("passed on, and safe to repeat");
    let stranger = Command::Remove { name: "n9".into() };
    let refused = nodes[1].command::<()>(&stranger).await.unwrap_err().to_string();
    assert!(refused.contains("no member is called n9"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_under_writes_loses_nothing() {
    let mut nodes = three().await;
    let root = nodes[1].root().await;
    let mut acknowledged = BTreeSet::new();
    for round in 0..3 {
        let leader = nodes[2 - round % 2]
            .until("has a leader", |report| report.leader.is_some())
            .await;
        let at = nodes
            .iter()
            .position(|node| Some(&node.name) == leader.leader.as_ref())
            .unwrap();
        let door = (at + 1) % 3;
        let mut client = nodes[door].client().await;
        for file in 0..20 {
            if file == 5 {
                nodes[at].kill();
            }
            let name = format!("{round}-{file}");
            create(&mut client, &root, &name, name.as_bytes()).await;
            acknowledged.insert((name.clone(), Bytes::from(name)));
        }
        nodes[at].start();
        nodes[door].until("is led", |report| report.leader.is_some()).await;
        let leader = nodes[door].command::<Report>(&Command::Status).await.unwrap().leader;
        let now = nodes.iter().find(|node| Some(&node.name) == leader.as_ref()).unwrap();
        now.until("is whole again", is_whole).await;
    }
    for node in &nodes {
        let start = Instant::now();
        while mirror(node.folder.path()) != acknowledged {
            assert!(start.elapsed() < PATIENCE, "{} differs", node.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_of_three_has_every_acknowledged_byte_and_goes_on_when_told() {
    let mut nodes = three().await;
    let root = nodes[2].root().await;
    create(&mut nodes[2].client().await, &root, "upload", b"precious").await;
    nodes[0].kill();
    nodes[1].kill();
    let recover = |lost: &[&str]| Command::Recover {
        lost: lost.iter().map(ToString::to_string).collect(),
        accepts_loss: false,
    };
    nodes[2]
        .until("misses its leader", |report| report.role == Role::Follower)
        .await;
    let start = Instant::now();
    while let Err(error) = nodes[2].command::<()>(&recover(&["n1", "n2"])).await {
        assert!(error.to_string().contains("leads"), "{error}");
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    nodes[2].kill();
    nodes[2].start();
    nodes[2]
        .until("leads alone", |report| {
            report.role == Role::Leader && report.members.len() == 1
        })
        .await;
    assert_eq!(nodes[2].root().await, root, "handles are what they were");
    create(&mut nodes[2].client().await, &root, "after", b"more").await;
    let expected = [("after", "more"), ("upload", "precious")].map(|(name, data)| (name.to_owned(), Bytes::from(data)));
    assert_eq!(mirror(nodes[2].folder.path()), expected.into());
    let refused = nodes[2].command::<()>(&recover(&["n1"])).await.unwrap_err();
    assert!(refused.to_string().contains("leads"), "{refused}");
    // One that was given up comes back: it is refused as it is, and welcome when emptied.
    let address = nodes[0].mesh();
    let add = Command::Add {
        name: "n1".into(),
        address,
        witness: false,
    };
    nodes[0].start();
    nodes[0]
        .until("stands without leader", |report| {
            report.leader.is_none() || report.role == Role::Follower
        })
        .await;
    let refused = nodes[2].command::<()>(&add).await.unwrap_err();
    assert!(refused.to_string().contains("empty its storage folder"), "{refused:#}");
    nodes[0].kill();
    std::fs::remove_dir_all(nodes[0].path("storage")).unwrap();
    nodes[0].start();
    nodes[0].until("waits", |report| report.role == Role::Waiting).await;
    nodes[2].command::<()>(&add).await.unwrap();
    nodes[2].until("has two copies", |report| report.copies == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_and_a_witness_survive_the_loss_of_the_leader() {
    let mut nodes = nodes(&[false, true]).await;
    nodes[0]
        .until("has three voters and two copies", |report| {
            report.copies == 2 && report.members.iter().filter(|member| member.votes).count() == 3
        })
        .await;
    assert_eq!(
        nodes[2].command::<Report>(&Command::Status).await.unwrap().role,
        Role::Witness
    );
    let root = nodes[1].root().await;
    create(&mut nodes[1].client().await, &root, "before", b"1").await;
    // Its door has no files of its own, and serves all the same.
    create(&mut nodes[2].client().await, &root, "by-witness", b"2").await;
    nodes[0].kill();
    create(&mut nodes[1].client().await, &root, "after", b"3").await;
    let expected = [("after", "3"), ("before", "1"), ("by-witness", "2")];
    let expected = expected.map(|(name, data)| (name.to_owned(), Bytes::from(data)));
    assert_eq!(mirror(nodes[1].folder.path()), expected.into());
    assert!(
        !nodes[2].path("storage/state/meta.db").exists(),
        "a witness holds no files"
    );
    nodes[0].start();
    nodes[1]
        .until("has both copies again", |report| report.copies == 2)
        .await;
}
