//! `status`: the verdict, then one line per module and daemon.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use super::{Format, client, table};
use crate::agent::{Overview, Row, Verdict};
use crate::base::Health;
use crate::base::error::{EXIT_DEGRADED, EXIT_DOWN, EXIT_OK};
use crate::config::{Config, Period};

const POLL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub struct Show {
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Wait until the node is healthy
    #[arg(long)]
    wait: bool,
    /// Longest wait
    #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = period)]
    timeout: Period,
}

fn period(text: &str) -> Result<Period, String> {
    Period::parse(text).ok_or_else(|| "write it like \"30s\"".to_string())
}

impl Show {
    pub async fn perform(self, config: Config) -> anyhow::Result<u8> {
        let until = Instant::now() + self.timeout.0;
        let overview = loop {
            let overview = fetch(&config).await?;
            let is_healthy = overview
                .as_ref()
                .is_some_and(|overview| overview.verdict == Verdict::Healthy);
            if !self.wait || is_healthy || Instant::now() >= until {
                break overview;
            }
            tokio::time::sleep(POLL).await;
        };
        let Some(overview) = overview else {
            let text = match self.output {
                Format::Table => {
                    "DOWN  bitrix-node is not running here; start it: systemctl start bitrix-node\n".into()
                }
                Format::Json => "{\"verdict\":\"down\",\"reason\":\"bitrix-node is not running\"}\n".to_string(),
            };
            std::io::stdout().write_all(text.as_bytes())?;
            return Ok(EXIT_DOWN);
        };
        let text = match self.output {
            Format::Table => render(&overview),
            Format::Json => serde_json::to_string_pretty(&overview)? + "\n",
        };
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(exit_code(overview.verdict))
    }
}

/// What the agent says; `None` when there is no agent.
pub async fn fetch(config: &Config) -> anyhow::Result<Option<Overview>> {
    match client::get(&config.control_socket(), "/v1/status").await {
        Ok(body) => Ok(Some(serde_json::from_slice(&body)?)),
        Err(error) => match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
            Some(ErrorKind::PermissionDenied) => Err(error.context("status is for root; try it with sudo")),
            _ => Err(error),
        },
    }
}

fn exit_code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Healthy => EXIT_OK,
        Verdict::Starting | Verdict::Degraded => EXIT_DEGRADED,
        Verdict::Down => EXIT_DOWN,
    }
}

fn render(overview: &Overview) -> String {
    let mut text = format!(
        "{}  {}  {}  v{}\n",
        overview.verdict, overview.node, overview.portal, overview.version
    );
    if !overview.reason.is_empty() {
        text.push_str(&format!("  {}\n", overview.reason));
    }
    let mut table = table::new(&["SERVICE", "STATE", "PID", "UP", "RESTARTS", "DETAIL"]);
    for row in &overview.services {
        let pid = row.pid.map_or_else(|| "-".to_string(), |pid| pid.to_string());
        table.add_row([
            row.name.clone(),
            state(row),
            pid,
            age(row.seconds),
            row.restarts.to_string(),
            row.detail.clone(),
        ]);
    }
    text.push_str(&table::text(&table));
    text
}

fn state(row: &Row) -> String {
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
    use crate::agent::{Kind, Phase};

    #[test]
    fn verdict_comes_first_and_rows_line_up() {
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
        let overview = Overview {
            verdict: Verdict::Healthy,
            reason: String::new(),
            node: "node1".into(),
            version: "0.1.0".into(),
            portal: "https://portal.example/".into(),
            services: vec![row("proxy", "37 connections"), row("mariadb", "")],
        };
        let expected = "\
HEALTHY  node1  https://portal.example/  v0.1.0
SERVICE  STATE  PID  UP  RESTARTS  DETAIL
proxy    ready  812  2h  0         37 connections
mariadb  ready  812  2h  0
";
        assert_eq!(render(&overview), expected);
    }
}
