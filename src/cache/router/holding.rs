//! What a table means for this node: which shards it has items of, and which nodes keep copies of what it owns. Pure.
//!
//! Of the class `Sync` the owner, the replica and who will be one of them have all. Of the class `Bulk` only the owner and the node that
//! will be the owner once it is filled: a replica has none, so that it has no old ones when it becomes the owner.

use std::sync::Arc;

use crate::cache::class::Class;
use crate::cache::council::{Node, Placement, Shard, ShardSet, Stage, Table};
use crate::net::mesh::Name;

/// One run of a node with its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub name: Name,
    pub incarnation: u64,
}

/// Shards by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shards {
    pub sync: ShardSet,
    pub bulk: ShardSet,
}

/// A node that keeps copies of shards that this node owns.
#[derive(Clone, Debug)]
pub struct Target {
    pub member: Member,
    pub shards: Shards,
}

#[derive(Clone, Debug)]
pub struct Holding {
    pub placement: Arc<Placement>,
    pub owned: ShardSet,
    /// Items that this node shall have, as the owner or as a copy.
    pub kept: Shards,
    pub targets: Vec<Target>,
}

impl Shards {
    pub fn has(&self, shard: Shard, class: Class) -> bool {
        match class {
            Class::Sync => self.sync.has(shard),
            Class::Bulk => self.bulk.has(shard),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.sync.is_empty() && self.bulk.is_empty()
    }

    #[must_use]
    pub fn minus(&self, other: &Shards) -> Shards {
        Shards {
            sync: self.sync.minus(&other.sync),
            bulk: self.bulk.minus(&other.bulk),
        }
    }

    #[must_use]
    pub fn and(&self, other: &Shards) -> Shards {
        Shards {
            sync: self.sync.and(&other.sync),
            bulk: self.bulk.and(&other.bulk),
        }
    }

    pub fn insert(&mut self, shard: Shard, class: Class) {
        match class {
            Class::Sync => self.sync.insert(shard),
            Class::Bulk => self.bulk.insert(shard),
        }
    }
}

impl Holding {
    pub fn new(placement: Arc<Placement>, own: &Name) -> Self {
        let owned = placement.owned(own);
        let nodes = placement.table().nodes.clone();
        let heirs: Vec<ShardSet> = nodes.iter().map(|node| heir(&placement, node)).collect();
        let others = nodes.iter().zip(&heirs).filter(|(node, _)| node.name != *own);
        let targets = others.map(|(node, heir)| target(&placement, owned, node, heir));
        let bulk = nodes
            .iter()
            .zip(&heirs)
            .find(|(node, _)| node.name == *own)
            .map_or(owned, |(_, heir)| owned.iter().chain(heir.iter()).collect());
        Holding {
            owned,
            kept: Shards {
                sync: placement.held(own),
                bulk,
            },
            targets: targets.filter(|target| !target.shards.is_empty()).collect(),
            placement,
        }
    }
}

/// Shards that another node has become the owner of, or another run of the same one.
pub fn passed_on(before: &Placement, next: &Placement, own: &Name) -> ShardSet {
    let owner = |placement: &Placement, shard| placement.owner(shard).map(|node| (node.name.clone(), node.incarnation));
    let is_passed = |shard: &Shard| {
        let is = owner(next, *shard);
        is != owner(before, *shard) && is.is_none_or(|(name, _)| name != *own)
    };
    Shard::all().filter(is_passed).collect()
}

fn target(placement: &Placement, owned: ShardSet, node: &Node, heir: &ShardSet) -> Target {
    Target {
        member: Member {
            name: node.name.clone(),
            incarnation: node.incarnation,
        },
        shards: Shards {
            sync: placement.held(&node.name).and(&owned),
            bulk: heir.and(&owned),
        },
    }
}

/// What a node that is filling will own if it serves next.
fn heir(placement: &Placement, node: &Node) -> ShardSet {
    if node.stage != Stage::Filling {
        return ShardSet::EMPTY;
    }
    let mut table = Table::clone(placement.table());
    for other in &mut table.nodes {
        if other.name == node.name {
            other.stage = Stage::Serving;
        }
    }
    Placement::new(Arc::new(table)).owned(&node.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::council::fixture::{name, table};

    fn holding(nodes: &[&str], own: &str) -> Holding {
        Holding::new(Arc::new(Placement::new(Arc::new(table(1, nodes)))), &name(own))
    }

    #[test]
    fn a_replica_has_what_is_sync_and_nothing_else() {
        let first = holding(&["n1", "n2", "n3"], "n1");
        assert_eq!(first.kept.bulk, first.owned);
        assert!(first.kept.sync.len() > first.owned.len());
        assert_eq!(first.targets.len(), 2);
        assert!(first.targets.iter().all(|target| target.shards.bulk.is_empty()));
        let copied: usize = first.targets.iter().map(|target| target.shards.sync.len()).sum();
        assert_eq!(copied, first.owned.len(), "each shard has one copy");
        assert!(holding(&["n1"], "n1").targets.is_empty());
        assert!(holding(&["n1"], "n2").kept.is_empty());
    }

    #[test]
    fn a_shard_is_passed_on_when_another_node_gets_it() {
        let (both, all) = (
            Placement::new(Arc::new(table(1, &["n1", "n2"]))),
            Placement::new(Arc::new(table(2, &["n1", "n2", "n3"]))),
        );
        for own in ["n1", "n2"] {
            assert_eq!(passed_on(&both, &all, &name(own)), all.owned(&name("n3")));
        }
        assert!(passed_on(&both, &all, &name("n3")).is_empty());
        let from_n3 = passed_on(&all, &both, &name("n1"));
        assert!(!from_n3.is_empty() && from_n3 == all.owned(&name("n3")).and(&both.owned(&name("n2"))));
        let mut returned = table(3, &["n1", "n2"]);
        returned.nodes[1].incarnation += 1;
        let returned = Placement::new(Arc::new(returned));
        assert_eq!(passed_on(&both, &returned, &name("n1")), both.owned(&name("n2")));
    }

    #[test]
    fn who_is_filled_gets_bulk_where_it_will_own() {
        let (owner, filled) = (holding(&["n1", "n2", "+n3"], "n1"), holding(&["n1", "n2", "+n3"], "n3"));
        let target = owner.targets.iter().find(|target| target.member.name == name("n3"));
        let target = target.expect("it gets some");
        let next = holding(&["n1", "n2", "n3"], "n3");
        assert!(filled.owned.is_empty());
        assert_eq!(target.shards.bulk, next.owned.and(&owner.owned));
        assert_eq!((filled.kept.bulk, filled.kept.sync), (next.owned, next.kept.sync));
        // Nothing that it was given is dropped when it serves.
        assert!(filled.kept.minus(&next.kept).is_empty());
    }
}
