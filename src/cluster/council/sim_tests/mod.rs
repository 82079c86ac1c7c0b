//! Seeded simulation: real councils over a simulated network, with clocks that drift, and a data path that keeps one number per shard.
//!
//! Looked at after every step: no two nodes may serve one shard, and who serves one has nothing older than what was acknowledged. After the faults
//! have ended, and after a single one, everything is served again soon. A run is made of a seed; deliberate flaws must be found.

mod data;
mod machine;
mod nemesis;
mod world;

use std::time::Duration;

use super::Timing;
use crate::base::seeded::{say, seeds};
use crate::net::mesh::Name;
use nemesis::Strike;
use world::{Flaw, MS, World};

/// Faults come for this long.
const TROUBLE: Duration = Duration::from_secs(15);
/// After a single fault. Asking, voting and preparing come after the lease.
const SWITCH: Duration = Duration::from_millis(500);

/// Random faults; then all is mended. What went wrong, with the story that led there.
fn trouble(seed: u64, count: usize, flaw: Flaw) -> World {
    let mut world = World::new(seed, count, flaw);
    world.run_for(Duration::from_secs(3));
    let end = world.now + TROUBLE;
    while world.now < end && world.faults.is_empty() {
        let pause = 20 + world.random.below(900);
        world.run_for(Duration::from_millis(pause));
        nemesis::strike(&mut world);
    }
    if world.faults.is_empty() {
        nemesis::mend(&mut world);
        let mended = world.now;
        // Restarted voters are silent for a second; who was left out comes back one after the other.
        if !world.run_until(Duration::from_secs(6), World::is_whole) {
            let seen = world.seen();
            world.fault(format!("not whole six seconds after the last fault: {seen}"));
        }
        let took = world.now - mended;
        world.note(format!("whole after {took:?}"));
    }
    world
}

/// Runs all seeds, so that one fault does not hide another.
fn run_all(few: u64, count: usize) {
    let mut failed = Vec::new();
    for seed in seeds(few) {
        let world = trouble(seed, count, Flaw::None);
        say(format_args!("seed {seed}, {count} nodes: {}\n", world.summary()));
        if !world.faults.is_empty() {
            say(format_args!("SEED={seed}\n{}\n", world.tale()));
            failed.push(seed);
        }
        assert!(world.acknowledged > 1000, "too little happened: {}", world.summary());
    }
    assert!(failed.is_empty(), "{count} nodes, seeds that failed: {failed:?}");
}

#[test]
fn three_nodes_keep_their_promises() {
    run_all(3, 3);
}

#[test]
fn five_nodes_keep_their_promises() {
    run_all(2, 5);
}

#[test]
fn two_nodes_keep_their_promises() {
    run_all(2, 2);
}

/// Whatever happens to the one without a vote.
#[test]
fn of_two_members_the_voter_goes_on_without_the_other() {
    for strike in Strike::SINGLE {
        for seed in seeds(3) {
            let mut world = World::new(seed, 2, Flaw::None);
            assert!(
                world.run_until(Duration::from_secs(4), World::is_whole),
                "{}",
                world.seen()
            );
            nemesis::single(&mut world, strike, 1);
            world.run_for(SWITCH);
            assert!(
                world.is_served(),
                "seed {seed}, {strike:?}: {}\n{}",
                world.seen(),
                world.tale()
            );
            world.run_for(Duration::from_secs(2));
            assert!(
                world.faults.is_empty() && world.lost == 0,
                "{}\n{}",
                world.summary(),
                world.tale()
            );
        }
    }
}

/// From one machine to three and back, while who has left is refused by the others at any moment: nothing is lost.
#[test]
fn a_cluster_grows_and_shrinks() {
    for seed in seeds(12) {
        let mut world = World::new(seed, 3, Flaw::None);
        let names: Vec<Name> = world.machines.iter().map(|machine| machine.name.clone()).collect();
        let mut step = |members: &[Name]| {
            let voters = if members.len() == 2 { &members[..1] } else { members };
            nemesis::cut_off(&mut world, 0);
            world.name(members.to_vec(), voters.to_vec());
            let moment = world.random.time(MS * 900);
            world.run_for(moment);
            nemesis::cut_off(&mut world, 3 - members.len());
            assert!(
                world.run_until(Duration::from_secs(5), World::is_whole),
                "{}\n{}",
                world.seen(),
                world.tale()
            );
            world.run_for(Duration::from_secs(1));
            assert!(
                world.is_whole() && world.faults.is_empty() && world.lost == 0,
                "{}",
                world.tale()
            );
        };
        for count in [2, 3, 2, 1, 2, 3, 2] {
            step(&names[..count]);
        }
    }
}

