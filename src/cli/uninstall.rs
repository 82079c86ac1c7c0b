//! `uninstall`: this machine leaves its cluster, and what `init` or `join` made of it is undone. Data stays unless it is told to go.
//! Goes on after errors, and can be repeated until nothing is left to do. The executable and its package are the package's matter.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::settle::{self, UNIT, is_agreed};
use super::{registry, remove, require_root, storage};
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::cluster::Snapshot;
use crate::config::{Config, DEFAULT_PATH, Engine, Port};
use crate::host::facts;
use crate::host::mount::{Space, Table};
use crate::host::unit::Unit;
use crate::node::prepare;
use crate::registry::{NodeState, Registry, View};
use crate::storage::command::Report;

/// To say good-bye; a cluster without a majority does not listen.
const LEAVE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub struct Uninstall {
    /// Remove databases, files, secrets, logs and the configuration of this node, too
    #[arg(long)]
    purge_data: bool,
    /// Also when the cluster cannot do without this node, or does not answer
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Uninstall {
    pub async fn perform(self, config: Config, path: &Path) -> anyhow::Result<u8> {
        require_root()?;
        let mut out = io::stdout();
        write!(out, "{}", self.describe(&config, path))?;
        if !self.yes && !is_agreed()? {
            writeln!(out, "nothing was changed")?;
            return Ok(EXIT_DEGRADED);
        }
        match timeout(LEAVE, leave(&config)).await.context("within 30 s").flatten() {
            Ok(Some(done)) => writeln!(out, "{done}")?,
            Ok(None) => {}
            Err(error) if self.force => writeln!(
                out,
                "cannot leave the cluster: {error:#}; on another node: bitrix-node node remove NAME --force"
            )?,
            Err(error) => bail!(
                "{error:#}; with --force it goes on without leaving the cluster, as for a node that was removed there already"
            ),
        }
        let mut is_done = true;
        for (what, result) in undo(&config, path, self.purge_data).await? {
            match result {
                Ok(()) => writeln!(out, "{what}: done")?,
                Err(error) => {
                    is_done = false;
                    writeln!(out, "{what}: {error:#}")?;
                }
            }
        }
        if !self.purge_data {
            writeln!(out, "data stays in {}", config.node.data_dir.display())?;
        }
        Ok(if is_done { EXIT_OK } else { EXIT_DEGRADED })
    }

    fn describe(&self, config: &Config, path: &Path) -> String {
        let data = config.node.data_dir.display();
        let data = match self.purge_data {
            true => format!("REMOVED: {data}, {}, {}", config.node.log_dir.display(), path.display()),
            false => format!("kept in {data}"),
        };
        format!("leave the cluster, if there is one; stop {UNIT}; remove what was written into /etc\ndata: {data}\n")
    }
}

/// Says in the registry that this node has left. `None`: it is in no cluster, or has left already.
async fn leave(config: &Config) -> anyhow::Result<Option<String>> {
    if config.storage.engine == Engine::None || config.mesh(Port::Agent).is_none() {
        return Ok(None);
    }
    let own = settle::node_name(None, config)?;
    // It may have left before, and be without its storage since.
    let known = settle::last_seen(config, &own).await;
    if known.is_none_or(|node| node.state == NodeState::Left) {
        return Ok(None);
    }
    let registry = registry::open(config).await?;
    let view = registry
        .read()
        .await
        .context("the registry, in which it would be said")?;
    let Some(node) = view.node(&own).filter(|node| node.state != NodeState::Left) else {
        return Ok(None);
    };
    if is_alone(&view, &own) {
        return Ok(None);
    }
    let snapshot = settle::snapshot(config).await;
    may_leave(&own, snapshot.as_deref(), &storage::report(config).await?)?;
    registry.commit(remove::leave(node)).await?;
    Ok(Some(format!("{own} has left the cluster")))
}

fn is_alone(view: &View, own: &str) -> bool {
    view.nodes()
        .all(|node| node.name == own || node.state == NodeState::Left)
}

/// Whether the others can go on. Pure.
fn may_leave(own: &str, snapshot: Option<&Snapshot>, report: &Report) -> anyhow::Result<()> {
    let mut voters = report.members.iter().filter(|member| member.votes);
    ensure!(
        voters.any(|member| member.name != own),
        "the storage has its only vote here, and stops for all nodes with this one; three nodes with whole copies are needed first"
    );
    let mut copies = report.members.iter().filter(|member| member.in_sync && !member.witness);
    ensure!(
        copies.any(|member| member.name != own),
        "no other node has a whole copy of the files: bitrix-node storage status"
    );
    remove::can_do_without(own, snapshot, report)
}

/// Every step with its outcome; none keeps the next ones from being tried.
async fn undo(config: &Config, path: &Path, purges: bool) -> anyhow::Result<Vec<(String, anyhow::Result<()>)>> {
    let mut done = Vec::new();
    if settle::is_by_unit(path) && facts::has_systemd() {
        done.push((format!("stop {UNIT}"), stop_unit().await));
    }
    let answers = timeout(LOOK, UnixStream::connect(config.control_socket())).await;
    ensure!(
        !matches!(answers, Ok(Ok(_))),
        "the node runs still; end its `bitrix-node run`, then repeat this command"
    );
    if facts::has_systemd() {
        let ended = prepare::let_database_go(config).await;
        done.push(("end what runs of the database, unmask the distribution's".into(), ended));
    }
    done.push(("let the mount go".into(), storage::let_go(config).await));
    for file in prepare::drop_ins(config) {
        let removed = std::fs::remove_file(&file).context("remove it");
        done.push((file.display().to_string(), removed));
    }
    let mut folders = vec![config.node.run_dir.clone()];
    if purges {
        folders.extend([config.node.data_dir.clone(), config.node.log_dir.clone()]);
    }
    for folder in folders.iter().filter(|folder| folder.exists()) {
        done.push((folder.display().to_string(), remove_folder(folder)));
    }
    if purges && path == Path::new(DEFAULT_PATH) && path.exists() {
        let removed = std::fs::remove_file(path).context("remove it");
        done.push((path.display().to_string(), removed));
    }
    Ok(done)
}

async fn stop_unit() -> anyhow::Result<()> {
    let unit = Unit(UNIT.to_string());
    unit.stop().await?;
    unit.disable().await?;
    Ok(())
}

/// With all that is in it, but never what is mounted in it: these are the files of the whole cluster. A disk of its own stays, empty.
fn remove_folder(folder: &Path) -> anyhow::Result<()> {
    ensure!(
        folder.components().count() > 2,
        "it is too near to the root; remove it by hand"
    );
    let mut is_disk = false;
    for space in [Space::Own, Space::Init] {
        let table = Table::read(space)?;
        if let Some(mount) = table.below(folder).find(|entry| entry.target != folder) {
            bail!("{} is mounted there; unmount it first", mount.target.display());
        }
        is_disk |= table.at(folder).is_some();
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() && !path.is_symlink() {
            true => std::fs::remove_dir_all(&path),
            false => std::fs::remove_file(&path),
        }
        .with_context(|| path.display().to_string())?;
    }
    if !is_disk {
        std::fs::remove_dir(folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::command::Member;

    #[test]
    fn nobody_leaves_with_the_only_vote_or_the_only_copy() {
        let member = |name: &str, votes, in_sync| Member {
            name: name.into(),
            votes,
            in_sync,
            ..Member::default()
        };
        let asked = |members: Vec<Member>| {
            let report = Report {
                members,
                ..Report::default()
            };
            may_leave("n1", None, &report).map_err(|error| error.to_string())
        };
        let two = asked(vec![member("n1", true, true), member("n2", false, true)]);
        assert!(two.unwrap_err().contains("only vote"));
        let last = asked(vec![member("n1", true, true), member("n2", true, false)]);
        assert!(last.unwrap_err().contains("whole copy"));
        let pair = asked(vec![member("n1", true, true), member("n2", true, true)]);
        assert!(pair.unwrap_err().contains("2 votes"));
        let three = ["n1", "n2", "n3"].map(|name| member(name, true, true));
        assert_eq!(asked(three.into()), Ok(()));
    }

    #[test]
    fn only_a_whole_folder_far_from_the_root_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("data");
        std::fs::create_dir_all(inner.join("a/b")).unwrap();
        remove_folder(&inner).unwrap();
        assert!(!inner.exists());
        assert!(
            remove_folder(Path::new("/etc"))
                .unwrap_err()
                .to_string()
                .contains("root")
        );
    }
}
