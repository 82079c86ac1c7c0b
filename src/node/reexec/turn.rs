//! The whole course: somebody wishes another executable, this one gives way to it, and that one replaces the modules.

use std::path::PathBuf;
use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::leave::Leaver;
use super::roll::{self, Module};
use crate::base::Scope;
use crate::config::Config;
use crate::node::supervise::notify;
use crate::node::upgrade::{self, Candidate, Guard, Place, Record, Stage};

/// The wish for the executable that is in place now.
pub struct Request {
    /// Also to an earlier version: root alone may wish that.
    pub may_go_back: bool,
    /// Hears why it does not happen; nothing when it does, for then nobody is there any more who could say it.
    pub refused: Option<oneshot::Sender<String>>,
}

/// One at a time; who comes meanwhile is refused.
pub type Requests = mpsc::Sender<Request>;

pub struct Turn {
    pub leaver: Arc<Leaver>,
    pub modules: Vec<Module>,
    pub requests: mpsc::Receiver<Request>,
    /// The node is being stopped.
    pub stopping: CancellationToken,
    pub config: Arc<Config>,
    pub path: PathBuf,
    /// Of the change by which this executable came.
    pub guard: Option<Guard>,
    pub scope: Scope,
}

impl Turn {
    /// Never ends by itself. `is_heir`: the modules are still those of the executable before this one.
    pub async fn run(mut self, is_heir: bool) {
        let stopping = self.stopping.clone();
        tokio::select! {
            () = self.take(is_heir) => {}
            () = stopping.cancelled() => self.dismiss(),
        }
    }

    async fn take(&mut self, is_heir: bool) {
        if is_heir {
            self.replace_modules().await;
        }
        while let Some(request) = self.requests.recv().await {
            let why = self.give_way(request.may_go_back).await;
            error!(why, "the executable is not replaced; all goes on as it was");
            if let Some(refused) = request.refused {
                let _ = refused.send(why);
            }
        }
    }

    fn dismiss(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.dismiss();
        }
    }

    async fn replace_modules(&mut self) {
        let tell = |name: &str| notify(&[NotifyState::Status(&format!("replacing {name}"))]);
        let end = Instant::now() + self.config.upgrade.patience.0;
        match roll::roll(&mut self.modules, end, tell).await {
            Ok(()) => {
                info!("all modules are of the new executable");
                notify(&[NotifyState::Status("serving")]);
                self.note(Stage::Done, "");
                if let Some(guard) = &self.guard {
                    guard.all_is_well();
                }
            }
            Err(why) => self.go_back(&why).await,
        }
    }

    /// To the executable before this one, if it was another one; all goes on under it as it went on under this one.
    async fn go_back(&mut self, why: &str) {
        error!(why, "a module of the new executable does not come up");
        self.dismiss();
        let record = Record::read(&self.config);
        let is_new = record.is_some_and(|record| record.stage == Stage::Trial && !record.hash.is_empty());
        self.note(Stage::Failed, why);
        if !is_new {
            return;
        }
        if let Err(error) = self.place().restore(false) {
            error!(%error, "the previous executable is not put back");
            return;
        }
        warn!("goes back to the executable before this one");
        let failure = self.leave(None).await;
        error!(%failure, "the previous executable does not take its place again");
    }

    /// Returns why it did not happen.
    async fn give_way(&mut self, may_go_back: bool) -> String {
        let place = self.place();
        let is_changed = place.is_changed().unwrap_or(true);
        let hash = match is_changed.then(|| Candidate::read(&place.executable)) {
            None => String::new(),
            Some(Ok(candidate)) => candidate.hash,
            Some(Err(error)) => return error.to_string(),
        };
        let mut record = Record::begin("", hash);
        let failure = match self.attempt(&place, is_changed, may_go_back, &mut record).await {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        self.dismiss();
        if is_changed && let Err(error) = place.keep_running().and_then(|()| place.restore(false)) {
            error!(%error, "the file of the executable that runs is not put back");
        }
        let ended = Record {
            stage: Stage::Failed,
            detail: failure.clone(),
            ..record
        };
        if let Err(error) = ended.write(&self.config) {
            warn!(%error, "the failure is not noted");
        }
        failure
    }

    async fn attempt(
        &mut self,
        place: &Place,
        is_changed: bool,
        may_go_back: bool,
        record: &mut Record,
    ) -> Result<std::convert::Infallible, String> {
        let new = upgrade::probe(&place.executable, &self.path).await?;
        record.to.clone_from(&new.version);
        let own = env!("CARGO_PKG_VERSION");
        if !may_go_back && upgrade::is_older(&new.version, own) {
            return Err(format!(
                "version {} is older than {own}; only root on this machine goes back",
                new.version
            ));
        }
        let text = |error: std::io::Error| error.to_string();
        if is_changed {
            place.keep_running().map_err(text)?;
        }
        record.write(&self.config).map_err(text)?;
        let guard = Guard::start(place, &self.config, &self.path, is_changed, &self.scope).map_err(text)?;
        info!(executable = %place.executable.display(), to = new.version, is_changed, "gives way");
        self.dismiss();
        self.guard = Some(guard);
        let guard = self.guard.as_ref().expect("set above");
        Err(self.leave(Some(guard)).await)
    }

    /// Returns why it did not happen.
    async fn leave(&self, guard: Option<&Guard>) -> String {
        let now = NotifyState::monotonic_usec_now().unwrap_or(NotifyState::MonotonicUsec(0));
        notify(&[NotifyState::Reloading, now]);
        let failure = self.leaver.leave(guard.map(Guard::end)).await;
        notify(&[NotifyState::Ready]);
        failure.to_string()
    }

    fn place(&self) -> Place {
        Place::new(self.leaver.executable.clone())
    }

    fn note(&self, stage: Stage, detail: &str) {
        if let Err(error) = Record::end(&self.config, stage, detail) {
            warn!(%error, "how the change went is not noted");
        }
    }
}
