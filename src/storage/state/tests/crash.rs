//! Crashes: the process dies or the power is cut at every call to the disk; then the machine is opened and the log applied
//! again from where it stands. Nothing may be missing, doubled or different.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::faulty::{Fault, FaultyDisk};
use super::random::{Script, fixed_rolls, rolls};
use super::world::{World, assert_same_files, assert_same_state, plain, temporary};
use crate::storage::call::{Error, Mutation, PORTAL, Query};
use crate::storage::state::checkpoint::{Marker, Phase};
use crate::storage::state::{Failure, Machine};

/// What becomes of the disk when the process goes.
#[derive(Clone, Copy, Debug)]
enum End {
    Killed,
    PowerCut(u64),
}

struct Run {
    folder: TempDir,
    disk: Arc<FaultyDisk>,
    machine: Option<Machine>,
}

impl Run {
    fn new() -> Self {
        Run {
            folder: temporary(),
            disk: Arc::default(),
            machine: None,
        }
    }

    fn open(&mut self) -> Result<(), Failure> {
        self.machine = None;
        self.machine = Some(Machine::open(self.folder.path(), self.disk.clone())?);
        Ok(())
    }

    /// Applies what the log has after the machine's place; a checkpoint after every `every`-th entry.
    /// Answers are compared, also those that were given before the crash.
    fn follow(&mut self, script: &Script, every: usize) -> Result<(), Failure> {
        let machine = self.machine.as_ref().expect("open");
        let first = machine
            .applied()
            .map_or(0, |applied| usize::try_from(applied).unwrap() + 1);
        for at in first..script.entries.len() {
            let given = machine.apply(at as u64, &script.entries[at])?;
            let given: Vec<_> = given.into_iter().map(|answer| answer.map(plain)).collect();
            let wanted: Vec<_> = script.answers[at]
                .iter()
                .cloned()
                .map(|answer| answer.map(plain))
                .collect();
            assert_eq!(given, wanted, "entry {at}");
            if at % every == every - 1 {
                machine.checkpoint()?;
            }
        }
        Ok(())
    }

    fn end(&mut self, end: End) {
        self.machine = None;
        match end {
            End::Killed => self.disk.kill(),
            End::PowerCut(seed) => self.disk.cut_power(seed),
        }
    }

    fn assert_done(&self, script: &Script) {
        let machine = self.machine.as_ref().expect("open");
        assert_same_state(machine, &mut script.model(), script.highest);
        assert_same_files(self.disk.as_ref(), self.folder.path(), &script.model());
    }
}

/// Dies at the disk call `at`, and again at the call `again` of the second life; the third one must come to the end.
fn crash(script: &Script, every: usize, (at, end): (u64, End), again: Option<(u64, End)>) {
    let mut run = Run::new();
    let mut lives = vec![(at, end)];
    lives.extend(again);
    for (at, end) in lives {
        run.disk.fail(at, Fault::Dead);
        let _ = run.open().and_then(|()| run.follow(script, every));
        run.end(end);
    }
    run.open().unwrap();
    run.follow(script, every).unwrap();
    run.assert_done(script);
}

fn calls_of(script: &Script, every: usize) -> u64 {
    let mut run = Run::new();
    run.open().unwrap();
    run.follow(script, every).unwrap();
    run.assert_done(script);
    run.disk.calls()
}

