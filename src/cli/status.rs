//! `status`: the verdict over the cluster, then one line per node, where the data are, and how long certificates hold. With `--services`
//! one line per module and daemon of this node.

use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{Format, client, period, table};
use crate::agent::{Certificate, Cluster, Data, NodeRow, Overview, Reach, Row, State, Verdict};
use crate::base::Health;
use crate::base::error::{EXIT_DEGRADED, EXIT_DOWN, EXIT_OK};
use crate::config::{Config, Period};

const POLL: Duration = Duration::from_millis(200);
const WATCH: Duration = Duration::from_secs(1);
/// Clears the screen and goes to its first line (ECMA-48: ED, CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";
/// A certificate that holds longer was not meant to end.
const FOREVER_DAYS: i64 = 36_500;

#[derive(Debug, Args)]
pub struct Show {
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// One line per module and daemon of this node
    #[arg(long, visible_alias = "node")]
    services: bool,
    /// Wait until all is healthy
    #[arg(long)]
    wait: bool,
    /// Longest wait
    #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = period)]
    timeout: Period,
    /// Show it anew each second, until it is interrupted
    #[arg(long, conflicts_with = "wait")]
    watch: bool,
}

impl Show {
    pub async fn perform(self, config: Config) -> anyhow::Result<u8> {
        let until = Instant::now() + self.timeout.0;
        loop {
            let (text, verdict) = self.look(&config).await?;
            let is_over = !self.wait || verdict == Some(Verdict::Healthy) || Instant::now() >= until;
            let mut out = std::io::stdout();
            if self.watch {
                let clear = if out.is_terminal() { CLEAR } else { "" };
                out.write_all(format!("{clear}{text}").as_bytes())?;
                out.flush()?;
                tokio::time::sleep(WATCH).await;
            } else if is_over {
                out.write_all(text.as_bytes())?;
                return Ok(verdict.map_or(EXIT_DOWN, exit_code));
            } else {
                tokio::time::sleep(POLL).await;
            }
        }
    }

    /// What to print, and the verdict; without one the node does not run.
    async fn look(&self, config: &Config) -> anyhow::Result<(String, Option<Verdict>)> {
        let (text, verdict) = if self.services {
            let overview = fetch(config).await?;
            let text = overview.as_ref().map(|it| self.text(it, services)).transpose()?;
            (text, overview.map(|overview| overview.verdict))
        } else {
            let cluster = fetch_cluster(config).await?;
            let text = cluster.as_ref().map(|it| self.text(it, render)).transpose()?;
            (text, cluster.map(|cluster| cluster.verdict))
        };
        let missing = || match self.output {
            Format::Table => "DOWN  bitrix-node is not running here; start it: systemctl start bitrix-node\n",
            Format::Json => "{\"verdict\":\"down\",\"reason\":\"bitrix-node is not running\"}\n",
        };
        Ok((text.unwrap_or_else(|| missing().to_string()), verdict))
    }

    fn text<T: Serialize>(&self, it: &T, table: fn(&T) -> String) -> anyhow::Result<String> {
        Ok(match self.output {
            Format::Table => table(it),
            // A stream of documents has one on each line.
            Format::Json if self.watch => serde_json::to_string(it)? + "\n",
            Format::Json => serde_json::to_string_pretty(it)? + "\n",
        })
    }
}

/// What the agent says of this node; `None` when there is no agent.
pub async fn fetch(config: &Config) -> anyhow::Result<Option<Overview>> {
    ask(config, "/v1/status").await
}

/// What the agents say together; `None` when there is none here.
pub async fn fetch_cluster(config: &Config) -> anyhow::Result<Option<Cluster>> {
    ask(config, "/v1/cluster").await
}

/// Which ports each node reaches of the others.
pub async fn fetch_ports(config: &Config) -> anyhow::Result<Option<Vec<Reach>>> {
    ask(config, "/v1/ports").await
}

async fn ask<T: DeserializeOwned>(config: &Config, path: &str) -> anyhow::Result<Option<T>> {
    match client::get(&config.control_socket(), path).await {
        Ok(body) => Ok(Some(serde_json::from_slice(&body)?)),
        Err(error) => match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
            Some(ErrorKind::PermissionDenied) => Err(error.context("status is for root; try it with sudo")),
            _ => Err(error),
        },
    }
}

pub fn exit_code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Healthy => EXIT_OK,
        Verdict::Starting | Verdict::Degraded => EXIT_DEGRADED,
        Verdict::Down => EXIT_DOWN,
    }
}

