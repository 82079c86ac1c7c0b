//! `backup`: database, files, registry and secrets into a store, and back onto machines that have nothing else left.

mod bar;
mod create;
mod database;
mod key;
mod list;
mod log;
mod place;
mod plan;
mod prune;
mod restore;
mod restored;
mod seat;
mod source;
mod tick;
mod verify;

use std::path::Path;
use std::sync::Arc;

use clap::Subcommand;

use super::require_root;
use crate::backup::manifest::Part;
use crate::backup::part::{Meter, unpack};
use crate::backup::{Key, Store};
use crate::config::Config;
use place::Place;

/// Names of parts.
const DATABASE: &str = "database.mbstream.zst.age";
const FILES: &str = "files.tar.zst.age";
const REGISTRY: &str = "registry.sqlite.zst.age";
const IDENTITY: &str = "identity.tar.zst.age";
const PACKED: &str = ".zst.age";

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Copy database, files, registry and secrets of this portal into the store; the portal goes on meanwhile
    Create(create::Create),
    /// What is in the store
    List(list::List),
    /// When the next ones are due by the clock (`backup.daily`), and which node makes them
    Schedule(plan::Plan),
    /// Restore the database of a backup beside the running one, look at its tables, and read every part
    Verify(verify::Verify),
    /// Put a backup onto this node, which must not be running
    Restore(restore::Restore),
    /// The content of one part, on standard output
    Extract(restore::Extract),
    /// Remove backups that `backup.keep_…` does not ask for, and what is left of those that did not come to their end
    ///
    /// In the whole store, also those of other clusters: each one's are counted by themselves, by this node's `backup.keep_…`, so that
    /// of none all go. What did not come to its end goes after three days. After a scheduled backup only those of this cluster are
    /// looked at.
    Prune(prune::Prune),
    /// The key without which no backup can be opened
    #[command(subcommand)]
    Key(key::Verb),
}

pub async fn perform(verb: Verb, config: Config, path: &Path) -> anyhow::Result<u8> {
    require_root()?;
    match verb {
        Verb::Create(create) => create.perform(&config, path, std::future::pending()).await,
        Verb::List(list) => list.perform(&config),
        Verb::Schedule(plan) => plan.perform(&config).await,
        Verb::Verify(verify) => verify.perform(&config).await,
        Verb::Restore(restore) => restore.perform(&config).await,
        Verb::Extract(extract) => extract.perform(&config).await,
        Verb::Prune(prune) => prune.perform(&config),
        Verb::Key(verb) => key::perform(verb, &config),
    }
}

/// For the supervisor.
pub async fn tick(config: Config, path: &Path) -> anyhow::Result<u8> {
    require_root()?;
    tick::perform(&config, path).await
}

/// Gives the content of a part to `to`, on a thread of its own.
async fn content(
    store: &Arc<dyn Store>,
    id: &str,
    part: &Part,
    key: &Key,
    mut to: impl std::io::Write + Send + 'static,
    meter: &Meter,
) -> anyhow::Result<()> {
    let (store, id, part, key, meter) = (store.clone(), id.to_owned(), part.clone(), key.clone(), meter.clone());
    let work = move || {
        let stored = store.get(&id, &part.name)?;
        unpack(&part, stored, &key, &mut to, &meter)
            .map_err(|error| std::io::Error::new(error.kind(), format!("{id}/{}: {error}", part.name)))
    };
    Ok(tokio::task::spawn_blocking(work).await??)
}

/// Of `schedule::set_apart`.
fn say_ahead(apart: &[String]) {
    if !apart.is_empty() {
        eprintln!(
            "bitrix-node: not counted, for they seem to be of a time that is yet to come, or continue such: {}; if the clock is right \
             now, remove them from the store",
            apart.join(" ")
        );
    }
}

/// Time as people and `--at` write it.
fn time(milliseconds: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(milliseconds);
    humantime::format_rfc3339_seconds(time).to_string()
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{} MiB", bytes >> 20),
    }
}
