//! `node list`, `drain`, `undrain`, `label`: what the operator wants of the nodes.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::seats::{Cluster, member};
use super::{Format, period, require_root, table};
use crate::agent::join;
use crate::agent::upgrade::{TURN, Turn, setting};
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::cluster::{Fit, Place, Snapshot};
use crate::config::{Config, Period};
use crate::registry::{Change, Guard, Node, NodeState, Record, Registry, View, Write as Put};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Every node: whether it lives, what it can do and what it holds
    List {
        #[arg(long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Give a node nothing new, and wait until it holds no exclusive role
    Drain(Drain),
    /// Let a drained node work again
    Undrain { node: String },
    /// Set labels of a node, or show them; edge=no, cron=no and web=no keep that work from it
    Label {
        node: String,
        /// KEY=VALUE; KEY= takes it away
        #[arg(value_name = "KEY=VALUE")]
        labels: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct Drain {
    node: String,
    #[arg(long, default_value = "60s", value_parser = period)]
    timeout: Period,
    /// Also the last node that answers requests for PHP
    #[arg(long)]
    force: bool,
}

pub async fn perform(verb: Verb, config: Config) -> anyhow::Result<u8> {
    require_root()?;
    let mut cluster = Cluster::open(&config).await?;
    let code = match verb {
        Verb::List { output } => list(&cluster, output).await,
        Verb::Drain(drain) => drain.perform(&mut cluster).await,
        Verb::Undrain { node } => undrain(&cluster, &node).await,
        Verb::Label { node, labels } => label(&cluster, &node, &labels).await,
    };
    cluster.close().await;
    code
}

async fn list(cluster: &Cluster, output: Format) -> anyhow::Result<u8> {
    let (view, snapshot) = (cluster.registry.read().await?, cluster.snapshot());
    let rows: Vec<Value> = view.nodes().map(|node| row(node, &snapshot)).collect();
    let text = match output {
        Format::Json => serde_json::to_string_pretty(&rows)? + "\n",
        Format::Table => render(&rows),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    let is_well = |row: &Value| row["live"] == json!(true) || row["state"] == json!("left");
    Ok(if rows.iter().all(is_well) {
        EXIT_OK
    } else {
        EXIT_DEGRADED
    })
}

fn row(node: &Node, snapshot: &Snapshot) -> Value {
    let seen = snapshot.node(&node.name);
    let fit = seen.map_or(Fit::NONE, |seen| seen.fit);
    let names = [
        (Fit::FRONT, "front"),
        (Fit::WEB, "web"),
        (Fit::DB, "db"),
        (Fit::CACHE, "cache"),
        (Fit::FILES, "files"),
    ];
    let fit: Vec<&str> = names
        .into_iter()
        .filter(|(bit, _)| fit.has(*bit))
        .map(|(_, name)| name)
        .collect();
    json!({
        "name": node.name,
        "address": node.address,
        "state": node.state,
        "live": seen.is_some_and(|seen| seen.is_live),
        "fit": fit,
        "holds": held(snapshot, &node.name).iter().map(ToString::to_string).collect::<Vec<_>>(),
        "version": node.version,
        "labels": node.labels,
    })
}

fn held(snapshot: &Snapshot, node: &str) -> Vec<Place> {
    let seats = snapshot
        .seats
        .iter()
        .filter(|seat| seat.holder.as_deref() == Some(node));
    seats.map(|seat| Place::new(seat.role, seat.seat.clone())).collect()
}

fn render(rows: &[Value]) -> String {
    let mut table = table::new(&["NODE", "ADDRESS", "STATE", "FIT FOR", "HOLDS", "VERSION", "LABELS"]);
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_string();
        let list = |key: &str, between: &str| {
            let items = row[key].as_array().into_iter().flatten();
            items.filter_map(Value::as_str).collect::<Vec<_>>().join(between)
        };
        let labels = row["labels"].as_object().into_iter().flatten();
        let labels = labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
        let silent = match (&row["live"], text("state").as_str()) {
            (_, "left") | (Value::Bool(true), _) => "",
            _ => ", silent",
        };
        table.add_row([
            text("name"),
            text("address"),
            text("state") + silent,
            list("fit", " "),
            list("holds", ", "),
            text("version"),
            labels.collect::<Vec<_>>().join(" "),
        ]);
    }
    table::text(&table)
}

/// The record of a node that has not left.
fn record<'a>(view: &'a View, name: &str) -> anyhow::Result<&'a Node> {
    let node = view
        .node(name)
        .with_context(|| format!("there is no node {name}; `bitrix-node node list` shows them"))?;
    ensure!(
        node.state != NodeState::Left,
        "{name} was removed from the cluster; its machine may join anew under another name"
    );
    Ok(node)
}

/// Puts a changed record in the place of the old one.
fn replace(old: &Node, new: Node, event: String) -> Change {
    Change::put(Record::Node(new))
        .and(Put::Event(event))
        .when(Guard::Is(Record::Node(old.clone())))
}