#[test]
fn a_crash_at_any_call_to_the_disk_loses_nothing() {
    let script = Script::of(&fixed_rolls(7, 400));
    let calls = calls_of(&script, 9);
    // The 258 folders that the first call to `open` makes are of one kind: a few of them will do.
    for at in (0..250).step_by(50).chain(250..calls) {
        crash(&script, 9, (at, End::Killed), None);
        crash(&script, 9, (at, End::PowerCut(at)), None);
    }
    super::report!("{calls} calls, {} entries", script.entries.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_random_crashes_lose_nothing(
        rolls in rolls(200), every in 2..40_usize, first in 258..700_u64, second in 0..500_u64, seed: u64, kinds in 0..4_u8,
    ) {
        let script = Script::of(&rolls);
        let end = |is_cut: bool| if is_cut { End::PowerCut(seed) } else { End::Killed };
        crash(&script, every, (first, end(kinds & 1 > 0)), Some((second, end(kinds & 2 > 0))));
    }

    #[test]
    fn a_full_disk_applies_nothing_and_the_same_entry_succeeds_later(
        rolls in rolls(120), every in 2..40_usize, at in 258..600_u64,
    ) {
        let script = Script::of(&rolls);
        let mut run = Run::new();
        run.open().unwrap();
        run.disk.fail(at - 258, Fault::Full);
        let mut is_full = false;
        loop {
            let before = run.machine.as_ref().unwrap().applied();
            match run.follow(&script, every) {
                Ok(()) => break,
                Err(Failure::NoSpace) => prop_assert!(run.machine.as_ref().unwrap().applied() >= before),
                Err(other) => panic!("{other}"),
            }
            prop_assert!(!is_full, "once only");
            is_full = true;
        }
        run.disk.heal();
        // What could not be removed goes now; a mirror that met the full disk is rebuilt by hand or at the next start.
        run.machine.as_ref().unwrap().checkpoint().unwrap();
        run.machine.as_ref().unwrap().rebuild_tree().unwrap();
        run.assert_done(&script);
    }
}

#[test]
fn state_is_the_same_after_a_clean_close() {
    let script = Script::of(&fixed_rolls(3, 200));
    let mut run = Run::new();
    run.open().unwrap();
    run.follow(&script, 1000).unwrap();
    let last = run.machine.take().unwrap().close().unwrap();
    assert_eq!(last, Some(script.entries.len() as u64 - 1));
    run.disk.cut_power(1);
    run.open().unwrap();
    assert_eq!(run.machine.as_ref().unwrap().applied(), last);
    run.assert_done(&script);
}

#[test]
fn open_goes_back_to_the_last_checkpoint() {
    let mut world = World::new();
    let first = world.create(PORTAL, "first").unwrap();
    let durable = world.machine().checkpoint().unwrap();
    let second = world.create(PORTAL, "second").unwrap();
    assert_eq!(world.machine().durable(), durable);
    world.reopen();
    assert_eq!(world.machine().applied(), durable);
    assert!(world.attributes(first).is_ok());
    assert_eq!(world.attributes(second), Err(Error::Stale));
}

#[test]
fn a_checkpoint_cut_short_before_the_database_was_carried_over_is_finished_at_open() {
    let mut world = World::new();
    let file = world.create(PORTAL, "file").unwrap();
    let applied = world.machine().applied();
    world.disk.sync(world.folder.path()).unwrap();
    let marker = Marker {
        phase: Phase::Settling,
        index: applied,
        is_mirror_broken: false,
    };
    marker
        .write(world.disk.as_ref(), &world.folder.path().join("checkpoint"))
        .unwrap();
    world.reopen();
    assert_eq!(world.machine().applied(), applied);
    assert_eq!(world.machine().durable(), applied);
    assert!(world.attributes(file).is_ok());
}

#[test]
fn a_power_cut_while_the_database_is_carried_over_is_finished_at_open() {
    const PAGE: usize = 4096;
    let mut world = World::new();
    let files: Vec<_> = (0..200)
        .map(|at| world.create(PORTAL, &format!("file{at}")).unwrap())
        .collect();
    let applied = world.machine().applied();
    let meta = world.folder.path().join("meta.db");
    let wal = world.folder.path().join("meta.db-wal");
    let (old, log) = (std::fs::read(&meta).unwrap(), std::fs::read(&wal).unwrap());
    // Two syncs and the first mark succeed; the process dies before the second mark.
    world.faulty.fail(3, Fault::Dead);
    assert!(world.machine().checkpoint().is_err());
    world.machine = None;
    world.faulty.cut_power(1);
    // Every second page reached the disk, and the log is still there.
    let mut half = std::fs::read(&meta).unwrap();
    for (at, page) in half.chunks_mut(PAGE).enumerate().filter(|(at, _)| at % 2 == 1) {
        page.fill(0);
        if let Some(before) = old.get(at * PAGE..(at + 1) * PAGE) {
            page.copy_from_slice(before);
        }
    }
    std::fs::write(&meta, half).unwrap();
    std::fs::write(&wal, log).unwrap();
    world.reopen();
    assert_eq!(world.machine().applied(), applied);
    for file in files {
        assert!(world.attributes(file).is_ok());
    }
    assert_eq!(world.mirror().len(), 200);
}

#[test]
fn a_database_that_another_program_carried_over_is_refused() {
    let mut world = World::new();
    world.create(PORTAL, "file").unwrap();
    let meta = world.folder.path().join("meta.db");
    world.machine = None;
    let stranger = rusqlite::Connection::open(&meta).unwrap();
    stranger
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    drop(stranger);
    let opened = Machine::open(world.folder.path(), world.disk.clone());
    assert!(matches!(opened, Err(Failure::Damaged(_))));
}

#[test]
fn a_lost_marker_or_database_is_refused_and_nothing_is_overwritten() {
    for name in ["checkpoint", "meta.db"] {
        let mut world = World::real();
        world.create(PORTAL, "file").unwrap();
        world.machine().checkpoint().unwrap();
        world.machine = None;
        std::fs::remove_file(world.folder.path().join(name)).unwrap();
        let opened = Machine::open(world.folder.path(), world.disk.clone());
        assert!(matches!(opened, Err(Failure::Damaged(_))), "without {name}");
    }
}

#[test]
fn an_input_or_output_error_stops_the_machine_but_not_its_answers() {
    let mut world = World::new();
    let file = world.create(PORTAL, "file").unwrap();
    world.write(file, 0, b"good").unwrap();
    let other = world.create(PORTAL, "other").unwrap();
    world.write(other, 0, b"other").unwrap();
    world.faulty.fail(0, Fault::Broken);
    let data = Bytes::from_static(b"evil");
    let write = Mutation::Write {
        inode: file,
        offset: 0,
        data,
    };
    assert!(matches!(world.try_call(write), Err(Failure::Io(_))));
    world.faulty.heal();
    let inode = file;
    let again = world.try_call(Mutation::Open { inode });
    assert!(matches!(again, Err(Failure::Stopped)));
    assert!(matches!(world.machine().checkpoint(), Err(Failure::Stopped)));
    assert_eq!(world.read(other, 0, 10), Ok((b"other".to_vec(), true)));
    assert_eq!(
        world.read(file, 0, 10),
        Err(Error::Unavailable),
        "it may be half written"
    );
    assert_eq!(world.attributes(file).unwrap().size, 4);
}

#[test]
fn a_checkpoint_hears_of_a_lost_page_though_somebody_else_was_told_before() {
    let mut world = World::new();
    let file = world.create(PORTAL, "file").unwrap();
    world.write(file, 0, b"old").unwrap();
    let durable = world.machine().checkpoint().unwrap();
    let data = Bytes::from_static(b"new");
    let write = world.operation(Mutation::Write {
        inode: file,
        offset: 0,
        data,
    });
    let index = world.index + 1;
    world.machine().apply(index, std::slice::from_ref(&write)).unwrap();
    world.faulty.lose_writes();
    assert!(world.disk.sync(world.folder.path()).is_err(), "a stranger is told");
    assert!(world.disk.sync(world.folder.path()).is_ok(), "and the next one not");
    assert!(matches!(world.machine().checkpoint(), Err(Failure::Io(_))));
    assert!(
        matches!(world.machine().checkpoint(), Err(Failure::Stopped)),
        "told once"
    );
    assert!(matches!(world.machine().sync(), Err(Failure::Stopped)));
    world.machine = None;
    world.faulty.cut_power(1);
    world.reopen();
    assert_eq!(world.machine().applied(), durable, "the log is not let go");
    world.machine().apply(index, &[write]).unwrap();
    assert_eq!(world.read(file, 0, 10), Ok((b"new".to_vec(), true)));
    world.machine().checkpoint().unwrap();
}

#[test]
fn a_file_that_a_full_disk_cut_is_not_read_until_its_entry_is_applied() {
    let mut world = World::new();
    let file = world.create(PORTAL, "file").unwrap();
    world.write(file, 0, b"content").unwrap();
    let cut = world.operation(Mutation::Set {
        inode: file,
        change: super::world::size(0),
        guard: None,
    });
    let data = Bytes::from_static(b"more");
    let more = world.operation(Mutation::Append { inode: file, data });
    world.faulty.fail(1, Fault::Full);
    let both = [cut, more];
    let index = world.index + 1;
    assert!(matches!(world.machine().apply(index, &both), Err(Failure::NoSpace)));
    assert_eq!(world.attributes(file).unwrap().size, 7);
    assert_eq!(world.read(file, 0, 10), Err(Error::Unavailable));
    assert!(world.machine().apply(index, &both).unwrap().iter().all(Result::is_ok));
    assert_eq!(world.read(file, 0, 10), Ok((b"more".to_vec(), true)));
}

#[test]
fn a_database_that_finds_the_disk_full_rolls_back_and_goes_on_later() {
    let mut world = World::new();
    world.machine().limit_pages(1);
    let operations: Vec<_> = (0..500)
        .map(|at| {
            world.operation(Mutation::MakeFolder {
                folder: PORTAL,
                name: format!("folder-{at}").into_bytes(),
                change: super::world::mode(0o755),
            })
        })
        .collect();
    let applied = world.machine().applied();
    for _ in 0..2 {
        assert!(matches!(world.machine().apply(10, &operations), Err(Failure::NoSpace)));
        assert_eq!(world.machine().applied(), applied);
        assert_eq!(world.list(PORTAL, 0, 10), Ok((Vec::new(), true)));
        assert!(world.mirror().is_empty());
    }
    world.machine().limit_pages(1_000_000);
    assert!(
        world
            .machine()
            .apply(10, &operations)
            .unwrap()
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(world.mirror().len(), 500);
}

#[test]
fn a_missing_or_cut_content_is_an_error_and_not_zeros() {
    let mut world = World::real();
    let file = world.create(PORTAL, "file").unwrap();
    world.write(file, 0, b"content").unwrap();
    let path = world
        .folder
        .path()
        .join(format!("data/{:02x}/{}", file.0 % 256, file.0));
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(3)
        .unwrap();
    assert_eq!(world.read(file, 0, 10), Err(Error::Io));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(world.read(file, 0, 10), Err(Error::Io));
}

#[test]
fn entries_out_of_order_and_a_second_opener_are_refused() {
    let mut world = World::new();
    world.create(PORTAL, "file").unwrap();
    let index = world.index;
    assert!(matches!(world.machine().apply(index, &[]), Err(Failure::Order { .. })));
    let second = Machine::open(world.folder.path(), world.disk.clone());
    assert!(matches!(second, Err(Failure::InUse)));
    assert_eq!(world.ask(Query::Attributes { inode: PORTAL }).map(drop), Ok(()));
}
