//! What goes wrong in the simulated world.

use std::time::Duration;

use super::world::{Flaw, Line, MS, World};
use crate::net::mesh::Name;

/// A fault that the others must bridge quickly.
#[derive(Clone, Copy, Debug)]
pub enum Strike {
    Crash,
    Restart,
    Freeze,
    CutOff,
    Deaf,
    Dumb,
    /// It and one other node do not reach each other.
    Split,
    Leave,
}

impl Strike {
    pub const SINGLE: [Strike; 8] = [
        Strike::Crash,
        Strike::Restart,
        Strike::Freeze,
        Strike::CutOff,
        Strike::Deaf,
        Strike::Dumb,
        Strike::Split,
        Strike::Leave,
    ];
}

pub fn single(world: &mut World, strike: Strike, victim: usize) {
    let others: Vec<usize> = (0..world.machines.len()).filter(|other| *other != victim).collect();
    let name = world.machines[victim].name.clone();
    world.note(format!("{strike:?} of {name}"));
    match strike {
        Strike::Crash => world.crash(victim),
        Strike::Restart => {
            world.crash(victim);
            world.start(victim);
        }
        Strike::Freeze => world.freeze(victim, Duration::from_secs(60)),
        Strike::Leave => world.leave(victim),
        Strike::Split => {
            let other = others[0];
            world.lines[victim][other].is_cut = true;
            world.lines[other][victim].is_cut = true;
        }
        Strike::CutOff | Strike::Deaf | Strike::Dumb => {
            for other in others {
                world.lines[victim][other].is_cut |= !matches!(strike, Strike::Deaf);
                world.lines[other][victim].is_cut |= !matches!(strike, Strike::Dumb);
            }
        }
    }
}

/// One of all faults.
pub fn strike(world: &mut World) {
    let count = u64::try_from(world.machines.len()).unwrap();
    let mut any = || usize::try_from(world.random.below(count)).unwrap();
    let (victim, other) = (any(), any());
    let name = world.machines[victim].name.clone();
    match world.random.below(16) {
        0 | 1 => {
            world.note(format!("crash of {name}"));
            world.crash(victim);
        }
        2 | 3 => start_all(world),
        4 => {
            world.note(format!("{name} starts anew"));
            world.crash(victim);
            world.start(victim);
        }
        5 | 6 => {
            let within = world.random.time(MS * 1500);
            world.note(format!("{name} is frozen for {within:?}"));
            world.freeze(victim, within);
        }
        7 => {
            world.note(format!("{name} does not reach {}", world.machines[other].name));
            world.lines[victim][other].is_cut = victim != other;
        }
        8 => {
            world.note(format!("{name} is cut off"));
            for peer in (0..world.machines.len()).filter(|peer| *peer != victim) {
                world.lines[victim][peer].is_cut = true;
                world.lines[peer][victim].is_cut = true;
            }
        }
        9 | 10 => join_lines(world),
        11 => {
            let (loses, delays) = (world.random.below(60), world.random.time(MS * 150));
            world.note(format!("lines of {name}: {loses} % lost, up to {delays:?} late"));
            for line in &mut world.lines[victim] {
                (line.loses, line.delays) = (loses, delays);
            }
        }
        12 => {
            let hang = world.random.time(MS * 400);
            world.note(format!("the data path of {name} takes {hang:?}"));
            world.machines[victim].hang = hang;
        }
        13 => change_voters(world, victim),
        14 => {
            world.note(format!("{name} leaves"));
            world.leave(victim);
        }
        _ => world
            .machines
            .iter_mut()
            .for_each(|machine| machine.hang = Duration::ZERO),
    }
}

fn start_all(world: &mut World) {
    for machine in 0..world.machines.len() {
        if world.machines[machine].process.is_none() {
            let name = world.machines[machine].name.clone();
            world.note(format!("{name} starts"));
            world.start(machine);
        }
    }
}

fn join_lines(world: &mut World) {
    world.note("lines are whole".into());
    world
        .lines
        .iter_mut()
        .flatten()
        .for_each(|line| *line = Line::default());
}

