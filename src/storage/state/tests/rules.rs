//! The rules of single calls that random sequences do not single out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::faulty::Fault;
use super::world::{World, mode, size, temporary, user};
use crate::storage::call::{Creation, DATA_MAX, Error, Inode, Kind, Mutation, PORTAL, Query, REGISTRY, Reply};
use crate::storage::operation::{Operation, Session};
use crate::storage::state::disk::{Disk, SystemDisk};
use crate::storage::state::{Entry, FILE_MAX, Incoming, LINKS_MAX, Machine, Snapshot, WINDOW, admit_incoming};

#[test]
fn rename_over_what_is_there() {
    // What moves, what is there, what comes of it.
    for (from, to, wanted) in [
        ("file", "nothing", Ok(())),
        ("file", "file", Ok(())),
        ("file", "link", Ok(())),
        ("file", "folder", Err(Error::IsFolder)),
        ("file", "full", Err(Error::IsFolder)),
        ("link", "file", Ok(())),
        ("folder", "nothing", Ok(())),
        ("folder", "file", Err(Error::NotFolder)),
        ("folder", "link", Err(Error::NotFolder)),
        ("folder", "folder", Ok(())),
        ("folder", "full", Err(Error::NotEmpty)),
        ("full", "folder", Ok(())),
        ("full", "full", Err(Error::NotEmpty)),
    ] {
        let mut world = World::new();
        let above = world.folder(PORTAL, "above", 0o755).unwrap();
        make(&mut world, PORTAL, "old", from);
        make(&mut world, above, "new", to);
        let old = world.look_up(PORTAL, "old").unwrap();
        let victim = world.look_up(above, "new");
        assert_eq!(
            world.rename((PORTAL, "old"), (above, "new")),
            wanted,
            "{from} over {to}"
        );
        if wanted.is_ok() {
            assert_eq!(world.look_up(above, "new"), Ok(old));
            assert_eq!(world.look_up(PORTAL, "old"), Err(Error::NotFound));
            if let Ok(victim) = victim {
                assert_eq!(world.attributes(victim), Err(Error::Stale), "{from} over {to}");
            }
        } else {
            assert_eq!(world.look_up(PORTAL, "old"), Ok(old));
            assert_eq!(world.look_up(above, "new"), victim);
        }
    }
}

fn make(world: &mut World, folder: Inode, name: &str, what: &str) {
    match what {
        "file" => drop(world.create(folder, name).unwrap()),
        "link" => {
            let name = name.into();
            let target = b"x".to_vec();
            let change = mode(0o777);
            world
                .call(Mutation::MakeLink {
                    folder,
                    name,
                    target,
                    change,
                })
                .unwrap();
        }
        "folder" => drop(world.folder(folder, name, 0o755).unwrap()),
        "full" => {
            let made = world.folder(folder, name, 0o755).unwrap();
            world.create(made, "inside").unwrap();
        }
        _ => {}
    }
}

#[test]
fn a_folder_does_not_move_into_itself_or_over_what_holds_it() {
    let mut world = World::new();
    let a = world.folder(PORTAL, "a", 0o755).unwrap();
    let b = world.folder(a, "b", 0o755).unwrap();
    world.folder(b, "c", 0o755).unwrap();
    assert_eq!(world.rename((PORTAL, "a"), (b, "x")), Err(Error::Invalid));
    assert_eq!(world.rename((PORTAL, "a"), (a, "x")), Err(Error::Invalid));
    assert_eq!(world.rename((b, "c"), (PORTAL, "a")), Err(Error::NotEmpty));
}

#[test]
fn two_names_of_one_file_rename_to_nothing_done() {
    let mut world = World::new();
    let inode = world.create(PORTAL, "one").unwrap();
    let folder = PORTAL;
    let name = b"two".to_vec();
    world.call(Mutation::Link { inode, folder, name }).unwrap();
    assert_eq!(world.rename((PORTAL, "one"), (PORTAL, "two")), Ok(()));
    assert_eq!(world.look_up(PORTAL, "one"), Ok(inode));
    assert_eq!(world.attributes(inode).unwrap().links, 2);
}

#[test]
fn the_two_trees_do_not_mix() {
    let mut world = World::new();
    let inode = world.create(REGISTRY, "v1").unwrap();
    assert_eq!(world.rename((REGISTRY, "v1"), (PORTAL, "v1")), Err(Error::Invalid));
    let folder = PORTAL;
    let name = b"v1".to_vec();
    assert_eq!(world.call(Mutation::Link { inode, folder, name }), Err(Error::Invalid));
    assert!(world.mirror().is_empty(), "the registry is not mirrored");
}

