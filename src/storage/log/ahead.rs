//! Whether a leader's entries go to the followers before they are on its own disk, so that its sync and theirs run at one time
//! (Ongaro's thesis, 10.2.1). Pure.
//!
//! openraft 0.9 sends an entry when the leader's log has answered, and counts the leader's copy then. An answer before the sync is safe
//! because
//! - nothing is committed by the leader's copy alone, and a follower's copy is counted only when the leader's is on its disk too
//!   (`storage::network`);
//! - no other entry gets the same id: a leader that may have lost what others hold does not go on in its term. Before the first such
//!   answer the vote on its disk is one that leads no longer; it leads again only when all was written in the end (`store`);
//! - once another leads, this node answers it only after it has saved its vote, and the log does that after all that came before.

use std::collections::BTreeSet;

use openraft::EntryPayload;

use crate::storage::types::{Entry, LogId, NodeId, Vote};

/// Voters as of the entry that named them; two sets while they change.
#[derive(Clone, Debug, Default)]
pub struct Members {
    pub since: Option<LogId>,
    pub voters: Vec<BTreeSet<NodeId>>,
}

impl Members {
    /// What the entries make of it.
    pub fn of(entries: &[Entry]) -> Option<Self> {
        entries.iter().rev().find_map(|entry| match &entry.payload {
            EntryPayload::Membership(members) => Some(Members {
                since: Some(entry.log_id),
                voters: members.get_joint_config().clone(),
            }),
            _ => None,
        })
    }

    /// Whether `me` commits nothing by itself.
    fn need_others(&self, me: NodeId) -> bool {
        let is_alone = |voters: &BTreeSet<NodeId>| voters.len() == 1 && voters.contains(&me);
        !self.voters.is_empty() && !self.voters.iter().any(is_alone)
    }
}

/// Whether the log of `me` may answer for these entries before they are on its disk. New members are on it first.
pub fn may(me: NodeId, vote: Option<Vote>, members: &Members, entries: &[Entry]) -> bool {
    let Some(vote) = vote.filter(|vote| vote.committed && vote.leader_id.node_id == me) else {
        return false;
    };
    let is_own = |entry: &Entry| entry.log_id.leader_id == vote.leader_id;
    members.need_others(me) && entries.iter().all(is_own) && Members::of(entries).is_none()
}

#[cfg(test)]
mod tests {
    use openraft::Membership;

    use super::*;
    use crate::storage::log::crash_tests::entry;
    use crate::storage::types::log_id;

    const ME: NodeId = 1;

    fn members(voters: &[&[NodeId]]) -> Members {
        Members {
            since: Some(log_id(1, ME, 0)),
            voters: voters.iter().map(|set| set.iter().copied().collect()).collect(),
        }
    }

    fn leading(term: u64) -> Option<Vote> {
        Some(Vote::new_committed(term, ME))
    }

    #[test]
    fn only_who_leads_and_needs_others_answers_early() {
        let (three, own) = (members(&[&[1, 2, 3]]), [entry(4, 7, 10), entry(4, 8, 10)]);
        assert!(may(ME, leading(4), &three, &own));
        assert!(may(ME, leading(4), &members(&[&[1, 2]]), &own));
        assert!(may(ME, leading(4), &members(&[&[2, 3]]), &own), "it votes no longer");
        for alone in [
            members(&[&[1]]),
            members(&[&[1], &[1, 2, 3]]),
            members(&[&[1, 2], &[1]]),
            members(&[]),
        ] {
            assert!(!may(ME, leading(4), &alone, &own), "{alone:?}");
        }
        assert!(!may(ME, None, &three, &own));
        assert!(!may(ME, Some(Vote::new(4, ME)), &three, &own), "a candidate");
        assert!(!may(ME, Some(Vote::new_committed(4, 2)), &three, &own), "a follower");
    }

    #[test]
    fn entries_of_another_term_and_new_members_are_on_the_disk_first() {
        let three = members(&[&[1, 2, 3]]);
        assert!(!may(ME, leading(5), &three, &[entry(4, 7, 10), entry(5, 8, 10)]));
        let change = Entry {
            log_id: log_id(4, ME, 8),
            payload: EntryPayload::Membership(Membership::new(vec![BTreeSet::from([1])], None)),
        };
        let entries = [entry(4, 7, 10), change];
        assert!(!may(ME, leading(4), &three, &entries));
        let changed = Members::of(&entries).unwrap();
        assert_eq!(
            (changed.since, changed.voters),
            (Some(log_id(4, ME, 8)), vec![BTreeSet::from([1])])
        );
    }
}
