//! `storage mount` and `umount`, and how this node sees the files, for `storage status`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use serde::Serialize;

use super::super::status;
use crate::base::Health;
use crate::config::{Config, Export, Files, Mount};
use crate::host::mount::{Answer, Order, Placed, Table, Worker};
use crate::node::mount::{DETACH, MOUNT, PROBE, Pulse, Title, say};
use crate::node::prepare::space;

pub async fn mount(config: &Config, at: Option<PathBuf>) -> anyhow::Result<()> {
    let at = folder(config, at)?;
    match config.files() {
        Some(files @ Files::Door { .. }) if at == files.folder() => say_door(config, &files).await,
        _ => mount_export(config, at).await,
    }
}

/// Whoever mounts it must keep its device, and that is the node.
async fn say_door(config: &Config, files: &Files) -> anyhow::Result<()> {
    let table = Table::read(space(config)).context("the table of mounts")?;
    let (source, at) = (files.source(), files.folder().display());
    let remedy = match (files.placed(&table), status::fetch(config).await) {
        (Some(Placed::Ours), Ok(Some(_))) => {
            let locks = Locks::of(config).text();
            writeln!(std::io::stdout(), "{source} was mounted already on {at}; {locks}")?;
            return Ok(());
        }
        (Some(Placed::Foreign(what)), _) => format!("{what} is mounted there; unmount it"),
        (_, Ok(Some(_))) => "it runs, and `bitrix-node status` says what keeps it from it".to_owned(),
        _ => "start it: systemctl start bitrix-node".to_owned(),
    };
    anyhow::bail!("with storage.mount = \"fuse\" the running node alone mounts {at}; {remedy}")
}

async fn mount_export(config: &Config, at: PathBuf) -> anyhow::Result<()> {
    let export = config.storage.export().context(
        "there is nothing to mount: set storage.engine to \"replicated\", or to \"external\" with a server in storage.external",
    )?;
    let source = export.source();
    let locks = Locks::of_export(&export).text();
    let order = Order::Mount {
        export,
        at: at.clone(),
        space: space(config),
        renew: false,
    };
    let mounted = worker()?.ask(&order, MOUNT).await;
    let is_new = mounted.with_context(|| format!("mount {source} on {}", at.display()))? == Answer::Mounted(true);
    let done = if is_new { "is mounted" } else { "was mounted already" };
    writeln!(std::io::stdout(), "{source} {done} on {}; {locks}", at.display())?;
    Ok(())
}

/// Lets go of this node's mount, if there is one.
pub async fn let_go(config: &Config) -> anyhow::Result<()> {
    detach(config, config.mount_point()).await.map(drop)
}

async fn detach(config: &Config, at: PathBuf) -> anyhow::Result<Answer> {
    let space = space(config);
    Ok(worker()?.ask(&Order::Detach { at, space }, DETACH).await?)
}

pub async fn umount(config: &Config, at: Option<PathBuf>) -> anyhow::Result<()> {
    let at = folder(config, at)?;
    let answer = detach(config, at.clone()).await?;
    let is_kept = config.storage.mount() != Mount::None && at == config.mount_point();
    let mut out = std::io::stdout();
    match answer {
        Answer::Detached(0) => writeln!(out, "nothing is mounted on {}", at.display())?,
        _ => writeln!(out, "{} is let go", at.display())?,
    }
    // Whether it runs is all that is asked; a node that does not answer is not one that mounts.
    if is_kept && matches!(status::fetch(config).await, Ok(Some(_))) {
        let open = match config.storage.mount() {
            Mount::Fuse => "files that are open are lost to whoever has them",
            _ => "files that are open stay open",
        };
        writeln!(
            out,
            "bitrix-node runs here and mounts it again, and {open}; to end that, set storage.mount = \"none\" and restart it"
        )?;
    }
    Ok(())
}

/// Fails where the document root belongs on files that are not mounted: what is put there now would be hidden later.
pub fn require_files(config: &Config) -> anyhow::Result<()> {
    let Some(files) = config.files().filter(|_| config.is_portal_on_files()) else {
        return Ok(());
    };
    let table = Table::read(space(config)).context("the table of mounts")?;
    let remedy = match files {
        Files::Door { .. } => "start bitrix-node, which mounts it",
        _ => "start bitrix-node, or try `bitrix-node storage mount`",
    };
    anyhow::ensure!(
        files.placed(&table).is_none_or(|placed| placed == Placed::Ours),
        "the portal's files ({}) are not mounted on {}, where the document root belongs; {remedy}",
        files.source(),
        files.folder().display()
    );
    Ok(())
}

