//! When this node may stand for election: never on its own clock alone, for a node that was cut off or paused would return
//! and depose a leader that serves well. Only evidence counts: a majority that can be reached and hears no leader. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::types::{LogId, NodeId};

/// A leader heard within this is alive: two of its heartbeats (225 ms apart at the settings of `group`).
pub const FRESH: Duration = Duration::from_millis(450);
/// Voters refuse to vote for 800 ms after they heard a leader; asking earlier only wastes a term.
const EARLIEST: Duration = Duration::from_millis(820);
/// The one with the longest log goes first; each next one waits this much longer for it to win.
const RANK_STEP: Duration = Duration::from_millis(200);
/// After an attempt that brought no leader.
const RETRY: Duration = Duration::from_millis(400);

/// What a node says of itself when asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub last_log: Option<LogId>,
    /// It heard a leader freshly, or leads with a freshly answered majority.
    pub has_leader: bool,
    /// It holds no files, and so leads only to hand on what others lack.
    #[serde(default)]
    pub is_witness: bool,
}

/// What is known when no leader was heard for `FRESH`.
pub struct Evidence<'a> {
    pub now: Duration,
    /// When this node last heard a leader, or started.
    pub contact: Duration,
    pub me: NodeId,
    pub last_log: Option<LogId>,
    pub is_witness: bool,
    /// Two sets while membership changes.
    pub voters: &'a [BTreeSet<NodeId>],
    /// Who answered just now.
    pub answers: &'a BTreeMap<NodeId, Standing>,
    pub last_attempt: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Somebody leads, or nobody could be elected: stay quiet.
    Quiet,
    /// An election is due, but another goes first or voters would still refuse.
    Wait,
    Stand,
}

/// Whether to stand for election now.
pub fn decide(evidence: &Evidence<'_>) -> Verdict {
    let is_voter = evidence.voters.iter().any(|voters| voters.contains(&evidence.me));
    let is_led = evidence.answers.values().any(|standing| standing.has_leader);
    if !is_voter || is_led || !is_majority(evidence.voters, evidence.me, evidence.answers) {
        return Verdict::Quiet;
    }
    let rank = u32::try_from(rank(evidence)).unwrap_or(u32::MAX);
    let is_alone = evidence.voters.iter().all(|voters| voters.len() == 1);
    let due = match evidence.last_attempt.filter(|attempt| *attempt > evidence.contact) {
        Some(attempt) => attempt + RETRY + RANK_STEP * rank,
        None if is_alone => evidence.contact,
        None => evidence.contact + EARLIEST + RANK_STEP * rank,
    };
    if evidence.now >= due {
        Verdict::Stand
    } else {
        Verdict::Wait
    }
}

/// Whether those who answered are, with this node, a majority of each set of voters.
pub fn is_majority(voters: &[BTreeSet<NodeId>], me: NodeId, answers: &BTreeMap<NodeId, Standing>) -> bool {
    let reached = |voter: &&NodeId| **voter == me || answers.contains_key(*voter);
    voters
        .iter()
        .all(|voters| voters.iter().filter(reached).count() > voters.len() / 2)
}

/// How many of the reached have a longer log, or the same and files where this one has none, or a smaller number.
fn rank(evidence: &Evidence<'_>) -> usize {
    let own = (evidence.is_witness, evidence.me);
    let goes_first = |(node, standing): &(&NodeId, &Standing)| {
        standing.last_log > evidence.last_log
            || (standing.last_log == evidence.last_log && (standing.is_witness, **node) < own)
    };
    evidence.answers.iter().filter(goes_first).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::types::log_id;

    fn standing(index: u64, has_leader: bool) -> Standing {
        Standing {
            last_log: Some(log_id(1, 1, index)),
            has_leader,
            is_witness: false,
        }
    }

    /// Node 2 of voters 1 to 3 with log 10, `silence` ms after it last heard a leader at 10 s.
    fn verdict(silence: u64, answers: &[(NodeId, Standing)], attempt: Option<u64>) -> Verdict {
        decide(&Evidence {
            now: Duration::from_millis(10_000 + silence),
            contact: Duration::from_secs(10),
            me: 2,
            last_log: Some(log_id(1, 1, 10)),
            is_witness: false,
            voters: &[BTreeSet::from([1, 2, 3])],
            answers: &answers.iter().cloned().collect(),
            last_attempt: attempt.map(|silence| Duration::from_millis(10_000 + silence)),
        })
    }

    #[test]
    fn a_node_that_reaches_no_majority_stays_quiet() {
        assert_eq!(verdict(60_000, &[], None), Verdict::Quiet);
    }

    #[test]
    fn a_node_that_returns_to_a_led_group_stays_quiet() {
        assert_eq!(verdict(60_000, &[(3, standing(50, true))], None), Verdict::Quiet);
        assert_eq!(
            verdict(60_000, &[(1, standing(50, false)), (3, standing(50, true))], None),
            Verdict::Quiet
        );
    }

    #[test]
    fn the_longest_log_goes_first_then_the_smallest_number() {
        let shorter = [(1, standing(9, false))];
        assert_eq!(verdict(819, &shorter, None), Verdict::Wait);
        assert_eq!(verdict(820, &shorter, None), Verdict::Stand);
        for other in [(1, standing(10, false)), (3, standing(11, false))] {
            assert_eq!(
                verdict(820, std::slice::from_ref(&other), None),
                Verdict::Wait,
                "{other:?}"
            );
            assert_eq!(verdict(1020, &[other], None), Verdict::Stand);
        }
        assert_eq!(verdict(820, &[(3, standing(10, false))], None), Verdict::Stand);
        let witness = |index| Standing {
            is_witness: true,
            ..standing(index, false)
        };
        assert_eq!(verdict(820, &[(1, witness(10))], None), Verdict::Stand);
        assert_eq!(verdict(820, &[(1, witness(11))], None), Verdict::Wait);
    }

    #[test]
    fn a_lost_election_is_tried_again_but_not_at_once() {
        let other = [(3, standing(10, false))];
        assert_eq!(verdict(1200, &other, Some(820)), Verdict::Wait);
        assert_eq!(verdict(1220, &other, Some(820)), Verdict::Stand);
    }

    #[test]
    fn a_majority_of_both_sets_must_answer_while_membership_changes() {
        let voters = [BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 4, 5])];
        let answers = |nodes: &[NodeId]| nodes.iter().map(|node| (*node, standing(1, false))).collect();
        assert!(!is_majority(&voters, 1, &answers(&[2, 3])), "of one only");
        assert!(is_majority(&voters, 1, &answers(&[3, 4])));
    }

    #[test]
    fn a_lone_voter_waits_for_nobody_and_a_learner_never_stands() {
        let nobody = BTreeMap::new();
        let alone = |me| Evidence {
            now: Duration::from_secs(10),
            contact: Duration::from_secs(10),
            me,
            last_log: None,
            is_witness: false,
            voters: &[],
            answers: &nobody,
            last_attempt: None,
        };
        let voters = [BTreeSet::from([1])];
        assert_eq!(
            decide(&Evidence {
                voters: &voters,
                ..alone(1)
            }),
            Verdict::Stand
        );
        assert_eq!(
            decide(&Evidence {
                voters: &voters,
                ..alone(2)
            }),
            Verdict::Quiet
        );
        assert_eq!(decide(&alone(1)), Verdict::Quiet, "no membership yet");
    }
}
