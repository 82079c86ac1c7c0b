//! What crosses the network and what does not.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::storage::call::{Inode, PORTAL};
use crate::storage::state::Checked;
use crate::storage::state::tests::random::fixed_rolls;
use crate::storage::state::tests::world::World;

const LARGE: usize = 3 << 20;

fn checked(machine: &Machine) -> Vec<Checked> {
    let facts = machine.manifest(Inode(0), 10_000).unwrap();
    let checked = facts.iter().map(|fact| machine.verify(fact.inode).unwrap().unwrap());
    checked.collect()
}

/// Twenty files of a few bytes and one of more than a chunk.
fn world() -> World {
    let mut world = World::real();
    for number in 0..20 {
        let file = world.create(PORTAL, &format!("small {number}")).unwrap();
        world.write(file, 0, format!("content {number}").as_bytes()).unwrap();
    }
    let large = world.create(PORTAL, "large").unwrap();
    let piece: Vec<u8> = (0..LARGE).map(|at| (at % 251) as u8).collect();
    for (number, piece) in piece.chunks(1 << 20).enumerate() {
        world.write(large, (number << 20) as u64, piece).unwrap();
    }
    world.create(PORTAL, "empty").unwrap();
    world
}

fn meta_size(machine: &Shared) -> u64 {
    let outgoing = machine.get().outgoing().unwrap();
    std::fs::metadata(&outgoing.path).unwrap().len()
}