/// From one state to another; `None`: it is in that one. While a node has its turn of a roll, also what becomes of it afterwards.
fn turn(view: &View, name: &str, state: NodeState, event: &str) -> anyhow::Result<Option<Change>> {
    let old = record(view, name)?;
    ensure!(
        old.state != NodeState::Joining,
        "{name} has not joined yet; `bitrix-node node remove {name}` calls it off"
    );
    let is_drained = state == NodeState::Draining;
    let rolling = view.setting(TURN).and_then(Turn::parse);
    let rolling = rolling.filter(|turn| turn.node == name && turn.is_drained != is_drained);
    if old.state == state && rolling.is_none() {
        return Ok(None);
    }
    let change = replace(old, Node { state, ..old.clone() }, format!("{name} {event}"));
    Ok(Some(match rolling {
        Some(turn) => {
            let is = Guard::Is(setting(TURN, view.setting(TURN).unwrap_or_default()));
            let wanted = Turn { is_drained, ..turn };
            change.and(Put::Put(setting(TURN, &wanted.to_string()))).when(is)
        }
        None => change,
    }))
}

/// Whether requests for PHP would still be answered without the node. Pure.
fn is_last_web(snapshot: &Snapshot, name: &str) -> bool {
    let is_web = snapshot.node(name).is_some_and(|node| node.takes(Fit::WEB));
    let mut others = snapshot.nodes.iter().filter(|node| node.name != name);
    is_web && !others.any(|node| node.takes(Fit::WEB))
}

impl Drain {
    async fn perform(&self, cluster: &mut Cluster) -> anyhow::Result<u8> {
        let (name, snapshot) = (self.node.as_str(), cluster.snapshot());
        member(&snapshot, name)?;
        if is_last_web(&snapshot, name) && !self.force {
            bail!(
                "{name} is the last live node that answers requests for PHP: without another one the portal stands on a node \
                 that drains. Bring another node up first, or say --force"
            );
        }
        let mut out = std::io::stdout();
        let changed = cluster
            .commit(|view| turn(view, name, NodeState::Draining, "drains"))
            .await?;
        let revision = changed.map_or(0, |view| view.revision);
        let moving = |snapshot: &Snapshot| {
            let mut held = held(snapshot, name);
            held.retain(|place| place.role.moves(&snapshot.settings));
            held
        };
        let mut told = None;
        let say = |snapshot: &Snapshot| {
            let left = moving(snapshot);
            if told.as_ref() != Some(&left) {
                let names: Vec<String> = left.iter().map(ToString::to_string).collect();
                // A reader that went away does not stop the draining.
                let _ = writeln!(std::io::stdout(), "{name} still holds {}", names.join(", "));
                told = Some(left);
            }
        };
        let done = |snapshot: &Snapshot| moving(snapshot).is_empty();
        if cluster.wait(revision, self.timeout.0, done, say).await {
            writeln!(
                out,
                "{name} is drained: it holds no exclusive role, and other nodes get what is new"
            )?;
            return Ok(EXIT_OK);
        }
        let left: Vec<String> = moving(&cluster.snapshot()).iter().map(ToString::to_string).collect();
        bail!(
            "after {} {name} still holds {}; is there another live node that is fit? `bitrix-node node list` shows it. {name} goes on \
             draining; bitrix-node node undrain {name} ends that",
            self.timeout,
            left.join(", ")
        )
    }
}

async fn undrain(cluster: &Cluster, name: &str) -> anyhow::Result<u8> {
    let changed = cluster
        .commit(|view| turn(view, name, NodeState::Member, "works again"))
        .await?;
    let already = if changed.is_some() { "" } else { " already" };
    writeln!(std::io::stdout(), "{name} takes work{already}")?;
    Ok(EXIT_OK)
}

/// The labels after the edits of the command line. Pure.
fn edited(labels: &BTreeMap<String, String>, edits: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut labels = labels.clone();
    for edit in edits {
        let (key, value) = edit
            .split_once('=')
            .with_context(|| format!("{edit:?} is no label; write KEY=VALUE, or KEY= to take it away"))?;
        ensure!(
            ![join::TOKEN, join::KEY].contains(&key),
            "the label {key} is written when a node joins and cannot be changed"
        );
        if ["edge", "cron", "web"].contains(&key) {
            ensure!(
                ["no", ""].contains(&value),
                "{key} is kept from a node by {key}=no, and given back by {key}="
            );
        }
        match value {
            "" => drop(labels.remove(key)),
            value => drop(labels.insert(key.to_string(), value.to_string())),
        }
    }
    Ok(labels)
}

