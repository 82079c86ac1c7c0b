//! Scripted faults over several seeds: how long a lost leader stalls the group, who may come back how, and what a lame link,
//! a lost disk or a change of members must not do.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::nemesis;
use super::world::{Still, World};
use crate::base::seeded::{self, say};
use crate::storage::types::NodeId;

/// One by itself, a few of many.
fn seeds() -> impl Iterator<Item = u64> {
    seeded::seeds(1).take(5)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn judge(world: &World, what: &str) {
    let faults = world.ledger.faults();
    assert!(
        faults.is_empty(),
        "{what}\n{}\n{}",
        world.story.join("\n"),
        faults.join("\n")
    );
}

/// A group under load, and who leads it.
fn working(seed: u64, count: u64) -> (World, NodeId) {
    let mut world = World::new(seed, count, &[], 6);
    world.run_for(seconds(2));
    let leader = world.leader().unwrap();
    world.clients.take_stall();
    (world, leader)
}

/// Takes the leader away for 3.6 s in some way; returns the longest time without an acknowledgement until 2 s after.
fn stall(seed: u64, count: u64, lose: impl Fn(&mut World, NodeId, Duration)) -> Duration {
    let (mut world, leader) = working(seed, count);
    let (term, away) = (world.term(), Duration::from_millis(3600));
    lose(&mut world, leader, away);
    world.run_for(away);
    assert_ne!(world.leader(), Some(leader), "seed {seed}: it was not missed");
    let elected = world.term();
    world.run_for(seconds(2));
    let stall = world.clients.take_stall();
    assert!(world.term() > term, "seed {seed}");
    if stall > Duration::from_millis(1500) {
        say(format_args!(
            "seed {seed}, {count}: {stall:?} with {} terms\n",
            elected - term
        ));
    }
    assert_eq!(world.term(), elected, "seed {seed}: its return made an election");
    world.settle();
    judge(&world, &format!("seed {seed}"));
    stall
}

fn stalls(what: &str, lose: impl Fn(&mut World, NodeId, Duration)) {
    for count in [3, 5] {
        let mut stalls: Vec<_> = seeds().map(|seed| stall(seed, count, &lose).as_millis()).collect();
        stalls.sort_unstable();
        say(format_args!("{what}, {count} nodes: stalls of {stalls:?} ms\n"));
        assert!(stalls.iter().all(|stall| *stall < 2500), "{what}: {stalls:?}");
    }
}

#[test]
fn a_killed_leader_is_replaced_soon() {
    stalls("killed", |world, leader, away| world.crash(leader, away, false));
}

#[test]
fn a_stopped_leader_is_replaced_soon() {
    stalls("stopped", |world, leader, away| {
        world.hold(leader, away, Still::Stopped)
    });
    stalls("suspended", |world, leader, away| {
        world.hold(leader, away, Still::Suspended)
    });
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_soon() {
    stalls("cut off", |world, leader, away| {
        world.part(&[leader], &world.others(leader), away);
    });
}

#[test]
fn a_leader_that_hears_nobody_is_replaced() {
    stalls("deaf", |world, leader, away| {
        let others = world.others(leader);
        others.iter().for_each(|other| world.wire.cut(*other, leader, away));
    });
}

#[test]
fn a_leader_that_nobody_hears_is_replaced() {
    stalls("mute", |world, leader, away| {
        let others = world.others(leader);
        others.iter().for_each(|other| world.wire.cut(leader, *other, away));
    });
}

#[test]
fn followers_that_return_make_no_election() {
    for seed in seeds() {
        let (mut world, leader) = working(seed, 3);
        let term = world.term();
        let follower = world.others(leader)[0];
        world.part(&[follower], &world.others(follower), seconds(4));
        world.run_for(seconds(5));
        world.hold(follower, seconds(3), Still::Stopped);
        world.run_for(seconds(4));
        world.hold(follower, seconds(3), Still::Suspended);
        world.run_for(seconds(4));
        world.crash(follower, seconds(3), true);
        world.run_for(seconds(4));
        world.settle();
        assert_eq!((world.term(), world.leader()), (term, Some(leader)), "seed {seed}");
        judge(&world, &format!("seed {seed}"));
    }
}

#[test]
fn a_follower_that_returns_is_in_sync_soon_under_load() {
    for seed in seeds() {
        let mut world = World::new(seed, 3, &[], 20);
        world.run_for(seconds(1));
        let leader = world.leader().unwrap();
        let follower = world.others(leader)[0];
        world.crash(follower, seconds(4), true);
        world.run_for(seconds(4));
        assert!(!world.is_whole(&world.data()));
        let data: BTreeSet<_> = world.data();
        let time = world.expect("in sync again", seconds(3), |world| world.is_whole(&data));
        say(format_args!("seed {seed}: in sync after {time:?}\n"));
        world.settle();
        judge(&world, &format!("seed {seed}"));
    }
}

/// What it had proposed before is in the files that it got, and not applied as entries; nobody tells it what became of that.
#[test]
fn a_leader_that_returned_by_a_checkpoint_leads_again() {
    for seed in seeds() {
        let (mut world, first) = working(seed, 3);
        world.part(&[first], &world.others(first), seconds(5));
        world.run_for(seconds(4));
        for other in world.others(first) {
            nemesis::checkpoint(&mut world, other);
        }
        world.run_for(seconds(2));
        let data = world.data();
        world.expect("all in sync again", seconds(5), |world| world.is_whole(&data));
        let kept = world.nodes[&first].kept.lock().unwrap().clone();
        let folder = kept.expect("it got a checkpoint").snapshot.folder;
        assert!(
            !folder.starts_with(first.to_string()),
            "seed {seed}: {folder:?} is its own"
        );
        for _ in 0..5 {
            match world.leader() {
                Some(leader) if leader != first => world.crash(leader, seconds(2), false),
                _ => break,
            }
            world.run_for(seconds(2));
            world.expect("all in sync again", seconds(5), |world| world.is_whole(&data));
        }
        assert_eq!(world.leader(), Some(first), "seed {seed}");
        world.settle();
        judge(&world, &format!("seed {seed}"));
    }
}

#[test]
fn a_wiped_node_is_refused_and_replaced_under_load() {
    for seed in seeds() {
        let (mut world, leader) = working(seed, 3);
        let (wiped, kept) = (world.others(leader)[0], world.others(leader)[1]);
        world.crash(wiped, seconds(2), true);
        world.run_for(seconds(1));
        world.wipe(wiped);
        world.run_for(seconds(4));
        let process = world.nodes[&wiped].process.as_ref().unwrap();
        let metrics = process.look(|group| group.raft().metrics().borrow().clone()).unwrap();
        assert_eq!((metrics.last_log_index, metrics.current_term), (None, 0), "seed {seed}");

        let peer = world.add(4);
        world.run_for(seconds(1));
        let voters = BTreeSet::from([leader, kept, 4]);
        let group = world.nodes[&leader].running().unwrap().group;
        let (wanted, joining) = (voters.clone(), peer.clone());
        world.nodes[&leader].process.as_ref().unwrap().run(async move {
            group.raft().add_learner(4, joining, true).await.unwrap();
            group.raft().change_membership(wanted, false).await.unwrap();
        });
        world.peers.remove(&wiped);
        world.peers.insert(4, peer);
        world.clients.ask_also(4);
        world.expect("the new one is in sync", seconds(5), |world| world.is_whole(&voters));
        world.clients.take_stall();
        world.crash(leader, seconds(4), true);
        world.run_for(seconds(3));
        let stall = world.clients.take_stall();
        assert!(stall < Duration::from_millis(2500), "seed {seed}: {stall:?}");
        world.settle();
        judge(&world, &format!("seed {seed}"));
    }
}

/// Its entries are with the followers before they are on its own disk, which is slower than theirs.
#[test]
fn a_leader_commits_nothing_that_is_not_on_its_own_disk() {
    for seed in seeds() {
        let (mut world, leader) = working(seed, 3);
        world.nodes[&leader].slowness.store(100, Ordering::Relaxed);
        let first = world.committed(leader).unwrap().0;
        for _ in 0..2000 {
            world.step();
            let (last, is_on_disk) = world.committed(leader).unwrap();
            assert!(is_on_disk, "seed {seed}: {last}");
        }
        assert!(
            world.committed(leader).unwrap().0.index > first.index + 10,
            "seed {seed}"
        );
        world.settle();
        judge(&world, &format!("seed {seed}"));
    }
}

/// Two with files and a witness. The one that lacks the newest entries gets them from the witness, and then leads.
#[test]
fn a_witness_hands_on_what_it_has_and_never_serves() {
    for seed in seeds() {
        let mut world = World::new(seed, 3, &[3], 4);
        world.run_for(seconds(1));
        let leader = world.leader().unwrap();
        let other = 3 - leader;
        world.crash(other, seconds(6), true);
        world.run_for(Duration::from_millis(5900));
        assert!(
            world.is_whole(&BTreeSet::from([leader])),
            "seed {seed}: one copy is left"
        );
        let before = world.ledger.acknowledgements();
        world.crash(leader, seconds(20), true);
        world.run_for(Duration::from_millis(500));
        let settled = world.ledger.acknowledgements();
        assert!(settled >= before);
        let time = world.expect("the other serves", seconds(6), |world| {
            world.leader() == Some(other) && world.ledger.acknowledgements() > settled
        });
        say(format_args!("seed {seed}: handed on after {time:?}\n"));
        world.settle();
        judge(&world, &format!("seed {seed}"));
    }
}
