//! Who is right about a content. Pure.
//!
//! Replicas that have the same fact must have the same bytes. A content that is shorter than its fact says, or that cannot be read to
//! its end, is wrong by itself and has no vote. Of the others more than half must agree.

use std::collections::BTreeMap;

use crate::storage::state::Checked;
use crate::storage::types::NodeId;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Whole, and nobody says otherwise.
    Good,
    /// Whole, but there is nobody to compare with.
    Alone,
    /// The own content is wrong; these replicas have the right one.
    Mend { right: [u8; 32], from: Vec<NodeId> },
    /// The own content is right, and these have another: they mend it themselves.
    Others(Vec<NodeId>),
    /// They differ, and nobody can say who is right; or nobody has it whole.
    Undecided,
}

/// `others` is what other replicas have of the same inode.
pub fn judge(own: &Checked, others: &BTreeMap<NodeId, Checked>) -> Verdict {
    let comparable: Vec<_> = others.iter().filter(|(_, other)| other.fact == own.fact).collect();
    let mut votes: BTreeMap<[u8; 32], Vec<NodeId>> = BTreeMap::new();
    for (node, other) in comparable.iter().filter(|(_, other)| is_whole(other)) {
        votes.entry(other.checksum).or_default().push(**node);
    }
    let all = votes.values().map(Vec::len).sum::<usize>() + usize::from(is_whole(own));
    let own_votes = |checksum| usize::from(is_whole(own) && own.checksum == checksum);
    if is_whole(own) {
        let agree = votes.get(&own.checksum).map_or(0, Vec::len) + 1;
        if comparable.is_empty() {
            return Verdict::Alone;
        }
        if agree * 2 > all {
            let differ = |(_, other): &&(&NodeId, &Checked)| !is_whole(other) || other.checksum != own.checksum;
            let wrong: Vec<_> = comparable.iter().filter(differ).map(|(node, _)| **node).collect();
            return match wrong.is_empty() {
                true => Verdict::Good,
                false => Verdict::Others(wrong),
            };
        }
    }
    let right = votes
        .into_iter()
        .find(|(checksum, nodes)| (nodes.len() + own_votes(*checksum)) * 2 > all);
    match right {
        Some((right, from)) => Verdict::Mend { right, from },
        None => Verdict::Undecided,
    }
}

fn is_whole(checked: &Checked) -> bool {
    checked.found == checked.fact.size
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::call::Inode;
    use crate::storage::state::FileFact;

    const FACT: FileFact = FileFact {
        inode: Inode(9),
        generation: 1,
        size: 100,
        content_index: 5,
    };

    fn whole(byte: u8) -> Checked {
        Checked {
            fact: FACT,
            found: 100,
            checksum: [byte; 32],
        }
    }

    fn short(byte: u8) -> Checked {
        Checked {
            found: 99,
            ..whole(byte)
        }
    }

    fn other(byte: u8) -> Checked {
        let fact = FileFact {
            content_index: 6,
            ..FACT
        };
        Checked { fact, ..whole(byte) }
    }

    fn against(own: Checked, others: &[Checked]) -> Verdict {
        let others = others
            .iter()
            .enumerate()
            .map(|(at, checked)| (at as NodeId + 1, *checked));
        judge(&own, &others.collect())
    }

    fn mend(byte: u8, from: &[NodeId]) -> Verdict {
        Verdict::Mend {
            right: [byte; 32],
            from: from.to_vec(),
        }
    }

    #[test]
    fn equal_contents_are_good_and_one_alone_says_nothing() {
        assert_eq!(against(whole(1), &[whole(1), whole(1)]), Verdict::Good);
        assert_eq!(against(whole(1), &[whole(1)]), Verdict::Good);
        assert_eq!(against(whole(1), &[]), Verdict::Alone);
        assert_eq!(against(whole(1), &[other(2), other(3)]), Verdict::Alone);
    }

    #[test]
    fn more_than_half_is_right() {
        assert_eq!(against(whole(1), &[whole(2), whole(2)]), mend(2, &[1, 2]));
        assert_eq!(against(whole(1), &[whole(1), whole(2)]), Verdict::Others(vec![2]));
        assert_eq!(
            against(whole(1), &[whole(2), whole(2), whole(1), whole(2)]),
            mend(2, &[1, 2, 4])
        );
        assert_eq!(against(whole(1), &[whole(1), short(1)]), Verdict::Others(vec![2]));
    }

    #[test]
    fn two_that_differ_are_left_alone() {
        assert_eq!(against(whole(1), &[whole(2)]), Verdict::Undecided);
        assert_eq!(against(whole(1), &[whole(2), other(2)]), Verdict::Undecided);
        assert_eq!(against(whole(1), &[whole(2), whole(3)]), Verdict::Undecided);
        assert_eq!(against(whole(1), &[whole(1), whole(2), whole(2)]), Verdict::Undecided);
    }

    #[test]
    fn a_cut_content_has_no_vote() {
        assert_eq!(against(short(1), &[whole(2)]), mend(2, &[1]));
        assert_eq!(against(short(1), &[short(1), whole(2)]), mend(2, &[2]));
        assert_eq!(against(whole(1), &[short(2)]), Verdict::Others(vec![1]));
        assert_eq!(against(short(1), &[short(1), short(1)]), Verdict::Undecided);
        assert_eq!(against(short(1), &[whole(2), whole(3)]), Verdict::Undecided);
        assert_eq!(against(short(1), &[]), Verdict::Undecided);
        assert_eq!(against(short(1), &[other(2)]), Verdict::Undecided);
    }
}
