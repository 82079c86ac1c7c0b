//! The same three caches, each over a memcached of its own. In real time: the servers live in it.

use tokio::time::Instant;

use super::super::DEADLINE;
use super::nemesis;
use super::world::World;
use crate::cache::backend::Name;
use crate::cache::peer::Space;
use crate::cache::peer::message::{Change, Note, Receipt, States};
use crate::cache::store::{Copy, Record, State};

#[tokio::test(flavor = "multi_thread")]
async fn sessions_outlive_an_owner_and_the_server_of_another_one() {
    let world = World::start_far().await;
    let mut client = world.client("n1");
    for value in ["old", "new"] {
        for number in 0..200 {
            for key in [format!("s.{number}"), format!("k{number}")] {
                assert_eq!(client.set(&key, value).await, "STORED");
            }
        }
    }
    world.kill_server("n3").await;
    // Its keys are asked for while nobody has them; then the council leaves it out.
    let asking = async {
        for number in 0..200 {
            assert_eq!(
                client.get(&format!("s.{number}")).await.as_deref(),
                Some("new"),
                "{number}"
            );
        }
    };
    tokio::join!(asking, world.lose("n3"));
    let mut misses = 0;
    for number in 0..200 {
        match client.get(&format!("k{number}")).await.as_deref() {
            Some("new") => {}
            None => misses += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((30..110).contains(&misses), "a third was n3's: {misses}");
    for number in 0..200 {
        assert_eq!(client.set(&format!("s.{number}"), "newer").await, "STORED");
        client.line(&format!("delete k{number}\r\n")).await;
    }
    world.rejoin("n3").await;
    // It has what it needs when the next one goes.
    world.cut("n1", false);
    world.lose("n1").await;
    let mut returned = world.client("n3");
    for number in 0..200 {
        assert_eq!(returned.get(&format!("s.{number}")).await.as_deref(), Some("newer"));
        assert_eq!(returned.get(&format!("k{number}")).await, None);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_server_is_lost_and_that_has_no_others_answers_at_once() {
    let world = World::start_far().await;
    let mut client = world.client("n1");
    assert_eq!(client.set("k", "old").await, "STORED");
    world.kill_server("n1").await;
    world.desert("n1");
    let began = Instant::now();
    for number in 0..20 {
        assert_eq!(client.get(&format!("k{number}")).await, None);
        assert!(client.set("k", "new").await.starts_with("SERVER_ERROR"));
    }
    assert!(began.elapsed() < DEADLINE * 20, "nobody is waited for");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_empties_all_servers_and_the_composite_storage_is_apart() {
    let world = World::start_far().await;
    let mut portal = world.client("n1");
    let mut composite = world.node("n2").client(Space::Composite);
    for number in 0..50 {
        portal.set(&format!("s.{number}"), "v").await;
        composite.set(&format!("s.{number}"), "page").await;
    }
    assert_eq!(portal.line("flush_all\r\n").await, "OK");
    for number in 0..50 {
        assert_eq!(portal.get(&format!("s.{number}")).await, None);
        assert_eq!(composite.get(&format!("s.{number}")).await.as_deref(), Some("page"));
    }
    // The copies are gone too.
    world.lose("n3").await;
    for number in 0..50 {
        assert_eq!(portal.get(&format!("s.{number}")).await, None);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-cache"]
async fn clients_find_no_fault() {
    for seed in 1..=3 {
        let told = nemesis::run(World::start_far().await, seed, 8).await;
        std::io::Write::write_all(&mut std::io::stderr(), format!("{told}\n").as_bytes()).unwrap();
    }
}

/// A task that has had its share of turns is sent back from its waits, and what waits in it comes again in any order: with so many states
/// in one piece that happens.
#[tokio::test(flavor = "multi_thread")]
async fn of_changes_that_come_together_the_last_one_stays() {
    const COUNT: u64 = 400;
    let world = World::start_far().await;
    let (owner, keeper) = (&world.node("n1").router, &world.node("n2").router);
    let key = world.key_between("n1", "n2");
    let mut piece = States::new(owner.epoch().expect("there is a table"), 0);
    for number in 1..=COUNT {
        piece.push(Some(&Note {
            space: Space::Portal,
            request: None,
            change: Change::State(State::Present(numbered(&key, number))),
        }));
    }
    let kept = keeper.keep(&owner.own, piece.finish().into()).await;
    assert_eq!(kept, Ok(Receipt::Kept(COUNT)));
    let backend = keeper.backend(Space::Portal).expect("it has one");
    let looked = backend.look(&Name::of(key.as_bytes())).await;
    let value = looked.map(|state| match state {
        Some(State::Present(copy)) => String::from_utf8_lossy(copy.record.value()).into_owned(),
        other => format!("{other:?}"),
    });
    assert_eq!(value, Ok(COUNT.to_string()));
    world.stop().await;
}

fn numbered(key: &str, number: u64) -> Copy {
    Copy {
        record: Record::new(key.as_bytes(), number.to_string().as_bytes(), b""),
        flags: 0,
        cas: number,
        left: None,
        is_stale: false,
        has_winner: false,
    }
}
