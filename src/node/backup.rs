//! Backups by the clock: each minute a process of this executable looks whether one is due here, and makes it. It runs as root,
//! which alone has what is in a backup; the supervisor reads nothing of it but its lines for the log. What one that was killed has left
//! of its hold on the running database is taken back here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::AsyncRead;
use tokio::time::Instant;
use tracing::warn;

use super::output::{Form, Output};
use crate::base::Scope;
use crate::base::file::try_lock;
use crate::config::Config;
use crate::db::backup::aside;
use crate::host::child::{Child, Launch};

/// The hidden verb of this executable.
pub const VERB: &str = "backup-worker";
const NAME: &str = "backup";
const LOOK: Duration = Duration::from_secs(60);
/// After one that failed: a store that is full or away is so for a while.
const PAUSE: Duration = Duration::from_secs(15 * 60);

pub struct Backups {
    /// `None`: none are scheduled on this node.
    launch: Option<Launch>,
    /// Held while one is made; there while MariaDB has stepped aside for it; MariaDB's socket.
    lock: PathBuf,
    mark: PathBuf,
    socket: PathBuf,
    output: Output,
    scope: Scope,
}

impl Backups {
    /// `None`: there is nothing to do on this node.
    pub fn new(config: &Config, executable: &Path, path: &Path, output: &Output, scope: &Scope) -> Option<Self> {
        let is_scheduled = config.backup.daily().is_some();
        let arguments = [OsString::from(VERB), "--config".into(), PathBuf::from(path).into()];
        let launch = Launch {
            program: executable.to_path_buf(),
            arguments: arguments.into(),
            environment: Vec::new(),
            account: None,
            sockets: Vec::new(),
            // What it has put into the store by then is no backup.
            when_orphaned: Signal::SIGKILL,
        };
        (config.db.run && (is_scheduled || config.db.galera)).then(|| Backups {
            launch: is_scheduled.then_some(launch),
            lock: config.backup_lock(),
            mark: config.backup_aside(),
            socket: config.db_socket(),
            output: output.clone(),
            scope: scope.clone(),
        })
    }

    /// Until the scope ends. Must run on the main thread, like all that starts children.
    pub async fn run(self) {
        let mut next = Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            self.mend().await;
            let Some(launch) = self.launch.as_ref().filter(|_| Instant::now() >= next) else {
                continue;
            };
            let is_well = match self.once(launch).await {
                Ok(is_well) => is_well,
                Err(error) => {
                    warn!(%error, "no backup can be started");
                    false
                }
            };
            if !is_well {
                self.mend().await;
                next = Instant::now() + PAUSE;
            }
        }
    }

    /// MariaDB steps aside by a setting of its own, which outlives who made it.
    async fn mend(&self) {
        if !self.mark.exists() {
            return;
        }
        let back = match try_lock(&self.lock) {
            Ok(None) => return,
            Ok(Some(_lock)) => aside::back(&self.socket, &self.mark).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = back {
            warn!(
                error = format!("{error:#}"),
                "the database here is still aside for a backup"
            );
        }
    }

    async fn once(&self, launch: &Launch) -> std::io::Result<bool> {
        let mut child = Child::launch(launch)?;
        self.forward(child.output.take());
        self.forward(child.errors.take());
        let status = child.wait().await?;
        child.end_group().await;
        if !status.success() {
            warn!(%status, "no backup was made; see the lines of backup above");
        }
        Ok(status.success())
    }

    fn forward(&self, pipe: Option<impl AsyncRead + Unpin + Send + 'static>) {
        if let Some(pipe) = pipe {
            let (output, last) = (self.output.clone(), Mutex::default());
            self.scope
                .spawn(async move { output.forward(pipe, Form::Foreign(NAME), &last).await });
        }
    }
}
