//! Who should vote in the group. Pure.
//!
//! A group wants an odd number of voters, for an even one survives no more losses than one less: one, three, and with
//! five wanted, five. A data replica may vote once it is in sync; a witness once it has the log. Two data replicas without a
//! witness have one voter: no third party could tell a dead leader from a cut line, so a take-over there is the operator's.

use std::collections::{BTreeMap, BTreeSet};

use super::types::{NodeId, Peer};

/// What is known of the group.
pub struct Group<'a> {
    pub leader: NodeId,
    pub voters: &'a BTreeSet<NodeId>,
    pub members: &'a BTreeMap<NodeId, Peer>,
    /// Data replicas in sync, and witnesses that have the log.
    pub ready: &'a BTreeSet<NodeId>,
    /// Three or five.
    pub most: usize,
}

/// The voters to change to, one step; `None`: they are right, or nobody is ready.
pub fn wanted(group: &Group<'_>) -> Option<BTreeSet<NodeId>> {
    let is_member = |node: &NodeId| group.members.contains_key(node);
    let staying: BTreeSet<NodeId> = group.voters.iter().copied().filter(is_member).collect();
    // Data replicas first: a witness is for want of a third.
    let is_witness = |node: &NodeId| group.members.get(node).is_some_and(|peer| peer.witness);
    let mut spare: Vec<NodeId> = group
        .ready
        .iter()
        .copied()
        .filter(|node| is_member(node) && !staying.contains(node))
        .collect();
    spare.sort_by_key(|node| (is_witness(node), *node));
    let count = odd(staying.len() + spare.len()).min(odd(group.most));
    let mut wanted = staying.clone();
    wanted.extend(spare.into_iter().take(count.saturating_sub(staying.len())));
    // An even rest after a removal without a spare: the leader and as many more as make an odd number.
    while wanted.len() > count {
        let last = wanted
            .iter()
            .copied()
            .filter(|node| *node != group.leader)
            .max_by_key(|node| (is_witness(node), *node))?;
        wanted.remove(&last);
    }
    (wanted != *group.voters && wanted.contains(&group.leader)).then_some(wanted)
}

/// The largest odd number up to `count`.
fn odd(count: usize) -> usize {
    count - usize::from(count.is_multiple_of(2) && count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members 1 to `members`, of which `witnesses` are such; 1 leads.
    fn after(
        voters: &[NodeId],
        members: &[NodeId],
        witnesses: &[NodeId],
        ready: &[NodeId],
        most: usize,
    ) -> Vec<NodeId> {
        let voters: BTreeSet<NodeId> = voters.iter().copied().collect();
        let members = members.iter().map(|node| {
            let peer = Peer {
                witness: witnesses.contains(node),
                ..Peer::default()
            };
            (*node, peer)
        });
        let group = Group {
            leader: 1,
            voters: &voters,
            members: &members.collect(),
            ready: &ready.iter().copied().collect(),
            most,
        };
        wanted(&group).unwrap_or(voters).into_iter().collect()
    }

    #[test]
    fn two_replicas_have_one_voter_and_three_have_three() {
        assert_eq!(after(&[1], &[1, 2], &[], &[1, 2], 3), [1]);
        assert_eq!(
            after(&[1], &[1, 2, 3], &[], &[1, 2], 3),
            [1],
            "the third has not caught up"
        );
        assert_eq!(after(&[1], &[1, 2, 3], &[], &[1, 2, 3], 3), [1, 2, 3]);
        assert_eq!(
            after(&[1], &[1, 2, 3], &[3], &[1, 2, 3], 3),
            [1, 2, 3],
            "a witness makes the third"
        );
    }

    #[test]
    fn more_replicas_vote_only_where_five_are_wanted_or_one_left() {
        let all = [1, 2, 3, 4, 5];
        assert_eq!(after(&[1, 2, 3], &all, &[], &all, 3), [1, 2, 3]);
        assert_eq!(after(&[1, 2, 3], &all, &[], &all, 5), all);
        assert_eq!(after(&[1, 2, 3], &[1, 2, 3, 4], &[], &[1, 2, 3, 4], 5), [1, 2, 3]);
        assert_eq!(
            after(&[1, 2, 3], &[1, 2, 4], &[], &[1, 2, 4], 3),
            [1, 2, 4],
            "3 was removed"
        );
        assert_eq!(
            after(&[1, 2, 4], &[1, 2, 3, 4], &[2], &[1, 2, 3, 4], 3),
            [1, 2, 4],
            "stay"
        );
    }

    #[test]
    fn a_voter_that_is_away_stays_and_a_removed_one_leaves_an_odd_number() {
        assert_eq!(
            after(&[1, 2, 3], &[1, 2, 3], &[], &[1, 2], 3),
            [1, 2, 3],
            "it may come back"
        );
        assert_eq!(after(&[1, 2, 3], &[1, 2], &[], &[1, 2], 3), [1]);
        assert_eq!(after(&[1, 2, 3], &[1, 2, 3], &[], &[1, 2, 3], 3), [1, 2, 3]);
    }

    #[test]
    fn data_replicas_vote_before_witnesses() {
        assert_eq!(after(&[1], &[1, 2, 3, 4], &[2], &[1, 2, 3, 4], 3), [1, 3, 4]);
    }
}
