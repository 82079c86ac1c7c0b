//! A leader's log that answers before it is on the disk: what it says when, and what a power cut leaves of it.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{EntryPayload, Membership, RaftLogReader};
use tokio::time::Instant;

use super::ahead::Members;
use super::crash_tests::{SMALL, entry};
use super::{LogReader, LogStore};
use crate::base::Scope;
use crate::storage::faulty_disk::{FaultyDisk, Random};
use crate::storage::types::{Entry, NodeId, Vote, log_id};

const ME: NodeId = 1;
const TERM: u64 = 4;
/// What a job of the log takes.
const SLOW: Duration = Duration::from_secs(1);

fn members(voters: impl IntoIterator<Item = NodeId>) -> Members {
    Members {
        since: Some(log_id(1, ME, 0)),
        voters: vec![voters.into_iter().collect()],
    }
}

/// A log whose owner leads a group of three.
async fn leading(disk: &FaultyDisk, scope: &Scope) -> io::Result<LogStore> {
    let (mut store, worker) = LogStore::prepare(Arc::new(disk.clone()), SMALL)?;
    scope.spawn(worker.run_in_task(|| SLOW));
    store.run_ahead(ME, || members([1, 2, 3]));
    store
        .save_vote(&Vote::new_committed(TERM, ME))
        .await
        .map_err(io::Error::other)?;
    Ok(store)
}

