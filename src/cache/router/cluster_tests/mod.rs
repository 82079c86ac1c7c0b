//! Three caches in one process: what clients see of them while nodes are lost, frozen and come back.

mod far;
mod history;
mod nemesis;
mod world;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use self::world::{NAMES, World};
use super::DEADLINE;
use super::handlers::ITEM_MAX;
use crate::cache::command::{Arithmetic, Command};
use crate::cache::peer::message::{Ask, Asked};
use crate::cache::peer::{Epoch, Space};

#[tokio::test(start_paused = true)]
async fn every_node_answers_for_all_keys() {
    let world = World::start().await;
    let mut clients = NAMES.map(|name| world.client(name));
    for number in 0..300usize {
        for key in [format!("s.{number}"), format!("k{number}")] {
            assert_eq!(clients[number % 3].set(&key, &key).await, "STORED");
        }
    }
    for client in &mut clients {
        for number in 0..300 {
            for key in [format!("s.{number}"), format!("k{number}")] {
                assert_eq!(client.get(&key).await, Some(key));
            }
        }
    }
    // Sessions are there twice, the rest once.
    let items: usize = world
        .nodes
        .values()
        .map(|node| node.stores[0].shards().map(|(items, _)| items).sum::<usize>())
        .sum();
    assert_eq!(items, 900);
    // A client of one node sees the numbers of all.
    for client in &mut clients {
        assert_eq!(client.number("curr_items").await, 900);
        assert_eq!(client.number("cmd_get").await, 3 * 600);
        assert_eq!(client.number("get_hits").await, 3 * 600);
        assert_eq!(client.number("pid").await, std::process::id() as usize);
    }
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn replies_come_in_order_whoever_has_the_keys() {
    let world = World::start().await;
    let (mut requests, mut replies) = (String::new(), String::new());
    for number in 0..2000 {
        requests += &format!(
            "set k{number} {number} 0 2\r\nab\r\nappend k{number} 0 0 1\r\nc\r\nget k{number} none k{}\r\n",
            number / 2
        );
        replies += &format!("STORED\r\nSTORED\r\nVALUE k{number} {number} 3\r\nabc\r\n");
        let half = number / 2;
        replies += &format!("VALUE k{half} {half} 3\r\nabc\r\nEND\r\n");
    }
    requests += "delete k7\r\nget k7\r\nset n 0 0 1\r\n7\r\nincr n 3\r\ndecr n 100\r\ntouch n 9\r\ntouch none 9\r\nversion\r\nfoo\r\nmn\r\n";
    replies +=
        "DELETED\r\nEND\r\nSTORED\r\n10\r\n0\r\nTOUCHED\r\nNOT_FOUND\r\nVERSION 1.6.18-bitrix-node\r\nERROR\r\nMN\r\n";
    let (mut read, mut write) = tokio::io::split(world.client("n1").take_stream());
    let mut got = vec![0; replies.len()];
    let (sent, read) = tokio::join!(write.write_all(requests.as_bytes()), read.read_exact(&mut got));
    sent.and(read).unwrap();
    assert!(
        got == replies.as_bytes(),
        "{}",
        first_difference(&got, replies.as_bytes())
    );
    world.stop().await;
}

fn first_difference(got: &[u8], wanted: &[u8]) -> String {
    let at = got
        .iter()
        .zip(wanted)
        .position(|(got, wanted)| got != wanted)
        .unwrap_or_default();
    let part =
        |bytes: &[u8]| String::from_utf8_lossy(&bytes[at.saturating_sub(60)..bytes.len().min(at + 60)]).into_owned();
    format!("{:?} instead of {:?}", part(got), part(wanted))
}

#[tokio::test(start_paused = true)]
async fn sessions_outlive_their_owner_and_nothing_old_comes_back() {
    let world = World::start().await;
    let mut client = world.client("n1");
    for number in 0..200 {
        client.set(&format!("s.{number}"), "old").await;
        client.set(&format!("k{number}"), "old").await;
    }
    for number in 0..200 {
        assert_eq!(client.set(&format!("s.{number}"), "new").await, "STORED");
        assert_eq!(client.set(&format!("k{number}"), "new").await, "STORED");
    }
    world.cut("n3", false);
    let began = Instant::now();
    let asked = async {
        // Some of these are n3's: they wait for the table.
        for number in 0..200 {
            assert_eq!(
                client.get(&format!("s.{number}")).await,
                Some("new".to_string()),
                "{number}"
            );
        }
        began.elapsed()
    };
    let lost = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.lose("n3").await;
    };
    let (took, ()) = tokio::join!(asked, lost);
    assert!(took < Duration::from_millis(500), "{took:?}");
    let mut misses = 0;
    for number in 0..200 {
        match client.get(&format!("k{number}")).await.as_deref() {
            Some("new") => {}
            None => misses += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((30..110).contains(&misses), "a third was n3's: {misses}");
    // It comes back with all it had, and none of it is seen.
    for number in 0..200 {
        client.set(&format!("s.{number}"), "newer").await;
        let deleted = client.line(&format!("delete k{number}\r\n")).await;
        assert!(["DELETED", "NOT_FOUND"].contains(&deleted.as_str()));
    }
    world.cut("n3", true);
    world.rejoin("n3").await;
    let mut returned = world.client("n3");
    for number in 0..200 {
        for client in [&mut client, &mut returned] {
            assert_eq!(client.get(&format!("s.{number}")).await, Some("newer".to_string()));
            assert_eq!(client.get(&format!("k{number}")).await, None);
        }
    }
    // And it has what it needs when the next one goes.
    world.cut("n1", false);
    world.lose("n1").await;
    for number in 0..200 {
        assert_eq!(returned.get(&format!("s.{number}")).await, Some("newer".to_string()));
    }
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_an_owner_reads_miss_and_writes_fail_within_a_second() {
    let world = World::start().await;
    let mut client = world.client("n1");
    for node in ["n2", "n3"] {
        world.cut(node, false);
    }
    let began = Instant::now();
    let mut failed = 0;
    for number in 0..20 {
        let asked = Instant::now();
        match client.set(&format!("k{number}"), "v").await.as_str() {
            "STORED" => {}
            "SERVER_ERROR no answer from the node that has the key" => {
                failed += 1;
                assert_eq!(client.get(&format!("k{number}")).await, None);
            }
            other => panic!("{other}"),
        }
        assert!(asked.elapsed() < Duration::from_secs(2));
    }
    assert!(failed > 5 && began.elapsed() < Duration::from_secs(40), "{failed}");
    // An error would be taken for a miss: a session that cannot be read ends the connection.
    let mut silent = 0;
    for number in 0..20 {
        match client.try_get(&format!("s.{number}")).await {
            Ok(value) => assert_eq!(value, None),
            Err(_) => silent += 1,
        }
    }
    assert!((5..20).contains(&silent), "{silent}");
    world.stop().await;
}

/// One addition under a table, always the same one.
fn addition(epoch: Epoch) -> Vec<u8> {
    let mut ask = Ask::new(epoch);
    ask.push(1, Space::Portal, &Command::Arithmetic(sum()));
    ask.finish().to_vec()
}

fn sum() -> Arithmetic<'static> {
    Arithmetic {
        key: b"s.counter",
        delta: 1,
        is_decrement: false,
        compare: None,
        new_cas: None,
        initial: None,
        touch: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_of_another_table_is_not_executed() {
    let world = World::start().await;
    let mut client = world.client("n1");
    client.set("s.counter", "1").await;
    let old = world.node("n1").router.epoch().unwrap();
    world.change(&NAMES).await;
    let new = world.node("n1").router.epoch().unwrap();
    let mut answered = 0;
    for (epoch, counted) in [(old, "1"), (new, "2"), (old, "2"), (new, "2")] {
        for node in world.nodes.values() {
            // Nobody but the owner, and not twice.
            answered += usize::from(node.answer(addition(epoch)).await != [0]);
        }
        assert_eq!(client.get("s.counter").await.as_deref(), Some(counted));
    }
    assert_eq!(answered, 2);
    world.stop().await;
}

/// 1. An owner has answered, but the answer is lost.
/// 2. All nodes are left out and come back, one after the other, before who asked has given up.
/// 3. Whoever is asked again by then was empty in between, and so was who had the copy.
#[tokio::test(start_paused = true)]
async fn nothing_happens_twice_over_nodes_that_come_back() {
    let world = World::start().await;
    let mut client = world.client("n1");
    client.set("s.counter", "1").await;
    for lost in NAMES.iter().cycle().take(6) {
        let mut answered = 0;
        for node in world.nodes.values() {
            let epoch = node.router.epoch().unwrap();
            answered += usize::from(node.answer(addition(epoch)).await != [0]);
        }
        assert_eq!(answered, 1);
        assert_eq!(
            client.get("s.counter").await.as_deref(),
            Some("2"),
            "before {lost} is lost"
        );
        world.lose(lost).await;
        world.rejoin(lost).await;
    }
    world.stop().await;
}

/// 1. An owner has executed a command, and its copy has not come through.
/// 2. It is left out, emptied and the owner again.
/// 3. Only then does it look whether the reply may be told.
#[tokio::test(start_paused = true)]
async fn nothing_is_told_that_went_when_a_node_was_left_out() {
    let world = World::start().await;
    let mut client = world.client("n1");
    client.set("s.counter", "1").await;
    let state = world.node("n1").router.standing.state();
    let shard = world.node("n1").router.rules().shard(b"s.counter");
    let node = state.placement().and_then(|placement| placement.owner(shard));
    let node = node.expect("it has an owner").name.clone();
    let owner = NAMES.into_iter().find(|name| node.as_str() == *name);
    let owner = owner.expect("it is one of these");
    let router = world.node(owner).router.clone();
    world.cut(owner, false);
    let asked = Asked {
        id: 1,
        space: Space::Portal,
        command: Command::Arithmetic(sum()),
    };
    let done = router.enter().act(shard, asked).expect("it is the owner");
    world.lose(owner).await;
    world.cut(owner, true);
    world.rejoin(owner).await;
    assert!(!router.settle(&done, Instant::now() + DEADLINE).await);
    assert_eq!(client.get("s.counter").await.as_deref(), Some("1"));
    world.stop().await;
}

/// 1. An owner has executed a command, and its copy does not come through to the node that is the owner next.
/// 2. That one executes another command on the key, and is left out.
/// 3. The first owner is the owner again, and is asked again for what it has executed.
#[tokio::test(start_paused = true)]
async fn what_went_with_an_owner_is_not_told_of_the_next_one() {
    let world = World::start().await;
    let key = world.key_between("n2", "n3");
    let addition = format!("incr {key} 1\r\n");
    let mut client = world.client("n1");
    client.set(&key, "34").await;
    world.lose("n2").await;
    world.come_back("n2").await;
    world.until_filled("n2").await;
    world.cut("n2", false);
    let store = &world.node("n3").stores[0];
    let clock = &world.node("n3").router.clock;
    let is_executed = || {
        store.look(key.as_bytes(), clock.moment().now, |hit| {
            hit.is_some_and(|hit| hit.record.value() == b"35")
        })
    };
    let others = async {
        while !is_executed() {
            tokio::task::yield_now().await;
        }
        world.serve().await;
        world.mend("n2", "n3");
        assert_eq!(world.client("n2").line(&addition).await, "35");
        world.lose("n2").await;
    };
    let (told, ()) = tokio::join!(client.line(&addition), others);
    assert!(told.starts_with("SERVER_ERROR"), "{told}");
    assert_eq!(client.line(&addition).await, "36");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_flush_empties_its_space_on_every_node() {
    let world = World::start().await;
    let mut portal = world.client("n1");
    let mut composite = world.node("n2").client(Space::Composite);
    for number in 0..100 {
        portal.set(&format!("s.{number}"), "v").await;
        portal.set(&format!("k{number}"), "v").await;
        composite.set(&format!("k{number}"), "page").await;
    }
    assert_eq!(composite.line("flush_all\r\n").await, "OK");
    for number in 0..100 {
        assert_eq!(portal.get(&format!("k{number}")).await.as_deref(), Some("v"));
        assert_eq!(composite.get(&format!("k{number}")).await, None);
    }
    assert_eq!(portal.line("flush_all\r\n").await, "OK");
    // Neither an owner nor a copy has anything.
    let items = |node: &world::Node| node.stores[0].shards().map(|(items, _)| items).sum::<usize>();
    for node in world.nodes.values() {
        assert_eq!(items(node), 0, "{}", node.name);
    }
    world.stop().await;
}

/// 1. One node of two has flushed, and a session is written there and copied.
/// 2. Only then does the other one hear of the flush.
#[tokio::test(start_paused = true)]
async fn a_copy_that_is_younger_than_a_flush_stays() {
    let world = World::start().await;
    let key = world.key_between("n1", "n2");
    let mut client = world.client("n1");
    client.set(&key, "old").await;
    world.node("n1").flush().await;
    assert_eq!(client.get(&key).await, None);
    assert_eq!(client.set(&key, "new").await, "STORED");
    world.node("n2").flush().await;
    world.cut("n1", false);
    world.lose("n1").await;
    let mut client = world.client("n3");
    assert_eq!(client.get(&key).await.as_deref(), Some("new"));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_too_large_takes_the_old_one_away() {
    let world = World::start().await;
    let mut client = world.client("n1");
    let large = "x".repeat(ITEM_MAX);
    for number in 0..10 {
        for key in [format!("s.{number}"), format!("k{number}")] {
            client.set(&key, "old").await;
            assert_eq!(
                client.set(&key, &large).await,
                "SERVER_ERROR object too large for cache"
            );
            assert_eq!(client.get(&key).await, None);
        }
    }
    let fits = "y".repeat(ITEM_MAX - 500);
    for number in 0..10 {
        let key = format!("s.{number}");
        assert_eq!(client.set(&key, &fits).await, "STORED");
        assert!(client.get(&key).await == Some(fits.clone()));
    }
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_large_session_that_is_touched_holds_up_no_other() {
    let world = World::start().await;
    let keys = world.keys_between("n2", "n3", 2);
    let mut client = world.client("n1");
    let large = "x".repeat(1200 << 10);
    assert_eq!(client.set(&keys[0], &large).await, "STORED");
    for _ in 0..2 {
        assert!(client.touch(&keys[0]).await.as_ref() == Some(&large));
    }
    assert_eq!(client.set(&keys[1], "v").await, "STORED");
    // And its copy is whole.
    world.cut("n2", false);
    world.lose("n2").await;
    assert!(client.get(&keys[0]).await == Some(large));
    assert_eq!(client.get(&keys[1]).await.as_deref(), Some("v"));
    world.stop().await;
}

#[test]
fn no_session_is_lost_no_lock_granted_twice_and_nothing_old_is_read() {
    let seeds = match crate::config::var("SEED").and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => vec![1, 2],
    };
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let told = runtime.block_on(async { nemesis::run(World::start().await, seed, 5).await });
        std::io::Write::write_all(&mut std::io::stderr(), format!("{told}\n").as_bytes()).unwrap();
    }
}