fn render(cluster: &Cluster) -> String {
    let mut text = format!(
        "{}  {}  {}   admin {}\n",
        cluster.verdict,
        cluster.domain,
        size(cluster),
        cluster.admin
    );
    if !cluster.reason.is_empty() {
        text += &format!("  {}\n", cluster.reason);
    }
    let mut rows = table::new(&["NODE", "ADDRESS", "STATE", "ROLES", "CPU", "MEM", "DISK", "LAG"]);
    for node in &cluster.nodes {
        let share = |share: Option<u8>| share.map_or_else(|| "-".to_string(), |share| format!("{share}%"));
        let facts = node.overview.as_ref().map(|overview| &overview.facts);
        rows.add_row([
            node.name.clone(),
            if node.address.is_empty() { "-" } else { &node.address }.to_string(),
            state(node),
            roles(node),
            share(facts.and_then(|facts| facts.cpu)),
            share(facts.and_then(|facts| facts.memory)),
            share(facts.and_then(|facts| facts.disk)),
            node.lag.map_or_else(|| "-".to_string(), |lag| lag.to_string()),
        ]);
    }
    text += &table::text(&rows);
    text += &format!("Data   {}\n", data(&cluster.data));
    text += &format!("TLS    {}\n", certificates(cluster));
    text
}

/// "3 nodes, quorum 3/3, v0.4.1"
fn size(cluster: &Cluster) -> String {
    let noun = if cluster.nodes.len() == 1 { "node" } else { "nodes" };
    let mut text = format!("{} {noun}", cluster.nodes.len());
    if let Some(quorum) = cluster.quorum.filter(|quorum| quorum.voters > 0) {
        text += &format!(", quorum {}/{}", quorum.present, quorum.voters);
    }
    let mut versions = vec![cluster.version.as_str()];
    for overview in cluster.nodes.iter().filter_map(|node| node.overview.as_ref()) {
        if !versions.contains(&overview.version.as_str()) {
            versions.push(&overview.version);
        }
    }
    text + ", v" + &versions.join(" and v")
}

fn state(node: &NodeRow) -> String {
    match (node.state, node.silent) {
        (State::Silent, Some(seconds)) => format!("silent {seconds} s"),
        (State::Mute, _) => "no answer".to_string(),
        (state, _) => format!("{state:?}").to_lowercase(),
    }
}

fn roles(node: &NodeRow) -> String {
    let parts = node.roles.iter();
    let parts: Vec<String> = parts
        .map(|part| format!("{}{}", part.name, if part.is_held { "*" } else { "" }))
        .collect();
    match parts.is_empty() {
        true => "-".to_string(),
        false => parts.join(" "),
    }
}

/// "3 copies of every file; database on node1"
fn data(data: &Data) -> String {
    let files = match data.copies {
        Some((copies, wanted)) if copies < wanted => format!("{copies} of {wanted} copies of every file"),
        Some((1, _)) => "1 copy of every file".to_string(),
        Some((copies, _)) => format!("{copies} copies of every file"),
        None => match data.files.as_str() {
            "" => "no word of the files".to_string(),
            "local" => "files on this machine's disk alone".to_string(),
            external => format!("files on {external}"),
        },
    };
    match &data.database {
        Some(node) => format!("{files}; database on {node}"),
        None => format!("{files}; no database"),
    }
}

/// "portal valid 61 d; nodes valid 29 d, renewed in 19 d"
fn certificates(cluster: &Cluster) -> String {
    let facts = |of: fn(&Overview) -> Option<Certificate>| {
        let overviews = cluster.nodes.iter().filter_map(|node| node.overview.as_ref());
        overviews.filter_map(of).min_by_key(|certificate| certificate.until)
    };
    let valid = |certificate: Certificate| match certificate.days(cluster.now) {
        ..0 => "ended".to_string(),
        FOREVER_DAYS.. => "valid".to_string(),
        days => format!("valid {days} d"),
    };
    let portal = match facts(|overview| overview.facts.portal_certificate) {
        None => "no certificate for the portal".to_string(),
        Some(certificate) if certificate.is_self_signed => {
            format!("portal {}, self-signed: browsers warn", valid(certificate))
        }
        Some(certificate) => format!("portal {}", valid(certificate)),
    };
    let Some(nodes) = facts(|overview| overview.facts.node_certificate) else {
        return portal;
    };
    // Two thirds of its life after its begin.
    let due = Certificate {
        until: nodes.from + nodes.until.saturating_sub(nodes.from) * 2 / 3,
        ..nodes
    };
    let renewed = match due.days(cluster.now) {
        ..1 => "to be renewed now".to_string(),
        days => format!("renewed in {days} d"),
    };
    format!("{portal}; nodes {}, {renewed}", valid(nodes))
}

/// This node alone.
fn services(overview: &Overview) -> String {
    let mut text = format!(
        "{}  {}  {}  v{}\n",
        overview.verdict, overview.node, overview.portal, overview.version
    );
    if !overview.reason.is_empty() {
        text += &format!("  {}\n", overview.reason);
    }
    let mut table = table::new(&["SERVICE", "STATE", "PID", "UP", "RESTARTS", "DETAIL"]);
    for row in &overview.services {
        let pid = row.pid.map_or_else(|| "-".to_string(), |pid| pid.to_string());
        table.add_row([
            row.name.clone(),
            phase(row),
            pid,
            age(row.seconds),
            row.restarts.to_string(),
            row.detail.clone(),
        ]);
    }
    text + &table::text(&table)
}