#[test]
fn dot_and_dot_dot_are_found() {
    let mut world = World::new();
    let a = world.folder(PORTAL, "a", 0o755).unwrap();
    let b = world.folder(a, "b", 0o755).unwrap();
    assert_eq!(world.look_up(b, "."), Ok(b));
    assert_eq!(world.look_up(b, ".."), Ok(a));
    assert_eq!(world.look_up(PORTAL, ".."), Ok(PORTAL));
    assert_eq!(world.look_up(REGISTRY, ".."), Ok(REGISTRY));
    world.rename((a, "b"), (PORTAL, "b")).unwrap();
    assert_eq!(world.look_up(b, ".."), Ok(PORTAL));
    assert_eq!(world.attributes(a).unwrap().links, 2);
    assert_eq!(world.attributes(PORTAL).unwrap().links, 4);
}

#[test]
fn a_listing_goes_on_while_the_folder_changes() {
    let mut world = World::new();
    for at in 0..100 {
        world.create(PORTAL, &format!("old{at}")).unwrap();
    }
    let mut seen = Vec::new();
    let mut cookie = 0;
    let mut round = 0;
    loop {
        let (entries, is_end) = world.list(PORTAL, cookie, 7).unwrap();
        seen.extend(
            entries
                .iter()
                .map(|entry| String::from_utf8(entry.name.clone()).unwrap()),
        );
        cookie = entries.last().map_or(cookie, |last| last.cookie);
        if is_end {
            break;
        }
        // Some before and some after the place where the listing stands.
        world.remove(PORTAL, &format!("old{}", round * 3)).unwrap();
        world.remove(PORTAL, &format!("old{}", 99 - round)).unwrap();
        if round < 3 {
            world.create(PORTAL, &format!("new{round}")).unwrap();
        }
        world.create(PORTAL, "swap").unwrap();
        world.rename((PORTAL, "swap"), (PORTAL, "old50")).unwrap();
        round += 1;
    }
    for at in 0..100 {
        let count = seen.iter().filter(|name| **name == format!("old{at}")).count();
        assert!(count <= 1, "old{at} is listed twice");
        let was_there_throughout = world.look_up(PORTAL, &format!("old{at}")).is_ok();
        assert!(!was_there_throughout || count == 1, "old{at} is missing");
    }
    let (entries, _) = world.list(PORTAL, 2, 1).unwrap();
    assert!(entries[0].cookie >= 3, "the first cookies are the doors'");
}

#[test]
fn a_repeated_exclusive_creation_succeeds_until_the_file_is_changed() {
    let mut world = World::new();
    let how = Creation::Exclusive(77);
    let made = world.create_with(PORTAL, "lock", how, mode(0o644)).unwrap();
    assert_eq!(world.create_with(PORTAL, "lock", how, mode(0o644)), Ok(made));
    assert_eq!(
        world.create_with(PORTAL, "lock", Creation::Exclusive(78), mode(0o644)),
        Err(Error::Exists)
    );
    world.set(made, mode(0o600)).unwrap();
    assert_eq!(world.create_with(PORTAL, "lock", how, mode(0o644)), Err(Error::Exists));
}

#[test]
fn an_unlinked_file_lives_while_a_session_has_it_open() {
    let mut world = World::new();
    world.begin(Session(2));
    let inode = world.create(PORTAL, "file").unwrap();
    world.write(inode, 0, b"kept").unwrap();
    for session in [1, 2, 2] {
        world.session = Session(session);
        world.call(Mutation::Open { inode }).unwrap();
    }
    world.remove(PORTAL, "file").unwrap();
    assert_eq!(world.attributes(inode).unwrap().links, 0);
    let (folder, name) = (PORTAL, b"again".to_vec());
    assert_eq!(world.call(Mutation::Link { inode, folder, name }), Err(Error::NotFound));
    world.call(Mutation::Close { inode }).unwrap();
    world.machine().checkpoint().unwrap();
    world.reopen();
    world.end(Session(1));
    assert_eq!(world.read(inode, 0, 10), Ok((b"kept".to_vec(), true)));
    world.call(Mutation::Close { inode }).unwrap();
    assert_eq!(world.attributes(inode), Err(Error::Stale));
    let data = super::world::walk(world.disk.as_ref(), &world.folder.path().join("data"));
    assert!(data.values().all(Option::is_none), "its content is gone too");
}

