//! `role`: who holds the exclusive seats, and who shall.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::seats::{Cluster, member, named, obstacle};
use super::{Format, period, require_root, table};
use crate::agent::role;
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::cluster::{Directions, PINS, Place, Role, Snapshot, TRANSFERS, places};
use crate::config::{Config, Period};
use crate::registry::{Change, View, Write as Put};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Each seat: who holds it, under which epoch, and who shall
    List {
        #[arg(long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Keep a role on one node, unless that is dead or unfit
    Pin {
        /// edge, cron, backup, or one seat: edge/10.0.0.10
        role: String,
        node: String,
    },
    /// Let the nodes decide again
    Unpin { role: String },
    /// Move a role to a node now, and wait until it is there
    Transfer(Transfer),
}

/// As long as `role transfer` waits by itself.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub struct Transfer {
    /// cron, edge, db, backup, or one seat: edge/10.0.0.10
    role: String,
    node: String,
    #[arg(long, default_value = "30s", value_parser = period)]
    timeout: Period,
}

pub async fn perform(verb: Verb, config: Config) -> anyhow::Result<u8> {
    require_root()?;
    let mut cluster = Cluster::open(&config).await?;
    let code = match verb {
        Verb::List { output } => list(&cluster.snapshot(), output),
        Verb::Pin { role, node } => pin(&cluster, &role, Some(&node)).await,
        Verb::Unpin { role } => pin(&cluster, &role, None).await,
        Verb::Transfer(transfer) => transfer.perform(&mut cluster).await,
    };
    cluster.close().await;
    code
}

