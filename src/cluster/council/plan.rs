//! `plan`: the table that a leader wants, from the one in force and what it hears of each node. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::View;
use super::message::{Filled, Wish};
use super::table::{Epoch, Node, Stage, Table, majority};
use crate::net::mesh::Name;

/// A node as its leader sees it.
#[derive(Clone, Debug)]
pub struct Peer {
    pub incarnation: u64,
    pub wish: Wish,
    /// It knows the table in force, so it has forgotten its data if it is not in it.
    pub knows_base: bool,
    /// Both hear each other.
    pub is_alive: bool,
    /// It may still be serving: it was given a lease.
    pub is_leased: bool,
    /// Whom it cannot reach.
    pub cut: Vec<Name>,
    pub filled: Vec<Filled>,
}

/// What is seen of the cluster now.
pub struct Scene<'a> {
    pub own: &'a Name,
    pub base: &'a Table,
    /// Without it nobody can be promoted.
    pub is_committed: bool,
    pub peers: &'a BTreeMap<Name, Peer>,
    /// Nodes of `base` that were not heard yet and must be waited for.
    pub awaited: &'a BTreeSet<Name>,
    pub view: Option<&'a View>,
}

/// Nodes and voters of the table that should be in force. What it derives from is the caller's to say.
pub fn plan(scene: &Scene<'_>) -> Table {
    let (view, voters) = scene.voters();
    let mut kept: Vec<Node> = scene
        .base
        .nodes
        .iter()
        .filter(|node| scene.keeps(node))
        .cloned()
        .collect();
    scene.cut_off(&mut kept);
    for node in &mut kept {
        if node.stage == Stage::Filling && scene.is_filled(node) {
            node.stage = Stage::Serving;
        }
    }
    if !kept.iter().any(|node| node.stage == Stage::Serving) {
        // What they were given may lack the newest: they begin empty.
        kept.clear();
    }
    let stage = match kept.is_empty() {
        true => Stage::Serving,
        false => Stage::Filling,
    };
    let joining: Vec<Node> = scene.joining(&kept, stage);
    let mut nodes = kept;
    nodes.extend(joining);
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    Table {
        epoch: Epoch::default(),
        parent: scene.base.epoch,
        chain: scene.base.chain,
        view,
        voters,
        nodes,
    }
}