#[test]
fn a_removed_folder_takes_no_names() {
    let mut world = World::new();
    let inode = world.folder(PORTAL, "folder", 0o755).unwrap();
    world.call(Mutation::Open { inode }).unwrap();
    let (folder, name) = (PORTAL, b"folder".to_vec());
    world.call(Mutation::RemoveFolder { folder, name }).unwrap();
    assert_eq!(world.create(inode, "file"), Err(Error::NotFound));
    assert_eq!(world.look_up(inode, ".."), Err(Error::NotFound));
    assert_eq!(world.list(inode, 0, 10), Ok((Vec::new(), true)));
}

#[test]
fn sizes_of_64_bits_and_holes() {
    let mut world = World::real();
    let inode = world.create(PORTAL, "sparse").unwrap();
    let far = 5 << 32;
    let of = world.write(inode, far, b"end").unwrap();
    assert_eq!((of.size, of.used), (far + 3, 4096), "a hole takes no room");
    assert_eq!(world.read(inode, far - 2, 10), Ok((b"\0\0end".to_vec(), true)));
    assert_eq!(world.read(inode, 1 << 33, 4), Ok((vec![0; 4], false)));
    assert_eq!(world.read(inode, far + 3, 4), Ok((Vec::new(), true)));
    let of = world.set(inode, size(10)).unwrap();
    assert_eq!((of.size, of.used), (10, 4096));
    assert_eq!(world.set(inode, size(FILE_MAX)).unwrap().size, FILE_MAX);
    assert_eq!(world.set(inode, size(FILE_MAX + 1)), Err(Error::TooLarge));
    assert_eq!(world.write(inode, u64::MAX, b"x"), Err(Error::TooLarge));
    assert_eq!(world.write(inode, FILE_MAX, b"x"), Err(Error::TooLarge));
    assert_eq!(world.write(inode, 0, &vec![1; DATA_MAX + 1]), Err(Error::Invalid));
}

#[test]
fn what_is_cut_off_comes_back_as_zeros() {
    let mut world = World::real();
    let inode = world.create(PORTAL, "file").unwrap();
    world.write(inode, 0, b"secret").unwrap();
    world.set(inode, size(2)).unwrap();
    world.set(inode, size(6)).unwrap();
    assert_eq!(world.read(inode, 0, 10), Ok((b"se\0\0\0\0".to_vec(), true)));
}

#[test]
fn links_of_a_file_are_bounded() {
    let mut world = World::new();
    let inode = world.create(PORTAL, "file").unwrap();
    let operations: Vec<_> = (1..=LINKS_MAX)
        .map(|at| {
            let name = format!("name{at}").into_bytes();
            world.operation(Mutation::Link {
                inode,
                folder: PORTAL,
                name,
            })
        })
        .collect();
    let answers = world.machine().apply(world.index + 1, &operations).unwrap();
    let (last, others) = answers.split_last().unwrap();
    assert!(others.iter().all(Result::is_ok));
    assert_eq!(*last, Err(Error::TooManyLinks));
}

#[test]
fn a_repeated_call_is_answered_from_the_state_also_after_a_restart() {
    let mut world = World::new();
    let name = b"file".to_vec();
    let folder = PORTAL;
    world.create(PORTAL, "file").unwrap();
    let remove = world.operation(Mutation::Remove { folder, name });
    let first = world.machine().apply(10, std::slice::from_ref(&remove)).unwrap();
    assert!(first[0].is_ok());
    assert_eq!(world.machine().apply(11, std::slice::from_ref(&remove)).unwrap(), first);
    world.machine().checkpoint().unwrap();
    world.reopen();
    assert_eq!(world.machine().apply(12, &[remove]).unwrap(), first);
}

#[test]
fn replies_are_kept_until_acknowledged_and_within_the_window() {
    let mut world = World::new();
    let mut numbered = |sequence, acknowledged| {
        let Operation::Mutate {
            session,
            caller,
            time,
            fresh,
            mutation,
            ..
        } = world.operation(Mutation::Open { inode: PORTAL })
        else {
            panic!("a mutation")
        };
        let operation = Operation::Mutate {
            session,
            sequence,
            acknowledged,
            key: None,
            caller,
            time,
            fresh,
            mutation,
        };
        world.index += 1;
        world.machine().apply(world.index, &[operation]).unwrap().remove(0)
    };
    assert!(numbered(1, 0).is_ok());
    assert!(numbered(3, 0).is_ok(), "calls may overtake one another");
    assert!(numbered(2, 0).is_ok());
    assert!(numbered(4, 2).is_ok());
    assert_eq!(numbered(2, 0), Err(Error::Invalid), "its reply has arrived");
    assert_eq!(numbered(2 + WINDOW + 1, 2), Err(Error::Invalid), "too far ahead");
    assert!(numbered(2 + WINDOW, 2).is_ok());
}

