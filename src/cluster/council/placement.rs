//! `Placement`: who owns a shard, who keeps its copy, and who is being filled with it. Everybody computes the same from a table. Pure.
//!
//! By rendezvous: the serving nodes are ranked by a hash of shard and name; the first is the owner, the second the replica. So a node that
//! leaves gives each of its shards to the one that has the copy, and no other shard moves.

use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use super::shard::{SHARDS, Shard, ShardSet};
use super::table::{Epoch, Node, Stage, Table};
use crate::net::mesh::Name;

/// Owner and replica, as places in the table.
type Pair = (Option<u8>, Option<u8>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    table: Arc<Table>,
    pairs: Box<[Pair; SHARDS]>,
    /// For each node that is filling, the shards that it will hold if it serves next.
    fillings: Vec<(u8, ShardSet)>,
}

impl Placement {
    pub fn new(table: Arc<Table>) -> Self {
        let place = |index: usize| u8::try_from(index).ok();
        let staged = |wanted: Stage| {
            let nodes = table.nodes.iter().enumerate();
            nodes.filter_map(move |(index, node)| (node.stage == wanted).then(|| place(index))?)
        };
        let serving: Vec<u8> = staged(Stage::Serving).collect();
        let mut pairs = Box::new([(None, None); SHARDS]);
        let mut fillings: Vec<(u8, ShardSet)> = staged(Stage::Filling)
            .map(|filling| (filling, ShardSet::EMPTY))
            .collect();
        let weigh = |shard: Shard, at: u8| (weight(shard, &table.nodes[usize::from(at)].name), at);
        for shard in Shard::all() {
            let best = best_two(serving.iter().map(|at| weigh(shard, *at)));
            pairs[shard.index()] = (best[0].map(|(_, at)| at), best[1].map(|(_, at)| at));
            for (filling, shards) in &mut fillings {
                let own = weigh(shard, *filling);
                if best[1].is_none_or(|second| own > second) {
                    shards.insert(shard);
                }
            }
        }
        Placement { table, pairs, fillings }
    }

    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    pub fn epoch(&self) -> Epoch {
        self.table.epoch
    }

    /// `None`: no node serves.
    pub fn owner(&self, shard: Shard) -> Option<&Node> {
        self.at(self.pairs[shard.index()].0)
    }

    /// `None`: there is one node or none.
    pub fn replica(&self, shard: Shard) -> Option<&Node> {
        self.at(self.pairs[shard.index()].1)
    }

    /// Nodes that are filling and will hold the shard if they serve next.
    pub fn fillers(&self, shard: Shard) -> impl Iterator<Item = &Node> {
        let fillings = self.fillings.iter();
        fillings.filter_map(move |(at, shards)| shards.has(shard).then(|| self.at(Some(*at)))?)
    }

    /// Shards that the node owns.
    pub fn owned(&self, name: &Name) -> ShardSet {
        self.place(name, |place, pair| pair.0 == place)
    }

    /// Shards that the node must have the data of: as owner, as replica, or because it will hold them. All others it drops.
    pub fn held(&self, name: &Name) -> ShardSet {
        let mut held = self.place(name, |place, pair| pair.0 == place || pair.1 == place);
        for (at, shards) in &self.fillings {
            if self.at(Some(*at)).is_some_and(|node| node.name == *name) {
                held = *shards;
            }
        }
        held
    }

    fn place(&self, name: &Name, is: impl Fn(Option<u8>, Pair) -> bool) -> ShardSet {
        let found = self.table.nodes.iter().position(|node| node.name == *name);
        let Some(place) = found.and_then(|index| u8::try_from(index).ok()) else {
            return ShardSet::EMPTY;
        };
        Shard::all()
            .filter(|shard| is(Some(place), self.pairs[shard.index()]))
            .collect()
    }

    fn at(&self, place: Option<u8>) -> Option<&Node> {
        self.table.nodes.get(usize::from(place?))
    }
}

/// The heaviest two, the heaviest first.
fn best_two(weights: impl Iterator<Item = (u64, u8)>) -> [Option<(u64, u8)>; 2] {
    let mut best: [Option<(u64, u8)>; 2] = [None, None];
    for weight in weights {
        if best[0].is_none_or(|first| weight > first) {
            best = [Some(weight), best[0]];
        } else if best[1].is_none_or(|second| weight > second) {
            best[1] = Some(weight);
        }
    }
    best
}

