//! The portal's jobs: `cron_events.php`, every minute while the seat is held, and never two runs at once, neither here nor in the
//! cluster. A minute in which the last run still goes is left out.
//!
//! A run is a process of a guard (`guard`), which knows the end of the hold by itself and kills the run before it. So it ends
//! in time although the supervisor is frozen; and where the guard is, the supervisor kills that. A seat that is given up begins
//! no run any more, and lets the last one go on until its hold would have ended.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tracing::{debug, info, warn};

use super::guard;
use super::holder::Hold;
use crate::base::{Scope, clock};
use crate::config::Config;
use crate::host::account::{self, Account};
use crate::host::child::{Child, Launch, above_reserved};
use crate::host::facts;
use crate::host::pair::{End, pair};
use crate::host::process::{self, Identity};
use crate::node::leftover::Note;
use crate::node::output::{Form, Output};
use crate::php::cli;

const NAME: &str = "cron";
const SCRIPT: &str = "bitrix/modules/main/tools/cron_events.php";
/// Between two looks whether the hold has moved on.
const LOOK: Duration = Duration::from_millis(40);
/// The guard kills earlier (`guard::KILL`); if it did not, it is killed with its run this long before the hold ends.
const KILL: Duration = Duration::from_millis(100);
/// How often a killed run is looked for.
const LOOKS: u32 = 40;

/// Starts the runs.
pub struct Cron {
    pub config: Arc<Config>,
    pub executable: PathBuf,
    pub output: Output,
    pub note: Arc<Note>,
    pub scope: Scope,
    /// From the beginning of one run to that of the next.
    pub period: Duration,
}

impl Cron {
    /// Until the hold ends; then nothing of it runs any more. Must run on the main thread, like all that starts children.
    pub async fn run(&self, hold: &mut Hold) {
        let mut was_well = true;
        loop {
            let next = next(clock::boot(), self.period);
            while clock::boot() < next {
                hold.wait(next.saturating_sub(clock::boot())).await;
                if hold.left().is_zero() {
                    return;
                }
            }
            let ended = self.once(hold).await;
            let is_well = matches!(&ended, Ok(status) if status.success());
            match ended {
                Ok(status) if status.success() => debug!("the portal's jobs have run"),
                Ok(status) if status.code() == Some(guard::NO_SCRIPT) => {
                    debug!(script = SCRIPT, "there are no jobs: the portal has no such script");
                }
                Ok(status) if was_well => warn!(%status, "the portal's jobs failed; see the lines of cron above"),
                Err(error) if was_well => warn!(error = format!("{error:#}"), "the portal's jobs cannot be run"),
                Ok(status) => debug!(%status, "the portal's jobs failed again"),
                Err(error) => debug!(%error, "the portal's jobs cannot be run"),
            }
            if is_well && !was_well {
                info!("the portal's jobs run again");
            }
            was_well = is_well;
            if hold.left().is_zero() {
                return;
            }
        }
    }

    /// One run, to its end.
    async fn once(&self, hold: &mut Hold) -> anyhow::Result<ExitStatus> {
        let (ours, theirs) = pair()?;
        let (ours, theirs) = (End::new(ours)?, above_reserved(&theirs)?);
        let mut until = hold.until();
        let order = self.order(until)?;
        if hold.left() <= guard::TERM {
            anyhow::bail!("the hold is about to end");
        }
        let mut child = Child::launch(&launch(&self.executable, &order, &self.config, &theirs)?)?;
        drop(theirs);
        self.note.set(NAME, process::identity(child.pid))?;
        self.forward(child.output.take());
        self.forward(child.errors.take());
        let mut runs = Vec::new();
        let ended = loop {
            tokio::select! {
                ended = child.wait() => break ended,
                () = hold.wait(LOOK) => {}
            }
            if runs.is_empty() {
                runs = process::children(child.pid);
            }
            let now = hold.until();
            if now > until {
                until = now;
                // One that ends at this moment does not hear it.
                let _ = ours.send(&guard::renewal(until)).await;
            }
            if clock::boot() + KILL >= until {
                warn!(
                    pid = child.pid,
                    "the run of the jobs has not ended with its hold; killing it"
                );
                child.signal(Signal::SIGKILL);
                break child.wait().await;
            }
        };
        child.end_group().await;
        for run in runs {
            end(run).await;
        }
        self.note.set(NAME, None)?;
        Ok(ended?)
    }

    fn order(&self, until: Duration) -> anyhow::Result<guard::Order> {
        let php = cli::find(&self.config).context("PHP is not installed on the command line: install php-cli")?;
        let settings = cli::settings(&self.config, &facts::node_name(&self.config))?;
        Ok(guard::Order {
            script: self.config.portal_root().join(SCRIPT),
            php,
            settings,
            until,
        })
    }

    fn forward(&self, pipe: Option<impl tokio::io::AsyncRead + Unpin + Send + 'static>) {
        if let Some(pipe) = pipe {
            let output = self.output.clone();
            let last = Mutex::default();
            self.scope
                .spawn(async move { output.forward(pipe, Form::Foreign(NAME), &last).await });
        }
    }
}

fn launch(executable: &Path, order: &guard::Order, config: &Config, end: &std::os::fd::OwnedFd) -> io::Result<Launch> {
    use std::os::fd::AsRawFd;
    let account: Account = account::require(&config.portal.user)?;
    let order = serde_json::to_string(order).map_err(io::Error::other)?;
    Ok(Launch {
        program: executable.to_path_buf(),
        arguments: vec![OsString::from(guard::VERB), OsString::from(order)],
        environment: Vec::new(),
        account: Some(account),
        sockets: vec![(guard::END.to_owned(), end.as_raw_fd())],
        // It ends the run first.
        when_orphaned: Signal::SIGTERM,
    })
}

/// What is left of a run whose guard is gone.
async fn end(run: Identity) {
    for _ in 0..LOOKS {
        let group = i32::try_from(run.pid).map(|pid| Pid::from_raw(-pid));
        while group
            .is_ok_and(|group| waitpid(group, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status.pid().is_some()))
        {
        }
        let remains = process::remains(run);
        if remains.is_empty() {
            return;
        }
        remains
            .into_iter()
            .for_each(|process| process::signal(process, Signal::SIGKILL));
        tokio::time::sleep(KILL).await;
    }
    warn!(
        pid = run.pid,
        "a killed run of the jobs does not end; it hangs in the kernel"
    );
}

/// The next whole period since boot.
fn next(now: Duration, period: Duration) -> Duration {
    let periods = now.as_nanos() / period.as_nanos().max(1) + 1;
    period * u32::try_from(periods).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_begins_with_the_minute() {
        let at = |millis| next(Duration::from_millis(millis), Duration::from_secs(60));
        assert_eq!(at(0), Duration::from_secs(60));
        assert_eq!(at(59_999), Duration::from_secs(60));
        assert_eq!(at(60_000), Duration::from_secs(120));
    }
}
