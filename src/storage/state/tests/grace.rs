//! Inodes that have lost their last name while a session might have them open without having said so.

use super::world::{World, begin};
use crate::storage::call::{Change, Error, Inode, Mutation, PORTAL, Query, Reply};
use crate::storage::operation::{Operation, Session};
use crate::storage::state::sessions::{GRACE_NEW, GRACE_OLD};
use crate::storage::state::{Machine, Snapshot};

const DOOR: Session = Session(7);

/// With a session whose owner outlives its process.
fn world() -> World {
    let mut world = World::new();
    apply(&mut world, &[begin(DOOR, true)]);
    world
}

fn apply(world: &mut World, operations: &[Operation]) -> Vec<Result<Reply, Error>> {
    world.index += 1;
    world.machine().apply(world.index, operations).unwrap()
}

fn reap(world: &mut World) {
    assert_eq!(apply(world, &[Operation::Reap]), [Ok(Reply::Done)]);
}

fn file(world: &mut World, name: &str) -> Inode {
    let inode = world.create(PORTAL, name).unwrap();
    world.write(inode, 0, b"content").unwrap();
    inode
}

fn has_content(world: &World, inode: Inode) -> bool {
    let path = world.machine().content_path(inode);
    world.disk.look(&path).is_ok()
}

#[test]
fn what_loses_its_last_name_is_freed_by_the_second_reap() {
    let mut world = world();
    let inode = file(&mut world, "file");
    let folder = world.folder(PORTAL, "folder", 0o755).unwrap();
    world.remove(PORTAL, "file").unwrap();
    let name = b"folder".to_vec();
    world.call(Mutation::RemoveFolder { folder: PORTAL, name }).unwrap();
    assert_eq!(world.machine().has_grace().unwrap(), (false, true));
    for has_grace in [(true, false), (false, false)] {
        assert_eq!(world.attributes(inode).unwrap().links, 0);
        assert_eq!(world.read(inode, 0, 100).unwrap().0, b"content");
        world.write(inode, 0, b"content").unwrap();
        world
            .set(
                inode,
                Change {
                    size: Some(7),
                    ..Change::default()
                },
            )
            .unwrap();
        assert_eq!(world.look_up(folder, "none"), Err(Error::NotFound));
        assert_eq!(
            world.create(folder, "new"),
            Err(Error::NotFound),
            "it is no place for names"
        );
        reap(&mut world);
        assert_eq!(world.machine().has_grace().unwrap(), has_grace);
    }
    for inode in [inode, folder] {
        assert_eq!(world.attributes(inode), Err(Error::Stale));
    }
    assert!(!has_content(&world, inode));
}

#[test]
fn what_was_opened_meanwhile_lives_until_it_is_closed() {
    let mut world = world();
    let inode = file(&mut world, "file");
    world.remove(PORTAL, "file").unwrap();
    world.session = DOOR;
    reap(&mut world);
    world.call(Mutation::Open { inode }).unwrap();
    for _ in 0..3 {
        reap(&mut world);
        assert!(world.attributes(inode).is_ok());
    }
    world.call(Mutation::Close { inode }).unwrap();
    assert_eq!(world.attributes(inode), Err(Error::Stale));
    assert!(!has_content(&world, inode));
}

#[test]
fn what_a_close_leaves_in_grace_stays() {
    let mut world = world();
    let inode = file(&mut world, "file");
    world.call(Mutation::Open { inode }).unwrap();
    world.remove(PORTAL, "file").unwrap();
    world.call(Mutation::Close { inode }).unwrap();
    assert!(world.attributes(inode).is_ok(), "another may have it open");
    world.end(DOOR);
    reap(&mut world);
    assert!(world.attributes(inode).is_ok(), "no matter who is there by now");
    reap(&mut world);
    assert_eq!(world.attributes(inode), Err(Error::Stale));
}

#[test]
fn what_is_renamed_over_is_in_grace_and_what_has_another_name_is_not() {
    let mut world = world();
    let (old, new) = (file(&mut world, "page"), file(&mut world, "page.new"));
    world.rename((PORTAL, "page.new"), (PORTAL, "page")).unwrap();
    assert_eq!(world.look_up(PORTAL, "page"), Ok(new));
    assert_eq!(world.read(old, 0, 100).unwrap().0, b"content");
    reap(&mut world);
    reap(&mut world);
    assert_eq!(world.attributes(old), Err(Error::Stale));
    let (inode, folder, name) = (new, PORTAL, b"link".to_vec());
    world.call(Mutation::Link { inode, folder, name }).unwrap();
    world.remove(PORTAL, "page").unwrap();
    assert_eq!(world.machine().has_grace().unwrap(), (false, false));
}

