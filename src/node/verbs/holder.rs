//! `Hold` and `Release`: the tasks of exclusive seats, each carried out by a task of its own for as long as its hold lasts. At the
//! end of a hold it ends by itself, whatever became of the agent (I7).
//!
//! What can stop the supervisor, and what holds then: killed or frozen itself, the kernel takes the addresses away within a second
//! after the end of the hold (`host::address::lifetime`), and the portal's jobs are ended by their own guard (`cron`). Started again,
//! it takes away at once what its predecessor left. A machine that is frozen as a whole, and wakes when its holds are over, looks at
//! the time since boot before each act, and ends what is over as the first thing it does; a virtual machine whose clock stood still,
//! too, cannot know that others went on without it, and may answer for an address until its hold ends: only a fence could help
//! there. The new holder tells the neighbours again and again whose the address is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::holdings::{Holdings, Verdict};
use super::means::Means;
use super::note::Note;
use crate::base::{Scope, clock};
use crate::host::address;
use crate::host::verb::{Answer, Task};

/// Ending takes as long as a run of the jobs that ends with its hold.
const STOP: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Beginning,
    Held,
    /// With the reason, where it could not begin or go on.
    Ended(Option<String>),
}

/// How long a hold lasts.
#[derive(Clone, Copy)]
struct Term {
    /// Since boot; zero: it is released.
    until: Duration,
    /// It is released as soon as those who use it have come to their end.
    is_ending: bool,
}

/// One hold, as whoever carries it out sees it.
pub struct Hold {
    term: watch::Receiver<Term>,
    phase: watch::Sender<Phase>,
    pub epoch: u64,
}

impl Hold {
    /// What is left of it now. To be asked right before each act.
    pub fn left(&self) -> Duration {
        self.until().saturating_sub(clock::boot())
    }

    pub fn until(&self) -> Duration {
        self.term.borrow().until
    }

    pub fn is_ending(&self) -> bool {
        self.term.borrow().is_ending
    }

    pub fn has_begun(&self) {
        self.phase.send_replace(Phase::Held);
    }

    /// Waits so long, or until the hold ends or is renewed or released. Cancel safe.
    pub async fn wait(&mut self, most: Duration) {
        let wait = most.min(self.left());
        // Whoever releases it says so before it lets go of the sender.
        let _ = tokio::time::timeout(wait, self.term.changed()).await;
    }
}

struct Running {
    term: watch::Sender<Term>,
    phase: watch::Receiver<Phase>,
}

impl Running {
    fn release(&self) {
        self.term.send_modify(|term| term.until = Duration::ZERO);
    }

    fn has_ended(&self) -> bool {
        // A task that panicked says nothing any more.
        matches!(*self.phase.borrow(), Phase::Ended(_)) || self.phase.has_changed().is_err()
    }
}

#[derive(Default)]
struct State {
    holdings: Holdings,
    running: BTreeMap<Task, Running>,
    is_stopping: bool,
}

pub struct Holder {
    state: Mutex<State>,
    note: Note,
    means: Arc<Means>,
    scope: Scope,
}

impl Holder {
    /// What a former supervisor left is taken away, unless the supervisor replaced itself and `goes_on`.
    pub fn new(note: Note, means: Means, scope: Scope, goes_on: bool) -> Arc<Self> {
        let holdings = note.read().unwrap_or_else(|error| {
            error!(%error, "what a former supervisor held is not known");
            Holdings::default()
        });
        if !goes_on {
            sweep(&holdings);
        }
        let state = State {
            holdings,
            ..State::default()
        };
        Arc::new(Holder {
            state: Mutex::new(state),
            note,
            means: Arc::new(means),
            scope,
        })
    }

    pub async fn hold(self: &Arc<Self>, task: Task, epoch: u64, until: Duration) -> Answer {
        let taken = self.take(&task, epoch, until);
        let mut phase = match taken {
            Ok(phase) => phase,
            Err(why) => return Answer::Refused { why },
        };
        match phase.wait_for(|phase| *phase != Phase::Beginning).await.as_deref() {
            Ok(Phase::Held) => Answer::Done,
            Ok(Phase::Ended(Some(why))) => Answer::refused(why),
            _ => Answer::refused(format!("the hold of {task} has ended")),
        }
    }

