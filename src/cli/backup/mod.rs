//! `backup`: database, files, registry and secrets into a store, and back onto machines that have nothing else left.

mod bar;
mod create;
mod database;
mod key;
mod list;
mod log;
mod prune;
mod restore;
mod source;
mod tick;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::require_root;
use crate::backup::manifest::Part;
use crate::backup::part::{Meter, unpack};
use crate::backup::{Folder, Key, Store};
use crate::config::Config;

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
    /// Restore the database of a backup beside the running one, look at its tables, and read every part
    Verify(verify::Verify),
    /// Put a backup onto this node, which must not be running
    Restore(restore::Restore),
    /// The content of one part, on standard output
    Extract(restore::Extract),
    /// Remove backups that `backup.keep_…` does not ask for, and what is left of those that did not come to their end
    Prune(prune::Prune),
    /// The key without which no backup can be opened
    #[command(subcommand)]
    Key(key::Verb),
}

/// Where backups are, and what opens them.
#[derive(Debug, Default, Args)]
pub struct Place {
    /// Folder of the backups [default: backup.store]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Key of the backups [default: data_dir/secrets/backup.key]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

pub async fn perform(verb: Verb, config: Config, path: &Path) -> anyhow::Result<u8> {
    require_root()?;
    match verb {
        Verb::Create(create) => create.perform(&config, path).await,
        Verb::List(list) => list.perform(&config),
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

impl Place {
    fn store(&self, config: &Config) -> anyhow::Result<Arc<dyn Store>> {
        let path = match &self.store {
            Some(path) => std::path::absolute(path)?,
            None if config.backup.store.as_os_str().is_empty() => {
                anyhow::bail!("where are the backups? name their folder with --store, or set backup.store")
            }
            None => config.backup.store.clone(),
        };
        anyhow::ensure!(
            path.is_dir(),
            "{} is no folder; mount the store, or make the folder",
            path.display()
        );
        Ok(Arc::new(Folder::new(path)))
    }

    fn key_file(&self, config: &Config) -> PathBuf {
        self.key.clone().unwrap_or_else(|| config.backup_key())
    }

    fn key(&self, config: &Config) -> anyhow::Result<Key> {
        let file = self.key_file(config);
        Key::read(&file)
            .context("the key of the backups; on a new machine: `bitrix-node backup key import FILE`, or --key FILE")
    }
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
