//! The election of this node: decides at every look and some times a second, and carries the acts out. The registry never makes the supervisor
//! wait, nor the other way round: one commit is under way at a time, and the holds go on beside it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, RwLock, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, info, warn};

use super::decide::{Act, Cause, decide};
use super::memory::Memory;
use super::{Seen, change};
use crate::base::{BoxFuture, Scope, clock};
use crate::cluster::{Place, Role, Seat};
use crate::host::verb::{Answer, Root, Supervisor, Task, Verb};
use crate::registry::{Error, Hearts, Registry, Revision, View, holds_until};

/// Between two decisions without anything new.
const PACE: Duration = Duration::from_millis(200);
/// A node that stops tries so long to leave its seats to others.
const FAREWELL: Duration = Duration::from_secs(3);
/// Questions under way for all seats together; further ones wait for the next decision.
const QUESTIONS: usize = 32;

/// What acts for the roles on this machine, and its clock.
pub trait Hands: Root {
    /// Time since boot.
    fn now(&self) -> Duration {
        clock::boot()
    }
}

impl Hands for Supervisor {}

/// One look at the registry: first the view was read, then the heartbeats.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub seen: Seen,
    /// When the view was asked for, since boot.
    pub asked: Duration,
}

/// What the election works with.
pub struct Election {
    pub hands: Arc<dyn Hands>,
    pub registry: Arc<dyn Registry>,
    pub hearts: Arc<Hearts>,
    pub looks: watch::Receiver<Arc<Look>>,
    /// There is something new in the registry.
    pub wake: Arc<Notify>,
    /// Seats whose work the agent does itself, and until when it may, since boot.
    pub own: watch::Sender<Tenures>,
}

pub type Tenures = BTreeMap<Place, Duration>;

/// How something under way ended.
enum Done {
    Claimed {
        place: Place,
        epoch: u64,
        /// By the heartbeat that was acknowledged before the commit began.
        until: Duration,
        result: Result<Arc<View>, Error>,
    },
    Committed {
        what: String,
        result: Result<Arc<View>, Error>,
    },
    Held {
        place: Place,
        epoch: u64,
        until: Duration,
        result: io::Result<Answer>,
    },
    Stopped,
}

type Work = BoxFuture<'static, Done>;

/// Questions to hold a seat enter side by side; one to release it waits until they are answered, and keeps further ones out. The
/// supervisor may take up two questions in another order than they were asked.
type Gate = Arc<RwLock<()>>;

struct Seats {
    election: Election,
    memory: Memory,
    /// Looks at older versions are of no use: this node has changed the registry since.
    committed: Revision,
    commit: Option<Work>,
    questions: FuturesUnordered<Work>,
    gates: BTreeMap<Place, Gate>,
}

impl Election {
    /// Runs until the scope drains; then leaves its seats to others, if there are any.
    pub async fn run(self, scope: Scope) {
        let mut looks = self.looks.clone();
        let mut seats = Seats {
            election: self,
            memory: Memory::default(),
            committed: 0,
            commit: None,
            questions: FuturesUnordered::new(),
            gates: BTreeMap::new(),
        };
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = scope.draining() => break,
                Ok(()) = looks.changed() => {}
                _ = pace.tick() => {}
                done = seats.done() => seats.settle(done),
            }
            seats.step();
        }
        if timeout(FAREWELL, seats.leave()).await.is_err() {
            warn!("the seats of this node are left without a word");
        }
    }
}

