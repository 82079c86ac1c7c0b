//! `upgrade`: another version of bitrix-node in the place of this one. Root's own commands; they speak to the supervisor by a signal,
//! and read how it went from its record.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::{Format, require_root, roll};
use crate::agent::upgrade;
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::base::file::{Access, replace, try_lock};
use crate::config::Config;
use crate::node::upgrade::{Candidate, Key, Place, Record, Stage, probe};

/// Beyond the new version's own patience: until the old one has looked at it, and taken its place again if it must.
const MARGIN: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start the supervisor and its modules anew, one by one, without a refused connection
    Restart,
    /// Is FILE fit to take the place of what runs? Changes nothing
    Check {
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
    },
    /// Put FILE, whose signature is FILE.sig, in the place of this version on all nodes, one after another
    Apply {
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// On this node only
        #[arg(long)]
        here: bool,
        /// Also where no other node can serve meanwhile
        #[arg(long)]
        allow_downtime: bool,
    },
    /// How far the nodes are
    Plan {
        #[arg(long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// The node whose turn it is finishes; no other begins
    Pause,
    /// Go on after a pause, after a failure that was mended, or for a node that was silent meanwhile
    Resume,
    /// Put the version before this one back
    Rollback,
    /// Which version is in place, which one was before, and how the last change went
    Status {
        #[arg(long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
}

pub async fn perform(verb: Verb, config: Config, path: &Path) -> anyhow::Result<u8> {
    require_root()?;
    let node = Node::find(config, path)?;
    match verb {
        Verb::Restart => node.restart().await,
        Verb::Check { from } => {
            let (candidate, version) = node.examine(&from).await?;
            say(&format!(
                "{} is version {version}, {}; fit to run here",
                from.display(),
                candidate.hash
            ))
        }
        Verb::Plan { output } => roll::plan(&node.config, output).await,
        Verb::Pause => roll::set(&node.config, upgrade::PAUSED).await,
        Verb::Resume => roll::set(&node.config, upgrade::RUNNING).await,
        Verb::Apply {
            from,
            here,
            allow_downtime,
        } => {
            let (candidate, version) = node.examine(&from).await?;
            if !here && let Some(shared) = roll::Shared::open(&node.config).await? {
                return shared
                    .send(&node.config, &from, &candidate, &version, allow_downtime)
                    .await;
            }
            node.place.install(&candidate).context("put it in place")?;
            say(&format!("version {version} is in {}", node.place.executable.display()))?;
            node.restart().await
        }
        Verb::Rollback => {
            let previous = node.place.previous();
            ensure!(
                previous.exists(),
                "there is no {}: nothing was replaced here",
                previous.display()
            );
            node.place.restore(true).context("put the version before back")?;
            node.restart().await
        }
        Verb::Status { output } => node.status(output).await,
    }
}

struct Node {
    config: Config,
    /// Of the configuration.
    path: PathBuf,
    place: Place,
    /// The supervisor's process; `None`: the node does not run.
    supervisor: Option<Pid>,
}

impl Node {
    fn find(config: Config, path: &Path) -> anyhow::Result<Self> {
        let supervisor = supervisor(&config)?;
        let executable = match supervisor {
            Some(pid) => running(pid)?,
            None => std::env::current_exe().context("path of this executable")?,
        };
        Ok(Node {
            path: std::path::absolute(path)?,
            config,
            place: Place::new(executable),
            supervisor,
        })
    }

    /// Whether somebody vouches for it, and whether it would go on with this node; returns its version, too.
    async fn examine(&self, from: &Path) -> anyhow::Result<(Candidate, String)> {
        let candidate = Candidate::read(from)?;
        let key = &self.config.upgrade.key;
        match Key::read(key)? {
            Some(key) => candidate.verify(from, &key).map_err(anyhow::Error::msg)?,
            None => eprintln!(
                "bitrix-node: nobody vouches for {}: there is no {}; you do",
                from.display(),
                key.display()
            ),
        }
        let staged = self.place.executable.with_extension("candidate");
        replace(&staged, candidate.content(), Access::owned(0o755, 0, 0)).context("lay it beside the executable")?;
        let seen = probe(&staged, &self.path).await;
        let _ = fs::remove_file(&staged);
        let seen = seen.map_err(|why| anyhow::anyhow!("{} cannot take the place: {why}", from.display()))?;
        Ok((candidate, seen.version))
    }

    /// Waits until the supervisor has become what is in place, and all its modules are of it.
    async fn restart(&self) -> anyhow::Result<u8> {
        let Some(supervisor) = self.supervisor else {
            return say("the node does not run; this version runs when it is started");
        };
        let before = Record::read(&self.config).map(|record| record.begun);
        kill(supervisor, Signal::SIGUSR2).context("tell the supervisor")?;
        let end = tokio::time::Instant::now() + self.config.upgrade.patience.0 + MARGIN;
        loop {
            let record = Record::read(&self.config).filter(|record| Some(record.begun) != before);
            match record {
                Some(record) if record.stage == Stage::Done => {
                    return say(&format!("version {} serves", record.to));
                }
                Some(record) if record.stage == Stage::Failed => {
                    bail!("version {} goes on: {}", record.from, record.detail);
                }
                _ if tokio::time::Instant::now() > end => {
                    bail!("nothing is heard of it; `bitrix-node logs --module supervisor` may tell why");
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    async fn status(&self, output: Format) -> anyhow::Result<u8> {
        let version = |path: PathBuf| async move {
            match path.exists() {
                true => probe(&path, &self.path).await.map(|seen| seen.version).ok(),
                false => None,
            }
        };
        let (placed, previous) = (
            version(self.place.executable.clone()).await,
            version(self.place.previous()).await,
        );
        let record = Record::read(&self.config);
        let has_key = Key::read(&self.config.upgrade.key)?.is_some();
        let has_failed = record.as_ref().is_some_and(|record| record.stage == Stage::Failed);
        let text = match output {
            Format::Json => {
                let document = json!({
                    "executable": self.place.executable,
                    "version": placed,
                    "previous": previous,
                    "has_key": has_key,
                    "last": record,
                });
                serde_json::to_string_pretty(&document)? + "\n"
            }
            Format::Table => {
                let or = |version: Option<String>| version.unwrap_or_else(|| "none".to_owned());
                let key = self.config.upgrade.key.display();
                let key = if has_key {
                    key.to_string()
                } else {
                    format!("none ({key} is not there)")
                };
                let last = record.map_or_else(|| "none".to_owned(), |record| describe(&record));
                format!(
                    "in place:     {} ({})\nbefore:       {}\nvouched by:   {key}\nlast change:  {last}\n",
                    or(placed),
                    self.place.executable.display(),
                    or(previous)
                )
            }
        };
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(if has_failed { EXIT_DEGRADED } else { EXIT_OK })
    }
}

fn describe(record: &Record) -> String {
    let Record { from, to, detail, .. } = record;
    match record.stage {
        Stage::Trial => format!("{from} to {to}, under way"),
        Stage::Done => format!("{from} to {to}, done"),
        Stage::Failed => format!("{from} to {to}, failed: {detail}"),
    }
}

pub(super) fn say(text: &str) -> anyhow::Result<u8> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(EXIT_OK)
}

/// Who holds the lock of the data folder.
fn supervisor(config: &Config) -> anyhow::Result<Option<Pid>> {
    let path = config.node.data_dir.join("lock");
    if !path.exists() || try_lock(&path)?.is_some() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path)?;
    let pid = text.trim().parse().map(Pid::from_raw);
    pid.map(Some)
        .with_context(|| format!("{} does not say who holds it; restart the node", path.display()))
}

/// Where its executable lay when it was started.
fn running(pid: Pid) -> anyhow::Result<PathBuf> {
    let target = fs::read_link(format!("/proc/{pid}/exe")).context("the supervisor's executable")?;
    let text = target.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map_or(target.clone(), PathBuf::from))
}
