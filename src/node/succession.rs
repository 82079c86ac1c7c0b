//! One child after another under one name: what the next executable of the supervisor needs to go on with them, and those that were
//! followed by another one and only finish what they hold.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use super::leftover::Note;
use crate::base::Scope;
use crate::host::child::Child;
use crate::host::process;

/// What another version ran may be a database.
const STRANGERS: Duration = Duration::from_secs(60);

/// A child that has not been waited for, and copies of its pipes. The newest is the last.
pub type Held = Arc<Mutex<Vec<Pipes>>>;

#[derive(Debug)]
pub struct Pipes {
    pub pid: u32,
    pub output: Option<OwnedFd>,
    pub errors: Option<OwnedFd>,
}

/// A child of the predecessor, with what was known of it.
#[derive(Debug)]
pub struct Inherited {
    pub child: Child,
    pub is_ready: bool,
    pub restarts: u32,
}

pub struct Succession {
    name: &'static str,
    stop: Signal,
    grace: Duration,
    note: Arc<Note>,
    pub held: Held,
    /// They serve until their successor does.
    older: Mutex<Vec<Child>>,
    retiring: Mutex<Vec<JoinHandle<Option<()>>>>,
}

impl Succession {
    pub fn new(name: &'static str, stop: Signal, grace: Duration, note: Arc<Note>) -> Self {
        Succession {
            name,
            stop,
            grace,
            note,
            held: Held::default(),
            older: Mutex::default(),
            retiring: Mutex::default(),
        }
    }

    /// Keeps what a successor of ours needs, until `let_go`.
    pub fn hold(&self, child: &Child) -> std::io::Result<()> {
        let copy = |pipe: Option<_>| pipe.map(|pipe: &_| AsFd::as_fd(pipe).try_clone_to_owned()).transpose();
        let pipes = Pipes {
            pid: child.pid,
            output: copy(child.output.as_ref())?,
            errors: copy(child.errors.as_ref())?,
        };
        lock(&self.held).push(pipes);
        Ok(())
    }

    pub fn let_go(&self, pid: u32) {
        lock(&self.held).retain(|pipes| pipes.pid != pid);
    }

    /// It goes on as it is until `retire`.
    pub fn set_aside(&self, child: Child) {
        let noted = self.note.set(&self.aged(child.pid), process::identity(child.pid));
        if let Err(error) = noted {
            warn!(name = self.name, %error, "a child cannot be noted");
        }
        lock(&self.older).push(child);
    }

    /// Their successor is ready: those that were set aside finish what they hold, and end.
    pub fn retire(self: &Arc<Self>, scope: &Scope) {
        for child in lock(&self.older).drain(..) {
            info!(
                name = self.name,
                pid = child.pid,
                "followed by another one; it finishes what it holds"
            );
            let owner = self.clone();
            let task = scope.spawn(async move { owner.end(child).await });
            let mut retiring = lock(&self.retiring);
            retiring.retain(|task| !task.is_finished());
            retiring.push(task);
        }
    }

    async fn end(&self, mut child: Child) {
        child.signal(self.stop);
        if timeout(self.grace, child.wait()).await.is_err() {
            warn!(name = self.name, pid = child.pid, grace = ?self.grace, "does not stop; killing it");
            child.signal(Signal::SIGKILL);
            let _ = child.wait().await;
        }
        child.end_group().await;
        self.let_go(child.pid);
        let _ = self.note.set(&self.aged(child.pid), None);
    }

    /// Waits for all that were set aside.
    pub async fn finish(self: &Arc<Self>, scope: &Scope) {
        self.retire(scope);
        let retiring: Vec<_> = lock(&self.retiring).drain(..).collect();
        for task in retiring {
            let _ = task.await;
        }
    }

    fn aged(&self, pid: u32) -> String {
        format!("{}-{pid}", self.name)
    }
}

/// Ends children that nobody knows any more.
pub fn end(children: impl Iterator<Item = Inherited>, note: &Arc<Note>, scope: &Scope) {
    let former = Succession::new("former", Signal::SIGTERM, STRANGERS, note.clone());
    children.for_each(|inherited| former.set_aside(inherited.child));
    Arc::new(former).retire(scope);
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics under this lock")
}
