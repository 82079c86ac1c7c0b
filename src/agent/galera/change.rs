//! From what a node found, and from what it decided, to the change of the registry that comes before the act, with its guards. Pure.

use super::record::{FORCE, Shared, cluster, key, members, server, shared, text};
use crate::cluster::{GALERA, Snapshot};
use crate::db::recovery::{How, Report, Server, Uuid};
use crate::registry::{Change, Guard, Key, Record, Setting, Write};

/// Of a reason, in characters: a line of MariaDB's log.
const LONGEST: usize = 200;

/// The own data are so, and the server does not run.
pub fn down(snapshot: &Snapshot, report: &Report) -> Change {
    let record = Server::Down { report: report.clone() };
    let change = Change::default();
    // The first one of all says with it that there is a Galera cluster.
    let change = match shared(&snapshot.settings) {
        Some(_) => change,
        None => with(change, snapshot, GALERA, Some(text(&Shared::default()))),
    };
    with(change, snapshot, &key(&snapshot.own), Some(text(&record)))
}

/// The server does not run, and what its data are cannot be said. `None`: that is known, or nobody has heard of a server here.
pub fn broken(snapshot: &Snapshot, why: &str) -> Option<Change> {
    let (own, known) = (&snapshot.own, server(&snapshot.settings, &snapshot.own)?);
    if matches!(known, Server::Broken { .. }) {
        return None;
    }
    let why: String = why.chars().take(LONGEST).collect();
    let change = Change::default().and(Write::Event(format!("database: {own} cannot start its own: {why}")));
    let record = Server::Broken {
        why,
        tried: known.tried().cloned(),
    };
    Some(with(change, snapshot, &key(own), Some(text(&record))))
}

/// The server is started now.
pub fn start(snapshot: &Snapshot, how: How, report: &Report) -> Change {
    let record = Server::Started {
        how,
        report: report.clone(),
    };
    let own = &snapshot.own;
    let event = match how {
        How::Join => format!("database: {own} joins the others"),
        How::Anew => format!(
            "database: {own} joins the others with a copy of their data; its own, at {}, had changes that were lost",
            report.position
        ),
        How::Restore => format!("database: {own} starts with all others, from {}", report.position),
        How::Bootstrap => format!("database: {own} begins the cluster, from {}", report.position),
    };
    let mut change = Change::default().and(Write::Event(event));
    if how == How::Bootstrap {
        let mut shared = shared(&snapshot.settings).unwrap_or_default();
        // After data that were given up before, nobody else's fit.
        let has_parted = cluster(snapshot).has_parted(report);
        shared.begin(if has_parted { -1 } else { report.position.seqno });
        // A begin from other data, by the operator's word, is another history.
        shared.history = Some(report.position.uuid).filter(|uuid| !uuid.is_zero());
        change = with(change, snapshot, GALERA, Some(text(&shared)));
        change = with(change, snapshot, FORCE, None);
        // What it was decided from.
        for node in members(snapshot).filter(|node| node.name != *own) {
            change = change.when(guard(snapshot, &key(&node.name)));
        }
    } else {
        change = change.when(guard(snapshot, GALERA));
    }
    with(change, snapshot, &key(own), Some(text(&record)))
}

/// The election that a start belongs to.
pub fn epoch(snapshot: &Snapshot, how: How) -> u64 {
    let epoch = shared(&snapshot.settings).unwrap_or_default().epoch;
    match how {
        How::Bootstrap => epoch.saturating_add(1),
        How::Join | How::Anew | How::Restore => epoch,
    }
}

/// The first node has begun: what it wrote first is the cluster's history. `None`: that is known.
pub fn founded(snapshot: &Snapshot, history: Uuid) -> Option<Change> {
    let mut shared = shared(&snapshot.settings)?;
    if shared.history.is_some() || shared.epoch == 0 {
        return None;
    }
    shared.history = Some(history);
    Some(with(Change::default(), snapshot, GALERA, Some(text(&shared))))
}

/// Puts a setting, or takes it out, if it still is as it was.
fn with(change: Change, snapshot: &Snapshot, key: &str, value: Option<String>) -> Change {
    let old = snapshot.settings.get(key);
    let write = match (value, old) {
        (Some(value), _) => Write::Put(setting(key, &value)),
        (None, Some(_)) => Write::Remove(Key::Setting(key.to_string())),
        (None, None) => return change.when(guard(snapshot, key)),
    };
    change.and(write).when(guard(snapshot, key))
}

fn guard(snapshot: &Snapshot, key: &str) -> Guard {
    match snapshot.settings.get(key) {
        Some(value) => Guard::Is(setting(key, value)),
        None => Guard::Absent(Key::Setting(key.to_string())),
    }
}

