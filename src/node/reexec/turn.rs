//! The whole course: somebody wishes another executable, this one gives way to it, and that one replaces the modules.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::leave::Leaver;
use super::roll::{self, Place};
use crate::node::supervise::notify;

/// A module that takes longer to be ready has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The wish for the executable that is in place now.
pub struct Request {
    /// Hears why it does not happen; nothing when it does, for then nobody is there any more who could say it.
    pub refused: Option<oneshot::Sender<String>>,
}

/// One at a time; who comes meanwhile is refused.
pub type Requests = mpsc::Sender<Request>;

pub struct Turn {
    pub leaver: Arc<Leaver>,
    pub places: Vec<Place>,
    pub requests: mpsc::Receiver<Request>,
    /// The node is being stopped.
    pub stopping: CancellationToken,
}

impl Turn {
    /// Never ends by itself. `is_heir`: the modules are still those of the executable before this one.
    pub async fn run(mut self, is_heir: bool) {
        if is_heir {
            self.replace_modules().await;
        }
        while let Some(request) = self.requests.recv().await {
            if self.stopping.is_cancelled() {
                continue;
            }
            let why = self.give_way().await;
            error!(why, "the executable is not replaced; all goes on as it was");
            if let Some(refused) = request.refused {
                let _ = refused.send(why);
            }
        }
    }

    async fn replace_modules(&mut self) {
        let tell = |name: &str| notify(&[NotifyState::Status(&format!("replacing {name}"))]);
        match roll::roll(&mut self.places, PATIENCE, tell).await {
            Ok(()) => {
                info!("all modules are of the new executable");
                notify(&[NotifyState::Status("serving")]);
            }
            Err(why) => error!(why, "a module of the new executable does not come up"),
        }
    }

    /// Returns why it did not happen.
    async fn give_way(&self) -> String {
        info!(executable = %self.leaver.executable.display(), "gives way to the executable that is there now");
        let now = NotifyState::monotonic_usec_now().unwrap_or(NotifyState::MonotonicUsec(0));
        notify(&[NotifyState::Reloading, now]);
        let failure = self.leaver.leave(None).await;
        notify(&[NotifyState::Ready]);
        failure.to_string()
    }
}
