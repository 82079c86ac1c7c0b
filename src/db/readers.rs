//! Whom the port for reads leads to: nodes whose databases keep up, this one first, the writer last. Pure.
//!
//! A node keeps up while its server answers, within a second, reads that wait for all that the group had agreed on when they were
//! asked (`galera::group`), a few times a second. What others know of that is as old as its heartbeat, but each node also judges itself,
//! and refuses and cuts sessions of others by it: what is read is at most some two seconds old.

use crate::cluster::{Fit, Role, Snapshot};
use crate::net::mesh::Name;
use crate::net::relay::Holding;

/// Nodes to read from, and since which change each has been one of them.
#[derive(Default)]
pub struct Readers {
    known: Vec<Holding>,
    changes: u64,
}

impl Readers {
    /// A node that comes back is another holding: sessions from before are not its any more.
    pub fn choose(&mut self, snapshot: &Snapshot) -> Vec<Holding> {
        self.changes += 1;
        let new = |node: Name| Holding {
            node,
            epoch: self.changes,
        };
        let known = |node: &Name| self.known.iter().find(|holding| holding.node == *node).cloned();
        let chosen = order(snapshot).into_iter();
        let chosen: Vec<Holding> = chosen.map(|node| known(&node).unwrap_or_else(|| new(node))).collect();
        self.known.clone_from(&chosen);
        chosen
    }
}

fn order(snapshot: &Snapshot) -> Vec<Name> {
    let own = snapshot.own.as_str();
    let writer = snapshot.holder(Role::Db).map(|node| node.name.as_str());
    let keeps_up = Fit::DB.with(Fit::READS);
    let nodes = snapshot.nodes.iter().filter(|node| node.takes(keeps_up));
    let mut names: Vec<&str> = nodes.map(|node| node.name.as_str()).collect();
    names.retain(|name| Some(*name) != writer);
    names.sort_by_cached_key(|name| (*name != own, share(own, name)));
    names.extend(writer);
    names.into_iter().filter_map(|name| name.parse().ok()).collect()
}

/// Spreads the nodes that have no copy of their own over the others.
fn share(own: &str, name: &str) -> [u8; 32] {
    *blake3::hash(format!("{own}\0{name}").as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Member, Seat, Standing};

    fn snapshot(own: &str, readers: &[&str]) -> Snapshot {
        let member = |name: &str| Member {
            name: name.into(),
            address: Some("10.0.0.1:7400".parse().unwrap()),
            standing: Standing::Member,
            is_live: true,
            fit: match readers.contains(&name) {
                true => Fit::DB.with(Fit::READS),
                false => Fit::DB,
            },
        };
        Snapshot {
            revision: 1,
            own: own.into(),
            nodes: ["n1", "n2", "n3", "n4"].map(member).into(),
            seats: vec![Seat {
                role: Role::Db,
                seat: String::new(),
                holder: Some("n1".into()),
                epoch: 3,
            }],
            ..Snapshot::default()
        }
    }

    fn names(own: &str, readers: &[&str]) -> Vec<String> {
        order(&snapshot(own, readers)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn this_node_comes_first_and_the_writer_last() {
        assert_eq!(names("n3", &["n1", "n2", "n3"]), ["n3", "n2", "n1"]);
        assert_eq!(names("n2", &["n1"]), ["n1"], "nobody else keeps up");
        let (mut sorted, other) = (
            names("n1", &["n1", "n2", "n3", "n4"]),
            names("n1", &["n1", "n2", "n3", "n4"]),
        );
        assert_eq!(sorted, other, "always the same");
        assert_eq!(sorted.last().map(String::as_str), Some("n1"));
        sorted.sort();
        assert_eq!(sorted, ["n1", "n2", "n3", "n4"]);
    }

    #[test]
    fn nodes_without_a_copy_do_not_all_go_to_one() {
        let first = |own: u32| {
            let snapshot = snapshot(&format!("w{own}"), &["n2", "n3", "n4"]);
            order(&snapshot)[0].to_string()
        };
        let firsts: std::collections::BTreeSet<String> = (0..50).map(first).collect();
        assert_eq!(firsts.len(), 3);
    }

    #[test]
    fn a_node_that_fell_behind_for_a_moment_is_another_one() {
        let mut readers = Readers::default();
        let first = readers.choose(&snapshot("n3", &["n2", "n3"]));
        assert_eq!(readers.choose(&snapshot("n3", &["n2", "n3"])), first);
        let without = readers.choose(&snapshot("n3", &["n2"]));
        assert_eq!(without, first[1..]);
        let again = readers.choose(&snapshot("n3", &["n2", "n3"]));
        assert_eq!(again[1..], first[1..]);
        assert!(again[0].node == first[0].node && again[0].epoch > first[0].epoch);
    }
}