/// The registry takes a node out, or in again.
fn change_voters(world: &mut World, victim: usize) {
    let name = world.machines[victim].name.clone();
    let mut voters = world.view.voters.clone();
    let known = voters.iter().position(|voter| *voter == name);
    match known {
        Some(place) if voters.len() > 2 => drop(voters.remove(place)),
        Some(_) => return,
        None => voters.push(name),
    }
    voters.sort();
    world.note(format!("voters are {voters:?}"));
    world.name(voters.clone(), voters);
}

/// Everything is well from now on, with all nodes as members; of two, one votes.
pub fn mend(world: &mut World) {
    join_lines(world);
    let members: Vec<Name> = world.machines.iter().map(|machine| machine.name.clone()).collect();
    let voters = if members.len() == 2 {
        members[..1].to_vec()
    } else {
        members.clone()
    };
    world.name(members, voters);
    for machine in 0..world.machines.len() {
        world.machines[machine].hang = Duration::ZERO;
        if world.machines[machine].is_frozen {
            world.freeze(machine, Duration::ZERO);
        }
        // Whoever wanted to leave does so.
        world.crash_if_leaving(machine);
    }
    start_all(world);
}

/// How many machines it needs, and what happens to them.
pub type Scene = (usize, fn(&mut World));

/// A run that shows this flaw. `None`: any trouble shows it soon.
pub fn scene(flaw: Flaw) -> Option<Scene> {
    match flaw {
        Flaw::None | Flaw::NoPromise | Flaw::NoGrace | Flaw::NoEmptying => None,
        Flaw::NoSilence => Some((5, forgotten_promise)),
        Flaw::NoMemory => Some((3, forgotten_table)),
        Flaw::LeaseFromReception => Some((3, late_answer)),
    }
}

fn cut(world: &mut World, one: usize, other: usize, is_cut: bool) {
    world.lines[one][other].is_cut = is_cut;
    world.lines[other][one].is_cut = is_cut;
}

/// So many of the last machines have left: nobody listens to them. All others reach each other.
pub fn cut_off(world: &mut World, left: usize) {
    let count = world.machines.len();
    for one in 0..count {
        for other in 0..count {
            world.lines[one][other].is_cut = one != other && one.max(other) + left >= count;
        }
    }
}

fn leader(world: &World) -> usize {
    let leader = (0..world.machines.len()).find(|machine| world.is_leader(*machine));
    leader.expect("somebody leads a whole cluster")
}

/// 1. Two of five start anew, cut off from the leader and a follower of it; a third voter reaches both sides, and keeps its promise to the leader.
/// 2. That one starts anew, and no longer hears the leader. It must not help the two at once: the follower was given a lease meanwhile.
fn forgotten_promise(world: &mut World) {
    let first = leader(world);
    let others: Vec<usize> = (0..5).filter(|machine| *machine != first).collect();
    let (voter, follower, away) = (others[0], others[1], [others[2], others[3]]);
    for lost in away {
        cut(world, lost, first, true);
        cut(world, lost, follower, true);
    }
    for lost in away {
        world.crash(lost);
        world.start(lost);
    }
    world.run_for(MS * 1500);
    cut(world, voter, first, true);
    cut(world, voter, follower, true);
    world.crash(voter);
    world.start(voter);
    world.run_for(MS * 1200);
}

/// 1. One is cut off; the other two go on.
/// 2. One of these ends for ever, the other one starts anew and knows nothing; the one that was away reaches it.
fn forgotten_table(world: &mut World) {
    let away = 2;
    cut(world, away, 0, true);
    cut(world, away, 1, true);
    world.run_for(MS * 1000);
    world.crash(0);
    world.crash(1);
    world.start(1);
    cut(world, away, 1, false);
    world.run_for(MS * 4000);
}

/// A follower is frozen while an answer is on its way, and finds it when it goes on.
fn late_answer(world: &mut World) {
    let follower = (leader(world) + 1) % 3;
    for machine in 0..3 {
        world.lines[machine][follower].delays = MS * 30;
    }
    world.run_for(MS * 300);
    world.freeze(follower, MS * 1500);
    world.run_for(MS * 2000);
}
