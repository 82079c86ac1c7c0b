//! The in-sync set: which data replicas must have an entry on their disk before it is acknowledged. Pure.
//!
//! The set changes only by a committed entry. A member that has not caught up for `PATIENCE` is dropped by such an entry
//! before anything is acknowledged without it; one that has all of the log is taken in again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::types::NodeId;

/// How long an acknowledgement waits for a member that does not keep up.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The leader before was silent long enough for others to elect a new one: it is not waited for as long again.
const DEPOSED: Duration = Duration::from_millis(100);
/// A replica is taken in that has all which the leader had this long ago, two heartbeats: under load none ever has all.
const RECENT: Duration = Duration::from_millis(450);

/// How far each replica's disk is: the index after its last entry.
pub type Durable = BTreeMap<NodeId, u64>;

/// How many disks must have a change before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copies {
    /// While as many are in sync; else all that are.
    pub wanted: usize,
    /// With fewer in sync nothing is acknowledged. At least 1.
    pub least: usize,
}

/// Whether entry `index`, already committed, may be acknowledged. Never with an empty set, which means that none was written
/// yet.
pub fn is_safe(index: u64, in_sync: &BTreeSet<NodeId>, durable: &Durable, copies: Copies) -> bool {
    let have = in_sync
        .iter()
        .filter(|node| durable.get(node).is_some_and(|next| *next > index))
        .count();
    in_sync.len() >= copies.least.max(1) && have >= copies.wanted.min(in_sync.len())
}

/// A leader's judgement of the replicas over time.
#[derive(Debug, Default)]
pub struct Keeper {
    replicas: BTreeMap<NodeId, Progress>,
}

#[derive(Debug)]
struct Progress {
    /// Patience is counted from here: `has_had`, or the leader's begin.
    caught_up: Duration,
    /// It was there and had all that the leader had at this time.
    has_had: Option<Duration>,
    /// What the leader had when it was last measured, and when that was.
    target: Option<(u64, Duration)>,
}

impl Progress {
    fn new(caught_up: Duration) -> Self {
        Progress {
            caught_up,
            has_had: None,
            target: None,
        }
    }
}

/// What the keeper looks at.
pub struct Now<'a> {
    pub time: Duration,
    pub me: NodeId,
    pub in_sync: &'a BTreeSet<NodeId>,
    /// Members of the group that hold files.
    pub data: &'a BTreeSet<NodeId>,
    pub durable: &'a Durable,
    /// The index after the leader's last entry.
    pub next: u64,
    /// When each replica was last sent something that it took.
    pub heard: &'a dyn Fn(NodeId) -> Option<Duration>,
}

impl Keeper {
    /// For a leader that begins now, and the one before.
    pub fn new(now: Duration, data: &BTreeSet<NodeId>, deposed: Option<NodeId>) -> Self {
        let begin = |node: &NodeId| match deposed == Some(*node) {
            true => (*node, Progress::new((now + DEPOSED).saturating_sub(PATIENCE))),
            false => (*node, Progress::new(now)),
        };
        Keeper {
            replicas: data.iter().map(begin).collect(),
        }
    }

    /// Looks again; says which set to write into the log if it should be another.
    pub fn wanted(&mut self, now: &Now<'_>) -> Option<BTreeSet<NodeId>> {
        self.replicas.retain(|node, _| now.data.contains(node));
        let wanted: BTreeSet<NodeId> = now
            .data
            .iter()
            .copied()
            .filter(|node| self.belongs(*node, now))
            .collect();
        (!wanted.is_empty() && wanted != *now.in_sync).then_some(wanted)
    }