#[test]
fn an_unknown_session_is_refused() {
    let mut world = World::new();
    world.session = Session(5);
    assert_eq!(world.create(PORTAL, "file"), Err(Error::NoSession));
    assert_eq!(world.look_up(PORTAL, "file"), Err(Error::NotFound));
    world.begin(Session(5));
    assert!(world.create(PORTAL, "file").is_ok());
    assert_eq!(world.machine().sessions().unwrap(), [Session(1), Session(5)]);
}

#[test]
fn devices_are_roots_to_make() {
    let mut world = World::new();
    world
        .call(Mutation::Set {
            inode: PORTAL,
            change: mode(0o777),
            guard: None,
        })
        .unwrap();
    let node = |kind| Mutation::MakeNode {
        folder: PORTAL,
        name: format!("{kind:?}").into_bytes(),
        kind,
        device: (8, 1),
        change: mode(0o600),
    };
    world.caller = user(1000);
    assert_eq!(world.call(node(Kind::Block)), Err(Error::NotOwner));
    assert!(world.call(node(Kind::Fifo)).is_ok());
    world.caller = user(0);
    assert!(world.call(node(Kind::Block)).is_ok());
    assert!(world.mirror().is_empty());
}

#[test]
fn a_reader_never_sees_new_content_at_the_old_size() {
    let mut world = World::real();
    let file = world.create(PORTAL, "config.php").unwrap();
    let contents = [Bytes::from(vec![b'x'; 3000]), Bytes::from(vec![b'y'; 1000])];
    world.write(file, 0, &contents[0]).unwrap();
    let is_done = AtomicBool::new(false);
    let batches: Vec<_> = (1..=300)
        .map(|at| {
            let cut = Mutation::Set {
                inode: file,
                change: size(0),
                guard: None,
            };
            let data = contents[at % 2].clone();
            [
                world.operation(cut),
                world.operation(Mutation::Append { inode: file, data }),
            ]
        })
        .collect();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut count = 0_u32;
            while !is_done.load(Ordering::Acquire) || count == 0 {
                let (data, _) = world.read(file, 0, 5000).unwrap();
                assert!(contents.iter().any(|content| data == *content), "neither old nor new");
                count += 1;
            }
        });
        for (at, batch) in batches.iter().enumerate() {
            world.machine().apply(1000 + at as u64, batch).unwrap();
        }
        is_done.store(true, Ordering::Release);
        reader.join().unwrap();
    });
}

#[test]
fn the_mirror_is_rebuilt_whatever_a_stranger_did_to_it() {
    let mut world = World::new();
    let folder = world.folder(PORTAL, "folder", 0o755).unwrap();
    let file = world.create(folder, "file").unwrap();
    world.write(file, 0, b"content").unwrap();
    make(&mut world, folder, "link", "link");
    let good = world.mirror();
    assert_eq!(good.len(), 3);
    let root = world.folder.path().join("tree");
    world.disk.remove(&root.join("folder/file")).unwrap();
    world.faulty.litter(&root.join("folder/file"), b"other");
    world.faulty.litter(&root.join("folder/more"), b"litter");
    world.disk.remove(&root.join("folder/link")).unwrap();
    world.machine().rebuild_tree().unwrap();
    assert_eq!(world.mirror(), good);
}

#[test]
fn a_mirror_that_was_ahead_is_exact_when_the_log_was_applied_again() {
    let mut world = World::new();
    let mut log = Vec::new();
    // The folder moves on, and another of its name gets a file.
    for (kind, name) in [("folder", "a"), ("rename", "b"), ("folder", "a"), ("file", "y")] {
        let (folder, change, name) = (PORTAL, mode(0o755), name.into());
        log.push(match kind {
            "folder" => world.operation(Mutation::MakeFolder { folder, name, change }),
            "rename" => world.operation(Mutation::Rename {
                from: folder,
                name: b"a".to_vec(),
                to: folder,
                new_name: name,
            }),
            _ => world.operation(Mutation::Create {
                folder: Inode(103),
                name,
                how: Creation::Guarded,
                change,
            }),
        });
    }
    world.machine().checkpoint().unwrap();
    for _ in 0..2 {
        let first = world.machine().applied().unwrap() + 1;
        for (at, operation) in log.iter().enumerate() {
            let answers = world
                .machine()
                .apply(first + at as u64, std::slice::from_ref(operation));
            assert!(answers.unwrap()[0].is_ok(), "{operation:?}");
        }
        let paths: Vec<_> = world.mirror().into_keys().collect();
        assert_eq!(paths, ["a", "a/y", "b"].map(std::path::PathBuf::from));
        world.reopen();
    }
}