#[test]
fn a_single_node_serves_alone_at_once() {
    let mut world = World::new(1, 1, Flaw::None);
    world.run_for(MS * 100);
    assert!(world.is_whole(), "{}", world.seen());
    world.run_for(Duration::from_secs(3));
    assert!(world.is_whole() && world.faults.is_empty());
}

/// From the fault until every shard is served; checked for many kinds, and whoever leads.
#[test]
fn after_a_single_fault_everything_is_served_within_half_a_second() {
    let mut took: Vec<(Duration, String)> = Vec::new();
    for seed in seeds(3) {
        for strike in Strike::SINGLE {
            for victim in 0..3 {
                let mut world = World::new(seed, 3, Flaw::None);
                assert!(
                    world.run_until(Duration::from_secs(4), World::is_whole),
                    "{}",
                    world.seen()
                );
                let pause = 500 + world.random.below(100);
                world.run_for(Duration::from_millis(pause));
                let is_leader = world.is_leader(victim);
                nemesis::single(&mut world, strike, victim);
                let started = world.now;
                let mut stall = Duration::ZERO;
                while world.now < started + Duration::from_secs(2) {
                    world.run_for(MS);
                    if !world.is_served() {
                        stall = world.now - started;
                    }
                }
                let what = format!("seed {seed}: {strike:?} of n{}, leader {is_leader}", victim + 1);
                assert!(
                    world.faults.is_empty() && world.lost == 0,
                    "{what}: {}\n{}",
                    world.summary(),
                    world.tale()
                );
                assert!(stall <= SWITCH, "{what}: {stall:?}\n{}\n{}", world.seen(), world.tale());
                took.push((stall, what));
            }
        }
    }
    took.sort();
    let at = |share: usize| &took[(took.len() - 1) * share / 100].0;
    say(format_args!(
        "served again, of {}: half {:?}, 90 % {:?}, 99 % {:?}, all {:?}\n",
        took.len(),
        at(50),
        at(90),
        at(99),
        took.last()
    ));
}

/// Each rule of the protocol is needed, and the simulation sees when one is missing.
#[test]
fn flaws_are_found() {
    for flaw in Flaw::ALL {
        let found = (1..100).find_map(|seed| {
            let world = match nemesis::scene(flaw) {
                Some((count, scene)) => {
                    let mut world = World::new(seed, count, flaw);
                    assert!(
                        world.run_until(Duration::from_secs(4), World::is_whole),
                        "{}",
                        world.seen()
                    );
                    scene(&mut world);
                    world
                }
                None => trouble(seed, 3, flaw),
            };
            let mut faults = world.faults.iter();
            let safety = faults.find(|fault| fault.contains("serve") || fault.contains("older"));
            safety.map(|fault| format!("seed {seed}: {fault}"))
        });
        say(format_args!("{flaw:?}: {found:?}\n"));
        assert!(found.is_some(), "{flaw:?} was not found");
    }
}

/// The same scenes do no harm to the whole protocol.
#[test]
fn what_shows_a_flaw_is_bridged_without_one() {
    for (count, scene) in Flaw::ALL.into_iter().filter_map(nemesis::scene) {
        for seed in seeds(3) {
            let mut world = World::new(seed, count, Flaw::None);
            assert!(
                world.run_until(Duration::from_secs(4), World::is_whole),
                "{}",
                world.seen()
            );
            scene(&mut world);
            assert!(world.faults.is_empty(), "{}\n{}", world.summary(), world.tale());
        }
    }
}

#[test]
fn timings_may_be_stretched() {
    let timing = Timing::of(Duration::from_secs(1));
    assert_eq!(
        (timing.ping, timing.silence),
        (Duration::from_millis(200), Duration::from_secs(5))
    );
    assert!(timing.promise > timing.lease && timing.grace > timing.lease && timing.patience > timing.silence);
}
