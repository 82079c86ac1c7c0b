//! The database of a backup in a scratch folder, for `verify` and `restore`.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;

use super::bar::watched;
use super::{DATABASE, PACKED, content};
use crate::backup::chain::Chain;
use crate::backup::manifest::Part;
use crate::backup::part::Meter;
use crate::backup::{Backup, Key, Store};
use crate::base::file::{Access, ensure_folder};
use crate::config::Config;
use crate::db;
use crate::db::backup::scratch::{Replay, Scratch, Server};
use crate::host::account;
use crate::node::prepare;

/// Where backups come from.
pub struct From {
    pub store: Arc<dyn Store>,
    pub key: Key,
}

pub fn scratch(config: &Config, folder: PathBuf) -> anyhow::Result<Scratch> {
    Ok(Scratch {
        folder,
        account: account::require(prepare::DB_USER).context("MariaDB's user")?,
        binary: db::find(config).context("MariaDB is not installed; `bitrix-node init` installs it")?,
    })
}

impl From {
    pub fn part<'a>(&self, backup: &'a Backup, name: &str) -> anyhow::Result<&'a Part> {
        let part = backup.manifest.part(name);
        part.with_context(|| format!("{} has no part {name}", backup.id))
    }

    /// A whole data folder, as it was at the moment of the full backup.
    pub async fn fill(&self, scratch: &Scratch, full: &Backup) -> anyhow::Result<()> {
        let part = self.part(full, DATABASE)?;
        scratch.make()?;
        let meter = Meter::default();
        let (filling, stream) = scratch.fill()?;
        let reading = content(&self.store, &full.id, part, &self.key, stream, &meter);
        let both = async { tokio::join!(reading, filling.finish()) };
        let (read, filled) = watched("database", part.content, &meter, both).await;
        // What ends early ends the other, too: a broken stream is the cause, unless only the pipe broke.
        match (read, filled) {
            (Err(read), Err(filled)) if is_broken_pipe(&read) => return Err(filled),
            (read, filled) => {
                read?;
                filled?;
            }
        }
        scratch.prepare().await
    }

    /// Brings a server forward by the logs of the chain. `until`: whole seconds since 1970.
    pub async fn forward(
        &self,
        scratch: &Scratch,
        server: &Server,
        chain: &Chain<'_>,
        until: Option<u64>,
    ) -> anyhow::Result<()> {
        let files = self.logs(scratch, chain).await?;
        let database = chain.full.manifest.database.as_ref();
        let position = database.and_then(|database| database.position.as_ref());
        if let (Some(position), false) = (position, files.is_empty()) {
            let replay = Replay {
                files: &files,
                offset: position.offset,
                until,
            };
            watched("logs", 0, &Meter::default(), server.replay(&replay)).await?;
        }
        Ok(())
    }

    async fn logs(&self, scratch: &Scratch, chain: &Chain<'_>) -> anyhow::Result<Vec<PathBuf>> {
        let folder = scratch.folder.join("logs");
        let (uid, gid) = (scratch.account.uid, scratch.account.gid);
        // Root's own, which the server's user may look into.
        ensure_folder(&folder, Access::owned(0o750, 0, gid))?;
        let mut files = Vec::new();
        for backup in &chain.logs {
            let log = backup.manifest.log.as_ref().context("a log backup without logs")?;
            for file in &log.files {
                let part = self.part(backup, &format!("{file}{PACKED}"))?;
                let path = folder.join(file);
                let to: File = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path)?;
                let meter = Meter::default();
                let reading = content(&self.store, &backup.id, part, &self.key, to, &meter);
                watched(file, part.content, &meter, reading).await?;
                chown(&path, Some(uid), Some(gid))?;
                files.push(path);
            }
        }
        Ok(files)
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::BrokenPipe)
}
