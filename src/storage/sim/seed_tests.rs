//! Random faults by seed: a few seeds always, many with `make test-sim`.

use std::time::Duration;

use super::nemesis;
use super::world::World;
use crate::base::seeded::{say, seeds};
use crate::storage::types::NodeId;

/// Faults come for this long.
const TROUBLE: Duration = Duration::from_secs(20);

/// One run. Its story, when something that must hold did not.
fn run(seed: u64, count: u64, witnesses: &[NodeId]) -> Option<String> {
    let mut world = World::new(seed, count, witnesses, 4);
    let end = world.now + TROUBLE;
    while world.now < end {
        let pause = Duration::from_millis(50 + world.random.below(1800));
        world.run_for(pause);
        nemesis::strike(&mut world);
    }
    let stall = world.settle();
    let (acknowledged, objects, reads, leaders) = (
        world.ledger.acknowledgements(),
        world.ledger.objects(),
        world.ledger.reads(),
        world.ledger.leaders(),
    );
    say(format_args!(
        "seed {seed}, {count} nodes: {acknowledged} acknowledged, {objects} objects, {reads} reads, {leaders} leaders, {} faults, work again after {stall:?}\n",
        world.story.len()
    ));
    if acknowledged < 20 || reads < 20 {
        world.ledger.fault(format!(
            "too little happened: {acknowledged} acknowledged, {reads} read"
        ));
    }
    let faults = world.ledger.faults();
    let told = faults.len().min(10);
    (!faults.is_empty()).then(|| {
        format!(
            "SEED={seed}, {count} nodes\n{}\n{}\n",
            world.story.join("\n"),
            faults[..told].join("\n")
        )
    })
}

/// Runs all seeds, so that one fault does not hide another.
fn run_all(few: u64, count: u64, witnesses: &[NodeId]) {
    let failed = |seed: &u64| match run(*seed, count, witnesses) {
        Some(story) => {
            say(format_args!("{story}"));
            true
        }
        None => false,
    };
    let failed: Vec<_> = seeds(few).filter(failed).collect();
    assert!(failed.is_empty(), "{count} nodes, seeds that failed: {failed:?}");
}

#[test]
fn three_replicas_keep_their_promises() {
    run_all(4, 3, &[]);
}

#[test]
fn five_replicas_keep_their_promises() {
    run_all(2, 5, &[]);
}

#[test]
fn two_replicas_and_a_witness_keep_their_promises() {
    run_all(2, 3, &[3]);
}
