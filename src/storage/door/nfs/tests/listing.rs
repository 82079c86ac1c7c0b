//! READDIR and READDIRPLUS: sizes, cookies, folders that change meanwhile.

use std::collections::HashMap;

use nfs3_types::nfs3::*;

use super::procedure::{create, remove};
use super::*;

/// All names by READDIRPLUS, in steps of `maxcount`; `step` runs between the steps.
async fn walk(client: &mut Client, dir: &nfs_fh3, maxcount: u32, mut step: impl AsyncFnMut(usize)) -> Vec<Vec<u8>> {
    let (mut names, mut cookie) = (Vec::new(), 0);
    for round in 0.. {
        let args = READDIRPLUS3args {
            dir: dir.clone(),
            cookie,
            cookieverf: cookieverf3([round as u8; 8]),
            dircount: maxcount,
            maxcount,
        };
        let found = client.readdirplus(&args).await.unwrap().unwrap();
        assert!(packed(&found).len() <= maxcount as usize);
        let entries = found.reply.entries.into_inner();
        cookie = entries.last().map_or(cookie, |entry| entry.cookie);
        for entry in entries {
            let attributes = entry.name_attributes.unwrap();
            assert_eq!(attributes.fileid, entry.fileid);
            names.push(entry.name.as_ref().to_vec());
        }
        if found.reply.eof {
            break;
        }
        step(round).await;
    }
    names
}

#[tokio::test]
async fn ten_thousand_entries_are_listed_once_each_while_others_come_and_go() {
    let world = World::start().await;
    let (mut client, root) = (world.client(0).await, world.root().await);
    for index in 0..10_000 {
        create(&mut client, &root, &format!("old{index}")).await;
    }
    for index in 0..100 {
        create(&mut client, &root, &format!("gone{index}")).await;
    }
    let mut other = world.client(0).await;
    let names = walk(&mut client, &root, 32 << 10, async |round| {
        create(&mut other, &root, &format!("new{round}")).await;
        remove(&mut other, &root, &format!("gone{round}")).await;
    })
    .await;
    let mut counts: HashMap<Vec<u8>, u32> = HashMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    for index in 0..10_000 {
        assert_eq!(counts.get(format!("old{index}").as_bytes()), Some(&1), "old{index}");
    }
    assert_eq!((counts.get(&b"."[..]), counts.get(&b".."[..])), (Some(&1), Some(&1)));
    assert!(counts.values().all(|count| *count == 1));
}

#[tokio::test]
async fn replies_keep_to_every_size_and_lose_nothing() {
    let world = World::start().await;
    let (mut client, root) = (world.client(0).await, world.root().await);
    for index in 0..20 {
        create(&mut client, &root, &"x".repeat(index * 12 + 1)).await;
    }
    for maxcount in [600, 601, 1000, 4096, 1 << 20, u32::MAX] {
        let names = walk(&mut client, &root, maxcount, async |_| {}).await;
        assert_eq!(names.len(), 22, "maxcount {maxcount}");
    }
    for count in [400, 512, 4096] {
        let (mut cookie, mut names) = (0, 0);
        loop {
            let args = READDIR3args {
                dir: root.clone(),
                cookie,
                cookieverf: cookieverf3::default(),
                count,
            };
            let found = client.readdir(&args).await.unwrap().unwrap();
            assert!(packed(&found).len() <= count as usize);
            names += found.reply.entries.0.len();
            cookie = found.reply.entries.0.last().map_or(cookie, |entry| entry.cookie);
            if found.reply.eof {
                break;
            }
        }
        assert_eq!(names, 22, "count {count}");
    }
}

#[tokio::test]
async fn too_small_replies_and_other_types_are_errors() {
    let world = World::start().await;
    let (mut client, root) = (world.client(0).await, world.root().await);
    let file = create(&mut client, &root, "file").await;
    for (dir, maxcount, error) in [
        (&root, 0, nfsstat3::NFS3ERR_TOOSMALL),
        (&root, 150, nfsstat3::NFS3ERR_TOOSMALL),
        (&file, 4096, nfsstat3::NFS3ERR_NOTDIR),
    ] {
        let args = READDIRPLUS3args {
            dir: dir.clone(),
            cookie: 0,
            cookieverf: cookieverf3::default(),
            dircount: 1,
            maxcount,
        };
        match client.readdirplus(&args).await.unwrap() {
            Nfs3Result::Err((found, _)) => assert_eq!(found, error),
            Nfs3Result::Ok(_) => panic!("{error} expected"),
        }
    }
}
