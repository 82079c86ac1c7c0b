//! The election as it runs, of three nodes over one registry, under random faults by seed. `make test-sim SEED=n` repeats one.
//!
//! Time is tokio's, paused; each node has a boot clock of its own, with its own zero and rate. What a node asks is under way by itself:
//! it happens even if the node dies meanwhile, and its answer may be lost. Supervisors are a table of holds, each with its end on the
//! node's clock: whoever is in the table and not at its end acts. No two may act for one seat, whatever their agents do.
mod agent;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use self::agent::Agent;
use self::world::{ADDRESS, NAMES, WHOLE, Wire, World};
use crate::base::seeded::{say, seeds};
use crate::cluster::{ADDRESSES, Fit, PINS, Role, TRANSFERS};
use crate::host::verb::Task;
use crate::registry::{Change, Key, Node as Enrolled, NodeState, Record, Registry, Write};

/// Faults come for this long.
const TROUBLE: Duration = Duration::from_secs(60);
/// After the last one, every seat is held within this.
const BOUND: Duration = Duration::from_secs(10);
/// And stays where it is for this.
const CALM: Duration = Duration::from_secs(20);
fn tasks() -> [Task; 3] {
    [
        Task::Address(ADDRESS[0].parse().unwrap()),
        Task::Address(ADDRESS[1].parse().unwrap()),
        Task::Cron,
    ]
}

async fn strike(world: &Arc<World>, agents: &mut [Agent; 3]) {
    let node = usize::try_from(world.below(3)).unwrap();
    let agent = &mut agents[node];
    let name = NAMES[node];
    let seat = world.pick(&["cron", "edge/10.0.0.10/24", "edge/fd00::10/64"]);
    match world.below(16) {
        0 | 1 if !agent.is_dead() => {
            world.tell(format!("{name} is killed"));
            agent.kill();
        }
        2 if !agent.is_dead() => {
            world.tell(format!("{name} is stopped"));
            agent.stop();
            sleep(Duration::from_millis(world.below(500))).await;
            agents[node].kill();
        }
        0..=3 if agent.is_dead() => {
            world.tell(format!("{name} starts"));
            agent.start();
        }
        4 | 5 => {
            world.tell(format!("{name} stands still"));
            agent.freeze();
        }
        6 => {
            world.tell(format!("{name} goes on"));
            agent.thaw();
        }
        7..=10 => {
            let wire = Wire {
                takes: world.below(3) > 0,
                brings: world.below(3) > 0,
                delay: world.pick(&[5, 20, 200, 1000]),
            };
            world.tell(format!(
                "{name}: takes {}, brings {}, {} ms",
                wire.takes, wire.brings, wire.delay
            ));
            *world.links[node].lock().unwrap() = wire;
        }
        11 => {
            world.tell("the registry is away".into());
            (0..3).for_each(|node| world.links[node].lock().unwrap().takes = false);
        }
        12 => {
            let fit = world.pick(&[Fit::NONE, Fit::EDGE, Fit::EDGE.with(Fit::CRON)]);
            world.tell(format!("{name} is fit for {}", fit.0));
            *agent.fit.lock().unwrap() = fit;
        }
        13 => {
            let state = world.pick(&[NodeState::Member, NodeState::Draining]);
            world.tell(format!("{name} is {}", state.name()));
            world.turn(node, state).await;
        }
        14 => {
            world.tell(format!("{seat} is pinned to {name}"));
            world.put(PINS, &format!("{seat}={name}")).await;
        }
        15 => {
            world.tell(format!("{seat} shall go to {name}"));
            world.put(TRANSFERS, &format!("{seat}={name}")).await;
        }
        _ => {
            world.tell("all lines are whole".into());
            (0..3).for_each(|node| *world.links[node].lock().unwrap() = WHOLE);
        }
    }
}

