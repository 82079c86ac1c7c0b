//! From the registry, the heartbeats and the reports of this node to the snapshot that the modules get. Pure.

use std::collections::BTreeMap;

use super::overview::{Overview, Row};
use super::report::Phase;
use crate::base::Health;
use crate::cluster::{Fit, Member, Role, Seat, Snapshot, Standing};
use crate::registry::{Node, NodeState, View};

/// The snapshot of a node that has enrolled itself as `own`. `others`: whose heart beats, and what they are fit for.
pub fn snapshot(view: &View, own: &str, fit: Fit, others: &BTreeMap<String, (bool, u32)>) -> Snapshot {
    let member = |node: &Node| {
        let standing = match node.state {
            NodeState::Joining => Standing::Joining,
            NodeState::Member => Standing::Member,
            NodeState::Draining => Standing::Draining,
            NodeState::Left => return None,
        };
        let (is_live, fit) = match node.name == own {
            true => (true, fit),
            false => others
                .get(&node.name)
                .map_or((false, Fit::NONE), |(is_live, fit)| (*is_live, Fit(*fit))),
        };
        let fit = kept_out(node).fold(fit, Fit::without);
        Some(Member {
            name: node.name.clone(),
            address: node.address.parse().ok(),
            standing,
            is_live,
            fit,
        })
    };
    Snapshot {
        revision: view.revision,
        own: own.to_string(),
        nodes: view.nodes().filter_map(member).collect(),
        seats: view
            .roles()
            .filter_map(|role| {
                Some(Seat {
                    // A role that this program does not know is another one's business.
                    role: Role::parse(&role.role)?,
                    seat: role.seat.clone(),
                    holder: role.holder.clone(),
                    epoch: role.epoch,
                })
            })
            .collect(),
        settings: view
            .settings()
            .map(|setting| (setting.key.clone(), setting.value.clone()))
            .collect(),
        left: view
            .nodes()
            .filter(|node| node.state == NodeState::Left)
            .map(|node| node.name.clone())
            .collect(),
        is_stale: view.is_last_seen,
    }
}

/// The same with what this node knows of its own database by now; whether that differs.
pub fn renew(snapshot: &mut Snapshot, fit: Fit) -> bool {
    let own = snapshot.own.clone();
    let Some(own) = snapshot.nodes.iter_mut().find(|node| node.name == own) else {
        return false;
    };
    let database = Fit::DB.with(Fit::READS);
    let renewed = own.fit.without(database).with(Fit(fit.0 & database.0));
    std::mem::replace(&mut own.fit, renewed) != renewed
}

/// What the operator keeps from a node by the labels `edge=no`, `cron=no`, `web=no`.
fn kept_out(node: &Node) -> impl Iterator<Item = Fit> {
    let labels = [("edge", Fit::EDGE), ("cron", Fit::CRON), ("web", Fit::WEB)];
    let kept = labels
        .into_iter()
        .filter(|(label, _)| node.labels.get(*label).is_some_and(|value| value == "no"));
    kept.map(|(_, fit)| fit)
}

/// What the configuration lets this node do for all.
#[derive(Clone, Copy, Debug)]
pub struct Runs {
    /// Its module "cache" is one, and not the way to another node's.
    pub cache: bool,
    pub cron: bool,
    /// It gets certificates.
    pub acme: bool,
    /// It has a schedule of backups, of a database that all nodes have.
    pub backup: bool,
}

/// What this node is fit for, by its services and its copy of the files.
pub fn fit(own: &Overview, runs: Runs) -> Fit {
    let (is_whole, leads) = own.facts.copy();
    let full = own.facts.is_database_full;
    let files = [(is_whole, Fit::FILES), (leads, Fit::LEADER), (full, Fit::FULL)];
    let files = files.into_iter().filter(|(is_fit, _)| *is_fit);
    files.fold(by_services(&own.services, runs), |fit, (_, bit)| fit.with(bit))
}