    fn belongs(&mut self, node: NodeId, now: &Now<'_>) -> bool {
        let has = now.durable.get(&node).copied().unwrap_or_default();
        let heard = if node == now.me {
            Some(now.time)
        } else {
            (now.heard)(node)
        };
        let heard = heard.unwrap_or_default();
        let progress = self.replicas.entry(node).or_insert(Progress::new(now.time));
        match progress.target {
            Some((target, _)) if has < target => {}
            measured => {
                if let Some((_, at)) = measured {
                    progress.has_had = Some(at.min(heard));
                    progress.caught_up = progress.caught_up.max(at.min(heard));
                }
                progress.target = Some((now.next, now.time));
            }
        }
        match now.in_sync.contains(&node) {
            // Nothing is committed that is not on the leader's own disk.
            _ if node == now.me => true,
            true => now.time.saturating_sub(progress.caught_up) < PATIENCE,
            false => progress.has_had.is_some_and(|at| now.time.saturating_sub(at) < RECENT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durable(nodes: &[(NodeId, u64)]) -> Durable {
        nodes.iter().copied().collect()
    }

    #[test]
    fn all_in_sync_replicas_must_have_it_up_to_the_number_of_copies() {
        let is_safe = |index, in_sync: &BTreeSet<NodeId>, durable: &Durable, wanted| {
            is_safe(index, in_sync, durable, Copies { wanted, least: 1 })
        };
        let three = BTreeSet::from([1, 2, 3]);
        assert!(!is_safe(5, &three, &durable(&[(1, 6), (2, 6), (3, 5)]), 3));
        assert!(is_safe(5, &three, &durable(&[(1, 6), (2, 6), (3, 6)]), 3));
        assert!(
            is_safe(5, &BTreeSet::from([1, 2]), &durable(&[(1, 6), (2, 6)]), 3),
            "fewer than R"
        );
        let five = BTreeSet::from([1, 2, 3, 4, 5]);
        assert!(is_safe(5, &five, &durable(&[(1, 6), (4, 6), (5, 9)]), 3), "R of five");
        assert!(
            !is_safe(5, &BTreeSet::from([1, 2]), &durable(&[(1, 6), (3, 6)]), 2),
            "others do not count"
        );
        assert!(!is_safe(0, &BTreeSet::new(), &durable(&[(1, 6)]), 3), "no set yet");
    }

    #[test]
    fn with_too_few_copies_in_sync_nothing_is_acknowledged() {
        let copies = Copies { wanted: 3, least: 2 };
        let has = durable(&[(1, 6), (2, 6)]);
        assert!(is_safe(5, &BTreeSet::from([1, 2]), &has, copies));
        assert!(!is_safe(5, &BTreeSet::from([1]), &has, copies));
    }

    struct Leader {
        keeper: Keeper,
        in_sync: BTreeSet<NodeId>,
        heard: BTreeMap<NodeId, Duration>,
    }

    impl Leader {
        fn new(in_sync: &[NodeId]) -> Self {
            let data = BTreeSet::from([1, 2, 3]);
            Leader {
                keeper: Keeper::new(Duration::ZERO, &data, None),
                in_sync: in_sync.iter().copied().collect(),
                heard: BTreeMap::new(),
            }
        }

        /// One look at `millis`; replicas given are heard and have entries up to the number.
        fn look(&mut self, millis: u64, next: u64, heard: &[(NodeId, u64)]) -> Option<Vec<NodeId>> {
            let time = Duration::from_millis(millis);
            self.heard.extend(heard.iter().map(|(node, _)| (*node, time)));
            let mut durable = durable(heard);
            durable.insert(1, next);
            let wanted = self.keeper.wanted(&Now {
                time,
                me: 1,
                in_sync: &self.in_sync,
                data: &BTreeSet::from([1, 2, 3]),
                durable: &durable,
                next,
                heard: &|node| self.heard.get(&node).copied(),
            })?;
            self.in_sync = wanted.clone();
            Some(wanted.into_iter().collect())
        }
    }

    #[test]
    fn a_member_that_stops_is_dropped_after_two_seconds_and_not_before() {
        let mut leader = Leader::new(&[1, 2, 3]);
        assert_eq!(leader.look(100, 10, &[(2, 10), (3, 10)]), None);
        assert_eq!(leader.look(200, 10, &[(2, 10), (3, 10)]), None);
        for time in (300..2100).step_by(100) {
            assert_eq!(leader.look(time, 20, &[(2, 20)]), None, "{time}");
        }
        assert_eq!(leader.look(2300, 20, &[(2, 20)]), Some(vec![1, 2]));
        assert_eq!(leader.look(2400, 20, &[(2, 20)]), None, "once");
    }

    #[test]
    fn a_member_that_is_always_a_little_behind_stays() {
        let mut leader = Leader::new(&[1, 2, 3]);
        for step in 1..100 {
            let next = step * 10;
            assert_eq!(
                leader.look(step * 100, next, &[(2, next - 9), (3, next.saturating_sub(15))]),
                None,
                "{step}"
            );
        }
    }

    #[test]
    fn one_that_returns_is_taken_in_when_it_has_everything() {
        let mut leader = Leader::new(&[1, 2]);
        assert_eq!(leader.look(100, 50, &[(2, 50), (3, 20)]), None);
        assert_eq!(leader.look(200, 60, &[(2, 60), (3, 60)]), Some(vec![1, 2, 3]));
    }

    #[test]
    fn a_silent_replica_is_not_taken_in_for_what_it_once_had() {
        let mut leader = Leader::new(&[1, 2]);
        leader.heard.insert(3, Duration::ZERO);
        let mut durable_but_silent = durable(&[(2, 50), (3, 50)]);
        durable_but_silent.insert(1, 50);
        let mut look = |time| {
            leader.keeper.wanted(&Now {
                time: Duration::from_millis(time),
                me: 1,
                in_sync: &BTreeSet::from([1]),
                data: &BTreeSet::from([1, 2, 3]),
                durable: &durable_but_silent,
                next: 50,
                heard: &|node| (node == 2).then_some(Duration::from_millis(time)),
            })
        };
        assert_eq!(look(10_000), None, "one look shows nothing");
        assert_eq!(look(10_100), Some(BTreeSet::from([1, 2])));
    }

    #[test]
    fn one_that_returns_under_load_is_taken_in_though_it_never_has_all() {
        let mut leader = Leader::new(&[1, 2]);
        for step in 1..10 {
            let (time, next) = (step * 100, step * 50);
            // Three seconds behind.
            assert_eq!(leader.look(time, next, &[(2, next), (3, 1)]), None, "{step}");
        }
        assert_eq!(
            leader.look(1000, 500, &[(2, 500), (3, 60)]),
            None,
            "it has what was long ago"
        );
        assert_eq!(leader.look(1100, 550, &[(2, 550), (3, 540)]), Some(vec![1, 2, 3]));
    }

    #[test]
    fn the_leader_before_is_not_waited_for_again() {
        let data = BTreeSet::from([1, 2, 3]);
        let begun = || {
            let mut leader = Leader::new(&[1, 2, 3]);
            leader.keeper = Keeper::new(Duration::from_secs(10), &data, Some(3));
            assert_eq!(leader.look(10_000, 20, &[(2, 20)]), None, "it may answer");
            leader
        };
        assert_eq!(begun().look(10_100, 20, &[(2, 20)]), Some(vec![1, 2]));
        assert_eq!(begun().look(10_100, 20, &[(2, 20), (3, 20)]), None, "it did");
    }
}
