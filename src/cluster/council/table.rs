//! `Table`: which nodes keep the cache, under a number that only one leader can have given. Pure.
//!
//! Tables form a chain: each names the one that it derives from. A node keeps its data only while it is in every table of the chain.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::net::mesh::Name;

/// Nodes and voters of a table; a cluster has nine.
pub const NODES_MAX: usize = 32;

/// A candidate's attempt to lead. The mark is the candidate's own, so no two ever have the same term, also when voters forgot
/// the numbers that they had seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Term {
    pub number: u64,
    pub mark: u64,
}

/// Number of a table: a leader counts its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Epoch {
    pub term: Term,
    pub number: u64,
}

impl fmt::Display for Epoch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.term.number, self.number)
    }
}

/// How far a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// Owns shards and keeps copies.
    Serving,
    /// Came back empty and is given what it will hold; others serve it meanwhile.
    Filling,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Node {
    pub name: Name,
    /// Of its data: another one each time that it begins empty.
    pub incarnation: u64,
    pub stage: Stage,
}

/// Nodes and voters stand in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub epoch: Epoch,
    /// Of the table that was in force before this one.
    pub parent: Epoch,
    /// Of the first table of its chain. Voters that forgot may begin another chain with lower numbers, so epochs tell which table is newer
    /// only within one.
    pub chain: Epoch,
    /// Version of the registry that `voters` is as of.
    pub view: u64,
    /// Whose majority decides. Some of them may keep no cache.
    pub voters: Vec<Name>,
    pub nodes: Vec<Node>,
}

impl Table {
    pub fn node(&self, name: &Name) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == *name)
    }

    /// Whether that node's data of this incarnation belong to the chain.
    pub fn holds(&self, name: &Name, incarnation: u64) -> bool {
        self.node(name).is_some_and(|node| node.incarnation == incarnation)
    }

    pub fn has_serving(&self) -> bool {
        self.nodes.iter().any(|node| node.stage == Stage::Serving)
    }

    /// What a reader may rely on: bounded, and in order without doubles.
    pub fn is_sound(&self) -> bool {
        let (nodes, voters) = (&self.nodes, &self.voters);
        nodes.len() <= NODES_MAX
            && voters.len() <= NODES_MAX
            && nodes.windows(2).all(|pair| pair[0].name < pair[1].name)
            && voters.windows(2).all(|pair| pair[0] < pair[1])
    }
}

/// How many of so many are more than half.
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

#[cfg(test)]
pub mod fixture {
    use super::*;

    pub fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    /// All voters are nodes; a name with `+` before it is filling.
    pub fn table(number: u64, nodes: &[&str]) -> Table {
        let nodes: Vec<Node> = nodes
            .iter()
            .map(|text| Node {
                name: name(text.trim_start_matches('+')),
                incarnation: 1,
                stage: match text.starts_with('+') {
                    true => Stage::Filling,
                    false => Stage::Serving,
                },
            })
            .collect();
        let epoch = |number| Epoch {
            term: Term { number: 1, mark: 1 },
            number,
        };
        Table {
            epoch: epoch(number),
            parent: epoch(number.saturating_sub(1)),
            chain: epoch(0),
            view: 1,
            voters: nodes.iter().map(|node| node.name.clone()).collect(),
            nodes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::{name, table};
    use super::*;

    #[test]
    fn epochs_grow_by_term_and_then_by_number() {
        let epoch = |term: u64, mark: u64, number: u64| Epoch {
            term: Term { number: term, mark },
            number,
        };
        let ordered = [
            Epoch::default(),
            epoch(1, 5, 9),
            epoch(2, 3, 1),
            epoch(2, 3, 2),
            epoch(2, 4, 0),
        ];
        assert!(ordered.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(epoch(3, 77, 4).to_string(), "3.4");
    }

    #[test]
    fn a_sound_table_is_ordered_and_bounded() {
        let sound = table(1, &["n1", "+n2", "n3"]);
        assert!(sound.is_sound() && sound.has_serving());
        assert!(sound.holds(&name("n2"), 1) && !sound.holds(&name("n2"), 2) && !sound.holds(&name("n4"), 1));
        assert!(!table(1, &["n2", "n1"]).is_sound() && !table(1, &["n1", "n1"]).is_sound());
        assert!(!table(1, &["+n1"]).has_serving());
    }

    #[test]
    fn a_majority_is_more_than_half() {
        assert_eq!([0, 1, 2, 3, 4, 5].map(majority), [1, 1, 2, 2, 3, 3]);
    }
}
