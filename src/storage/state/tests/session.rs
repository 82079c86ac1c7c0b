//! Sessions: who takes whose place, and requests that come again by another way.

use super::world::World;
use crate::storage::call::{Error, Inode, Lock, LockFamily, Mutation, PORTAL, Query, Reply};
use crate::storage::door::RequestKey;
use crate::storage::operation::{Operation, Place, Session};

const OLD: Session = Session(10);
const NEW: Session = Session(11);

fn take_place(world: &mut World, session: Session, adopts: bool) -> u64 {
    world.index += 1;
    let place = Place("node1/fuse".into());
    let begin = Operation::Begin { session, place, adopts };
    match world.machine().apply(world.index, &[begin]).unwrap().remove(0) {
        Ok(Reply::Begun { next }) => next,
        other => panic!("{other:?}"),
    }
}

fn numbered(world: &mut World, session: Session, number: u64, xid: Option<u32>, name: &str) -> Result<Reply, Error> {
    world.session = session;
    let mutation = Mutation::Create {
        folder: PORTAL,
        name: name.into(),
        how: crate::storage::call::Creation::Guarded,
        change: Default::default(),
    };
    let mut operation = world.operation(mutation);
    let Operation::Mutate {
        sequence,
        acknowledged,
        key,
        ..
    } = &mut operation
    else {
        panic!("a mutation")
    };
    (*sequence, *acknowledged) = (number, number - 1);
    *key = xid.map(|xid| RequestKey {
        client: 3,
        xid,
        checksum: 4,
    });
    world.index += 1;
    world.machine().apply(world.index, &[operation]).unwrap().remove(0)
}

fn lock() -> Lock {
    Lock {
        family: LockFamily::Flock,
        owner: 1,
        is_exclusive: true,
        start: 0,
        end: u64::MAX,
        pid: 1,
    }
}

/// A file that OLD has open, unlinked and locked.
fn held(world: &mut World) -> Inode {
    world.session = OLD;
    let inode = world.create(PORTAL, "held").unwrap();
    for mutation in [
        Mutation::Open { inode },
        Mutation::Lock { inode, lock: lock() },
        Mutation::Remove {
            folder: PORTAL,
            name: b"held".to_vec(),
        },
    ] {
        world.call(mutation).unwrap();
    }
    inode
}

#[test]
fn a_request_is_executed_once_whichever_door_brings_it() {
    let mut world = World::new();
    assert_eq!(take_place(&mut world, OLD, false), 1);
    let made = numbered(&mut world, OLD, 1, Some(7), "file");
    assert!(made.is_ok());
    world.begin(Session(20));
    assert_eq!(
        numbered(&mut world, Session(20), 1, Some(7), "file"),
        made,
        "another door"
    );
    let next = take_place(&mut world, NEW, false);
    assert_eq!(next, 2);
    assert_eq!(
        numbered(&mut world, NEW, next, Some(7), "file"),
        made,
        "the door's successor"
    );
    assert_eq!(
        numbered(&mut world, NEW, next + 1, Some(8), "file"),
        Err(Error::Exists),
        "a new request"
    );
    assert_eq!(
        numbered(&mut world, OLD, 2, None, "late"),
        Err(Error::NoSession),
        "the old door is over"
    );
    assert_eq!(world.look_up(PORTAL, "late"), Err(Error::NotFound));
}

#[test]
fn replies_outlive_their_acknowledgement_for_a_while() {
    let mut world = World::new();
    take_place(&mut world, OLD, false);
    let made = numbered(&mut world, OLD, 1, Some(7), "file");
    numbered(&mut world, OLD, 1280, Some(7), "file").unwrap();
    assert_eq!(numbered(&mut world, OLD, 1280, Some(7), "file"), made);
    assert_eq!(
        numbered(&mut world, OLD, 1281, Some(7), "file"),
        Err(Error::Exists),
        "long ago"
    );
}

#[test]
fn a_successor_adopts_locks_and_opens_or_they_end() {
    let mut world = World::new();
    take_place(&mut world, OLD, false);
    let inode = held(&mut world);
    take_place(&mut world, NEW, true);
    assert!(world.attributes(inode).is_ok(), "it is still open");
    let who = Query::TestLock { inode, lock: lock() };
    world.session = NEW;
    assert_eq!(world.ask(who.clone()), Ok(Reply::Holder(None)), "the lock is its own");
    world.session = Session(1);
    assert!(matches!(world.ask(who), Ok(Reply::Holder(Some(_)))));
    take_place(&mut world, Session(12), false);
    assert_eq!(world.attributes(inode), Err(Error::Stale), "nobody holds it");
    assert_eq!(world.machine().sessions().unwrap(), [Session(1), Session(12)]);
}

#[test]
fn a_session_that_is_begun_again_goes_on() {
    let mut world = World::new();
    take_place(&mut world, OLD, false);
    let inode = held(&mut world);
    assert_eq!(take_place(&mut world, OLD, false), 5);
    assert!(world.attributes(inode).is_ok());
}
