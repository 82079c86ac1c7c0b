//! The lock table against an array of bytes, and how sessions end.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::world::World;
use crate::storage::call::{Error, Inode, Lock, LockFamily, Mutation, PORTAL, Query, Reply};
use crate::storage::operation::{Operation, Session};
use crate::storage::state::locks::{Held, conflict, holders, is_freed, with, without};
use crate::storage::state::{Entry, LockTrace};

const BYTES: u64 = 24;

#[derive(Clone, Debug)]
struct Ask {
    owner: (u64, u64),
    lock: Lock,
    takes: bool,
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let ask = (0..2_u64, 0..2_u64, 0..BYTES, 1..BYTES, any::<bool>(), 0..3_u8);
    let ask = ask.prop_map(|(session, owner, start, length, is_exclusive, verb)| Ask {
        owner: (session, owner),
        lock: Lock {
            family: LockFamily::Fcntl,
            owner,
            is_exclusive,
            start,
            end: if start + length > BYTES {
                u64::MAX
            } else {
                start + length
            },
            pid: 1,
        },
        takes: verb > 0,
    });
    proptest::collection::vec(ask, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_is_the_array_of_bytes(asks in asks()) {
        let mut table: Vec<Held> = Vec::new();
        // One more for everything after the range of the test.
        let mut bytes = vec![BTreeMap::<(u64, u64), bool>::new(); BYTES as usize + 1];
        for Ask { owner, lock, takes } in asks {
            let session = Session(owner.0);
            let range = lock.start as usize..lock.end.min(BYTES + 1) as usize;
            let is_blocked = bytes[range.clone()].iter().flatten().any(|(other, is_exclusive)| {
                *other != owner && (*is_exclusive || lock.is_exclusive)
            });
            prop_assert_eq!(conflict(&table, session, &lock).is_some(), is_blocked);
            let in_the_way: BTreeSet<_> = bytes[range.clone()]
                .iter()
                .flatten()
                .filter(|(other, is_exclusive)| other.0 != owner.0 && (**is_exclusive || lock.is_exclusive))
                .map(|(other, _)| Session(other.0))
                .collect();
            prop_assert_eq!(holders(&table, session, &lock), Vec::from_iter(in_the_way));
            if takes && is_blocked {
                continue;
            }
            let own = if takes { with(&table, session, &lock) } else { without(&table, session, &lock) };
            let is_less = bytes[range.clone()].iter().any(|byte| {
                let before = byte.get(&owner);
                before.is_some_and(|was_exclusive| !takes || *was_exclusive && !lock.is_exclusive)
            });
            let is_freed = is_freed(&table, (session, lock.owner), &own);
            prop_assert!(is_freed || !is_less);
            prop_assert!(!is_freed || bytes[range.clone()].iter().any(|byte| byte.contains_key(&owner)));
            table.retain(|held| (held.session.0, held.lock.owner) != owner);
            table.extend(own);
            for byte in &mut bytes[range] {
                byte.remove(&owner);
                if takes {
                    byte.insert(owner, lock.is_exclusive);
                }
            }
            for (at, byte) in bytes.iter().enumerate() {
                let covering = table.iter().filter(|held| (held.lock.start..held.lock.end).contains(&(at as u64)));
                let covering: Vec<_> = covering
                    .map(|held| ((held.session.0, held.lock.owner), held.lock.is_exclusive))
                    .collect();
                prop_assert_eq!(covering.len(), byte.len(), "no overlap at byte {}", at);
                for (owner, is_exclusive) in covering {
                    prop_assert_eq!(byte.get(&owner), Some(&is_exclusive));
                }
            }
        }
    }
}

fn whole(owner: u64, is_exclusive: bool) -> Lock {
    Lock {
        family: LockFamily::Flock,
        owner,
        is_exclusive,
        start: 0,
        end: u64::MAX,
        pid: 42,
    }
}

fn range(start: u64, end: u64) -> Lock {
    Lock {
        family: LockFamily::Fcntl,
        start,
        end,
        ..whole(1, true)
    }
}

#[test]
fn neighbours_of_one_mode_become_one_and_a_hole_splits() {
    let session = Session(1);
    let one = with(&[], session, &range(0, 10));
    let both = with(&one, session, &range(10, 20));
    assert_eq!(both.len(), 1);
    assert_eq!((both[0].lock.start, both[0].lock.end), (0, 20));
    let split = without(&both, session, &range(5, 6));
    let ranges: Vec<_> = split.iter().map(|held| (held.lock.start, held.lock.end)).collect();
    assert_eq!(ranges, [(0, 5), (6, 20)]);
}

fn locked_file() -> (World, Inode) {
    let mut world = World::new();
    let inode = world.create(PORTAL, "file").unwrap();
    world.begin(Session(2));
    let lock = whole(1, true);
    assert_eq!(world.call(Mutation::Lock { inode, lock }), Ok(Reply::Done));
    world.session = Session(2);
    (world, inode)
}

#[test]
fn flock_and_fcntl_never_meet() {
    let (mut world, inode) = locked_file();
    assert_eq!(
        world.call(Mutation::Lock {
            inode,
            lock: range(0, 9)
        }),
        Ok(Reply::Done)
    );
    assert_eq!(
        world.call(Mutation::Lock {
            inode,
            lock: whole(1, false)
        }),
        Err(Error::Locked)
    );
}

#[test]
fn test_lock_names_the_holder() {
    let (world, inode) = locked_file();
    let lock = whole(7, false);
    assert_eq!(
        world.ask(Query::TestLock { inode, lock }),
        Ok(Reply::Holder(Some(whole(1, true))))
    );
}

#[test]
fn an_flock_is_upgraded_and_downgraded_by_its_owner() {
    let (mut world, inode) = locked_file();
    world.session = Session(1);
    let lock = whole(1, false);
    assert_eq!(world.call(Mutation::Lock { inode, lock }), Ok(Reply::Done));
    world.session = Session(2);
    let shared = whole(1, false);
    assert_eq!(world.call(Mutation::Lock { inode, lock: shared }), Ok(Reply::Done));
    let exclusive = whole(1, true);
    assert_eq!(
        world.call(Mutation::Lock { inode, lock: exclusive }),
        Err(Error::Locked)
    );
}

/// What others are to hear of an operation.
fn traces(world: &mut World, operation: Operation) -> Vec<LockTrace> {
    world.index += 1;
    let (index, operations) = (world.index, &[operation][..]);
    let note = None;
    let done = world
        .machine()
        .apply_all(&[Entry {
            index,
            operations,
            note,
        }])
        .unwrap();
    done.touched.locks
}

#[test]
fn who_was_refused_and_who_may_try_again_is_told() {
    let (mut world, inode) = locked_file();
    let (mine, lesser) = (whole(1, true), whole(1, false));
    let ask = |world: &mut World, session, lock: &Lock| {
        let lock = lock.clone();
        world.session = Session(session);
        let operation = world.operation(Mutation::Lock { inode, lock });
        traces(world, operation)
    };
    let refused = |session| LockTrace::Refused {
        inode,
        session: Session(session),
        holders: vec![Session(1)],
    };
    assert_eq!(ask(&mut world, 2, &mine), [refused(2)]);
    assert_eq!(ask(&mut world, 1, &mine), [], "it is as it was");
    assert_eq!(ask(&mut world, 1, &lesser), [LockTrace::Freed(inode)]);
    assert_eq!(ask(&mut world, 2, &lesser), []);
    world.session = Session(2);
    for expected in [vec![LockTrace::Freed(inode)], vec![]] {
        let lock = mine.clone();
        let unlock = world.operation(Mutation::Unlock { inode, lock });
        assert_eq!(traces(&mut world, unlock), expected);
    }
    let session = Session(1);
    assert_eq!(
        traces(&mut world, Operation::End { session }),
        [LockTrace::Freed(inode)]
    );
    assert_eq!(ask(&mut world, 2, &mine), []);
    let name = b"file".to_vec();
    let remove = world.operation(Mutation::Remove { folder: PORTAL, name });
    assert_eq!(
        traces(&mut world, remove),
        [LockTrace::Freed(inode)],
        "it is gone with its locks"
    );
}

#[test]
fn the_end_of_a_session_frees_its_locks() {
    let (mut world, inode) = locked_file();
    world.end(Session(1));
    let lock = whole(1, true);
    assert_eq!(world.call(Mutation::Lock { inode, lock }), Ok(Reply::Done));
}

#[test]
fn locks_survive_a_checkpoint_and_a_restart() {
    let (mut world, inode) = locked_file();
    world.machine().checkpoint().unwrap();
    world.reopen();
    let lock = whole(1, true);
    assert_eq!(world.call(Mutation::Lock { inode, lock }), Err(Error::Locked));
}

#[test]
fn an_empty_range_is_refused() {
    let (mut world, inode) = locked_file();
    for (start, end) in [(5, 5), (9, 3)] {
        let lock = range(start, end);
        assert_eq!(
            world.call(Mutation::Lock {
                inode,
                lock: lock.clone()
            }),
            Err(Error::Invalid)
        );
        assert_eq!(world.ask(Query::TestLock { inode, lock }), Err(Error::Invalid));
    }
}