async fn installed(source: &Shared, target: &Replica, leftover: Option<PathBuf>) -> Counts {
    let (answer, counts) = transfer(source, target, leftover, || ()).await;
    assert_eq!(answer.unwrap(), "installed");
    let (source, target) = (source.get(), target.machine().get());
    assert_eq!(checked(&source), checked(&target));
    assert_eq!(
        (target.applied(), target.durable()),
        (source.applied(), source.applied())
    );
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_replica_gets_everything_and_later_only_what_changed() {
    let mut world = world();
    world.machine().checkpoint().unwrap();
    let source = Shared::new(world.machine.take().unwrap());
    let target = Replica::real();
    let first = installed(&source, &target, None).await;
    assert_eq!((first.files, first.bytes), (22, first.bytes_total));
    assert!(first.sent > LARGE as u64);
    let mirror = target.folder.path().join("tree/small 7");
    assert_eq!(std::fs::read(mirror).unwrap(), b"content 7");

    drop(source);
    world.reopen();
    let file = world.look_up(PORTAL, "small 7").unwrap();
    world.write(file, 0, b"CONTENT").unwrap();
    world.remove(PORTAL, "small 8").unwrap();
    let source = Shared::new(world.machine.take().unwrap());
    let meta = meta_size(&source);
    let second = installed(&source, &target, None).await;
    assert_eq!(second.files, 21);
    assert_eq!(
        second.sent,
        meta + "CONTENT 7".len() as u64,
        "the metadata and one content"
    );
    let tree = target.folder.path().join("tree");
    assert_eq!(std::fs::read(tree.join("small 7")).unwrap(), b"CONTENT 7");
    assert!(!tree.join("small 8").exists());
    let left: Vec<_> = std::fs::read_dir(target.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| ["incoming", "replaced", "outgoing"].contains(&name.as_str()))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Cuts the stream after the sender has said so many bytes.
async fn cut_after(source: &Shared, target: &Replica, bytes: u64) {
    let (one, near) = tokio::io::duplex(64 * 1024);
    let (far, other) = tokio::io::duplex(64 * 1024);
    let relay = async move {
        let ((mut asks, mut to_receiver), (answers, mut to_sender)) = (tokio::io::split(near), tokio::io::split(far));
        let mut answers = tokio::io::AsyncReadExt::take(answers, bytes);
        tokio::select! {
            _ = tokio::io::copy(&mut asks, &mut to_sender) => {}
            _ = tokio::io::copy(&mut answers, &mut to_receiver) => {}
        }
    };
    let (scope, local, place) = (Scope::new(), target.local(None), target.place());
    let install = |_, _| async { panic!("it never comes to that") };
    let receiving = receive(one, place, local, &scope, Arc::default(), install);
    let (header, holds, progress) = (Bytes::from_static(b"header"), Holds::default(), Arc::default());
    let sending = send(other, header, source, &holds, &progress);
    let (received, sent, ()) = tokio::join!(receiving, sending, relay);
    assert!(received.is_err() && sent.is_err());
}

/// Twenty files of which the first `bad` cannot be read, and a large one that can be read up to its second MiB.
fn spoiled(bad: usize) -> (World, Shared, Vec<Inode>, Inode) {
    let mut world = World::new();
    let mut create = |name: &str, data: &[u8]| {
        let file = world.create(PORTAL, name).unwrap();
        world.write(file, 0, data).unwrap();
        file
    };
    let small: Vec<_> = (0..20).map(|at| create(&format!("small {at}"), b"content")).collect();
    let large = create("large", &[3; 1 << 20]);
    let machine = world.machine.take().unwrap();
    for inode in &small[..bad] {
        world.faulty.spoil(&machine.content_path(*inode), 2);
    }
    world.faulty.spoil(&machine.content_path(large), (1 << 19) + 5);
    (world, Shared::new(machine), small, large)
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_sectors_of_the_sender_do_not_keep_a_new_replica_out() {
    let (_world, source, small, large) = spoiled(2);
    let target = Replica::real();
    let (answer, _) = transfer(&source, &target, None, || ()).await;
    assert_eq!(answer.unwrap(), "installed");
    let target = target.machine().get();
    let found = |inode: Inode| target.verify(inode).unwrap().unwrap().found;
    assert_eq!(found(large), 1 << 19, "as far as it goes; the scrub finds it short");
    for (at, inode) in small.into_iter().enumerate() {
        assert_eq!(found(inode), if at < 2 { 0 } else { 7 }, "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_gives_hardly_anything_makes_no_copy() {
    let (_world, source, ..) = spoiled(17);
    let target = Replica::real();
    let (answer, _) = transfer(&source, &target, None, || panic!("nothing is installed")).await;
    assert!(answer.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_was_cut_goes_on_where_it_was() {
    let mut world = world();
    let changed = world.look_up(PORTAL, "small 3").unwrap();
    let write = crate::storage::call::Mutation::Write {
        inode: changed,
        offset: 0,
        data: Bytes::from_static(b"CONTENT"),
    };
    let (operation, index) = (world.operation(write), world.index + 1);
    let source = Shared::new(world.machine.take().unwrap());
    let target = Replica::real();
    // The small files come first.
    cut_after(&source, &target, meta_size(&source) + (1 << 20)).await;
    assert!(source.get().apply(index, &[operation]).unwrap()[0].is_ok());
    let counts = installed(&source, &target, None).await;
    let expected = meta_size(&source) + (LARGE + "CONTENT 3".len()) as u64;
    assert_eq!((counts.files, counts.sent), (22, expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_own_content_is_sent_again() {
    let mut world = world();
    let source = Shared::new(world.machine.take().unwrap());
    let target = Replica::real();
    installed(&source, &target, None).await;
    let machine = target.machine().get();
    let facts = machine.manifest(Inode(0), 100).unwrap();
    std::fs::remove_file(machine.content_path(facts[3].inode)).unwrap();
    std::fs::write(machine.content_path(facts[4].inode), b"cut").unwrap();
    drop(machine);
    installed(&source, &target, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leftover_is_linked_only_where_its_content_is_the_same() {
    let mut world = world();
    let source = Shared::new(world.machine.take().unwrap());
    let old = Replica::real();
    installed(&source, &old, None).await;
    let machine = old.machine().get();
    let wrong = machine.manifest(Inode(0), 100).unwrap()[3];
    std::fs::write(machine.content_path(wrong.inode), vec![7; wrong.size as usize]).unwrap();
    drop(machine);
    // The same file system: contents are linked.
    let target = Replica::real();
    let leftover = target.folder.path().join("leftover");
    std::fs::rename(old.folder.path().join("data"), &leftover).unwrap();
    let meta = meta_size(&source);
    let counts = installed(&source, &target, Some(leftover)).await;
    assert_eq!(counts.sent, meta + wrong.size);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_meanwhile_comes_with_the_log() {
    let script = Arc::new(Script::of(&fixed_rolls(3, 3000)));
    let half = script.entries.len() / 2;
    let (source, target) = (Replica::real(), Replica::real());
    source.follow(&script, half).unwrap();
    target.follow(&script, half / 4).unwrap();
    let writer = {
        let (script, machine) = (script.clone(), source.machine().get());
        std::thread::spawn(move || {
            for at in half..script.entries.len() {
                machine.apply(at as u64, &script.entries[at]).unwrap();
                if at % 100 == 0 {
                    machine.checkpoint().unwrap();
                }
            }
        })
    };
    let (answer, _) = transfer(source.machine(), &target, None, || ()).await;
    assert_eq!(answer.unwrap(), "installed");
    writer.join().unwrap();
    assert!(target.machine().get().applied() >= Some(half as u64 - 1));
    target.follow(&script, script.entries.len()).unwrap();
    target.assert_done(&script);
    source.assert_done(&script);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_gave_way_refuses_and_another_transfer_waits() {
    let mut world = world();
    let caller = world.caller.clone();
    let source = Shared::new(world.machine.take().unwrap());
    let target = Replica::real();
    let old = target.machine().get();
    let was_refused = Arc::new(AtomicBool::new(false));
    let (seen, place, local) = (was_refused.clone(), target.place(), target.local(None));
    let meanwhile = move || {
        let ((one, _other), scope) = (tokio::io::duplex(64), Scope::new());
        let second = receive(one, place, local, &scope, Arc::default(), |_, _| async { Bytes::new() });
        let second = futures_util::FutureExt::now_or_never(second);
        let refused = second.unwrap().unwrap_err();
        seen.store(refused.kind() == std::io::ErrorKind::ResourceBusy, Ordering::Relaxed);
    };
    let (answer, _) = transfer(&source, &target, None, meanwhile).await;
    assert_eq!(answer.unwrap(), "installed");
    assert!(was_refused.load(Ordering::Relaxed));
    let query = crate::storage::call::Query::Attributes { inode: PORTAL };
    let session = crate::storage::operation::Session(1);
    assert_eq!(
        old.query(session, &caller, &query),
        Err(crate::storage::call::Error::Unavailable)
    );
    assert!(matches!(old.apply(1 << 40, &[]), Err(Failure::Stopped)));
    assert!(target.machine().get().query(session, &caller, &query).is_ok());
    drop(old);
}
