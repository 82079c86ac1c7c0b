//! `db`: the nodes of a Galera cluster, whom PHP writes to, and the operator's word where nothing can be proven.

use std::io::Write;

use anyhow::{bail, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::db_check::Check;
use super::db_shell::Shell;
use super::role::Transfer;
use super::seats::{Cluster, member};
use super::settle::is_agreed;
use super::{Format, require_root, table};
use crate::agent::galera::{FORCE, cluster};
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::cluster::{Fit, GALERA, Member, Role, Snapshot};
use crate::config::Config;
use crate::db::recovery::{self, How, Node, Server, Start};
use crate::registry::{Change, Guard, Key, Record, Setting, View, Write as Put};

#[derive(Debug, Subcommand)]
pub enum Verb {
    #[command(flatten)]
    OfCluster(OfCluster),
    /// Tables and settings of the database here that a Galera cluster or the portal cannot live with
    Check(Check),
    /// MariaDB's client in the portal's database, where PHP writes to
    Shell(Shell),
}

#[derive(Debug, Subcommand)]
pub enum OfCluster {
    /// Each database node: what its data are, what it does, and why it waits
    Status {
        #[arg(long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Have PHP write to another node from now on
    Failover { node: String },
    /// Begin the cluster from one node's data where it cannot be proven that they are the newest
    Bootstrap(Bootstrap),
}

#[derive(Debug, Args)]
pub struct Bootstrap {
    /// The node whose data count. What others have and it does not is lost
    #[arg(long, value_name = "NODE")]
    force: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub async fn perform(verb: Verb, config: Config) -> anyhow::Result<u8> {
    require_root()?;
    let verb = match verb {
        Verb::Check(check) => return check.perform(&config).await,
        Verb::Shell(shell) => return shell.perform(&config),
        Verb::OfCluster(verb) => verb,
    };
    let mut open = Cluster::open(&config).await?;
    let snapshot = open.snapshot();
    let code = match verb {
        _ if !snapshot.settings.contains_key(GALERA) => Err(anyhow::anyhow!(
            "this cluster has no Galera nodes: none runs with db.galera = true"
        )),
        OfCluster::Status { output } => status(&snapshot, output),
        OfCluster::Failover { node } => Transfer::of(Role::Db, node).perform(&mut open).await,
        OfCluster::Bootstrap(bootstrap) => bootstrap.perform(&open).await,
    };
    open.close().await;
    code
}

fn status(snapshot: &Snapshot, output: Format) -> anyhow::Result<u8> {
    let rows = rows(snapshot);
    let text = match output {
        Format::Json => serde_json::to_string_pretty(&rows)? + "\n",
        Format::Table => render(&rows) + &of_two(snapshot).unwrap_or_default(),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    if snapshot.is_stale {
        eprintln!("bitrix-node: the registry does not answer; this is what this node saw last");
    }
    let is_well = rows.iter().all(|row| row["state"] == "synced") && !snapshot.is_stale;
    Ok(if is_well { EXIT_OK } else { EXIT_DEGRADED })
}

/// What becomes of two machines that lose one another.
fn of_two(snapshot: &Snapshot) -> Option<String> {
    let known = cluster(snapshot);
    let leads = |node: &&Member| node.is_live && node.fit.has(Fit::LEADER);
    let first = snapshot.nodes.iter().find(leads)?;
    let second = snapshot.nodes.iter().find(|node| node.name != first.name)?;
    (snapshot.nodes.len() == 2 && known.nodes.len() == 2).then(|| {
        format!(
            "{0} goes on without {1}; {1} waits for {0}. With a third node, which needs no data (db.arbiter), either goes on\n",
            first.name, second.name
        )
    })
}

fn rows(snapshot: &Snapshot) -> Vec<Value> {
    let known = cluster(snapshot);
    let writer = snapshot.holder(Role::Db).map(|node| node.name.as_str());
    let row = |(name, node): (&String, &Node)| {
        let (state, why) = state(&known, name, node);
        let is_full = state == "synced" && snapshot.node(name).is_some_and(|node| !node.has_room(Role::Db));
        let why = if is_full { "its disk is full".into() } else { why };
        let report = node.server.as_ref().and_then(Server::report);
        json!({
            "node": name,
            "writer": writer == Some(name.as_str()),
            "state": state,
            "reads": snapshot.node(name).is_some_and(|node| node.is_live && node.fit.has(Fit::DB.with(Fit::READS))),
            "position": report.filter(|_| state != "synced").map(|report| report.position.to_string()),
            "why": why,
        })
    };
    known.nodes.iter().map(row).collect()
}

/// In a word, and what there is to say of it.
fn state(known: &recovery::Cluster, name: &str, node: &Node) -> (&'static str, String) {
    match &node.server {
        _ if !node.is_live => ("silent", String::new()),
        _ if node.is_primary => ("synced", String::new()),
        Some(Server::Started { how, .. }) => {
            let why = match how {
                How::Join => "joins the others, or has lost them",
                How::Anew => "joins the others with a copy of their data",
                How::Restore => "starts with all others",
                How::Bootstrap => "begins the cluster, or has lost the others",
            };
            ("started", why.into())
        }
        Some(Server::Down { .. }) => match recovery::decide(known, name) {
            Start::Wait(why) => ("waits", why),
            Start::Refuse(why) => ("refused", why),
            Start::Join | Start::JoinAnew | Start::WithPosition | Start::Bootstrap => ("starts", String::new()),
        },
        Some(Server::Broken { why, .. }) => ("broken", why.clone()),
        None => ("unknown", "it has not reported".into()),
    }
}

fn render(rows: &[Value]) -> String {
    let mut table = table::new(&["NODE", "WRITER", "READS", "STATE", "LAST POSITION", ""]);
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap_or("-").to_string();
        let is = |key: &str| if row[key] == true { "yes" } else { "" }.to_string();
        table.add_row([
            text("node"),
            is("writer"),
            is("reads"),
            text("state"),
            text("position"),
            text("why"),
        ]);
    }
    table::text(&table)
}

impl Bootstrap {
    async fn perform(&self, open: &Cluster) -> anyhow::Result<u8> {
        let snapshot = open.snapshot();
        member(&snapshot, &self.force)?;
        let known = cluster(&snapshot);
        let lost = lost(&known, &self.force)?;
        let mut out = std::io::stdout();
        write!(out, "{lost}")?;
        if !self.yes && !is_agreed()? {
            writeln!(out, "nothing was changed")?;
            return Ok(EXIT_DEGRADED);
        }
        let change = |view: &View| {
            let setting = |value: &str| {
                Record::Setting(Setting {
                    key: FORCE.into(),
                    value: value.into(),
                })
            };
            let guard = match view.setting(FORCE) {
                Some(value) => Guard::Is(setting(value)),
                None => Guard::Absent(Key::Setting(FORCE.into())),
            };
            let event = format!("database: the operator has {} begin the cluster", self.force);
            Ok(Some(
                Change::put(setting(&self.force)).and(Put::Event(event)).when(guard),
            ))
        };
        open.commit(change).await?;
        writeln!(
            out,
            "{} begins the cluster; `bitrix-node db status` shows it",
            self.force
        )?;
        Ok(EXIT_OK)
    }
}

/// What the operator gives up by that. Fails where there is no need of his word, or no use.
fn lost(known: &recovery::Cluster, name: &str) -> anyhow::Result<String> {
    let primary = known.nodes.iter().find(|(_, node)| node.is_live && node.is_primary);
    if let Some((primary, _)) = primary {
        bail!("{primary} serves the data already, and the others join it; there is nothing to force");
    }
    let node = known.nodes.get(name);
    let live = node.filter(|node| node.is_live).and_then(|node| node.server.as_ref());
    let Some(server) = live else {
        bail!("{name} says nothing of its database; start bitrix-node there, and see `bitrix-node db status`")
    };
    let Some(chosen) = server.report() else {
        bail!("what the data of {name} are is not known: see `bitrix-node db status`")
    };
    ensure!(
        recovery::decide(known, name) != Start::Bootstrap,
        "{name} begins the cluster by itself just now"
    );
    let is_known = matches!(server, Server::Down { .. });
    let at = match is_known {
        true => format!("at {}", chosen.position),
        false => "which runs without the others, and is ended first".to_string(),
    };
    let mut text = format!("The cluster begins from the data of {name}, {at}.\n");
    for (other, node) in known.nodes.iter().filter(|(other, _)| *other != name) {
        let report = node.server.as_ref().and_then(Server::report);
        let is_here = is_known && node.is_live && matches!(node.server, Some(Server::Down { .. }));
        let line = match report {
            Some(report) if is_here && report.position.uuid == chosen.position.uuid => {
                let more = report.position.seqno.saturating_sub(chosen.position.seqno);
                match more > 0 {
                    true => format!("{other} has {more} changes that {name} has not: they are LOST"),
                    false => format!("{other} has nothing that {name} has not"),
                }
            }
            Some(report) if is_here && report.position.uuid.is_zero() => format!("{other} has no data"),
            Some(report) if is_here => format!(
                "{other} has data of another history ({}): it will not join",
                report.position.uuid
            ),
            _ => format!("{other}: whatever it has more than {name} is LOST; how much that is cannot be known now"),
        };
        text += &format!("  {line}\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Standing;
    use crate::db::recovery::{Position, Report};

    fn node(seqno: i64, is_live: bool) -> Node {
        Node {
            is_live,
            is_primary: false,
            server: Some(Server::Down {
                report: Report {
                    position: Position {
                        uuid: "6d6cace8-e9f2-11f1-9b62-6f11f0bb768b".parse().unwrap(),
                        seqno,
                    },
                    is_safe: false,
                    is_galera: true,
                    has_portal: true,
                    view: None,
                    epoch: 0,
                    was_restored: false,
                },
            }),
        }
    }

    #[test]
    fn of_two_machines_it_is_said_which_one_goes_on() {
        let member = |name: &str, fit| Member {
            name: name.into(),
            address: None,
            standing: Standing::Member,
            is_live: true,
            fit,
        };
        let down = serde_json::to_string(&node(1, true).server).unwrap();
        let mut snapshot = Snapshot {
            nodes: vec![member("n1", Fit::DB), member("n2", Fit::LEADER)],
            settings: ["n1", "n2"]
                .map(|name| (format!("db.node.{name}"), down.clone()))
                .into(),
            ..Snapshot::default()
        };
        let text = of_two(&snapshot).unwrap();
        assert!(text.starts_with("n2 goes on without n1; n1 waits for n2."), "{text}");
        snapshot.nodes.push(member("n3", Fit::NONE));
        assert_eq!(of_two(&snapshot), None);
    }

    #[test]
    fn what_is_lost_is_named_before_it_is() {
        let nodes = [("n1", node(64, true)), ("n2", node(115, true)), ("n3", node(7, false))];
        let mut known = recovery::Cluster {
            nodes: nodes.map(|(name, node)| (name.to_string(), node)).into(),
            history: Some("6d6cace8-e9f2-11f1-9b62-6f11f0bb768b".parse().unwrap()),
            ..recovery::Cluster::default()
        };
        let text = lost(&known, "n1").unwrap();
        assert!(
            text.contains("n2 has 51 changes that n1 has not: they are LOST\n"),
            "{text}"
        );
        assert!(text.contains("n3: whatever it has more than n1 is LOST;"), "{text}");
        assert!(lost(&known, "n2").unwrap().contains("n1 has nothing that n2 has not\n"));
        lost(&known, "n3").expect_err("it is not here");
        known.nodes.get_mut("n1").unwrap().server = Some(Server::Broken {
            why: "[ERROR] InnoDB: corruption".into(),
            tried: None,
        });
        lost(&known, "n1").expect_err("nobody knows what it has");
        assert!(
            lost(&known, "n2")
                .unwrap()
                .contains("n1: whatever it has more than n2 is LOST;")
        );
        assert_eq!(
            state(&known, "n1", &known.nodes["n1"]),
            ("broken", "[ERROR] InnoDB: corruption".to_string())
        );
        known.nodes.get_mut("n2").unwrap().is_primary = true;
        lost(&known, "n1").expect_err("somebody serves");
    }
}
