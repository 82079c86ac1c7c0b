//! `backup verify`: whether a backup would be one on the day it is needed. Its database is really restored, into a folder of its own
//! with a server that nobody else reaches, and its tables are counted and checked; of every other part each byte is read.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, PipeReader, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;

use super::bar::watched;
use super::database::{From, scratch};
use super::{DATABASE, FILES, IDENTITY, Place, REGISTRY, content, size, time};
use crate::backup::chain::{self, Chain};
use crate::backup::manifest::{Database, Part};
use crate::backup::part::Meter;
use crate::backup::{Backup, Kind, store, tree};
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::config::Config;
use crate::db::backup::tables::{self, Counts};
use crate::registry::read_image;

/// Rows of a table that changes while it is copied may be this many beside those that were counted before and after: one in so many,
/// and some.
const SHARE: u64 = 100;
const SOME: u64 = 100;

#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    place: Place,
    /// A full backup, with the logs that continue it [default: the newest]
    backup: Option<String>,
    /// Where the database is restored: a folder that does not exist, with room for it [default: data_dir/verify]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// What is not in order.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn say(&mut self, what: &str, found: anyhow::Result<impl Display>) -> io::Result<()> {
        let mut out = io::stdout();
        match found {
            Ok(good) => writeln!(out, "{what}: {good}"),
            Err(error) => {
                self.0.push(what.to_owned());
                writeln!(out, "{what}: BAD: {error:#}")
            }
        }
    }
}

impl Verify {
    pub async fn perform(self, config: &Config) -> anyhow::Result<u8> {
        let from = From {
            store: self.place.store(config)?,
            key: self.place.key(config)?,
        };
        let (backups, _) = store::backups(from.store.as_ref())?;
        let chain = match &self.backup {
            None => chain::chain(&backups, None),
            Some(id) => {
                let full = backups
                    .iter()
                    .find(|backup| backup.id == *id && backup.manifest.kind == Kind::Full);
                let full = full.with_context(|| format!("{id} is no full backup in {}", from.store.place()))?;
                chain::continued(&backups, full, None)
            }
        };
        let chain = chain.with_context(|| from.store.place())?;
        let mut faults = Faults::default();
        writeln!(io::stdout(), "{} and {} logs", chain.full.id, chain.logs.len())?;
        for backup in std::iter::once(chain.full).chain(chain.logs.iter().copied()) {
            if let Err(error) = store::trusted(from.store.as_ref(), &backup.id, &from.key) {
                bail!("{error}");
            }
        }
        let folder = self
            .scratch
            .clone()
            .unwrap_or_else(|| config.node.data_dir.join("verify"));
        let checked = database(config, &from, &chain, folder).await;
        for (what, found) in checked {
            faults.say(&what, found)?;
        }
        for part in &chain.full.manifest.parts {
            if part.name != DATABASE {
                let read = read(&from, chain.full, part).await;
                faults.say(&part.name, read)?;
            }
        }
        Ok(match faults.0.is_empty() {
            true => EXIT_OK,
            false => EXIT_DEGRADED,
        })
    }
}

type Found = Vec<(String, anyhow::Result<String>)>;

/// Restores, looks, and leaves nothing behind.
async fn database(config: &Config, from: &From, chain: &Chain<'_>, folder: PathBuf) -> Found {
    let mut found = Found::new();
    let looked = async {
        let Some(told) = &chain.full.manifest.database else {
            bail!("the backup has none")
        };
        let scratch = scratch(config, folder.clone())?;
        let begun = std::time::Instant::now();
        from.fill(&scratch, chain.full).await?;
        let server = scratch.start().await.context("start a server on the restored data")?;
        let seconds = begun.elapsed().as_secs_f64();
        found.push((
            DATABASE.into(),
            Ok(format!("restored in {seconds:.1} s, a server runs on it")),
        ));
        found.push(("tables".into(), tables(&server.socket, told).await));
        if !chain.logs.is_empty() {
            let forward = from.forward(&scratch, &server, chain, None).await;
            let said = forward.map(|()| format!("lead to {}", time(chain.reaches)));
            found.push(("logs".into(), said));
        }
        server.stop().await
    };
    let looked = looked.await;
    // A folder that was there before is somebody's.
    let _ = folder.join("data").is_dir().then(|| std::fs::remove_dir_all(&folder));
    if let Err(error) = looked {
        found.push((DATABASE.into(), Err(error)));
    }
    found
}