fn worker() -> anyhow::Result<Worker> {
    Ok(Worker::new(std::env::current_exe().context("path of this executable")?))
}

fn folder(config: &Config, at: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    at.map_or_else(|| Ok(config.mount_point()), |at| Ok(std::path::absolute(at)?))
}

/// How this node sees the files.
#[derive(Debug, Serialize)]
pub struct Seen {
    /// The export; empty where somebody else mounts.
    source: String,
    folder: PathBuf,
    pub health: Health,
    detail: String,
    total_bytes: Option<u64>,
    free_bytes: Option<u64>,
    locks: Locks,
}

/// How far a lock of PHP holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Locks {
    Cluster,
    Node,
    Server,
    /// Whoever mounted it knows.
    Unknown,
}

impl Locks {
    fn of(config: &Config) -> Self {
        match (config.files(), config.storage.export()) {
            (Some(Files::Door { .. }), _) => Locks::Cluster,
            (_, Some(export)) => Locks::of_export(&export),
            (_, None) => Locks::Unknown,
        }
    }

    fn of_export(export: &Export) -> Self {
        if export.has_locks { Locks::Server } else { Locks::Node }
    }

    fn text(self) -> &'static str {
        match self {
            Locks::Cluster => "locks hold on all nodes",
            Locks::Node => "locks hold on this node only",
            Locks::Server => "locks are the server's",
            Locks::Unknown => "locks are as it was mounted",
        }
    }
}

impl Seen {
    /// `None`: nothing is shared. Takes as long as a probe at most, whatever becomes of the files.
    pub async fn look(config: &Config) -> anyhow::Result<Option<Self>> {
        let is_wanted = config.files().is_some();
        let files = match (config.files(), config.storage.export()) {
            (Some(files), _) => files,
            (None, Some(export)) => Files::Mounted {
                export,
                at: config.mount_point(),
            },
            (None, None) => return Ok(None),
        };
        let table = Table::read(space(config)).context("the table of mounts")?;
        let at = files.folder().display();
        let seen = match files.placed(&table) {
            None | Some(Placed::Ours) => Self::probe(config, &files, &table).await?,
            Some(Placed::Nothing) if is_wanted => {
                let detail = format!("{} is not mounted on {at}", files.source());
                Self::new(config, &files, Health::Failed, detail)
            }
            Some(Placed::Nothing) => {
                let detail = "not mounted on this node (storage.mount = \"none\")".to_owned();
                Self::new(config, &files, Health::Good, detail)
            }
            Some(Placed::Foreign(what)) => {
                let detail = format!("{what} is mounted on {at} in their place");
                Self::new(config, &files, Health::Failed, detail)
            }
        };
        Ok(Some(seen))
    }

    async fn probe(config: &Config, files: &Files, table: &Table) -> anyhow::Result<Self> {
        let folder = files.folder().to_path_buf();
        let title = Title {
            source: files.source(),
            folder: folder.display().to_string(),
            is_apart: table.is_apart(&folder, &config.node.data_dir),
        };
        let pulse = Pulse::of(worker()?.ask(&Order::Probe { folder }, PROBE).await);
        let (_, status) = say(&title, &pulse);
        let mut seen = Self::new(config, files, status.health, status.detail);
        if let Pulse::Good(room) = pulse {
            seen.detail += &format!(", answered in {:.1} ms", room.took.as_secs_f64() * 1e3);
            (seen.total_bytes, seen.free_bytes) = (Some(room.total_bytes), Some(room.free_bytes));
        }
        Ok(seen)
    }

    fn new(config: &Config, files: &Files, health: Health, detail: String) -> Self {
        Seen {
            source: files.source(),
            folder: files.folder().to_path_buf(),
            health,
            detail,
            total_bytes: None,
            free_bytes: None,
            locks: Locks::of(config),
        }
    }

    /// A line of `storage status`.
    pub fn line(&self) -> String {
        let locks = match self.free_bytes {
            Some(_) => format!("; {}", self.locks.text()),
            None => String::new(),
        };
        format!("files here: {}{locks}\n", self.detail)
    }
}
