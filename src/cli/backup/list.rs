//! `backup list`.

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use super::{Place, size, time};
use crate::backup::{Backup, Kind, store};
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::cli::{Format, table};
use crate::config::Config;

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    place: Place,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

impl List {
    pub fn perform(self, config: &Config) -> anyhow::Result<u8> {
        let store = self.place.store(config)?;
        let (backups, damaged) = store::backups(store.as_ref())?;
        let text = match self.output {
            Format::Json => {
                let rows: Vec<Value> = backups.iter().map(row).collect();
                serde_json::to_string_pretty(&rows)? + "\n"
            }
            Format::Table => render(&backups),
        };
        std::io::stdout().write_all(text.as_bytes())?;
        for (id, why) in &damaged {
            eprintln!("bitrix-node: {id}: {why}");
        }
        let unfinished = store::unfinished(store.as_ref())?;
        if !unfinished.is_empty() {
            eprintln!(
                "bitrix-node: {} did not come to their end, or are being made: {}; `backup prune` removes old ones",
                unfinished.len(),
                unfinished.join(" ")
            );
        }
        Ok(if damaged.is_empty() { EXIT_OK } else { EXIT_DEGRADED })
    }
}

fn row(backup: &Backup) -> Value {
    let manifest = &backup.manifest;
    json!({
        "id": backup.id,
        "kind": manifest.kind,
        "cluster": manifest.cluster,
        "node": manifest.node,
        "version": manifest.version,
        "began": time(manifest.began),
        "reaches": time(manifest.reaches()),
        "size": manifest.size(),
        "continues": manifest.log.as_ref().map(|log| &log.base),
        "parts": manifest.parts,
    })
}

fn render(backups: &[Backup]) -> String {
    let mut table = table::new(&["BACKUP", "NODE", "LEADS TO", "SIZE", "PARTS"]);
    for Backup { id, manifest } in backups {
        let parts: Vec<&str> = manifest.parts.iter().map(|part| first_word(&part.name)).collect();
        let holds = match (manifest.kind, &manifest.log) {
            (Kind::Log, Some(log)) => format!("{} logs after {}", parts.len(), log.base),
            _ => parts.join(" "),
        };
        table.add_row([
            id.clone(),
            manifest.node.clone(),
            time(manifest.reaches()),
            size(manifest.size()),
            holds,
        ]);
    }
    table::text(&table)
}

fn first_word(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}