#[test]
fn a_mirror_that_could_not_follow_is_rebuilt_at_the_next_start() {
    let mut world = World::new();
    // The file is made; its link in the mirror fails.
    world.faulty.fail(1, Fault::Full);
    world.create(PORTAL, "file").unwrap();
    assert!(world.mirror().is_empty());
    world.machine().checkpoint().unwrap();
    world.reopen();
    assert_eq!(world.mirror().len(), 1);
}

#[test]
fn a_note_and_the_highest_number_come_back() {
    let mut world = World::new();
    let operation = world.operation(Mutation::Open { inode: PORTAL });
    let Operation::Mutate { fresh, .. } = operation else {
        panic!("a mutation")
    };
    let entry = Entry {
        index: 50,
        operations: &[operation],
        note: Some(b"term 3"),
    };
    let blank = Entry {
        index: 51,
        operations: &[],
        note: None,
    };
    world.machine().apply_all(&[entry, blank]).unwrap();
    world.machine().checkpoint().unwrap();
    world.reopen();
    assert_eq!(world.machine().note(), b"term 3");
    assert_eq!(world.machine().applied(), Some(51));
    assert_eq!(world.machine().highest_inode(), fresh);
}

#[test]
fn a_snapshot_with_the_contents_makes_a_replica() {
    let mut world = World::real();
    let folder = world.folder(PORTAL, "folder", 0o755).unwrap();
    let file = world.create(folder, "file").unwrap();
    world.write(file, 0, b"content").unwrap();
    let other = temporary();
    let incoming = Incoming::of(other.path());
    incoming.prepare(&SystemDisk).unwrap();
    world.machine().snapshot_meta(&incoming.meta).unwrap();
    let facts = Snapshot::open(&incoming.meta).unwrap().page(Inode(0), 10).unwrap();
    assert_eq!(facts, world.machine().manifest(Inode(0), 10).unwrap());
    assert_eq!((facts[0].inode, facts[0].size), (file, 7));
    // What the pull does: each file of the manifest.
    let content = world.machine().content_path(file);
    std::fs::copy(content, incoming.content(file)).unwrap();
    incoming.complete(&SystemDisk).unwrap();
    let applied = world.machine().applied();
    admit_incoming(other.path(), &SystemDisk, applied).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    let copy = Machine::open(other.path(), disk.clone()).unwrap();
    assert_eq!((copy.applied(), copy.durable()), (applied, applied));
    assert_eq!(copy.verify(file).unwrap(), world.machine().verify(file).unwrap());
    assert!(!incoming.folder.exists());
    assert_eq!(
        super::world::walk(disk.as_ref(), &other.path().join("tree")),
        world.mirror()
    );
    let query = Query::Attributes { inode: file };
    assert_eq!(copy.query(Session(1), &world.caller, &query), world.ask(query));
}

#[test]
fn verify_sees_a_flipped_byte_and_a_missing_file() {
    let mut world = World::real();
    let file = world.create(PORTAL, "file").unwrap();
    world.write(file, 0, b"content").unwrap();
    let good = world.machine().verify(file).unwrap().unwrap();
    assert_eq!(good.found, 7);
    let path = world
        .folder
        .path()
        .join(format!("data/{:02x}/{}", file.0 % 256, file.0));
    std::fs::write(&path, b"c0ntent").unwrap();
    let bad = world.machine().verify(file).unwrap().unwrap();
    assert_eq!(bad.fact, good.fact);
    assert_ne!(bad.checksum, good.checksum);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(world.machine().verify(file).unwrap().unwrap().found, 0);
    assert_eq!(world.machine().verify(PORTAL).unwrap(), None);
}

#[test]
fn access_and_space_are_answered() {
    let mut world = World::new();
    let inode = world.create(PORTAL, "file").unwrap();
    world.caller = user(1000);
    assert_eq!(world.ask(Query::Access { inode, wanted: 7 }), Ok(Reply::Access(4)));
    assert!(matches!(world.ask(Query::Space { inode }), Ok(Reply::Space(_))));
    assert_eq!(world.ask(Query::Space { inode: Inode(999) }), Err(Error::Stale));
}
