//! What the registry's settings say of the database nodes. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::cluster::{Fit, GALERA, Member, Snapshot};
use crate::db::recovery::{Cluster, Node, Server, Uuid};

/// Setting: the node that the operator has begin the cluster; whoever begins it takes it out.
pub const FORCE: &str = "db.force";
/// Settings: of each database node, before its name.
const NODE: &str = "db.node.";

/// The setting `GALERA`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// `None`: the first node is just beginning it, or has not yet.
    pub history: Option<Uuid>,
    pub epoch: u64,
    /// The last elections, and the number that each began from.
    #[serde(default)]
    pub begun: Vec<(u64, i64)>,
}

/// Nodes that were away for more of them come back with a copy of the others' data.
const ELECTIONS: usize = 32;

impl Shared {
    /// The next election, from that number.
    pub fn begin(&mut self, seqno: i64) {
        self.epoch = self.epoch.saturating_add(1);
        self.begun.push((self.epoch, seqno));
        let old = self.begun.len().saturating_sub(ELECTIONS);
        self.begun.drain(..old);
    }
}

/// The key of a node's setting.
pub fn key(node: &str) -> String {
    format!("{NODE}{node}")
}

/// `None`: there is none. One that cannot be read counts as if nothing were known of the history: nobody begins by himself then.
pub fn shared(settings: &BTreeMap<String, String>) -> Option<Shared> {
    let text = settings.get(GALERA)?;
    Some(serde_json::from_str(text).unwrap_or_default())
}

pub fn server(settings: &BTreeMap<String, String>, node: &str) -> Option<Server> {
    serde_json::from_str(settings.get(&key(node))?).ok()
}

/// As JSON, for a setting.
pub fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data")
}

/// The members that have said something of a database, once at least.
pub fn members(snapshot: &Snapshot) -> impl Iterator<Item = &Member> {
    let nodes = snapshot.nodes.iter();
    nodes.filter(|node| snapshot.settings.contains_key(&key(&node.name)))
}

/// Where they are.
pub fn group(snapshot: &Snapshot) -> Vec<IpAddr> {
    members(snapshot).filter_map(|node| Some(node.address?.ip())).collect()
}

/// What `db::recovery` decides by.
pub fn cluster(snapshot: &Snapshot) -> Cluster {
    let settings = &snapshot.settings;
    let shared = shared(settings).unwrap_or_default();
    let node = |member: &Member| Node {
        is_live: member.is_live || member.name == snapshot.own,
        is_primary: member.is_live && member.fit.has(Fit::DB),
        server: server(settings, &member.name),
    };
    Cluster {
        nodes: members(snapshot)
            .map(|member| (member.name.clone(), node(member)))
            .collect(),
        history: shared.history,
        epoch: shared.epoch,
        begun: shared.begun,
        forced: settings.get(FORCE).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Standing;
    use crate::db::recovery::{How, Position, Report};

    pub fn report() -> Report {
        Report {
            position: Position::NONE,
            is_safe: false,
            is_galera: false,
            has_portal: false,
            view: None,
            epoch: 0,
            was_restored: false,
        }
    }

    #[test]
    fn who_is_broken_is_read_again_and_what_is_of_a_newer_version_says_nothing() {
        let broken = Server::Broken {
            why: "damaged".into(),
            tried: Some(report()),
        };
        let newer = "{\"server\":\"of a newer version\",\"why\":\"\"}".to_string();
        let settings = [(key("n1"), text(&broken)), (key("n2"), newer)].into();
        assert_eq!((server(&settings, "n1"), server(&settings, "n2")), (Some(broken), None));
    }

    #[test]
    fn only_members_that_said_something_are_database_nodes() {
        let member = |name: &str, is_live, fit| Member {
            name: name.into(),
            address: Some("10.0.0.1:7400".parse().unwrap()),
            standing: Standing::Member,
            is_live,
            fit,
        };
        let started = Server::Started {
            how: How::Join,
            report: report(),
        };
        let settings = [
            (key("n1"), text(&started)),
            (key("n2"), "of a newer version".to_string()),
            (key("n9"), text(&started)),
            (GALERA.to_string(), "{\"history\":null,\"epoch\":3}".to_string()),
        ];
        let snapshot = Snapshot {
            own: "n1".into(),
            nodes: vec![
                member("n1", true, Fit::DB),
                member("n2", false, Fit::DB),
                member("n3", true, Fit::NONE),
            ],
            settings: settings.into(),
            ..Snapshot::default()
        };
        let cluster = cluster(&snapshot);
        assert_eq!(cluster.nodes.keys().collect::<Vec<_>>(), ["n1", "n2"]);
        assert_eq!((cluster.epoch, cluster.history, group(&snapshot).len()), (3, None, 2));
        assert!(cluster.nodes["n1"].is_primary && cluster.nodes["n1"].server == Some(started));
        assert_eq!(
            cluster.nodes["n2"],
            Node {
                is_live: false,
                is_primary: false,
                server: None
            }
        );
    }
}