async fn tables(socket: &std::path::Path, told: &Database) -> anyhow::Result<String> {
    let counts = tables::count(socket, &told.schema).await?;
    let mut faults = compare(&told.tables, &counts);
    let counted = counts.iter().filter(|(_, rows)| rows.is_some()).map(|(table, _)| table);
    faults.extend(tables::check(socket, &told.schema, counted).await?);
    if !faults.is_empty() {
        bail!("{}", faults.join("; "));
    }
    let rows: u64 = counts.values().flatten().sum();
    Ok(format!("{} tables with {rows} rows can be read", counts.len()))
}

/// Pure.
fn compare(told: &BTreeMap<String, Option<(u64, u64)>>, counts: &Counts) -> Vec<String> {
    let mut faults = Vec::new();
    for (table, expected) in told {
        match (counts.get(table), expected) {
            (None, _) => faults.push(format!("{table} is missing")),
            (Some(Some(rows)), Some((before, after))) => {
                let (least, most) = (*before.min(after), *before.max(after));
                let slack = if before == after { 0 } else { most / SHARE + SOME };
                if *rows + slack < least || *rows > most + slack {
                    faults.push(format!("{table} has {rows} rows, of {least} to {most}"));
                }
            }
            _ => {}
        }
    }
    faults
}

async fn read(from: &From, backup: &Backup, part: &Part) -> anyhow::Result<String> {
    let (stream, end) = io::pipe()?;
    let name = part.name.clone();
    let meter = Meter::default();
    let reading = content(&from.store, &backup.id, part, &from.key, end, &meter);
    let looking = tokio::task::spawn_blocking(move || look(&name, stream));
    let both = async { tokio::join!(reading, looking) };
    let (read, looked) = watched(&part.name, part.content, &meter, both).await;
    let looked = looked?;
    read?;
    let said = looked?;
    Ok(format!("{} read, {said}", size(part.size)))
}

/// Reads to the end.
fn look(name: &str, mut stream: PipeReader) -> anyhow::Result<String> {
    match name {
        FILES | IDENTITY => Ok(format!("{} objects", tree::count(stream)?)),
        REGISTRY => {
            let mut image = Vec::new();
            stream.read_to_end(&mut image)?;
            let view = read_image(&image)?;
            Ok(format!("version {} of the registry", view.revision))
        }
        _ => Ok(format!("{} bytes", io::copy(&mut stream, &mut io::sink())?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_missing_or_has_lost_rows_is_a_fault() {
        let told = [
            ("still", Some((1000, 1000))),
            ("busy", Some((1000, 1050))),
            ("gone", Some((1, 1))),
            ("large", None),
        ];
        let told: BTreeMap<_, _> = told.map(|(table, rows)| (table.to_owned(), rows)).into();
        let faults = |still, busy| {
            let counts = [
                ("still", Some(still)),
                ("busy", Some(busy)),
                ("large", None),
                ("new", Some(3)),
            ];
            compare(&told, &counts.map(|(table, rows)| (table.to_owned(), rows)).into()).len()
        };
        assert_eq!(faults(1000, 1020), 1, "only what is gone");
        assert_eq!(faults(1000, 950), 1, "rows may go while it is copied");
        assert_eq!(faults(999, 1020), 2);
        assert_eq!(faults(1000, 500), 2);
        assert_eq!(faults(1001, 2000), 3);
    }
}