impl Seats {
    /// What ends next. Cancel safe.
    async fn done(&mut self) -> Done {
        let commit = async {
            match &mut self.commit {
                Some(commit) => commit.await,
                None => std::future::pending().await,
            }
        };
        let question = async {
            match self.questions.next().await {
                Some(done) => done,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            done = commit => {
                self.commit = None;
                done
            }
            done = question => done,
        }
    }

    fn now(&self) -> Duration {
        self.election.hands.now()
    }

    fn step(&mut self) {
        let look = self.election.looks.borrow().clone();
        if look.seen.snapshot.revision < self.committed.max(1) {
            return;
        }
        let now = self.now();
        self.memory.observe(&look.seen, now);
        let until = self
            .election
            .hearts
            .sent()
            .map(|sent| holds_until(sent.min(look.asked)));
        for act in decide(&look.seen, &self.memory, now, until) {
            self.act(act, &look.seen, until.unwrap_or_default());
        }
    }

    fn act(&mut self, act: Act, seen: &Seen, until: Duration) {
        match act {
            Act::Hold { place, epoch, until } => self.hold(place, epoch, until),
            Act::Stop { place } => {
                warn!(%place, "another node has the seat");
                self.memory.lost(&place, self.now());
                self.stop(place);
            }
            _ if self.commit.is_some() => {}
            Act::Claim { place, old, why } => {
                self.memory.claims(&place, self.now());
                let epoch = change::next_epoch(old.as_ref());
                let change = change::claim(&seen.snapshot, &place, old.as_ref(), &why);
                let registry = self.election.registry.clone();
                self.commit = Some(Box::pin(async move {
                    let result = registry.commit(change).await;
                    Done::Claimed {
                        place,
                        epoch,
                        until,
                        result,
                    }
                }));
            }
            Act::GiveUp { place, old, why } => self.give_up(&seen.snapshot.own, place, old, why),
            Act::Ask { place } => {
                self.memory.leaves(&place, self.now());
                let own = &seen.snapshot.own;
                let what = format!("{place}: {own} asks for it, it is pinned there");
                let change = change::transfer(&seen.snapshot, &place, own, what.clone());
                let registry = self.election.registry.clone();
                self.commit = Some(Box::pin(async move {
                    let result = registry.commit(change).await;
                    Done::Committed { what, result }
                }));
            }
        }
    }

    fn hold(&mut self, place: Place, epoch: u64, until: Duration) {
        let Some(task) = task(&place) else {
            if is_own(&place) {
                self.memory.held(&place, epoch, until);
                self.election.own.send_modify(|own| _ = own.insert(place, until));
            }
            return;
        };
        let Ok(inside) = self.gate(&place).try_read_owned() else {
            return;
        };
        if self.questions.len() >= QUESTIONS {
            return;
        }
        self.memory.held(&place, epoch, until);
        let hands = self.election.hands.clone();
        self.questions.push(Box::pin(async move {
            let _inside = inside;
            let result = hands.ask(&Verb::Hold { task, epoch, until }).await;
            Done::Held {
                place,
                epoch,
                until,
                result,
            }
        }));
    }

    /// Without it the work ends by its time.
    fn end_own(&self, place: &Place) {
        self.election.own.send_if_modified(|own| own.remove(place).is_some());
    }

    fn stop(&mut self, place: Place) {
        self.end_own(&place);
        let (hands, gate) = (self.election.hands.clone(), self.gate(&place));
        self.questions.push(Box::pin(async move {
            release(&*hands, &place, gate, false).await;
            Done::Stopped
        }));
    }

    fn gate(&mut self, place: &Place) -> Gate {
        self.gates.entry(place.clone()).or_default().clone()
    }

    fn give_up(&mut self, own: &str, place: Place, old: Seat, why: Cause) {
        self.memory.leaves(&place, self.now());
        self.end_own(&place);
        let what = format!("{place} is given up");
        let gate = self.gate(&place);
        let (hands, registry) = (self.election.hands.clone(), self.election.registry.clone());
        let change = change::give_up(own, &[(place.clone(), old)], &why);
        let is_orderly = matches!(why, Cause::Transfer(_) | Cause::Drain | Cause::Unwanted | Cause::Full);
        info!(%place, ?why, "gives the seat up");
        self.commit = Some(Box::pin(async move {
            release(&*hands, &place, gate, is_orderly).await;
            let result = registry.commit(change).await;
            Done::Committed { what, result }
        }));
    }

    fn settle(&mut self, done: Done) {
        match done {
            Done::Claimed {
                place,
                epoch,
                until,
                result,
            } => match self.committed(&format!("claim of {place}"), result) {
                false => {}
                true => {
                    info!(%place, epoch, "has the seat");
                    let (now, look) = (self.now(), self.election.looks.borrow().clone());
                    // Too late, it must be claimed anew.
                    if now < until && place.role.moves(&look.seen.snapshot.settings) {
                        self.memory.claimed(&place, epoch, now, until);
                        self.hold(place, epoch, until);
                    }
                }
            },
            Done::Committed { what, result } => {
                self.committed(&what, result);
            }
            Done::Held {
                place,
                epoch,
                until,
                result,
            } => self.held(&place, epoch, until, result),
            Done::Stopped => {}
        }
    }

    fn held(&mut self, place: &Place, epoch: u64, until: Duration, result: io::Result<Answer>) {
        let now = self.now();
        match result {
            Ok(Answer::Refused { why }) => {
                warn!(%place, epoch, %why, "the supervisor refuses to hold");
                // A question that came too late says nothing of what was asked since.
                let tenure = self.memory.known(place).tenure;
                if tenure.is_some_and(|tenure| (tenure.epoch, tenure.until) == (epoch, until)) {
                    self.memory.refused(place, now);
                }
            }
            Ok(_) => {}
            Err(error) => warn!(%place, epoch, %error, "the supervisor does not answer"),
        }
    }

    /// Whether it happened.
    fn committed(&mut self, what: &str, result: Result<Arc<View>, Error>) -> bool {
        self.election.wake.notify_one();
        match result {
            Ok(view) => {
                self.committed = view.revision;
                return true;
            }
            // Another node was first, as happens.
            Err(Error::Stale(why)) => debug!(what, %why, "did not happen"),
            Err(error) => warn!(what, %error, "may not have happened"),
        }
        false
    }

    /// What this node holds goes to nobody, so that another one can take it at once. Where there is no other, it stays.
    async fn leave(mut self) {
        self.commit = None;
        let look = self.election.looks.borrow().clone();
        let snapshot = &look.seen.snapshot;
        let others = |place: &Place| {
            let mut nodes = snapshot.nodes.iter();
            nodes.any(|node| node.name != snapshot.own && node.takes(place.role.needs()))
        };
        let held = self.memory.tenures().filter(|(place, _)| others(place));
        let held = held.map(|(place, tenure)| {
            let old = Seat {
                role: place.role,
                seat: place.seat.clone(),
                holder: Some(snapshot.own.clone()),
                epoch: tenure.epoch,
            };
            (place.clone(), old)
        });
        let held: Vec<(Place, Seat)> = held.collect();
        // Whoever waits behind a gate is in here.
        while self.questions.next().await.is_some() {}
        for (place, _) in &held {
            self.end_own(place);
            let gate = self.gate(place);
            release(&*self.election.hands, place, gate, false).await;
        }
        if !held.is_empty() {
            let change = change::give_up(&snapshot.own, &held, &Cause::Ending);
            let result = self.election.registry.commit(change).await;
            self.committed("farewell", result);
        }
    }
}

/// Returns when the task has certainly ended, and no question to hold it is under way that could begin it again.
async fn release(hands: &dyn Hands, place: &Place, gate: Gate, is_orderly: bool) {
    let Some(task) = task(place) else { return };
    // Longer than any hold that was asked for until now.
    let end = holds_until(hands.now());
    let alone = tokio::select! {
        alone = gate.write_owned() => Some(alone),
        () = passed(hands, end) => None,
    };
    if let Err(error) = hands.ask(&Verb::Release { task, is_orderly }).await {
        warn!(%place, %error, "the supervisor does not answer; the task ends by its time");
        passed(hands, end).await;
    }
    drop(alone);
}

async fn passed(hands: &dyn Hands, end: Duration) {
    while hands.now() < end {
        sleep(end.saturating_sub(hands.now())).await;
    }
}

/// What the supervisor does for the seat.
fn task(place: &Place) -> Option<Task> {
    match place.role {
        Role::Edge => place.seat.parse().ok().map(Task::Address),
        Role::Cron => Some(Task::Cron),
        // Without Galera nobody holds it for a time, and what is not held has ended.
        Role::Db => Some(Task::Writer),
        Role::Cache | Role::Acme | Role::Backup => None,
    }
}

/// The work of the seat is done by the agent itself, or by a process that follows its snapshots.
fn is_own(place: &Place) -> bool {
    matches!(place.role, Role::Acme | Role::Backup)
}