fn list(snapshot: &Snapshot, output: Format) -> anyhow::Result<u8> {
    let rows = rows(snapshot);
    let text = match output {
        Format::Json => serde_json::to_string_pretty(&rows)? + "\n",
        Format::Table => render(&rows),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    if snapshot.is_stale {
        eprintln!("bitrix-node: the registry does not answer; this is what this node saw last");
        return Ok(EXIT_DEGRADED);
    }
    Ok(EXIT_OK)
}

/// Seats that shall be held, then those that are held only still.
fn rows(snapshot: &Snapshot) -> Vec<Value> {
    let mut all = places(&snapshot.settings);
    for seat in &snapshot.seats {
        let place = Place::new(seat.role, seat.seat.clone());
        if !all.contains(&place) && seat.holder.is_some() {
            all.push(place);
        }
    }
    let directions = |key: &str| Directions::parse(snapshot.settings.get(key).map_or("", String::as_str));
    let (pins, transfers) = (directions(PINS), directions(TRANSFERS));
    let row = |place: &Place| {
        let mut seats = snapshot.seats.iter();
        let record = seats.find(|seat| seat.role == place.role && seat.seat == place.seat);
        let holder = record.and_then(|record| record.holder.as_deref());
        json!({
            "role": place.role,
            "seat": place.seat,
            "holder": holder,
            "live": holder.map(|holder| snapshot.node(holder).is_some_and(|node| node.is_live)),
            "epoch": record.map(|record| record.epoch),
            "pin": pins.node(place),
            "transfer": transfers.node(place),
        })
    };
    all.iter().map(row).collect()
}

fn render(rows: &[Value]) -> String {
    let mut table = table::new(&["ROLE", "SEAT", "HOLDER", "EPOCH", "PINNED TO", "ON ITS WAY TO"]);
    for row in rows {
        let text = |key: &str| match &row[key] {
            Value::Null => "-".to_string(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let silent = if row["live"] == json!(false) { " (silent)" } else { "" };
        let holder = text("holder") + silent;
        table.add_row([
            text("role"),
            text("seat"),
            holder,
            text("epoch"),
            text("pin"),
            text("transfer"),
        ]);
    }
    table::text(&table)
}

/// Changes one of the settings that direct seats; `None`: there is nothing to change.
fn direct(view: &View, key: &str, event: String, edit: impl FnOnce(&mut Directions)) -> Option<Change> {
    let (write, guard) = role::direct(key, view.setting(key), edit)?;
    Some(Change::default().and(write).and(Put::Event(event)).when(guard))
}

async fn pin(cluster: &Cluster, role: &str, node: Option<&str>) -> anyhow::Result<u8> {
    let snapshot = cluster.snapshot();
    let mut out = std::io::stdout();
    // A whole role also has the seats that come later.
    let keys: Vec<String> = match role.contains('/') {
        true => named(&snapshot, role)?.iter().map(Place::key).collect(),
        false => {
            if role != "edge" {
                named(&snapshot, role)?;
            }
            vec![role.to_string()]
        }
    };
    if let Some(node) = node {
        member(&snapshot, node)?;
    }
    let what = keys.join(", ");
    let event = match node {
        Some(node) => format!("{what} is pinned to {node}"),
        None => format!("{what} is pinned to no node any more"),
    };
    let changed = cluster
        .commit(|view| {
            Ok(direct(view, PINS, event.clone(), |pins| {
                for key in &keys {
                    match node {
                        Some(node) => pins.put(key.clone(), node),
                        None => drop(pins.remove(key)),
                    }
                }
            }))
        })
        .await?;
    match changed {
        Some(_) => writeln!(out, "{event}")?,
        None => writeln!(out, "{event} already")?,
    }
    Ok(EXIT_OK)
}

impl Transfer {
    /// Of a role with one seat.
    pub fn of(role: Role, node: String) -> Self {
        Transfer {
            role: role.name().to_string(),
            node,
            timeout: Period(TIMEOUT),
        }
    }

    pub async fn perform(&self, cluster: &mut Cluster) -> anyhow::Result<u8> {
        let snapshot = cluster.snapshot();
        let places = named(&snapshot, &self.role)?;
        let node = member(&snapshot, &self.node)?;
        ensure!(
            !snapshot.is_stale,
            "the registry does not answer; nothing can be moved now"
        );
        let holds = |snapshot: &Snapshot, place: &Place| {
            snapshot.seats.iter().any(|seat| {
                (seat.role, &seat.seat) == (place.role, &place.seat) && seat.holder.as_ref() == Some(&self.node)
            })
        };
        let moving: Vec<Place> = places.into_iter().filter(|place| !holds(&snapshot, place)).collect();
        let mut out = std::io::stdout();
        let Some(first) = moving.first() else {
            writeln!(out, "{} has {} already", self.node, self.role)?;
            return Ok(EXIT_OK);
        };
        if let Some(obstacle) = obstacle(node, first.role) {
            bail!("{obstacle}");
        }
        let started = Instant::now();
        let names = moving.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let event = format!("{names}: the operator wants it on {}", self.node);
        let change = |view: &View| {
            Ok(direct(view, TRANSFERS, event.clone(), |transfers| {
                moving.iter().for_each(|place| transfers.put(place.key(), &self.node));
            }))
        };
        let revision = cluster.commit(change).await?.map_or(0, |view| view.revision);
        let done = |snapshot: &Snapshot| moving.iter().all(|place| holds(snapshot, place));
        if cluster.wait(revision, self.timeout.0, done, |_| {}).await {
            let seconds = started.elapsed().as_secs_f64();
            writeln!(out, "{} has {names}, after {seconds:.1} s", self.node)?;
            return Ok(EXIT_OK);
        }
        let event = format!("{names}: the move to {} is called off", self.node);
        let call_off = |view: &View| {
            Ok(direct(view, TRANSFERS, event.clone(), |transfers| {
                for place in &moving {
                    if transfers.node(place) == Some(&self.node) {
                        transfers.remove(&place.key());
                    }
                }
            }))
        };
        cluster.commit(call_off).await?;
        bail!(
            "{} did not take {names} within {}; the move is called off. `bitrix-node events` shows what happened",
            self.node,
            self.timeout
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{ADDRESSES, Fit, Member, Seat, Standing};
    use crate::registry::{Guard, Key, Record, Setting};

    #[test]
    fn seats_nobody_holds_are_shown_too() {
        let node = Member {
            name: "n1".into(),
            address: None,
            standing: Standing::Member,
            is_live: false,
            fit: Fit::NONE,
        };
        let seat = Seat {
            role: Role::Edge,
            seat: "10.0.0.10/24".into(),
            holder: Some("n1".into()),
            epoch: 7,
        };
        let settings = [
            (ADDRESSES, "10.0.0.10/24"),
            (PINS, "cron=n2"),
            (TRANSFERS, "edge/10.0.0.10/24=n3"),
        ];
        let snapshot = Snapshot {
            nodes: vec![node],
            seats: vec![seat],
            settings: settings.map(|(key, value)| (key.to_string(), value.to_string())).into(),
            ..Snapshot::default()
        };
        let expected = "\
ROLE   SEAT          HOLDER       EPOCH  PINNED TO  ON ITS WAY TO
edge   10.0.0.10/24  n1 (silent)  7      -          n3
cron                 -            -      n2         -
db                   -            -      -          -
cache                -            -      -          -
";
        assert_eq!(render(&rows(&snapshot)), expected);
    }

    #[test]
    fn a_direction_is_written_once_and_the_last_one_takes_the_setting_with_it() {
        let put = |view: &View| direct(view, PINS, "e".into(), |pins| pins.put("cron".into(), "n1"));
        let change = put(&View::default()).unwrap();
        assert_eq!(change.guards, [Guard::Absent(Key::Setting(PINS.into()))]);
        let view = View::from_records([Record::Setting(Setting {
            key: PINS.into(),
            value: "cron=n1".into(),
        })]);
        assert_eq!(put(&view), None);
        let change = direct(&view, PINS, "e".into(), |pins| {
            pins.remove("cron");
        })
        .unwrap();
        assert_eq!(change.writes[0], Put::Remove(Key::Setting(PINS.into())));
    }
}
