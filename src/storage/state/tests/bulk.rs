//! Many files: the rate is printed, and memory does not grow with them.

use std::sync::Arc;
use std::time::Instant;

use super::world::{ROOT, begin, mode};
use crate::storage::call::{Creation, Inode, Mutation, PORTAL, Query, Reply, Time};
use crate::storage::operation::{Operation, Session};
use crate::storage::state::Machine;
use crate::storage::state::disk::SystemDisk;

const FILES: u64 = 100_000;
const BATCH: u64 = 1000;
/// Page caches, one batch with its undo, and what the allocator keeps; measured at less than half of it.
const GROWTH_MAX_KIB: u64 = 96 * 1024;

/// Resident memory of this process that no file backs.
fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Memory can only be measured where no other test runs, hence in a process of its own.
#[test]
fn a_hundred_thousand_files_take_bounded_memory() {
    let name = "storage::state::tests::bulk::a_hundred_thousand_files_alone";
    #[allow(clippy::disallowed_methods)]
    let alone = std::process::Command::new("/proc/self/exe")
        .args([name, "--exact", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&alone.stdout);
    assert!(alone.status.success() && output.contains("1 passed"), "{output}");
}

#[test]
#[ignore = "run by a_hundred_thousand_files_take_bounded_memory"]
fn a_hundred_thousand_files_alone() {
    // On a real disk, as a rate in memory would say little.
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::open(folder.path(), Arc::new(SystemDisk)).unwrap();
    let session = Session(1);
    machine.apply(1, &[begin(session, false)]).unwrap();
    let before = memory_kib();
    let start = Instant::now();
    for batch in 0..FILES / BATCH {
        let operations: Vec<_> = (0..BATCH).map(|at| create(session, batch * BATCH + at)).collect();
        let answers = machine.apply(batch + 2, &operations).unwrap();
        assert!(answers.iter().all(Result::is_ok));
        if machine.wants_checkpoint() {
            machine.checkpoint().unwrap();
        }
    }
    let taken = start.elapsed();
    let growth = memory_kib().saturating_sub(before);
    super::report!(
        "{FILES} files in {taken:.1?}: {:.0} a second; {growth} KiB more memory",
        FILES as f64 / taken.as_secs_f64()
    );
    let start = Instant::now();
    machine.checkpoint().unwrap();
    super::report!("checkpoint in {:.2?}", start.elapsed());
    let start = Instant::now();
    for number in 0..FILES {
        let query = Query::Attributes {
            inode: Inode(number + 10),
        };
        assert!(machine.query(session, &ROOT, &query).is_ok());
    }
    super::report!(
        "attributes of each in {:.1?}: {:.0} a second",
        start.elapsed(),
        FILES as f64 / start.elapsed().as_secs_f64()
    );
    assert!(growth < GROWTH_MAX_KIB, "{growth} KiB");
    assert_eq!(list_all(&machine), FILES);
}

fn create(session: Session, number: u64) -> Operation {
    Operation::Mutate {
        session,
        sequence: number + 1,
        acknowledged: number.saturating_sub(100),
        key: None,
        caller: ROOT,
        time: Time {
            seconds: 1_700_000_000,
            nanoseconds: 0,
        },
        fresh: Inode(number + 10),
        mutation: Mutation::Create {
            folder: PORTAL,
            name: format!("file-{number}.php").into_bytes(),
            how: Creation::Guarded,
            change: mode(0o644),
        },
    }
}

fn list_all(machine: &Machine) -> u64 {
    let mut cookie = 0;
    let mut count = 0;
    loop {
        let query = Query::List {
            folder: PORTAL,
            cookie,
            limit: 1000,
        };
        let Ok(Reply::List { entries, is_end, .. }) = machine.query(Session(1), &ROOT, &query) else {
            panic!("cannot be listed")
        };
        count += entries.len() as u64;
        cookie = entries.last().map_or(cookie, |last| last.cookie);
        if is_end {
            return count;
        }
    }
}
