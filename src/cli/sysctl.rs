//! `sysctl`: what the kernel is told for many short connections (`host::sysctl`). A node does the same when it starts; in its unit, where
//! /proc/sys is read-only, systemd does it by this command before.

use std::collections::BTreeSet;
use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::{Format, require_root, table};
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::config::Config;
use crate::host::sysctl::{self, Change};

#[derive(Debug, Args)]
pub struct Sysctl {
    /// Show what would be changed and change nothing
    #[arg(long)]
    dry_run: bool,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Serialize)]
struct Done {
    #[serde(flatten)]
    change: Change,
    is_done: bool,
    /// Why not.
    error: Option<String>,
}

impl Sysctl {
    pub fn perform(self, config: &Config) -> anyhow::Result<u8> {
        let mut out = std::io::stdout();
        if !config.node.sysctl {
            writeln!(out, "node.sysctl = false: the kernel stays as it is")?;
            return Ok(EXIT_OK);
        }
        if !self.dry_run {
            require_root()?;
        }
        let done = self.make(&config.ports());
        let text = match self.output {
            Format::Json => serde_json::to_string_pretty(&done)? + "\n",
            Format::Table if done.is_empty() => "the kernel has what many short connections need\n".to_string(),
            Format::Table => render(&done),
        };
        out.write_all(text.as_bytes())?;
        let is_well = done.iter().all(|one| one.error.is_none());
        Ok(if is_well { EXIT_OK } else { EXIT_DEGRADED })
    }

    fn make(&self, ports: &BTreeSet<u16>) -> Vec<Done> {
        let make = |change: Change| {
            let error = match self.dry_run {
                true => None,
                false => change.make().err().map(|error| error.to_string()),
            };
            Done {
                is_done: !self.dry_run && error.is_none(),
                change,
                error,
            }
        };
        sysctl::wanted(ports).into_iter().map(make).collect()
    }
}

fn render(done: &[Done]) -> String {
    let mut table = table::new(&["SETTING", "WAS", "SHALL BE", ""]);
    for Done { change, is_done, error } in done {
        let said = match error {
            Some(error) => error.clone(),
            None if *is_done => "done".to_string(),
            None => String::new(),
        };
        let shown = |text: &str| text.replace('\t', " ");
        table.add_row([change.key(), shown(&change.from), shown(&change.to), said]);
    }
    table::text(&table)
}
