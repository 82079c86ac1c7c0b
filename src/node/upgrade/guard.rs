//! A process of the old executable that outlives it: when the new one ends soon, or does not say in time that all is well, it puts
//! the old file back and sees to it that the old one is started.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use nix::unistd::pipe2;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info};

use super::install::Place;
use crate::base::Scope;
use crate::config::{self, Config};
use crate::host::child::Child;
use crate::host::process::{self, Identity, Watched};
use crate::host::upgrade::{Record, Stage};
use crate::host::{command, facts};

/// The hidden verb of this executable.
pub const VERB: &str = "upgrade-guard";
/// One that has run so long since it took the place has come up.
const WATCH: Duration = Duration::from_secs(20);
/// Given to the new executable beyond its own patience, for it can put things back without cutting a connection.
const MARGIN: Duration = Duration::from_secs(15);
/// A killed supervisor's lock is free after this, unless its disk hangs.
const KILLED: Duration = Duration::from_secs(30);

/// What it hears.
const WELL: &[u8] = b"w";
const NO_MORE: &[u8] = b"n";

/// What a guard is told on its command line.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    supervisor: Identity,
    executable: PathBuf,
    /// Whether there is a previous file to put back.
    is_changed: bool,
    patience: Duration,
    /// Nobody else starts a supervisor that ended.
    starts: bool,
}

/// The supervisor's end. A guard that hears nothing acts.
pub struct Guard(OwnedFd);

impl Guard {
    /// Starts one, before the change. `is_changed`: there is a new file, and the previous one is kept.
    pub fn start(place: &Place, config: &Config, path: &Path, is_changed: bool, scope: &Scope) -> io::Result<Self> {
        let supervisor = process::identity(std::process::id()).ok_or(io::ErrorKind::NotFound)?;
        // Under systemd what is left of a service is killed when it ends; a guard must not be.
        let is_unit = facts::has_systemd() && config::var("NOTIFY_SOCKET").is_some();
        let order = Order {
            supervisor,
            executable: place.executable.clone(),
            is_changed,
            patience: config.upgrade.patience.0 + MARGIN,
            starts: !is_unit,
        };
        let program = if is_changed {
            place.previous()
        } else {
            place.executable.clone()
        };
        let order = serde_json::to_string(&order).map_err(io::Error::other)?;
        let arguments = [VERB.into(), order.into(), "--config".into(), path.into()];
        let (theirs, ours) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let pid = match command::find("systemd-run").filter(|_| is_unit) {
            None => command::detach(&program, &arguments, theirs)?,
            Some(run) => {
                let unit = format!("--unit=bitrix-node-guard-{}", std::process::id());
                let mut all = ["--quiet".into(), "--scope".into(), "--collect".into(), unit.into()].to_vec();
                all.extend(["--".into(), program.into()]);
                all.extend(arguments);
                command::detach(&run, &all, theirs)?
            }
        };
        scope.spawn(Child::adopt(pid, None, None)?.outlive());
        Ok(Guard(ours))
    }

    /// The one that the executable before this one started.
    pub fn inherited(end: OwnedFd) -> Self {
        Guard(end)
    }

    pub fn end(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The new executable serves.
    pub fn all_is_well(&self) {
        self.say(WELL);
    }

    /// It is not needed any more, whatever happens.
    pub fn dismiss(&self) {
        self.say(NO_MORE);
    }

    fn say(&self, word: &[u8]) {
        // One that is gone needs no word.
        let _ = nix::unistd::write(&self.0, word);
    }
}

/// The guard's life. Standard input is its end of the pipe. Returns when all is well, or the old file is back; becomes the old
/// executable where nobody else would start it.
pub async fn watch(order: &str, config: &Config, path: &Path) -> anyhow::Result<()> {
    let order: Order = serde_json::from_str(order).context("the order")?;
    let Some(why) = trouble(&order).await? else {
        return Ok(());
    };
    error!(
        why,
        "the new executable does not come up; the one before takes its place again"
    );
    if order.is_changed {
        let restored = Place::new(order.executable.clone()).restore(false);
        restored.context("put the previous executable back")?;
    }
    Record::end(config, Stage::Failed, &why)?;
    let watched = Watched::open(order.supervisor.pid);
    process::signal(order.supervisor, Signal::SIGKILL);
    if !order.starts {
        return Ok(());
    }
    if let Ok(watched) = watched {
        let _ = tokio::time::timeout(KILLED, watched.ended()).await;
    }
    info!("starts the executable that was before");
    let arguments = ["run".to_owned(), "--config".to_owned(), path.display().to_string()];
    Err(command::become_program(&order.executable, &arguments)).context("start the previous executable")
}

/// Why the old executable must come back; `None`: all is well.
async fn trouble(order: &Order) -> anyhow::Result<Option<String>> {
    let begun = Instant::now();
    let mut said = Receiver::from_owned_fd(std::io::stdin().as_fd().try_clone_to_owned()?)?;
    let Ok(supervisor) = Watched::open(order.supervisor.pid) else {
        return Ok(Some("it has ended".to_owned()));
    };
    let (mut is_well, mut is_open) = (false, true);
    let mut word = [0; 1];
    loop {
        let end = begun + if is_well { WATCH } else { order.patience };
        tokio::select! {
            read = said.read(&mut word), if is_open => match read {
                Ok(1) if word == NO_MORE => return Ok(None),
                Ok(1) => is_well = true,
                // Who ended is told by the kernel.
                _ => is_open = false,
            },
            () = supervisor.ended() => return Ok(Some("it ended".to_owned())),
            () = sleep_until(end) => match is_well {
                true => return Ok(None),
                false => return Ok(Some(format!("it was not ready within {:?}", order.patience))),
            },
        }
    }
}
