//! Random faults: what happens to which node, and for how long.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::world::{Still, World};
use crate::storage::types::NodeId;

/// A fault's length, in milliseconds.
fn span(world: &mut World, from: u64, to: u64) -> Duration {
    Duration::from_millis(from + world.random.below(to - from))
}

/// A node: half of the time the one that leads.
fn victim(world: &mut World) -> NodeId {
    let nodes: Vec<_> = world.nodes.keys().copied().collect();
    let (any, is_leader) = (world.random.below(nodes.len() as u64), world.random.below(2) == 0);
    let leader = world.leader().filter(|_| is_leader);
    leader.unwrap_or(nodes[any as usize])
}

/// One fault, perhaps on top of those that last.
pub fn strike(world: &mut World) {
    let node = victim(world);
    let leader = world.leader();
    let what = match world.random.below(15) {
        0 | 1 => {
            let (time, power) = (span(world, 50, 4000), world.random.below(2) == 0);
            world.crash(node, time, power);
            format!("node {node} crashes for {time:?}, power cut: {power}")
        }
        2 | 3 => {
            let time = span(world, 100, 5000);
            let still = [Still::Stopped, Still::Suspended][world.random.below(2) as usize];
            world.hold(node, time, still);
            format!("node {node} is {still:?} for {time:?}")
        }
        4 | 5 => {
            let time = span(world, 100, 5000);
            world.part(&[node], &world.others(node), time);
            format!("node {node} is cut off for {time:?}")
        }
        6 => part(world),
        7 | 8 => cut_one_way(world, node),
        9 => {
            world.mend_disks();
            "the disks are mended".into()
        }
        10 => {
            let time = span(world, 100, 5000);
            for other in world.others(node) {
                world.wire.slow(node, other, time);
                world.wire.slow(other, node, time);
            }
            format!("the links of node {node} are slow for {time:?}")
        }
        11 => disk_fault(world, node),
        12 => {
            world.nodes[&node]
                .slowness
                .store(world.random.below(400), Ordering::Relaxed);
            format!("the disk of node {node} is slow")
        }
        13 => checkpoint(world, node),
        _ => {
            let time = span(world, 50, 1500);
            for node in world.nodes.keys().copied().collect::<Vec<_>>() {
                world.crash(node, time, true);
            }
            "all lose power".into()
        }
    };
    world.note(format!("{what} (leader {leader:?})"));
}

fn part(world: &mut World) -> String {
    let time = span(world, 100, 5000);
    let nodes: Vec<_> = world.nodes.keys().copied().collect();
    let (one, other): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|_| world.random.below(2) == 0);
    world.part(&one, &other, time);
    format!("{one:?} and {other:?} are parted for {time:?}")
}

fn cut_one_way(world: &mut World, node: NodeId) -> String {
    let (others, time) = (world.others(node), span(world, 100, 5000));
    match world.random.below(3) {
        0 => {
            others.iter().for_each(|other| world.wire.cut(node, *other, time));
            format!("nobody hears node {node} for {time:?}")
        }
        1 => {
            others.iter().for_each(|other| world.wire.cut(*other, node, time));
            format!("node {node} hears nobody for {time:?}")
        }
        _ => {
            let other = others[world.random.below(others.len() as u64) as usize];
            world.wire.cut(node, other, time);
            format!("node {other} does not hear node {node} for {time:?}")
        }
    }
}

fn disk_fault(world: &mut World, node: NodeId) -> String {
    let disk = world.nodes[&node].disk.clone();
    match world.random.below(2) {
        0 => {
            disk.fail_sync_at(disk.steps() + world.random.below(10));
            format!("a sync of node {node} fails")
        }
        _ => {
            disk.limit(0);
            format!("the disk of node {node} is full")
        }
    }
}

/// Not a fault: a checkpoint, and most of the log before it goes.
pub fn checkpoint(world: &mut World, node: NodeId) -> String {
    let node = &world.nodes[&node];
    if let (Some(process), Some(running)) = (&node.process, node.running()) {
        process.run(async move {
            let _ = running.group.checkpoint().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            let _ = running.group.purge(8 << 10, None).await;
        });
    }
    format!("node {} makes a checkpoint", node.id)
}