#[test]
fn without_a_session_that_adopts_nothing_is_in_grace() {
    let mut world = world();
    let inode = file(&mut world, "file");
    world.end(DOOR);
    world.remove(PORTAL, "file").unwrap();
    assert_eq!(world.attributes(inode), Err(Error::Stale));
    assert_eq!(world.machine().has_grace().unwrap(), (false, false));
    // A successor that does not adopt ends it too.
    let place = |session, adopts| match begin(Session(8), adopts) {
        Operation::Begin { place, .. } => Operation::Begin { session, place, adopts },
        other => other,
    };
    apply(&mut world, &[place(Session(8), true)]);
    apply(&mut world, &[place(Session(9), false)]);
    let inode = file(&mut world, "file");
    world.remove(PORTAL, "file").unwrap();
    assert_eq!(world.attributes(inode), Err(Error::Stale));
}

#[test]
fn much_is_freed_in_parts() {
    let mut world = world();
    let make: Vec<_> = (0..5000)
        .map(|number: u32| {
            let (folder, name, change) = (PORTAL, number.to_string().into_bytes(), Change::default());
            world.operation(Mutation::MakeLink {
                folder,
                name,
                target: b"t".to_vec(),
                change,
            })
        })
        .collect();
    assert!(apply(&mut world, &make).iter().all(Result::is_ok));
    let remove: Vec<_> = (0..5000)
        .map(|number: u32| {
            let name = number.to_string().into_bytes();
            world.operation(Mutation::Remove { folder: PORTAL, name })
        })
        .collect();
    assert!(apply(&mut world, &remove).iter().all(Result::is_ok));
    let last = file(&mut world, "last");
    reap(&mut world);
    world.remove(PORTAL, "last").unwrap();
    let mut reaps = 0;
    while world.machine().has_grace().unwrap().0 {
        reap(&mut world);
        reaps += 1;
    }
    assert_eq!(reaps, 2);
    assert!(world.attributes(last).is_ok(), "it came later");
    reap(&mut world);
    reap(&mut world);
    assert_eq!(world.attributes(last), Err(Error::Stale));
}

#[test]
fn grace_is_no_session() {
    let mut world = world();
    let inode = file(&mut world, "file");
    world.remove(PORTAL, "file").unwrap();
    reap(&mut world);
    assert_eq!(world.machine().sessions().unwrap(), [Session(1), DOOR]);
    for session in [GRACE_NEW, GRACE_OLD] {
        assert!(!world.machine().has_session(session).unwrap());
        let answers = apply(&mut world, &[begin(session, false), Operation::End { session }]);
        assert_eq!(answers, [Err(Error::Invalid), Err(Error::Invalid)]);
        world.session = session;
        assert_eq!(world.call(Mutation::Close { inode }), Err(Error::NoSession));
    }
    assert!(world.attributes(inode).is_ok());
}

/// Copies, comparisons, the mirror and a crash meet an inode without a name.
#[test]
fn nothing_trips_over_an_inode_in_grace() {
    let mut world = World::real();
    apply(&mut world, &[begin(DOOR, true)]);
    let inode = file(&mut world, "file");
    world.machine().checkpoint().unwrap();
    world.remove(PORTAL, "file").unwrap();
    let check = |machine: &Machine| {
        let space = Query::Space { inode: PORTAL };
        assert!(machine.query(DOOR, &super::world::ROOT, &space).is_ok());
        let fact = machine.facts([inode].into_iter()).unwrap()[0].unwrap();
        assert_eq!(machine.manifest(PORTAL, 100).unwrap(), [fact]);
        let checked = machine.verify(inode).unwrap().unwrap();
        assert_eq!((checked.fact, checked.found), (fact, 7));
        let outgoing = machine.outgoing().unwrap();
        assert_eq!(Snapshot::open(&outgoing.path).unwrap().fact(inode).unwrap(), Some(fact));
        machine.rebuild_tree().unwrap();
    };
    check(world.machine());
    assert!(world.mirror().is_empty());
    let mended = world.folder.path().join("mended");
    std::fs::write(&mended, b"content").unwrap();
    let fact = world.machine().facts([inode].into_iter()).unwrap()[0].unwrap();
    assert!(world.machine().replace_content(&fact, &mended).unwrap());
    world.machine().checkpoint().unwrap();
    world.reopen();
    check(world.machine());
    assert_eq!(world.machine().has_grace().unwrap(), (false, true));
    reap(&mut world);
    reap(&mut world);
    assert!(world.machine().manifest(PORTAL, 100).unwrap().is_empty());
    assert!(!has_content(&world, inode));
}