/// All is well again, and the operator wants nothing.
async fn mend(world: &Arc<World>, agents: &mut [Agent; 3]) {
    world.tell("the last fault is over".into());
    for (node, agent) in agents.iter_mut().enumerate() {
        *world.links[node].lock().unwrap() = WHOLE;
        *agent.fit.lock().unwrap() = Fit::EDGE.with(Fit::CRON);
        agent.thaw();
        if agent.is_dead() {
            agent.start();
        }
        world.turn(node, NodeState::Member).await;
    }
    let remove = |key: &str| Write::Remove(Key::Setting(key.into()));
    let change = Change::default().and(remove(PINS)).and(remove(TRANSFERS));
    world.registry.commit(change).await.unwrap();
}

/// Holders and epochs, as the registry has them.
async fn seats(world: &World) -> Vec<(String, Option<String>, u64)> {
    let view = world.registry.read().await.unwrap();
    let moves =
        |role: &&crate::registry::Role| Role::parse(&role.role).is_some_and(|role| role.moves(&BTreeMap::new()));
    let seats = view.roles().filter(moves);
    seats
        .map(|role| (role.seat.clone(), role.holder.clone(), role.epoch))
        .collect()
}

async fn is_settled(world: &World) -> bool {
    let seats = seats(world).await;
    let is_held = |task: &Task| match &world.actors(task)[..] {
        [actor] => {
            let seat = match task {
                Task::Address(address) => address.to_string(),
                Task::Cron | Task::Writer => String::new(),
            };
            let mut records = seats.iter();
            records.any(|(known, holder, _)| *known == seat && holder.as_deref() == Some(NAMES[*actor]))
        }
        _ => false,
    };
    tasks().iter().all(is_held)
}

async fn simulate(seed: u64) -> Option<String> {
    let world = World::new(seed);
    let nodes = NAMES.iter().fold(Change::default(), |change, name| {
        change.and(Write::Put(Record::Node(Enrolled {
            name: name.to_string(),
            address: String::new(),
            state: NodeState::Member,
            labels: BTreeMap::new(),
            version: String::new(),
        })))
    });
    world.registry.commit(nodes).await.unwrap();
    world.put(ADDRESSES, &ADDRESS.join(",")).await;
    let mut agents = [0, 1, 2].map(|node| Agent::new(&world, node));
    agents.iter_mut().for_each(Agent::start);
    while world.started.elapsed() < TROUBLE {
        sleep(Duration::from_millis(50 + world.below(2500))).await;
        strike(&world, &mut agents).await;
    }
    mend(&world, &mut agents).await;
    let mended = Instant::now();
    // What a dead agent held goes on for a while, and is then claimed anew.
    let mut took = Duration::ZERO;
    let mut last = seats(&world).await;
    while mended.elapsed() < BOUND {
        sleep(Duration::from_millis(50)).await;
        let now = seats(&world).await;
        if now != last || !is_settled(&world).await {
            took = mended.elapsed();
        }
        last = now;
    }
    if !is_settled(&world).await {
        world.fault(format!("not settled {BOUND:?} after the last fault: {last:?}"));
    }
    let before = seats(&world).await;
    sleep(CALM).await;
    let after = seats(&world).await;
    if before != after || !is_settled(&world).await {
        world.fault(format!("no peace: {before:?}, then {after:?}"));
    }
    agents.iter_mut().for_each(Agent::kill);
    let epochs: u64 = after.iter().map(|(_, _, epoch)| epoch).sum();
    let holds = *world.holds.lock().unwrap();
    say(format_args!(
        "seed {seed}: {epochs} tenures, {holds} holds, settled after {took:?}\n"
    ));
    if epochs < 4 || holds < 30 {
        world.fault(format!("too little happened: {epochs} tenures, {holds} holds"));
    }
    let (faults, story) = (world.faults.lock().unwrap(), world.story.lock().unwrap());
    (!faults.is_empty()).then(|| format!("SEED={seed}\n{}\n", story.join("\n")))
}

#[test]
fn seats_have_one_holder_at_most_and_soon_one_again() {
    let run = |seed: u64| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(simulate(seed))
    };
    let mut failed = Vec::new();
    for seed in seeds(10) {
        if let Some(story) = run(seed) {
            say(format_args!("{story}"));
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}