/// Nodes must agree, so the key is fixed.
fn weight(shard: Shard, name: &Name) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(name.as_str().as_bytes());
    hasher.write(&u64::try_from(shard.index()).unwrap_or_default().to_le_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::table::fixture::{name, table};
    use super::*;

    fn placement(nodes: &[&str]) -> Placement {
        Placement::new(Arc::new(table(1, nodes)))
    }

    const NAMES: [&str; 9] = ["n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9"];

    #[test]
    fn shards_are_balanced_and_only_those_of_a_lost_node_move() {
        let mut told = String::new();
        for count in 1..=NAMES.len() {
            let before = placement(&NAMES[..count]);
            let owned: Vec<usize> = NAMES[..count]
                .iter()
                .map(|node| before.owned(&name(node)).len())
                .collect();
            assert_eq!(owned.iter().sum::<usize>(), SHARDS);
            let fair = SHARDS.div_ceil(count);
            let (least, most) = (owned.iter().min(), owned.iter().max());
            told += &format!("{count} nodes: {least:?}..{most:?} shards, fair {fair}\n");
            assert!(
                owned.iter().all(|owned| owned * 2 > fair && *owned < fair * 3 / 2 + 1),
                "{told}"
            );
            for lost in NAMES[..count].iter().filter(|_| count > 1) {
                let rest: Vec<&str> = NAMES[..count].iter().filter(|node| *node != lost).copied().collect();
                let after = placement(&rest);
                for shard in Shard::all() {
                    let (old, new) = (before.owner(shard).expect("some"), after.owner(shard).expect("some"));
                    let heir = match old.name == name(lost) {
                        true => before.replica(shard).expect("two at least"),
                        false => old,
                    };
                    assert_eq!(new.name, heir.name);
                }
            }
        }
        std::io::stderr().write_all(told.as_bytes()).unwrap();
    }

    #[test]
    fn owner_and_replica_differ_and_a_single_node_has_no_replica() {
        let three = placement(&NAMES[..3]);
        assert!(Shard::all().all(|shard| three.owner(shard) != three.replica(shard)));
        let one = placement(&["n1"]);
        assert_eq!(one.owned(&name("n1")), ShardSet::ALL);
        assert!(Shard::all().all(|shard| one.replica(shard).is_none()));
        assert!(placement(&["+n1"]).owner(Shard::of(b"key")).is_none());
    }

    #[test]
    fn who_is_filled_holds_what_it_will_have_when_it_serves_whoever_else_serves_by_then() {
        let filling = placement(&["n1", "n2", "+n3", "+n4"]);
        for next in [
            &["n1", "n2", "n3", "+n4"][..],
            &["n1", "n2", "n3", "n4"],
            &["n1", "n2", "+n3", "n4"],
        ] {
            let next = placement(next);
            for node in ["n3", "n4"] {
                if next
                    .table()
                    .node(&name(node))
                    .is_some_and(|node| node.stage == Stage::Serving)
                {
                    let missing = next.held(&name(node)).minus(&filling.held(&name(node)));
                    assert!(missing.is_empty(), "{node} lacks {}", missing.len());
                }
            }
        }
        let of_n3 = filling.held(&name("n3"));
        let told = Shard::all().filter(|shard| filling.fillers(*shard).any(|node| node.name == name("n3")));
        assert_eq!(told.collect::<ShardSet>(), of_n3);
        assert!((250..430).contains(&of_n3.len()), "two thirds: {}", of_n3.len());
        assert!(filling.owned(&name("n3")).is_empty() && filling.held(&name("n9")).is_empty());
    }

    #[test]
    fn a_shard_stays_where_it_is_over_versions() {
        let five = placement(&NAMES[..5]);
        let owners: Vec<&str> = Shard::all()
            .take(8)
            .map(|shard| five.owner(shard).unwrap().name.as_str())
            .collect();
        assert_eq!(owners, ["n5", "n3", "n4", "n5", "n5", "n5", "n1", "n1"]);
    }
}
