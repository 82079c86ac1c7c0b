//! `events`: what happened in the cluster, as the registry keeps it.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use serde_json::json;
use tokio::time::sleep;

use super::{Format, registry, require_root};
use crate::base::clock::stamp;
use crate::base::error::{EXIT_OK, chain};
use crate::config::Config;
use crate::registry::{Event, Registry};

/// How often the registry is looked at for new ones.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub struct Events {
    /// Go on with what happens from now
    #[arg(short, long)]
    follow: bool,
    /// Begin with this many of the last ones
    #[arg(short = 'n', long, default_value_t = 50)]
    lines: usize,
    /// Json: one object a line
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

impl Events {
    pub async fn perform(self, config: Config) -> anyhow::Result<u8> {
        require_root()?;
        let registry = registry::open(&config).await?;
        let mut events = registry.read().await?.events.clone();
        let mut last = events.last().map_or(0, |event| event.number);
        events.drain(..events.len().saturating_sub(self.lines));
        self.print(&events)?;
        if !self.follow {
            return Ok(EXIT_OK);
        }
        let mut is_told = false;
        loop {
            sleep(LOOK).await;
            match registry.read().await {
                Ok(view) => {
                    let new: Vec<Event> = view
                        .events
                        .iter()
                        .filter(|event| event.number > last)
                        .cloned()
                        .collect();
                    last = new.last().map_or(last, |event| event.number);
                    self.print(&new)?;
                    is_told = false;
                }
                // Once for each outage; the events are there when it is over.
                Err(error) if !is_told => {
                    eprintln!("bitrix-node: {}; waiting", chain(&error));
                    is_told = true;
                }
                Err(_) => {}
            }
        }
    }

    fn print(&self, events: &[Event]) -> anyhow::Result<()> {
        let mut out = std::io::stdout();
        for event in events {
            writeln!(out, "{}", line(event, self.output))?;
        }
        Ok(out.flush()?)
    }
}

fn line(event: &Event, output: Format) -> String {
    let time = stamp(UNIX_EPOCH + Duration::from_millis(event.time)).to_string();
    match output {
        Format::Table => format!("{time}  {}  {}", event.node, event.text),
        Format::Json => json!({
            "number": event.number,
            "revision": event.revision,
            "time": time,
            "node": event.node,
            "text": event.text,
        })
        .to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = Event {
            number: 3,
            revision: 9,
            time: 1_000,
            node: "n2".into(),
            text: "cron: n1 → n2, n1 is silent".into(),
        };
        assert_eq!(
            line(&event, Format::Table),
            "1970-01-01T00:00:01.000Z  n2  cron: n1 → n2, n1 is silent"
        );
        let parsed: serde_json::Value = serde_json::from_str(&line(&event, Format::Json)).unwrap();
        assert_eq!((&parsed["number"], &parsed["text"]), (&json!(3), &json!(event.text)));
    }
}