fn setting(key: &str, value: &str) -> Record {
    Record::Setting(Setting {
        key: key.to_string(),
        value: value.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::outlook;
    use crate::cluster::Fit;
    use crate::db::recovery::{Position, Start, decide};
    use crate::registry::{Error, MemoryRegistry, Node, NodeState, Registry, View};

    fn report(position: Position) -> Report {
        Report {
            position,
            is_safe: false,
            is_galera: position != Position::NONE,
            has_portal: false,
            view: None,
            epoch: 0,
            was_restored: false,
        }
    }

    fn seen(view: &View, own: &str) -> Snapshot {
        let others = ["n1", "n2"].map(|name| (name.to_string(), (true, 0))).into();
        outlook::snapshot(view, own, Fit::NONE, &others)
    }

    async fn registry() -> MemoryRegistry {
        let registry = MemoryRegistry::new("n1");
        for name in ["n1", "n2"] {
            let node = Node {
                name: name.into(),
                address: "10.0.0.1:7400".into(),
                state: NodeState::Member,
                labels: Default::default(),
                version: String::new(),
            };
            registry.commit(Change::put(Record::Node(node))).await.unwrap();
        }
        registry
    }

    #[tokio::test]
    async fn of_two_that_begin_at_once_one_fails_and_an_old_look_begins_nothing() {
        let registry = registry().await;
        let none = report(Position::NONE);
        let empty = registry.read().await.unwrap();
        let view = registry.commit(down(&seen(&empty, "n1"), &none)).await.unwrap();
        assert_eq!(decide(&cluster(&seen(&view, "n1")), "n1"), Start::Bootstrap);
        let early = start(&seen(&view, "n1"), How::Bootstrap, &none);
        let late = down(&seen(&empty, "n2"), &none);
        assert!(
            matches!(registry.commit(late).await, Err(Error::Stale(_))),
            "there is a cluster already"
        );
        let view = registry.commit(down(&seen(&view, "n2"), &none)).await.unwrap();
        let (first, second) = (
            start(&seen(&view, "n1"), How::Bootstrap, &none),
            start(&seen(&view, "n2"), How::Bootstrap, &none),
        );
        // n2 was not there when the first one was decided; its record does not stand against it, the cluster's does.
        let view = registry.commit(early).await.unwrap();
        for change in [first, second] {
            assert!(matches!(registry.commit(change).await, Err(Error::Stale(_))));
        }
        let snapshot = seen(&view, "n2");
        assert!(matches!(decide(&cluster(&snapshot), "n2"), Start::Wait(_)));
        assert_eq!((epoch(&snapshot, How::Join), epoch(&snapshot, How::Bootstrap)), (1, 2));
        let history = "6d6cace8-e9f2-11f1-9b62-6f11f0bb768b".parse().unwrap();
        let view = registry.commit(founded(&snapshot, history).unwrap()).await.unwrap();
        assert_eq!(cluster(&seen(&view, "n1")).history, Some(history));
        assert_eq!(founded(&seen(&view, "n1"), history), None);
    }

    #[tokio::test]
    async fn who_cannot_start_any_more_says_so_once_and_is_waited_for_by_nobody() {
        let registry = registry().await;
        let position = Position {
            uuid: "6d6cace8-e9f2-11f1-9b62-6f11f0bb768b".parse().unwrap(),
            seqno: 5,
        };
        let view = registry.read().await.unwrap();
        assert_eq!(broken(&seen(&view, "n1"), "why"), None, "it never was a database node");
        let none = report(Position::NONE);
        registry.commit(down(&seen(&view, "n1"), &none)).await.unwrap();
        let view = registry.read().await.unwrap();
        let begin = start(&seen(&view, "n1"), How::Bootstrap, &none);
        let view = registry.commit(begin).await.unwrap();
        let view = registry
            .commit(founded(&seen(&view, "n1"), position.uuid).unwrap())
            .await
            .unwrap();
        // n1 served since; n2 was alone in the last view, and comes back.
        let id = "20000000-0000-0000-0000-000000000002".parse().unwrap();
        let last = Report {
            view: Some(crate::db::recovery::View {
                own: id,
                leader: id,
                number: 7,
                members: [id].into(),
            }),
            epoch: 1,
            ..report(position)
        };
        let view = registry.commit(down(&seen(&view, "n2"), &last)).await.unwrap();
        let decided = decide(&cluster(&seen(&view, "n2")), "n2");
        assert_eq!(decided, Start::Wait("n1 is beginning the cluster".into()));
        let change = broken(&seen(&view, "n1"), &"x".repeat(1000)).unwrap();
        let view = registry.commit(change).await.unwrap();
        assert_eq!(broken(&seen(&view, "n1"), "another line of the log"), None);
        assert_eq!(decide(&cluster(&seen(&view, "n2")), "n2"), Start::Bootstrap);
        assert!(matches!(decide(&cluster(&seen(&view, "n1")), "n1"), Start::Wait(_)));
    }

    #[tokio::test]
    async fn a_node_that_started_meanwhile_breaks_an_election() {
        let registry = registry().await;
        let at = |seqno| {
            report(Position {
                uuid: "6d6cace8-e9f2-11f1-9b62-6f11f0bb768b".parse().unwrap(),
                seqno,
            })
        };
        let view = registry.read().await.unwrap();
        let view = registry.commit(down(&seen(&view, "n1"), &at(5))).await.unwrap();
        let view = registry.commit(down(&seen(&view, "n2"), &at(4))).await.unwrap();
        let begin = start(&seen(&view, "n1"), How::Bootstrap, &at(5));
        registry
            .commit(start(&seen(&view, "n2"), How::Join, &at(4)))
            .await
            .unwrap();
        assert!(matches!(registry.commit(begin).await, Err(Error::Stale(_))));
    }
}
