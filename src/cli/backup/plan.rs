//! `backup schedule`: when the next backups are due by the clock, and which node makes them.

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use super::tick::schedule;
use super::{Place, say_ahead, source, time};
use crate::backup::schedule::{Schedule, next, set_apart};
use crate::backup::{Backup, Kind, store};
use crate::base::clock;
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::cli::Format;
use crate::cli::backup::seat::Seat;
use crate::config::Config;
use crate::host::facts;

#[derive(Debug, Args)]
pub struct Plan {
    #[command(flatten)]
    place: Place,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

impl Plan {
    pub async fn perform(self, config: &Config) -> anyhow::Result<u8> {
        let Some(schedule) = schedule(config)? else {
            let text = "none: set backup.daily, like \"02:30\", on the nodes with a database\n";
            std::io::stdout().write_all(text.as_bytes())?;
            return Ok(EXIT_DEGRADED);
        };
        let maker = match config.db.galera {
            true => holder(config).await?,
            false => Some(facts::node_name(config)),
        };
        let (mut backups, _) = store::backups(self.place.store(config)?.as_ref())?;
        let cluster = source::cluster(config);
        backups.retain(|backup| backup.manifest.cluster == cluster);
        let now = clock::unix_millis();
        say_ahead(&set_apart(&mut backups, now));
        let plan = plan(&backups, maker.as_deref(), now, schedule);
        let text = match self.output {
            Format::Json => serde_json::to_string_pretty(&plan)? + "\n",
            Format::Table => render(&plan),
        };
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(if maker.is_some() { EXIT_OK } else { EXIT_DEGRADED })
    }
}

/// Who has the role. `None`: nobody.
async fn holder(config: &Config) -> anyhow::Result<Option<String>> {
    let seat = Seat::open(config).await?;
    let holder = seat.holder();
    seat.close().await;
    Ok(holder)
}

/// Pure.
fn plan(backups: &[Backup], maker: Option<&str>, now: u64, schedule: Schedule) -> Value {
    let due = |kind| {
        maker
            .and_then(|node| next(backups, node, now, schedule, kind))
            .map(time)
    };
    let last = |kind| {
        let last = backups.iter().rfind(|backup| backup.manifest.kind == kind);
        last.map(
            |backup| json!({ "id": backup.id, "node": backup.manifest.node, "began": time(backup.manifest.began) }),
        )
    };
    json!({
        "node": maker,
        "full": { "next": due(Kind::Full), "last": last(Kind::Full) },
        "log": { "next": due(Kind::Log), "last": last(Kind::Log) },
    })
}

fn render(plan: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let line = |name: &str| {
        let last = &plan[name]["last"];
        format!(
            "{name:<5} next {}, last {} by {}\n",
            text(&plan[name]["next"]),
            text(&last["began"]),
            text(&last["node"])
        )
    };
    let maker = match plan["node"].as_str() {
        Some(node) => format!("made by {node}\n"),
        None => "made by nobody: no node has the role backup now; `bitrix-node role list` shows it\n".to_owned(),
    };
    maker + &line("full") + &line("log")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::Manifest;

    #[test]
    fn it_says_what_comes_next_and_who_makes_it() {
        let full = Backup {
            id: "1-full".into(),
            manifest: Manifest::new(Kind::Full, "", "n2", 3_600_000),
        };
        let schedule = Schedule {
            daily: 30,
            log_every: 900_000,
        };
        let plan = plan(&[full], Some("n2"), 3_700_000, schedule);
        let text = render(&plan);
        assert!(
            text.contains("full  next 1970-01-02T00:30:00Z, last 1970-01-01T01:00:00Z by n2"),
            "{text}"
        );
        assert!(text.contains("log   next 1970-01-01T01:15:00Z, last - by -"), "{text}");
        assert!(render(&super::plan(&[], None, 0, schedule)).contains("nobody"));
    }
}
