//! `backup list`: what there is, and to which moments it leads. The database to any second that its logs hold; files to those of full
//! backups alone.

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use super::{Place, size, time};
use crate::backup::{Backup, Kind, chain, store};
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
                let rows: Vec<Value> = backups.iter().map(|backup| row(&backups, backup)).collect();
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

fn row(backups: &[Backup], backup: &Backup) -> Value {
    let manifest = &backup.manifest;
    let span = |(from, to): (u64, u64)| json!({ "from": time(from), "to": time(to) });
    let database = manifest.database.as_ref().map(|_| span(chain::span(backups, backup)));
    json!({
        "id": backup.id,
        "kind": manifest.kind,
        "cluster": manifest.cluster,
        "node": manifest.node,
        "version": manifest.version,
        "began": time(manifest.began),
        "reaches": time(manifest.reaches()),
        "database": database,
        "files": manifest.files_read().map(span),
        "size": manifest.size(),
        "continues": manifest.log.as_ref().map(|log| &log.base),
        "parts": manifest.parts,
    })
}

fn render(backups: &[Backup]) -> String {
    let mut table = table::new(&["BACKUP", "NODE", "LEADS TO", "FILES AS OF", "SIZE", "PARTS"]);
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
            manifest.files_read().map_or("-".into(), |(from, _)| time(from)),
            size(manifest.size()),
            holds,
        ]);
    }
    table::text(&table) + &moments(backups)
}

/// What can be asked for with `restore --at`.
fn moments(backups: &[Backup]) -> String {
    let mut text = String::new();
    for full in backups.iter().filter(|backup| backup.manifest.kind == Kind::Full) {
        let (from, to) = chain::span(backups, full);
        let database = match from == to {
            true => format!("the database as of {}, and of no other moment", time(from)),
            false => format!("the database to any second from {} to {}", time(from), time(to)),
        };
        let files = full.manifest.files_read().map_or(String::new(), |(from, to)| {
            format!(", files as of {} to {} only", time(from), time(to))
        });
        text += &format!("{}: {database}{files}\n", full.id);
    }
    text
}

fn first_word(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::Manifest;
    use crate::backup::manifest::{Database, Files, Log, Position};

    #[test]
    fn the_moments_of_rows_and_files_are_told_apart() {
        let mut full = Manifest::new(Kind::Full, "", "n1", 0);
        full.database = Some(Database {
            at: 10_000,
            position: Some(Position {
                file: "b.000001".into(),
                ..Position::default()
            }),
            ..Database::default()
        });
        full.files = Some(Files {
            uid: 33,
            gid: 33,
            read: Some((11_000, 12_000)),
        });
        let mut log = Manifest::new(Kind::Log, "", "n1", 70_000);
        log.log = Some(Log {
            base: "1-full".into(),
            files: vec!["b.000001".into()],
            head: String::new(),
            until: 70_000,
        });
        let of = |id: &str, manifest| Backup {
            id: id.into(),
            manifest,
        };
        let mut backups = vec![of("1-full", full), of("2-log", log)];
        assert_eq!(
            moments(&backups),
            "1-full: the database to any second from 1970-01-01T00:00:10Z to 1970-01-01T00:01:10Z, \
             files as of 1970-01-01T00:00:11Z to 1970-01-01T00:00:12Z only\n"
        );
        backups.pop();
        assert!(moments(&backups).contains("the database as of 1970-01-01T00:00:10Z, and of no other moment, files"));
    }
}
