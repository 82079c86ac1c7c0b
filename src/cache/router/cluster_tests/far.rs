//! The same three caches, each over a memcached of its own. In real time: the servers live in it.

use tokio::time::Instant;

use super::super::DEADLINE;
use super::nemesis;
use super::world::{NAMES, World};
use crate::cache::backend::memcached_tests::{Memcached, free_port, until};
use crate::cache::peer::Space;

/// In the order of `NAMES`.
fn servers() -> [Memcached; NAMES.len()] {
    NAMES.map(|_| Memcached::start(free_port()))
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_outlive_an_owner_and_the_server_of_another_one() {
    let servers = servers();
    let world = World::start_over(&servers).await;
    let [first, second, third] = servers;
    let mut client = world.client("n1");
    for value in ["old", "new"] {
        for number in 0..200 {
            for key in [format!("s.{number}"), format!("k{number}")] {
                assert_eq!(client.set(&key, value).await, "STORED");
            }
        }
    }
    let port = third.address.port();
    drop(third);
    let lost = world
        .node("n3")
        .router
        .backend(Space::Portal)
        .expect("it has one")
        .clone();
    until(|| async { !lost.is_up() }).await;
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
    let third = Memcached::start(port);
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
    drop([first, second, third]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_server_is_lost_and_that_has_no_others_answers_at_once() {
    let servers = servers();
    let world = World::start_over(&servers).await;
    let mut client = world.client("n1");
    assert_eq!(client.set("k", "old").await, "STORED");
    let lost = world
        .node("n1")
        .router
        .backend(Space::Portal)
        .expect("it has one")
        .clone();
    drop(servers);
    until(|| async { !lost.is_up() }).await;
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
    let servers = servers();
    let world = World::start_over(&servers).await;
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
async fn clients_find_no_fault() {
    let servers = servers();
    for seed in 1..=2 {
        let world = World::start_over(&servers).await;
        let told = nemesis::run(world, seed, 6).await;
        std::io::Write::write_all(&mut std::io::stderr(), format!("{told}\n").as_bytes()).unwrap();
    }
}