async fn label(cluster: &Cluster, name: &str, edits: &[String]) -> anyhow::Result<u8> {
    let changed = cluster
        .commit(|view| {
            let old = record(view, name)?;
            let labels = edited(&old.labels, edits)?;
            let new = Node { labels, ..old.clone() };
            let event = format!("{name} is labelled {}", edits.join(" "));
            Ok((new != *old).then(|| replace(old, new, event)))
        })
        .await?;
    let view = match changed {
        Some(view) => view,
        None => cluster.registry.read().await?,
    };
    let mut out = std::io::stdout();
    for (key, value) in &record(&view, name)?.labels {
        writeln!(out, "{key}={value}")?;
    }
    Ok(EXIT_OK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Member, Role, Seat, Standing};

    fn live(name: &str, fit: Fit) -> Member {
        Member {
            name: name.into(),
            address: None,
            standing: Standing::Member,
            is_live: true,
            fit,
        }
    }

    fn node(name: &str, state: NodeState) -> Node {
        Node {
            name: name.into(),
            address: "10.0.0.1:7400".into(),
            state,
            labels: [("zone".to_string(), "a".to_string())].into(),
            version: "0.1.0".into(),
        }
    }

    #[test]
    fn the_list_says_who_is_silent_and_who_holds_what() {
        let seat = Seat {
            role: Role::Cron,
            seat: String::new(),
            holder: Some("n1".into()),
            epoch: 2,
        };
        let snapshot = Snapshot {
            nodes: vec![live("n1", Fit::FRONT.with(Fit::WEB))],
            seats: vec![seat],
            ..Snapshot::default()
        };
        let nodes = [
            node("n1", NodeState::Member),
            node("n2", NodeState::Draining),
            node("n3", NodeState::Left),
        ];
        let rows: Vec<Value> = nodes.iter().map(|node| row(node, &snapshot)).collect();
        let expected = "\
NODE  ADDRESS        STATE             FIT FOR    HOLDS  VERSION  LABELS
n1    10.0.0.1:7400  member            front web  cron   0.1.0    zone=a
n2    10.0.0.1:7400  draining, silent                    0.1.0    zone=a
n3    10.0.0.1:7400  left                                0.1.0    zone=a
";
        assert_eq!(render(&rows), expected);
    }

    #[test]
    fn the_last_web_node_is_known() {
        let mut snapshot = Snapshot {
            nodes: vec![live("n1", Fit::WEB), live("n2", Fit::FRONT)],
            ..Snapshot::default()
        };
        assert!(is_last_web(&snapshot, "n1") && !is_last_web(&snapshot, "n2"));
        snapshot.nodes[1].fit = Fit::WEB;
        assert!(!is_last_web(&snapshot, "n1"));
        snapshot.nodes[1].is_live = false;
        assert!(is_last_web(&snapshot, "n1"));
    }

    #[test]
    fn labels_are_set_and_taken_away_and_those_of_the_join_stay() {
        let labels = node("n1", NodeState::Member).labels;
        let edit = |edits: &[&str]| {
            let edits: Vec<String> = edits.iter().map(ToString::to_string).collect();
            edited(&labels, &edits).map_err(|error| error.to_string())
        };
        assert_eq!(
            edit(&["zone=", "web=no"]).unwrap(),
            [("web".into(), "no".into())].into()
        );
        assert!(edit(&["web"]).unwrap_err().contains("KEY=VALUE"));
        assert!(edit(&["web=never"]).unwrap_err().contains("web=no"));
        assert!(edit(&["token=x"]).unwrap_err().contains("cannot be changed"));
    }

    #[test]
    fn only_members_drain() {
        let view = |state| View::from_records([Record::Node(node("n1", state))]);
        let turn = |state| turn(&view(state), "n1", NodeState::Draining, "drains");
        assert!(turn(NodeState::Member).unwrap().is_some());
        assert!(turn(NodeState::Draining).unwrap().is_none());
        assert!(turn(NodeState::Joining).is_err() && turn(NodeState::Left).is_err());
    }

    #[test]
    fn what_is_wanted_during_a_turn_of_a_roll_holds_after_it() {
        let view =
            |turn: &str| View::from_records([Record::Node(node("n1", NodeState::Draining)), setting(TURN, turn)]);
        let wanted = |now: &str, state| {
            let change = turn(&view(now), "n1", state, "drains").unwrap()?;
            let is_guarded = change.guards.contains(&Guard::Is(setting(TURN, now)));
            let mut texts = change.writes.iter().filter_map(|write| match write {
                Put::Put(Record::Setting(setting)) => Some(setting.value.clone()),
                _ => None,
            });
            texts.next().filter(|_| is_guarded)
        };
        assert_eq!(wanted("n1 5", NodeState::Draining).as_deref(), Some("n1 5 drained"));
        assert_eq!(wanted("n1 5 drained", NodeState::Draining), None);
        assert_eq!(wanted("n1 5 drained", NodeState::Member).as_deref(), Some("n1 5"));
        assert_eq!(
            wanted("n2 5", NodeState::Draining),
            None,
            "it is the turn of another one"
        );
    }
}
