//! Backups by the clock: each minute a process of this executable looks whether one is due here, and makes it. It runs as root,
//! which alone has what is in a backup; the supervisor reads nothing of it but its lines for the log.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::AsyncRead;
use tracing::warn;

use super::output::{Form, Output};
use crate::base::Scope;
use crate::config::Config;
use crate::host::child::{Child, Launch};

/// The hidden verb of this executable.
pub const VERB: &str = "backup-worker";
const NAME: &str = "backup";
const LOOK: Duration = Duration::from_secs(60);
/// After one that failed: a store that is full or away is so for a while.
const PAUSE: Duration = Duration::from_secs(15 * 60);

pub struct Backups {
    launch: Launch,
    output: Output,
    scope: Scope,
}

impl Backups {
    /// `None`: none are scheduled on this node.
    pub fn new(config: &Config, executable: &Path, path: &Path, output: &Output, scope: &Scope) -> Option<Self> {
        let is_wanted = config.db.run && config.backup.daily().is_some();
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
        is_wanted.then(|| Backups {
            launch,
            output: output.clone(),
            scope: scope.clone(),
        })
    }

    /// Until the scope ends. Must run on the main thread, like all that starts children.
    pub async fn run(self) {
        let mut was_well = true;
        loop {
            tokio::time::sleep(if was_well { LOOK } else { PAUSE }).await;
            was_well = match self.once().await {
                Ok(is_well) => is_well,
                Err(error) => {
                    warn!(%error, "no backup can be started");
                    false
                }
            };
        }
    }

    async fn once(&self) -> std::io::Result<bool> {
        let mut child = Child::launch(&self.launch)?;
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
