//! The registry: one contract, kept in memory, in a folder, through the storage's own door, through a line that loses replies,
//! and before another NFS server; and what must hold when files are damaged, lost, or authors fall asleep.

mod command;
mod contract;
mod fault;
mod ganesha;
mod sleeper;

use std::path::Path;
use std::sync::Arc;

use bitrix_node::registry::{Change, Files, MemoryRegistry, NfsFiles, PathFiles, Publish, Registry, Server, Transport};

use crate::support::cutter::Cutter;
use crate::support::storage::Door;

/// How a node gets the registry.
pub type Open<'a> = &'a (dyn Fn(&str) -> Arc<dyn Registry> + Sync);

/// Files of a node on its own connections.
pub type OpenFiles<'a> = &'a (dyn Fn(&str) -> Arc<dyn Files> + Sync);

pub fn nfs(transport: Transport, export: &str, folder: &str, node: &str) -> Arc<dyn Files> {
    let server = Server {
        transport,
        export: export.into(),
        folder: folder.into(),
    };
    Arc::new(NfsFiles::new(server, node.into()))
}

/// Through the storage's door, whose socket this is.
pub fn through(socket: &Path, node: &str) -> Arc<dyn Files> {
    nfs(Transport::Unix(socket.to_path_buf()), "/registry", "", node)
}

pub fn publish(files: Arc<dyn Files>, node: &str) -> Publish {
    Publish::new(files, node, 7, None)
}

pub fn opened(open: OpenFiles<'_>, node: &str) -> Arc<dyn Registry> {
    Arc::new(publish(open(node), node))
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_the_contract() {
    let registry = MemoryRegistry::new("n0");
    let open = |node: &str| Arc::new(registry.of(node)) as Arc<dyn Registry>;
    contract::holds(&open).await;
    contract::race(&open, 4, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let files: Arc<dyn Files> = Arc::new(PathFiles::open(&folder.path().join("registry")).await.unwrap());
    let open = |node: &str| opened(&|_| files.clone(), node);
    contract::holds(&open).await;
    contract::race(&open, 4, 20).await;
    contract::race(&open, 9, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_path_holds_the_registry_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[node]\nname = \"n1\"\n[storage]\nengine = \"external\"\nexternal = {:?}",
        folder.path()
    );
    let config = bitrix_node::config::parse(&text, std::iter::empty()).unwrap().config;
    let place = bitrix_node::registry::folder(&config).unwrap();
    let refused = bitrix_node::registry::files(&config, 1)
        .await
        .err()
        .expect("nothing is mounted there");
    assert!(refused.to_string().contains("nothing is mounted"), "{refused}");
    assert!(!place.exists(), "and nothing was begun");
    std::fs::create_dir(&place).unwrap();
    let files = bitrix_node::registry::files(&config, 1).await.unwrap().unwrap();
    let change = Change::put(contract::setting("a", "1"));
    publish(files, "n1").commit(change).await.unwrap();
    assert!(folder.path().join("registry/v1").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_storages_door_keeps_the_contract() {
    let door = Door::open();
    let socket = door.socket();
    let open = |node: &str| opened(&|node| through(&socket, node), node);
    contract::holds(&open).await;
    contract::race(&open, 4, 20).await;
    contract::race(&open, 9, 6).await;
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_replies_lose_and_double_no_commit() {
    for (writers, commits, percent) in [(4, 25, 40), (9, 8, 30)] {
        let (door, folder) = (Door::open(), tempfile::tempdir().unwrap());
        let cutter = Cutter::start(Transport::Unix(door.socket()), folder.path(), percent);
        let open = |node: &str| opened(&|node| nfs(cutter.transport(), "/registry", "", node), node);
        contract::race(&open, writers, commits).await;
        let cuts = cutter.cuts.load(std::sync::atomic::Ordering::Relaxed);
        assert!(cuts >= writers * commits / 4, "only {cuts} replies were lost");
        println!("{writers} writers: {cuts} LINKs without a reply");
        cutter.stop().await;
        door.close().await;
    }
}