fn by_services(services: &[Row], runs: Runs) -> Fit {
    let is_ready = |name: &str| {
        let mut rows = services.iter();
        rows.any(|row| row.name == name && row.phase == Phase::Ready && row.health <= Health::Degraded)
    };
    let has = |name: &str| services.iter().any(|row| row.name == name);
    let mut fit = Fit::NONE;
    let front = is_ready("proxy");
    let web = front && is_ready("php-fpm") && (!has("mount") || is_ready("mount"));
    for (is_fit, bit) in [
        (front, Fit::FRONT.with(Fit::EDGE)),
        (web, Fit::WEB),
        (web && runs.cron, Fit::CRON),
        (front && runs.acme, Fit::ACME),
        (is_ready("mariadb"), Fit::DB),
        (runs.backup && is_ready("mariadb"), Fit::BACKUP),
        (runs.cache && is_ready("cache"), Fit::CACHE),
    ] {
        if is_fit {
            fit = fit.with(bit);
        }
    }
    fit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Kind;
    use crate::config::Port;
    use crate::registry::{Record, Role as Seated};

    fn row(name: &str, phase: Phase) -> Row {
        Row {
            name: name.into(),
            kind: Kind::Module,
            phase,
            health: Health::Good,
            pid: None,
            restarts: 0,
            seconds: 0,
            detail: String::new(),
        }
    }

    fn node(name: &str, state: NodeState) -> Record {
        Record::Node(Node {
            name: name.into(),
            address: "10.0.0.1:7400".into(),
            state,
            labels: BTreeMap::new(),
            version: String::new(),
        })
    }

    #[test]
    fn php_without_its_files_is_no_web_node() {
        let mut rows = vec![row("proxy", Phase::Ready), row("php-fpm", Phase::Ready)];
        let all = Runs {
            cache: true,
            cron: true,
            acme: true,
            backup: true,
        };
        let none = Runs {
            cache: false,
            cron: false,
            acme: false,
            backup: false,
        };
        assert!(by_services(&rows, all).has(Fit::FRONT.with(Fit::WEB).with(Fit::CRON)));
        assert!(!by_services(&rows, none).has(Fit::CRON));
        rows.push(row("mount", Phase::Starting));
        assert_eq!(by_services(&rows, all), Fit::FRONT.with(Fit::EDGE).with(Fit::ACME));
        rows.push(row("cache", Phase::Ready));
        assert!(by_services(&rows, all).has(Fit::CACHE) && !by_services(&rows, none).has(Fit::CACHE));
    }

    #[test]
    fn a_snapshot_shows_who_lives_and_leaves_out_who_left() {
        let role = |role: &str| {
            Record::Role(Seated {
                role: role.into(),
                seat: String::new(),
                holder: Some("n1".into()),
                epoch: 3,
            })
        };
        let records = [
            node("n1", NodeState::Member),
            node("n2", NodeState::Draining),
            node("n3", NodeState::Left),
            role("cron"),
            role("of a newer version"),
        ];
        let others = [("n2".to_string(), (true, Fit::WEB.0))].into();
        let snapshot = snapshot(&View::from_records(records), "n1", Fit::DB, &others);
        let seen: Vec<_> = snapshot
            .nodes
            .iter()
            .map(|node| (node.name.as_str(), node.standing, node.fit))
            .collect();
        assert_eq!(
            seen,
            [("n1", Standing::Member, Fit::DB), ("n2", Standing::Draining, Fit::WEB)]
        );
        assert_eq!(snapshot.holder(Role::Cron).map(|node| node.name.as_str()), Some("n1"));
        assert_eq!(snapshot.seats.len(), 1);
        assert_eq!(snapshot.left, ["n3"]);
        assert_eq!(
            snapshot.nodes[0].port(Port::Proxy).unwrap().to_string(),
            "10.0.0.1:7404"
        );
    }
}
