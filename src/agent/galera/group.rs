//! Asks the database here, a few times a second, who is in its group, and tells it how much it counts there.
//!
//! Of two servers that lose one another neither is more than half, and both would stop. So one of them counts twice: it goes on alone,
//! with all that the other one has ever acknowledged, since the group agrees on a change before anybody is answered. Which part goes on
//! the group decides by what it agreed on before the cut; here it is only said what it shall agree on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info};

use super::record::members;
use crate::agent::board::Board;
use crate::agent::registry::Follower;
use crate::base::{Scope, clock};
use crate::cluster::{Fit, Role, Snapshot};
use crate::host::verb::{Answer, Root, Verb};

/// Between two questions.
const PACE: Duration = Duration::from_millis(300);

/// The group of the database here, as it answered last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// When it was asked, since boot.
    pub asked: Duration,
    /// Names of all nodes in it.
    pub nodes: BTreeSet<String>,
}

/// Runs until the scope drains.
pub async fn follow(follower: Arc<Follower>, board: Arc<Board>, root: Arc<dyn Root>, scope: Scope) {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut known, mut said) = (BTreeSet::new(), 1);
    loop {
        tokio::select! {
            () = scope.draining() => return,
            _ = pace.tick() => {}
        }
        let snapshot = follower.snapshots().borrow().clone();
        // Without the registry it stays as it is.
        let weight = if snapshot.is_stale {
            said
        } else {
            weight(&snapshot, &known)
        };
        let (asked, question) = (clock::boot(), Verb::Group { weight });
        let answer = tokio::select! {
            () = scope.draining() => return,
            answer = root.ask(&question) => answer,
        };
        match answer {
            Ok(Answer::Group { nodes }) => {
                if weight != said {
                    info!(weight, "what the database here counts in its group changed");
                    said = weight;
                }
                let nodes: BTreeSet<String> = nodes.into_iter().collect();
                let is_new = nodes != known;
                known = nodes;
                board.meet(Group {
                    asked,
                    nodes: known.clone(),
                });
                if is_new {
                    follower.wake();
                }
            }
            Ok(Answer::Refused { why }) => debug!(why, "the database here is in no group, or behind"),
            Ok(_) => debug!("another answer than to the question"),
            Err(error) => debug!(%error, "the supervisor does not answer"),
        }
        follower.renew();
    }
}

/// How much the database here counts in a group of these nodes. Pure.
fn weight(snapshot: &Snapshot, group: &BTreeSet<String>) -> u8 {
    let own = &snapshot.own;
    let mut others = group.iter().filter(|name| *name != own);
    let (Some(other), None, true) = (others.next(), others.next(), group.contains(own)) else {
        return 1;
    };
    let is_first = match members(snapshot).any(|member| member.name == *other) {
        // It only breaks ties, and has no data to go on with.
        false => true,
        // Of two machines the one that the registry stands and falls with; else the one that is written to.
        true if snapshot.nodes.len() == 2 => snapshot.node(own).is_some_and(|node| node.fit.has(Fit::LEADER)),
        true => snapshot.holder(Role::Db).is_some_and(|holder| holder.name == *own),
    };
    if is_first { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Member, Seat, Standing};

    fn snapshot(own: &str, nodes: &[(&str, Fit)], data: &[&str], writer: &str) -> Snapshot {
        let member = |(name, fit): &(&str, Fit)| Member {
            name: name.to_string(),
            address: None,
            standing: Standing::Member,
            is_live: true,
            fit: *fit,
        };
        let seat = Seat {
            role: Role::Db,
            seat: String::new(),
            holder: Some(writer.into()),
            epoch: 1,
        };
        let settings = data
            .iter()
            .map(|name| (super::super::record::key(name), "{}".to_string()));
        Snapshot {
            own: own.into(),
            nodes: nodes.iter().map(member).collect(),
            seats: vec![seat],
            settings: settings.collect(),
            ..Snapshot::default()
        }
    }

    fn weights(group: &[&str], seen: impl Fn(&str) -> Snapshot) -> Vec<u8> {
        let nodes: BTreeSet<String> = group.iter().map(ToString::to_string).collect();
        group.iter().map(|own| weight(&seen(own), &nodes)).collect()
    }

    #[test]
    fn of_two_machines_the_one_with_the_registrys_vote_goes_on_alone() {
        let nodes = [("n1", Fit::LEADER), ("n2", Fit::NONE)];
        let seen = |own: &str| snapshot(own, &nodes, &["n1", "n2"], "n2");
        assert_eq!(weights(&["n1", "n2"], seen), [2, 1]);
        assert_eq!(weights(&["n1"], seen), [1], "alone it needs no more");
    }

    #[test]
    fn where_the_registry_outlives_either_the_one_that_is_written_to_goes_on() {
        let nodes = [("n1", Fit::NONE), ("n2", Fit::NONE), ("n3", Fit::LEADER)];
        let seen = |own: &str| snapshot(own, &nodes, &["n1", "n2"], "n2");
        assert_eq!(weights(&["n1", "n2"], seen), [1, 2]);
        assert_eq!(weights(&["n1", "n2", "n3"], seen), [1, 1, 1]);
        // With the arbiter alone it goes on without that, too.
        assert_eq!(weights(&["n1", "n3"], seen)[0], 2);
    }

    #[test]
    fn never_do_two_of_one_group_count_twice_by_one_snapshot() {
        for bits in 0..64_u8 {
            let fit = |bit: u8| if bits & (1 << bit) == 0 { Fit::NONE } else { Fit::LEADER };
            // The registry has one leader at most; a snapshot may be wrong about it for a moment.
            let nodes = [
                ("n1", fit(0)),
                ("n2", if bits & 1 == 0 { fit(1) } else { Fit::NONE }),
                ("n3", Fit::NONE),
            ];
            let nodes = &nodes[..if bits & 4 == 0 { 2 } else { 3 }];
            let writer = if bits & 8 == 0 { "n1" } else { "n2" };
            let seen = |own: &str| snapshot(own, nodes, &["n1", "n2", "n3"], writer);
            for group in [&["n1", "n2"][..], &["n1", "n2", "n3"]] {
                let weights = weights(group, seen);
                let twice = weights.iter().filter(|weight| **weight == 2).count();
                assert!(twice <= 1, "{group:?}: {weights:?}");
            }
        }
    }

    #[test]
    fn a_group_without_this_node_changes_nothing() {
        let seen = snapshot("n1", &[("n1", Fit::LEADER), ("n2", Fit::NONE)], &["n1", "n2"], "n1");
        let others = ["n2", "n3"].map(str::to_string).into();
        assert_eq!((weight(&seen, &others), weight(&seen, &BTreeSet::new())), (1, 1));
    }
}
