//! From a snapshot of the cluster to the targets of this front. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::cluster::{Fit, Member, Snapshot, Standing};
use crate::config::Port;
use crate::net::mesh::Name;

/// What a snapshot says of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// It is a member, lives, and its PHP sees the portal's files; or nobody knows.
    pub is_fit: bool,
    pub is_draining: bool,
}

impl Said {
    /// Of a node of which nobody says anything.
    pub const UNKNOWN: Said = Said {
        is_fit: true,
        is_draining: false,
    };
}

/// This node and the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// Name of this node; empty where nobody said it.
    pub own: String,
    pub local: Said,
    pub peers: BTreeMap<Name, (SocketAddr, Said)>,
}

impl Default for Roster {
    /// Of a node that is alone, as far as it knows.
    fn default() -> Self {
        Roster {
            own: String::new(),
            local: Said::UNKNOWN,
            peers: BTreeMap::new(),
        }
    }
}

/// A stale snapshot says who is in the cluster, but not who lives: its nodes are left to the judgement of the front.
pub fn roster(snapshot: &Snapshot) -> Roster {
    let others = snapshot.nodes.iter().filter(|node| node.name != snapshot.own);
    let peers = others.filter_map(|node| {
        let (name, address) = (node.name.parse().ok()?, node.port(Port::Proxy)?);
        Some((name, (address, said(node, snapshot.is_stale))))
    });
    let own = snapshot.node(&snapshot.own);
    Roster {
        own: snapshot.own.clone(),
        local: own.map_or(Said::UNKNOWN, |own| said(own, snapshot.is_stale)),
        peers: peers.collect(),
    }
}

fn said(node: &Member, is_stale: bool) -> Said {
    let is_in = node.standing != Standing::Joining;
    Said {
        is_fit: is_in && (is_stale || (node.is_live && node.fit.has(Fit::WEB))),
        is_draining: node.standing == Standing::Draining,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, standing: Standing, is_live: bool, fit: Fit) -> Member {
        Member {
            name: name.into(),
            address: format!("10.0.0.{}:7400", name.len()).parse().ok(),
            standing,
            is_live,
            fit,
        }
    }

    fn snapshot(is_stale: bool) -> Snapshot {
        use Standing::{Draining, Joining, Member};
        Snapshot {
            own: "n1".into(),
            nodes: vec![
                member("n1", Draining, true, Fit::WEB),
                member("fit", Member, true, Fit::WEB.with(Fit::FRONT)),
                member("dead", Member, false, Fit::WEB),
                member("unfit", Member, true, Fit::FRONT),
                member("draining", Draining, true, Fit::WEB),
                member("joining", Joining, true, Fit::WEB),
                super::Member {
                    address: None,
                    ..member("nowhere", Member, true, Fit::WEB)
                },
            ],
            is_stale,
            ..Snapshot::default()
        }
    }

    fn fit(roster: &Roster) -> Vec<&str> {
        let fit = roster.peers.iter().filter(|(_, (_, said))| said.is_fit);
        fit.map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn a_fresh_snapshot_decides_who_is_fit() {
        let roster = roster(&snapshot(false));
        assert_eq!(fit(&roster), ["draining", "fit"]);
        assert_eq!(roster.peers.len(), 5, "the others are kept for bad times");
        assert!(roster.local.is_fit && roster.local.is_draining);
        let (address, _) = roster.peers[&"fit".parse::<Name>().expect("a name")];
        assert_eq!(address.to_string(), "10.0.0.3:7404");
    }

    #[test]
    fn a_stale_snapshot_removes_nobody() {
        assert_eq!(fit(&roster(&snapshot(true))), ["dead", "draining", "fit", "unfit"]);
    }

    #[test]
    fn without_a_cluster_this_node_serves() {
        assert_eq!(roster(&Snapshot::default()), Roster::default());
        let enrolled_later = Snapshot {
            own: "n1".into(),
            ..Snapshot::default()
        };
        assert!(roster(&enrolled_later).local.is_fit);
    }
}