/// How long the log takes to answer.
async fn answers(store: &mut LogStore, entries: impl IntoIterator<Item = Entry>) -> Option<Duration> {
    let began = Instant::now();
    let entries: Vec<_> = entries.into_iter().collect();
    store.blocking_append(entries).await.ok().map(|()| began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_leader_is_answered_at_once_and_told_when_it_is_on_the_disk() {
    let (disk, scope) = (FaultyDisk::default(), Scope::new());
    let mut store = leading(&disk, &scope).await.unwrap();
    assert_eq!(answers(&mut store, [entry(TERM, 0, 10)]).await, Some(Duration::ZERO));
    assert_eq!(answers(&mut store, [entry(TERM, 1, 10)]).await, Some(Duration::ZERO));
    assert_eq!(
        store.try_get_log_entries(0..2).await.unwrap().len(),
        2,
        "they can be sent"
    );
    let (reader, began) = (store.reader(), Instant::now());
    assert_eq!(reader.last(), None);
    reader.synced(1).await.unwrap();
    assert_eq!((began.elapsed(), reader.last()), (SLOW * 2, Some(log_id(TERM, 1, 1))));
    // Whoever is led has all on its disk when it answers, and has saved its vote before.
    store.save_vote(&Vote::new_committed(TERM + 1, 2)).await.unwrap();
    assert_eq!(answers(&mut store, [entry(TERM + 1, 2, 10)]).await, Some(SLOW));
}

#[tokio::test(start_paused = true)]
async fn who_is_elected_has_its_vote_on_the_disk_already() {
    let (disk, scope) = (FaultyDisk::default(), Scope::new());
    let mut store = leading(&disk, &scope).await.unwrap();
    store.save_vote(&Vote::new(TERM + 1, ME)).await.unwrap();
    let before = disk.steps();
    store.save_vote(&Vote::new_committed(TERM + 1, ME)).await.unwrap();
    assert_eq!(disk.steps(), before);
    assert_eq!(
        store.read_vote().await.unwrap(),
        Some(Vote::new_committed(TERM + 1, ME))
    );
    assert_eq!(
        answers(&mut store, [entry(TERM + 1, 0, 10)]).await,
        Some(Duration::ZERO)
    );
}

#[tokio::test(start_paused = true)]
async fn new_members_are_on_the_disk_first_and_count_at_once() {
    let (disk, scope) = (FaultyDisk::default(), Scope::new());
    let mut store = leading(&disk, &scope).await.unwrap();
    answers(&mut store, [entry(TERM, 0, 10)]).await;
    let alone = Entry {
        log_id: log_id(TERM, ME, 1),
        payload: EntryPayload::Membership(Membership::new(vec![BTreeSet::from([ME])], None)),
    };
    assert_eq!(
        answers(&mut store, [alone]).await,
        Some(SLOW * 2),
        "and what was before"
    );
    assert_eq!(answers(&mut store, [entry(TERM, 2, 10)]).await, Some(SLOW));
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_is_told_to_who_waits_and_ends_the_log() {
    let (disk, scope) = (FaultyDisk::default(), Scope::new());
    let mut store = leading(&disk, &scope).await.unwrap();
    answers(&mut store, [entry(TERM, 0, 10)]).await;
    store.reader().synced(0).await.unwrap();
    disk.fail_sync_at(disk.steps());
    assert_eq!(answers(&mut store, [entry(TERM, 1, 10)]).await, Some(Duration::ZERO));
    let reader = store.reader();
    assert!(reader.synced(1).await.is_err());
    reader.synced(0).await.unwrap_err();
    assert!(!reader.failed().await.is_empty());
    assert_eq!(answers(&mut store, [entry(TERM, 2, 10)]).await, None);
}

async fn vote_after(disk: &FaultyDisk) -> (Option<Vote>, LogReader) {
    let (mut store, _) = LogStore::prepare(Arc::new(disk.clone()), SMALL).unwrap();
    (store.read_vote().await.unwrap(), store.reader())
}

#[tokio::test(start_paused = true)]
async fn who_ended_in_order_leads_again_and_who_was_killed_does_not() {
    let (disk, scope) = (FaultyDisk::default(), Scope::new());
    let mut store = leading(&disk, &scope).await.unwrap();
    answers(&mut store, [entry(TERM, 0, 10)]).await;
    answers(&mut store, [entry(TERM, 1, 10)]).await;
    let (killed, _) = vote_after(&disk.as_synced()).await;
    assert_eq!(killed, Some(Vote::new(TERM, ME)));
    drop(store);
    scope.stop(SLOW * 10).await;
    let (ended, log) = vote_after(&disk.as_synced()).await;
    assert_eq!(
        (ended, log.last()),
        (Some(Vote::new_committed(TERM, ME)), Some(log_id(TERM, 1, 1)))
    );
}

/// Appends one by one until the disk fails; entries that were answered, and those that were said to be on the disk.
async fn play(disk: &FaultyDisk) -> (u64, u64) {
    let scope = Scope::new();
    let Ok(mut store) = leading(disk, &scope).await else {
        return (0, 0);
    };
    let (mut answered, mut synced) = (0, 0);
    for index in 0..12 {
        if answers(&mut store, [entry(TERM, index, 100 * index as usize)])
            .await
            .is_none()
        {
            break;
        }
        answered = index + 1;
        // Two are under way at most.
        if let Some(before) = index.checked_sub(1)
            && store.reader().synced(before).await.is_ok()
        {
            synced = before + 1;
        }
    }
    (answered, synced)
}

#[tokio::test(start_paused = true)]
async fn after_a_power_cut_no_leader_goes_on_that_lacks_what_it_sent() {
    let whole = FaultyDisk::default();
    assert_eq!(play(&whole).await, (12, 11));
    let mut lacking = 0;
    for step in 0..whole.steps() {
        let disk = FaultyDisk::default();
        disk.cut_power_at(step);
        let (answered, synced) = play(&disk).await;
        disk.restart(&mut Random::new(step));
        let (vote, log) = vote_after(&disk).await;
        let next = log.last().map_or(0, |id| id.index + 1);
        assert!(
            next >= synced,
            "cut at step {step}: {next} of {synced} synced entries are there"
        );
        if next < answered {
            lacking += 1;
            assert!(
                vote.is_none_or(|vote| !vote.committed),
                "cut at step {step}: {next} of {answered}"
            );
        }
    }
    assert!(lacking > 10, "only {lacking} cuts took anything");
}