fn phase(row: &Row) -> String {
    let phase = format!("{:?}", row.phase).to_lowercase();
    match row.health {
        Health::Good | Health::Starting => phase,
        health => format!("{phase}, {}", format!("{health:?}").to_lowercase()),
    }
}

/// One unit is enough to see whether something restarts.
fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Facts, Kind, Part, Phase, Quorum};

    const DAY: u64 = 24 * 3600;

    fn overview(services: Vec<Row>) -> Overview {
        Overview {
            verdict: Verdict::Healthy,
            reason: String::new(),
            node: "node1".into(),
            version: "0.4.1".into(),
            portal: "https://portal.example/".into(),
            admin: String::new(),
            services,
            facts: Facts {
                cpu: Some(21),
                memory: Some(44),
                disk: Some(31),
                portal_certificate: Some(Certificate {
                    until: 161 * DAY,
                    ..Certificate::default()
                }),
                node_certificate: Some(Certificate {
                    from: 99 * DAY,
                    until: 129 * DAY,
                    is_self_signed: false,
                }),
                ..Facts::default()
            },
        }
    }

    fn node(name: &str, state: State, roles: &[&str]) -> NodeRow {
        let part = |role: &&str| Part {
            name: role.trim_end_matches('*').into(),
            is_held: role.ends_with('*'),
        };
        NodeRow {
            name: name.into(),
            address: "10.0.0.11".into(),
            state,
            roles: roles.iter().map(part).collect(),
            silent: (state == State::Silent).then_some(12),
            unanswered: String::new(),
            lag: None,
            skew: None,
            overview: (state == State::Ready).then(|| overview(Vec::new())),
        }
    }

    fn cluster(nodes: Vec<NodeRow>) -> Cluster {
        Cluster {
            verdict: Verdict::Degraded,
            reason: "node2 is silent for 12 s".into(),
            domain: "portal.example.com".into(),
            node: "node1".into(),
            version: "0.4.1".into(),
            portal: "https://portal.example/".into(),
            admin: "https://10.0.0.10:8443".into(),
            quorum: Some(Quorum {
                present: 2,
                voters: 3,
                has_leader: true,
            }),
            nodes,
            data: Data {
                copies: Some((2, 3)),
                database: Some("node1".into()),
                ..Data::default()
            },
            seats: Vec::new(),
            settings: Default::default(),
            is_stale: false,
            now: 100 * DAY,
            services: Vec::new(),
        }
    }

    #[test]
    fn the_cluster_is_told_in_a_verdict_and_a_line_per_node() {
        let mut nodes = vec![
            node("node1", State::Ready, &["edge*", "web", "db*"]),
            node("node2", State::Silent, &[]),
            node("node3", State::Mute, &["web"]),
        ];
        nodes[1].lag = Some(812);
        let expected = "\
DEGRADED  portal.example.com  3 nodes, quorum 2/3, v0.4.1   admin https://10.0.0.10:8443
  node2 is silent for 12 s
NODE   ADDRESS    STATE        ROLES          CPU  MEM  DISK  LAG
node1  10.0.0.11  ready        edge* web db*  21%  44%  31%   -
node2  10.0.0.11  silent 12 s  -              -    -    -     812
node3  10.0.0.11  no answer    web            -    -    -     -
Data   2 of 3 copies of every file; database on node1
TLS    portal valid 61 d; nodes valid 29 d, renewed in 19 d
";
        assert_eq!(render(&cluster(nodes)), expected);
    }

    #[test]
    fn one_node_on_its_disk_is_told_as_that() {
        let mut alone = cluster(vec![node("node1", State::Ready, &["web"])]);
        alone.quorum = None;
        alone.data = Data {
            files: "local".into(),
            ..Data::default()
        };
        let facts = &mut alone.nodes[0].overview.as_mut().unwrap().facts;
        facts.node_certificate = None;
        facts.portal_certificate = Some(Certificate {
            until: 1_000_000 * DAY,
            is_self_signed: true,
            ..Certificate::default()
        });
        let text = render(&alone);
        for line in [
            "  1 node, v0.4.1   admin",
            "Data   files on this machine's disk alone; no database\n",
            "TLS    portal valid, self-signed: browsers warn\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        alone.nodes[0].overview.as_mut().unwrap().version = "0.4.0".into();
        assert!(render(&alone).contains("v0.4.1 and v0.4.0"));
    }

    #[test]
    fn the_services_of_a_node_line_up() {
        let row = |name: &str, detail: &str| Row {
            name: name.into(),
            kind: Kind::Module,
            phase: Phase::Ready,
            health: Health::Good,
            pid: Some(812),
            restarts: 0,
            seconds: 7_300,
            detail: detail.into(),
        };
        let expected = "\
HEALTHY  node1  https://portal.example/  v0.4.1
SERVICE  STATE  PID  UP  RESTARTS  DETAIL
proxy    ready  812  2h  0         37 connections
mariadb  ready  812  2h  0
";
        let rows = vec![row("proxy", "37 connections"), row("mariadb", "")];
        assert_eq!(services(&overview(rows)), expected);
    }
}