impl Scene<'_> {
    fn peer(&self, name: &Name) -> Option<&Peer> {
        self.peers.get(name)
    }

    fn is_alive(&self, name: &Name) -> bool {
        self.peer(name).is_some_and(|peer| peer.is_alive)
    }

    /// By the registry; who leads with an older view than the table's changes nothing.
    fn is_member(&self, name: &Name) -> bool {
        match self.view.filter(|view| view.version >= self.base.view) {
            Some(view) => view.members.contains(name),
            None => self.base.voters.contains(name) || self.base.node(name).is_some(),
        }
    }

    fn keeps(&self, node: &Node) -> bool {
        let stays = match self.peer(&node.name) {
            Some(peer) => {
                let is_same = peer.incarnation == node.incarnation && peer.wish == Wish::Serve;
                is_same && (peer.is_alive || peer.is_leased)
            }
            None => self.awaited.contains(&node.name),
        };
        stays && self.is_member(&node.name)
    }

    /// Takes out those without whom all others reach each other: the one with the most broken links first, of equal ones the later name.
    fn cut_off(&self, kept: &mut Vec<Node>) {
        loop {
            let count = |node: &Node| {
                kept.iter()
                    .filter(|other| self.is_broken(&node.name, &other.name))
                    .count()
            };
            let others = kept.iter().filter(|node| node.name != *self.own);
            let worst = others.map(|node| (count(node), node.name.clone())).max();
            match worst {
                Some((1.., name)) => kept.retain(|node| node.name != name),
                _ => return,
            }
        }
    }

    /// Either says that it cannot reach the other one.
    fn is_broken(&self, one: &Name, other: &Name) -> bool {
        let says = |from: &Name, of: &Name| self.peer(from).is_some_and(|peer| peer.cut.contains(of));
        one != other && (says(one, other) || says(other, one))
    }

    fn is_filled(&self, node: &Node) -> bool {
        let filled = Filled {
            node: node.name.clone(),
            incarnation: node.incarnation,
            epoch: self.base.epoch,
        };
        let mut serving = self.base.nodes.iter().filter(|node| node.stage == Stage::Serving);
        let says = |node: &Node| self.peer(&node.name).is_some_and(|peer| peer.filled.contains(&filled));
        self.is_committed && self.is_alive(&node.name) && serving.all(says)
    }

    fn joining(&self, kept: &[Node], stage: Stage) -> Vec<Node> {
        let mut joining: Vec<Node> = Vec::new();
        for (name, peer) in self.peers {
            let is_known = self.base.holds(name, peer.incarnation) || kept.iter().any(|node| node.name == *name);
            let wants =
                peer.is_alive && peer.knows_base && peer.wish == Wish::Serve && !is_known && self.is_member(name);
            let mut present = kept.iter().chain(&joining);
            if wants && !present.any(|node| self.is_broken(name, &node.name)) {
                joining.push(Node {
                    name: name.clone(),
                    incarnation: peer.incarnation,
                    stage,
                });
            }
        }
        joining
    }

    /// One step from the voters of the table towards those of the registry, so that a majority of the old ones and one of the new ones
    /// always have a voter in common; no step that those who are heard could not decide.
    fn voters(&self) -> (u64, Vec<Name>) {
        let (base, version) = (&self.base.voters, self.base.view);
        let Some(view) = self.view.filter(|view| view.version > version) else {
            return (version, base.clone());
        };
        if view.voters == *base {
            return (version, base.clone());
        }
        let added = view.voters.iter().filter(|voter| !base.contains(voter));
        let removed = base.iter().filter(|voter| !view.voters.contains(voter));
        // Whoever has left is about to be cut off: no set may need it a moment longer.
        let (members, left): (Vec<&Name>, Vec<&Name>) = removed.partition(|voter| view.members.contains(voter));
        let removed = left.into_iter().chain(members);
        let (here, away): (Vec<&Name>, Vec<&Name>) = added.partition(|voter| self.is_alive(voter));
        let step = |voter: &Name| {
            let mut voters: Vec<Name> = base.iter().filter(|known| *known != voter).cloned().collect();
            if !base.contains(voter) {
                voters.push(voter.clone());
                voters.sort();
            }
            voters
        };
        let can_decide = |voters: &Vec<Name>| {
            let heard = voters.iter().filter(|voter| self.is_alive(voter)).count();
            heard >= majority(voters.len())
        };
        let mut steps = here.into_iter().chain(removed).chain(away).map(step);
        let voters = steps.find(can_decide).unwrap_or_else(|| base.clone());
        let is_there = voters == view.voters;
        (if is_there { view.version } else { version }, voters)
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::fixture::{name, table};
    use super::*;

    struct World {
        base: Table,
        peers: BTreeMap<Name, Peer>,
        view: Option<View>,
    }

    impl World {
        /// All are there and well.
        fn new(nodes: &[&str]) -> Self {
            let base = table(3, nodes);
            let peers = base.voters.iter().map(|name| (name.clone(), peer(1))).collect();
            World {
                base,
                peers,
                view: None,
            }
        }

        fn peer(&mut self, node: &str) -> &mut Peer {
            self.peers.entry(name(node)).or_insert_with(|| peer(1))
        }

        fn plan(&self) -> Table {
            plan(&Scene {
                own: &name("n1"),
                base: &self.base,
                is_committed: true,
                peers: &self.peers,
                awaited: &BTreeSet::new(),
                view: self.view.as_ref(),
            })
        }

        /// Names with `+` before those that are filling.
        fn nodes(&self) -> Vec<String> {
            let sign = |node: &Node| match node.stage {
                Stage::Serving => node.name.to_string(),
                Stage::Filling => format!("+{}", node.name),
            };
            self.plan().nodes.iter().map(sign).collect()
        }
    }

    fn peer(incarnation: u64) -> Peer {
        Peer {
            incarnation,
            wish: Wish::Serve,
            knows_base: true,
            is_alive: true,
            is_leased: true,
            cut: Vec::new(),
            filled: Vec::new(),
        }
    }

    #[test]
    fn a_lost_node_is_left_out_when_its_lease_is_over_and_comes_back_filling() {
        let mut world = World::new(&["n1", "n2", "n3"]);
        assert_eq!(world.nodes(), ["n1", "n2", "n3"]);
        world.peer("n3").is_alive = false;
        assert_eq!(world.nodes(), ["n1", "n2", "n3"]);
        world.peer("n3").is_leased = false;
        assert_eq!(world.nodes(), ["n1", "n2"]);
        *world.peer("n3") = peer(2);
        world.peer("n3").knows_base = false;
        assert_eq!(world.nodes(), ["n1", "n2"]);
        world.peer("n3").knows_base = true;
        assert_eq!(world.nodes(), ["n1", "n2", "+n3"]);
        world.peer("n3").wish = Wish::Later;
        assert_eq!(world.nodes(), ["n1", "n2"]);
        world.peer("n2").wish = Wish::Vote;
        assert_eq!(world.nodes(), ["n1"]);
    }

    #[test]
    fn a_filled_node_serves_and_a_half_filled_one_alone_begins_empty() {
        let mut world = World::new(&["n1", "n2", "+n3"]);
        let filled = Filled {
            node: name("n3"),
            incarnation: 1,
            epoch: world.base.epoch,
        };
        world.peer("n1").filled.push(filled.clone());
        assert_eq!(world.nodes(), ["n1", "n2", "+n3"]);
        world.peer("n2").filled.push(filled);
        assert_eq!(world.nodes(), ["n1", "n2", "n3"]);
        world.base.epoch.number += 1;
        assert_eq!(world.nodes(), ["n1", "n2", "+n3"]);
        for lost in ["n1", "n2"] {
            (world.peer(lost).is_alive, world.peer(lost).is_leased) = (false, false);
        }
        assert_eq!(world.nodes(), [""; 0]);
        world.peer("n3").incarnation = 2;
        assert_eq!(world.nodes(), ["n3"]);
    }

    #[test]
    fn of_nodes_that_do_not_reach_each_other_the_worst_goes_and_never_the_leader() {
        let mut world = World::new(&["n1", "n2", "n3", "n4"]);
        world.peer("n3").cut = vec![name("n2")];
        assert_eq!(world.nodes(), ["n1", "n2", "n4"]);
        world.peer("n4").cut = vec![name("n2")];
        assert_eq!(world.nodes(), ["n1", "n3", "n4"]);
        world.peer("n2").cut = vec![name("n1"), name("n3"), name("n4")];
        assert_eq!(world.nodes(), ["n1", "n3", "n4"]);
        world.base = table(4, &["n1", "n3", "n4"]);
        world.base.voters = ["n1", "n2", "n3", "n4"].map(name).into();
        assert_eq!(
            world.nodes(),
            ["n1", "n3", "n4"],
            "it does not come back while it is cut off"
        );
        world.peer("n2").cut = Vec::new();
        (world.peer("n3").cut, world.peer("n4").cut) = (Vec::new(), Vec::new());
        assert_eq!(world.nodes(), ["n1", "+n2", "n3", "n4"]);
    }

    #[test]
    fn voters_change_one_by_one_and_only_as_those_who_are_heard_can_decide() {
        let mut world = World::new(&["n1"]);
        let view = |names: &[&str]| {
            Some(View {
                version: 9,
                members: ["n1", "n2", "n3"].map(name).into(),
                voters: names.iter().copied().map(name).collect(),
            })
        };
        world.view = view(&["n1", "n2", "n3"]);
        assert_eq!(world.plan().voters, [name("n1")]);
        world.peer("n3");
        let next = world.plan();
        assert_eq!((next.voters, next.view), (["n1", "n3"].map(name).to_vec(), 1));
        world.base.voters = ["n1", "n3"].map(name).into();
        let next = world.plan();
        assert_eq!((next.voters, next.view), (["n1", "n2", "n3"].map(name).to_vec(), 9));
        let mut world = World::new(&["n1", "n2", "n3"]);
        (world.peer("n3").is_alive, world.peer("n3").is_leased) = (false, false);
        world.view = view(&["n1", "n2"]);
        let next = world.plan();
        assert_eq!((next.voters.len(), next.nodes.len(), next.view), (2, 2, 9));
    }

    #[test]
    fn who_has_left_goes_before_members_that_shall_not_vote() {
        let mut world = World::new(&["n1", "n2", "n3"]);
        world.view = Some(View {
            version: 9,
            members: ["n1", "n2"].map(name).into(),
            voters: vec![name("n1")],
        });
        // n3 is heard still.
        let next = world.plan();
        assert_eq!((next.voters, next.view), (["n1", "n2"].map(name).to_vec(), 1));
        world.base.voters = ["n1", "n2"].map(name).into();
        let next = world.plan();
        assert_eq!((next.voters, next.view), (vec![name("n1")], 9));
    }

    #[test]
    fn a_member_without_a_vote_has_its_part_and_who_left_has_none() {
        let mut world = World::new(&["n1", "n2"]);
        world.base.voters = vec![name("n1")];
        let view = |version, members: &[&str]| {
            Some(View {
                version,
                members: members.iter().copied().map(name).collect(),
                voters: vec![name("n1")],
            })
        };
        world.view = view(1, &["n1", "n2"]);
        assert_eq!(world.nodes(), ["n1", "n2"]);
        world.base.nodes.pop();
        assert_eq!(world.nodes(), ["n1", "+n2"]);
        world.view = view(0, &["n1"]);
        assert_eq!(world.nodes(), ["n1"], "it is not known yet whether it is one");
        world.base.nodes = table(3, &["n1", "n2"]).nodes;
        assert_eq!(world.nodes(), ["n1", "n2"]);
        world.view = view(2, &["n1"]);
        assert_eq!(world.nodes(), ["n1"]);
    }
}
