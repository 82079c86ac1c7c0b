//! The same before a server that is not ours. `make test-registry` runs it.

use std::sync::atomic::Ordering;

use bitrix_node::registry::Transport;

use super::sleeper::{NIGHTS, check, night};
use super::{contract, nfs, opened};
use crate::support::cutter::Cutter;
use crate::support::eventually::eventually;
use crate::support::ganesha::{Ganesha, apart};

/// Ports from its portmapper, as with a NAS.
fn server() -> Transport {
    Transport::Tcp {
        host: "127.0.0.1".into(),
        nfs: None,
        mount: None,
    }
}

async fn started() -> (Ganesha, String) {
    let ganesha = Ganesha::start().await;
    let export = ganesha.export().to_str().unwrap().to_string();
    eventually("ganesha serves", async || {
        let listed = nfs(server(), &export, "first", "n0").list().await;
        listed.map_err(|failure| format!("{failure}\n{}", ganesha.log()))
    })
    .await;
    (ganesha, export)
}

#[test]
#[ignore = "needs nfs-ganesha: make test-registry"]
fn ganesha_keeps_the_contract() {
    apart(async || {
        let (_ganesha, export) = started().await;
        let open = |node: &str| opened(&|node| nfs(server(), &export, "registry", node), node);
        contract::holds(&open).await;
        contract::race(&open, 4, 60).await;
        contract::race(&open, 9, 20).await;
    });
}

#[test]
#[ignore = "needs nfs-ganesha: make test-registry"]
fn lost_replies_of_ganesha_lose_and_double_no_commit() {
    apart(async || {
        let (ganesha, export) = started().await;
        for (writers, commits, percent) in [(4, 60, 40), (9, 20, 30)] {
            let cutter = Cutter::start(server(), ganesha.folder(), percent);
            let open = |node: &str| opened(&|node| nfs(cutter.transport(), &export, "registry", node), node);
            contract::race(&open, writers, commits).await;
            let cuts = cutter.cuts.load(Ordering::Relaxed);
            println!("{writers} writers: {cuts} LINKs without a reply");
            assert!(cuts >= writers * commits / 4, "only {cuts} replies were lost");
            cutter.stop().await;
        }
    });
}

#[test]
#[ignore = "needs nfs-ganesha: make test-registry"]
fn a_sleeper_at_ganesha_neither_wins_wrongly_nor_commits_twice() {
    apart(async || {
        let (_ganesha, export) = started().await;
        for (number, (step, keeps_temporaries, link)) in NIGHTS.into_iter().enumerate() {
            let folder = format!("night{number}");
            let open = |node: &str| nfs(server(), &export, &folder, node);
            check(&night(&open, step, keeps_temporaries).await, step, link);
        }
    });
}