    pub async fn release(&self, task: Task, is_orderly: bool) -> Answer {
        let phase = {
            let mut state = self.state();
            state.holdings.release(&task);
            state.running.get(&task).map(|running| {
                match (is_orderly, &task) {
                    (true, Task::Address(_) | Task::Writer) => running.term.send_modify(|term| term.is_ending = true),
                    _ => running.release(),
                }
                running.phase.clone()
            })
        };
        if let Some(phase) = phase {
            ended(phase).await;
        }
        Answer::Done
    }

    /// Ends all, and begins nothing any more.
    pub async fn stop(&self) {
        let phases: Vec<_> = {
            let mut state = self.state();
            state.is_stopping = true;
            for running in state.running.values() {
                running.release();
            }
            state.running.values().map(|running| running.phase.clone()).collect()
        };
        let all = async {
            for phase in phases {
                ended(phase).await;
            }
        };
        if tokio::time::timeout(STOP, all).await.is_err() {
            warn!("what this node held has not ended in time");
        }
    }

    fn take(self: &Arc<Self>, task: &Task, epoch: u64, until: Duration) -> Result<watch::Receiver<Phase>, String> {
        let mut state = self.state();
        if state.is_stopping {
            return Err("this node is stopping".to_owned());
        }
        let verdict = state.holdings.hold(task, epoch, until, clock::boot())?;
        let is_changed = !matches!(verdict, Verdict::Continue { is_new_epoch: false });
        // Before the act: a successor must know of it.
        if is_changed && let Err(error) = self.note.write(&state.holdings) {
            state.holdings.release(task);
            return Err(format!("it cannot be noted: {error}"));
        }
        let end = state.holdings.until(task).unwrap_or(until);
        if let Some(running) = state.running.get(task).filter(|running| !running.has_ended()) {
            if verdict == Verdict::Begin {
                state.holdings.release(task);
                return Err(format!("the last hold of {task} is just ending; ask again"));
            }
            running.term.send_modify(|term| term.until = end);
            return Ok(running.phase.clone());
        }
        let (running, hold) = begin(end, epoch);
        let phase = running.phase.clone();
        state.running.insert(task.clone(), running);
        drop(state);
        let (holder, task) = (self.clone(), task.clone());
        self.scope.spawn(async move { holder.carry_out(task, hold).await });
        Ok(phase)
    }

    async fn carry_out(&self, task: Task, mut hold: Hold) {
        let epoch = hold.epoch;
        info!(%task, epoch, "the agent says that the seat is this node's");
        let ended = self.means.carry_out(&task, &mut hold).await;
        let is_released = hold.is_ending() || hold.until().is_zero();
        match &ended {
            Ok(()) if is_released => info!(%task, epoch, "let go: the agent released it, or the node stops"),
            Ok(()) => warn!(%task, epoch, "let go: the agent did not renew its hold"),
            Err(why) => warn!(%task, epoch, why, "not held"),
        }
        if ended.is_err() {
            self.state().holdings.release(&task);
        }
        hold.phase.send_replace(Phase::Ended(ended.err()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }
}

fn begin(until: Duration, epoch: u64) -> (Running, Hold) {
    let term = Term {
        until,
        is_ending: false,
    };
    let (sender, receiver) = watch::channel(term);
    let (phase, seen) = watch::channel(Phase::Beginning);
    let running = Running {
        term: sender,
        phase: seen,
    };
    let hold = Hold {
        term: receiver,
        phase,
        epoch,
    };
    (running, hold)
}

async fn ended(mut phase: watch::Receiver<Phase>) {
    let is_over = |phase: &Phase| matches!(phase, Phase::Ended(_));
    // One that is gone has ended.
    let _ = phase.wait_for(is_over).await;
}

/// Takes away the addresses that a former supervisor left.
fn sweep(holdings: &Holdings) {
    for (task, epoch) in holdings.epochs() {
        let Task::Address(address) = task else { continue };
        match address::sweep(address.addr()) {
            Ok(true) => info!(%task, epoch, "the address that a former supervisor left is taken away"),
            Ok(false) => {}
            Err(error) => {
                error!(%task, %error, "an address that a former supervisor left stays until the kernel ends it")
            }
        }
    }
}
