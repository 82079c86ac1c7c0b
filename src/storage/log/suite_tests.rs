//! openraft's own test suite over the log on a real folder, and the ways in which the log fails towards openraft.

use std::sync::Arc;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{RaftLogReader, StorageError};
use tempfile::TempDir;

use super::crash_tests::{SMALL, entry};
use super::{LogStore, Sizes};
use crate::base::Scope;
use crate::storage::disk::Folder;
use crate::storage::faulty_disk::FaultyDisk;
use crate::storage::machine::Driver;
use crate::storage::memory_machine::MemoryMachine;
use crate::storage::types::{NodeId, Types, log_id};

struct Builder;

impl StoreBuilder<Types, LogStore, Driver, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Driver), StorageError<NodeId>> {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = LogStore::open(Arc::new(Folder::new(folder.path())), SMALL).unwrap();
        let machine = Driver::new(Box::new(MemoryMachine::default())).await.unwrap();
        Ok((folder, store, machine))
    }
}

#[test]
fn the_suite_of_openraft_passes() {
    Suite::test_all(Builder).unwrap();
}

#[tokio::test]
async fn entries_are_read_from_files_and_memory_alike_and_bounded_by_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = Sizes {
        segment: 1 << 20,
        ..SMALL
    };
    let (mut store, thread) = LogStore::open(Arc::new(Folder::new(folder.path())), sizes).unwrap();
    let written: Vec<_> = (0..20).map(|index| entry(1, index, 300_000)).collect();
    for chunk in written.chunks(3) {
        store.blocking_append(chunk.to_vec()).await.unwrap();
    }
    assert_eq!(store.try_get_log_entries(..).await.unwrap(), written);
    assert_eq!(
        store.limited_get_log_entries(2, 20).await.unwrap(),
        written[2..5],
        "900 kB are under 1 MiB"
    );
    store.blocking_append([entry(1, 20, 1 << 20)]).await.unwrap();
    assert_eq!(
        store.limited_get_log_entries(20, 21).await.unwrap().len(),
        1,
        "one is always given"
    );
    assert!(store.reader().purge_point(1 << 20).is_some_and(|index| index < 20));
    assert_eq!(store.reader().purge_point(1 << 40), None);
    let (all, behind) = (store.reader().bytes_after(None), store.reader().bytes_after(Some(10)));
    assert!(
        all >= 20 * 300_000 + (1 << 20) && behind < all - 10 * 300_000,
        "{all} {behind}"
    );
    assert_eq!(store.reader().bytes_after(Some(20)), 0);
    drop(store);
    thread.join().unwrap();
    let (mut store, _) = LogStore::open(Arc::new(Folder::new(folder.path())), sizes).unwrap();
    assert_eq!(
        store.try_get_log_entries(0..20).await.unwrap(),
        written,
        "all from files"
    );
}

#[tokio::test]
async fn a_failed_sync_reaches_the_callback_and_ends_the_log() {
    let disk = FaultyDisk::default();
    let (mut store, _) = LogStore::open(Arc::new(disk.clone()), SMALL).unwrap();
    store.blocking_append([entry(1, 0, 10)]).await.unwrap();
    disk.fail_sync_at(disk.steps());
    assert!(store.blocking_append([entry(1, 1, 10)]).await.is_err());
    assert!(
        store.blocking_append([entry(1, 1, 10)]).await.is_err(),
        "no second chance"
    );
    assert!(store.save_vote(&openraft::Vote::new(2, 1)).await.is_err());
    assert!(store.try_get_log_entries(0..1).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_not_disturbed_by_truncation() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = Sizes { cache: 1, ..SMALL };
    let (mut store, _) = LogStore::open(Arc::new(Folder::new(folder.path())), sizes).unwrap();
    store
        .blocking_append((0..20).map(|index| entry(1, index, 100)))
        .await
        .unwrap();
    let scope = Scope::new();
    let mut reader = store.reader();
    let stopped = scope.clone();
    let reading = scope.spawn(async move {
        let mut reads = 0;
        while !stopped.is_draining() {
            let found = reader.try_get_log_entries(0..40).await.unwrap();
            assert!(found.len() >= 5, "what is never truncated is always there");
            reads += 1;
        }
        reads
    });
    for term in 2..60 {
        let first = 5 + term % 10;
        store.truncate(log_id(1, 1, first)).await.unwrap();
        store
            .blocking_append((first..20).map(|index| entry(term, index, 100)))
            .await
            .unwrap();
    }
    scope.drain();
    assert!(reading.await.unwrap().is_some_and(|reads| reads > 0));
}
