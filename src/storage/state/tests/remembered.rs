//! What is answered from memory is what the database says, also while batches come in between.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::model::Model;
use super::random::{Script, rolls};
use super::world::{ROOT, World, plain, user};
use crate::storage::call::{Error, Inode, Kind, Mutation, PORTAL, Query, Reply};
use crate::storage::operation::Session;
use crate::storage::promise::{Kept, Recalls};
use crate::storage::state::{Entry, Machine, Traces};

fn ask(machine: &Machine, query: &Query) -> Result<Reply, Error> {
    machine.query(Session(99), &ROOT, query).map(plain)
}

/// Every inode and every name by the model, and a name that is nowhere; all of it is remembered afterwards.
fn assert_remembered(machine: &Machine, model: &Model, highest: u64) {
    for id in PORTAL.0..=highest {
        let inode = Inode(id);
        let Some(node) = model.nodes.get(&id) else {
            assert_eq!(ask(machine, &Query::Attributes { inode }), Err(Error::Stale));
            continue;
        };
        let expected = Ok(plain(Reply::Attributes(node.of.clone())));
        assert_eq!(ask(machine, &Query::Attributes { inode }), expected);
        if node.of.kind != Kind::Folder {
            continue;
        }
        for (_, name, child) in &node.names {
            let (folder, name) = (inode, name.clone());
            let query = Query::Lookup { folder, name };
            let found = ask(machine, &query);
            assert!(
                matches!(&found, Ok(Reply::Object { attributes, .. }) if attributes.inode.0 == *child),
                "{query:?}: {found:?}"
            );
            assert_eq!(
                machine.recall(&ROOT, &query).map(|answer| answer.map(plain)),
                Some(found)
            );
        }
        let (folder, name) = (inode, b"never made".to_vec());
        assert_eq!(ask(machine, &Query::Lookup { folder, name }), Err(Error::NotFound));
    }
}

/// As a door keeps it: without what comes along.
fn lasting(answer: Result<Reply, Error>) -> Result<Reply, Error> {
    answer.map(|reply| match reply {
        Reply::Object { attributes, .. } => Reply::Object {
            attributes,
            folder: None,
        },
        other => other,
    })
}

/// Attributes, access and names of all that is or was there, of a few that never were.
fn questions(models: &[Model], highest: u64) -> Vec<Query> {
    let nodes = models.iter().flat_map(|model| model.nodes.values());
    let mut names: BTreeSet<_> = nodes
        .flat_map(|node| node.names.iter().map(|(_, name, _)| name.clone()))
        .collect();
    names.insert(b"never made".to_vec());
    let of = |id| {
        let inode = Inode(id);
        let look_ups = names.clone().into_iter().map(move |name| {
            let folder = inode;
            Query::Lookup { folder, name }
        });
        [Query::Attributes { inode }, Query::Access { inode, wanted: 7 }]
            .into_iter()
            .chain(look_ups)
    };
    (PORTAL.0..=highest).flat_map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_follows_every_batch(rolls in rolls(150)) {
        let script = Script::of(&rolls);
        let mut world = World::new();
        world.end(Session(1));
        for (index, (entry, model)) in (100..).zip(script.entries.iter().zip(&script.models)) {
            world.machine().apply(index, entry).unwrap();
            assert_remembered(world.machine(), model, script.highest);
        }
    }

    #[test]
    fn what_a_batch_does_not_name_is_as_it_was(rolls in rolls(60)) {
        let script = Script::of(&rolls);
        let mut world = World::new();
        world.end(Session(1));
        let (now, mut kept, mut found) = (Duration::ZERO, Kept::default(), 0);
        kept.listened(&Recalls { epoch: 1, ..Recalls::default() }, Duration::MAX);
        let questions = questions(&script.models, script.highest);
        for (index, operations) in (100..).zip(&script.entries) {
            let done = world.machine().apply_all(&[Entry { index, operations, note: None }]).unwrap();
            let Traces { inodes, names, access, .. } = done.touched;
            kept.recall(&Recalls { inodes, names, access, ..Recalls::default() });
            for (query, caller) in questions.iter().flat_map(|query| [(query, ROOT), (query, user(1000))]) {
                let answer = world.machine().query(Session(99), &caller, query);
                match kept.find(&caller, query, now) {
                    Some(known) => {
                        found += 1;
                        prop_assert_eq!(known, lasting(answer), "{:?} by {:?}", query, caller);
                    }
                    None => kept.keep((&caller, query), &answer, 1, kept.ticket()),
                }
            }
        }
        prop_assert!(found > 0 || script.entries.len() < 2);
    }
}

/// What a read gets without waiting.
fn ready(world: &World, inode: Inode) -> Option<Result<Vec<u8>, Error>> {
    let (offset, count) = (0, 100);
    let answer = world.machine().recall(&ROOT, &Query::Read { inode, offset, count })?;
    Some(answer.map(|reply| match reply {
        Reply::Data { data, .. } => data.to_vec(),
        other => panic!("{other:?}"),
    }))
}

fn data(data: &[u8]) -> Option<Result<Vec<u8>, Error>> {
    Some(Ok(data.to_vec()))
}

#[test]
fn an_open_content_is_what_the_name_means() {
    let mut world = World::new();
    let file = world.create(PORTAL, "file").unwrap();
    world.write(file, 0, b"first").unwrap();
    assert_eq!(ready(&world, file), None, "nobody has read it");
    world.read(file, 0, 100).unwrap();
    assert_eq!(ready(&world, file), data(b"first"));
    world.write(file, 0, b"longer").unwrap();
    assert_eq!(ready(&world, file), data(b"longer"));

    let fact = world.machine().facts([file].into_iter()).unwrap()[0].unwrap();
    let mended = world.folder.path().join("mended");
    world.disk.write_at(&mended, 0, b"mended").unwrap();
    assert!(world.machine().replace_content(&fact, &mended).unwrap());
    assert_eq!(ready(&world, file), None, "the file that was open is another one");
    assert_eq!(world.read(file, 0, 100).unwrap().0, b"mended");
    assert_eq!(ready(&world, file), data(b"mended"));

    world.remove(PORTAL, "file").unwrap();
    assert_eq!(ready(&world, file), Some(Err(Error::Stale)));
    assert_eq!(world.read(file, 0, 100), Err(Error::Stale));
}

#[test]
fn nobody_sees_a_file_shrink_that_only_grows() {
    let mut world = World::new();
    let file = world.create(PORTAL, "growing").unwrap();
    let append = |_| {
        let data = Bytes::from_static(b"x");
        world.operation(Mutation::Append { inode: file, data })
    };
    let appends: Vec<_> = (0..400).map(append).collect();
    let (machine, is_done) = (world.machine(), AtomicBool::new(false));
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                let mut last = 0;
                while !is_done.load(Ordering::Acquire) {
                    let Ok(Reply::Attributes(of)) = ask(machine, &Query::Attributes { inode: file }) else {
                        panic!("it is there")
                    };
                    assert!(of.size >= last, "{} after {last}", of.size);
                    last = of.size;
                }
            });
        }
        for (number, append) in (1_u64..).zip(&appends) {
            machine.apply(1_000 + number, std::slice::from_ref(append)).unwrap();
            let Ok(Reply::Attributes(of)) = ask(machine, &Query::Attributes { inode: file }) else {
                panic!("it is there")
            };
            assert_eq!(of.size, number, "what was answered is seen");
        }
        is_done.store(true, Ordering::Release);
    });
}
