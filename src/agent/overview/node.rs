//! Reports → one verdict and one row per service. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::facts::Facts;
use crate::agent::report::{ChildReport, Kind, Phase};
use crate::base::{Health, Status};

/// Without these no page is served; without another one something is slower or less safe.
const ESSENTIAL: [&str; 4] = ["proxy", "php-fpm", "mariadb", "mount"];

/// The way to another node's database is as essential where there is none here.
const DATABASE: (&str, &str) = ("mariadb", "db");

/// How long a node may say "starting" before that is a fault.
const START_SECONDS: u64 = 120;

/// From good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Healthy,
    Starting,
    Degraded,
    Down,
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Verdict::Healthy => "HEALTHY",
            Verdict::Starting => "STARTING",
            Verdict::Degraded => "DEGRADED",
            Verdict::Down => "DOWN",
        })
    }
}

/// One node; what `bitrix-node status --services` shows of this one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    pub verdict: Verdict,
    /// What is wrong, shortest first cause; empty when healthy.
    pub reason: String,
    pub node: String,
    pub version: String,
    pub portal: String,
    /// Where its agent serves operators.
    #[serde(default)]
    pub admin: String,
    pub services: Vec<Row>,
    #[serde(default)]
    pub facts: Facts,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    pub kind: Kind,
    pub phase: Phase,
    pub health: Health,
    pub pid: Option<u32>,
    pub restarts: u32,
    pub seconds: u64,
    pub detail: String,
}

/// Joins what the supervisor and the module itself say.
pub fn row(child: &ChildReport, said: Option<&Status>) -> Row {
    let health = match child.phase {
        Phase::Ready => said.map_or(Health::Good, |status| status.health),
        Phase::Starting if child.restarts == 0 && child.seconds < START_SECONDS => Health::Starting,
        Phase::Starting | Phase::Waiting => Health::Failed,
        Phase::Stopping | Phase::Stopped => Health::Degraded,
    };
    let detail = match said {
        Some(status) if child.phase == Phase::Ready => status.detail.clone(),
        _ => child.detail.clone(),
    };
    Row {
        name: child.name.clone(),
        kind: child.kind,
        phase: child.phase,
        health,
        pid: child.pid,
        restarts: child.restarts,
        seconds: child.seconds,
        detail,
    }
}

/// What was heard of the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Within its interval.
    Lately,
    /// Nothing yet, and the agent itself has just started.
    NotYet,
    Silence,
}

/// The verdict over all rows, with its reason.
pub fn judge(rows: &[Row], heard: Heard) -> (Verdict, String) {
    match heard {
        Heard::Lately => {}
        Heard::NotYet => return (Verdict::Starting, "the agent has just started".to_string()),
        Heard::Silence => return (Verdict::Degraded, "the supervisor is silent".to_string()),
    }
    let mut by_health: BTreeMap<Health, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        by_health.entry(row.health).or_default().push(row);
    }
    let failed = by_health.remove(&Health::Failed).unwrap_or_default();
    let is_relayed = !rows.iter().any(|row| row.name == DATABASE.0);
    let fatal: Vec<&Row> = failed
        .iter()
        .copied()
        .filter(|row| ESSENTIAL.contains(&row.name.as_str()) || (row.name == DATABASE.1 && is_relayed))
        .collect();
    if !fatal.is_empty() {
        return (Verdict::Down, reason(&fatal));
    }
    let mut degraded = failed;
    degraded.extend(by_health.remove(&Health::Degraded).unwrap_or_default());
    if !degraded.is_empty() {
        return (Verdict::Degraded, reason(&degraded));
    }
    match by_health.remove(&Health::Starting) {
        Some(starting) => {
            let names: Vec<&str> = starting.iter().map(|row| row.name.as_str()).collect();
            (Verdict::Starting, format!("waiting for {}", names.join(", ")))
        }
        None => (Verdict::Healthy, String::new()),
    }
}

fn reason(rows: &[&Row]) -> String {
    let said: Vec<String> = rows
        .iter()
        .map(|row| match row.detail.as_str() {
            "" => format!("{} is {:?}", row.name, row.phase).to_lowercase(),
            detail => format!("{}: {detail}", row.name),
        })
        .collect();
    said.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(name: &str, phase: Phase, restarts: u32, seconds: u64) -> ChildReport {
        let detail = if phase == Phase::Ready { "" } else { "exit status: 1" };
        let (name, detail) = (name.to_string(), detail.to_string());
        ChildReport {
            name,
            kind: Kind::Module,
            phase,
            pid: Some(7),
            restarts,
            seconds,
            detail,
        }
    }

    fn verdict(children: &[ChildReport]) -> (Verdict, String) {
        let rows: Vec<Row> = children.iter().map(|child| row(child, None)).collect();
        judge(&rows, Heard::Lately)
    }

    #[test]
    fn all_ready_is_healthy() {
        let children = [child("proxy", Phase::Ready, 3, 10), child("cache", Phase::Ready, 0, 10)];
        assert_eq!(verdict(&children), (Verdict::Healthy, String::new()));
    }

    #[test]
    fn first_start_is_starting_a_restart_is_not() {
        assert_eq!(verdict(&[child("proxy", Phase::Starting, 0, 3)]).0, Verdict::Starting);
        assert_eq!(verdict(&[child("proxy", Phase::Starting, 1, 3)]).0, Verdict::Down);
        assert_eq!(verdict(&[child("proxy", Phase::Starting, 0, 500)]).0, Verdict::Down);
    }

    #[test]
    fn missing_cache_degrades_missing_database_is_down() {
        let cache = [child("proxy", Phase::Ready, 0, 9), child("cache", Phase::Waiting, 1, 1)];
        assert_eq!(
            verdict(&cache),
            (Verdict::Degraded, "cache: exit status: 1".to_string())
        );
        let database = [
            child("proxy", Phase::Ready, 0, 9),
            child("mariadb", Phase::Waiting, 1, 1),
        ];
        assert_eq!(verdict(&database).0, Verdict::Down);
        // The way to it, where it is on another node; where it is here, that is the others' way.
        let mut way = vec![child("db", Phase::Waiting, 1, 1)];
        assert_eq!(verdict(&way).0, Verdict::Down);
        way.push(child("mariadb", Phase::Ready, 0, 9));
        assert_eq!(verdict(&way).0, Verdict::Degraded);
    }

    #[test]
    fn what_a_ready_module_says_of_itself_counts() {
        let said = Status {
            health: Health::Degraded,
            detail: "no space".into(),
        };
        let row = row(&child("cache", Phase::Ready, 0, 9), Some(&said));
        assert_eq!(
            judge(&[row], Heard::Lately),
            (Verdict::Degraded, "cache: no space".to_string())
        );
    }

    #[test]
    fn silent_supervisor_is_not_healthy() {
        assert_eq!(judge(&[], Heard::NotYet).0, Verdict::Starting);
        let rows = [row(&child("proxy", Phase::Ready, 0, 9), None)];
        assert_eq!(judge(&rows, Heard::Silence).0, Verdict::Degraded);
    }
}
