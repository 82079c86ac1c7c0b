//! One simulated node: what outlives its process (disk, checkpoint, number), and the process, which is a runtime of its own
//! with a clock of its own. Dropping the runtime is a crash; not running it is a pause.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::ledger::Ledger;
use super::machine::{self, Checkpoints, Done, Kept, SimMachine, Submission};
use super::wire::{Answer, Call, Line, Request, Wire};
use crate::base::Scope;
use crate::storage::batch::{Batcher, Refused};
use crate::storage::faulty_disk::{FaultyDisk, Random};
use crate::storage::group::{Group, Settings};
use crate::storage::identity;
use crate::storage::insync::Copies;
use crate::storage::leader::Numbers;
use crate::storage::log::{LogStore, Sizes};
use crate::storage::types::{NodeId, StoreId};

/// Small segments, so that a run crosses many, and a cache that does not hold all.
pub const SIZES: Sizes = Sizes {
    segment: 16 << 10,
    records: 64,
    cache: 32 << 10,
};

/// What all nodes share.
#[derive(Clone)]
pub struct Surroundings {
    pub wire: Wire,
    pub ledger: Ledger,
    pub checkpoints: Checkpoints,
    pub copies: usize,
}

/// An acknowledgement, at the moment when the node gave it.
pub struct Acknowledgement {
    pub node: NodeId,
    pub index: u64,
    pub in_sync: std::collections::BTreeSet<NodeId>,
}

pub struct Node {
    pub id: NodeId,
    pub disk: FaultyDisk,
    pub kept: Kept,
    pub process: Option<Process>,
    /// Milliseconds that a sync takes at most.
    pub slowness: Arc<AtomicU64>,
    surroundings: Surroundings,
}

/// A running process.
pub struct Process {
    runtime: Runtime,
    start: Instant,
    /// Simulated time at its start, and how much faster its clock runs, in thousandths.
    began: Duration,
    rate: u64,
    /// Time that passed while even its timers stood still.
    slept: Arc<AtomicU64>,
    running: Arc<Mutex<Option<Running>>>,
    has_failed: Arc<AtomicBool>,
    pub acknowledgements: Arc<Mutex<Vec<Acknowledgement>>>,
}

/// A replica that has started.
#[derive(Clone)]
pub struct Running {
    pub group: Group,
    pub machine: SimMachine,
    batcher: Batcher,
    numbers: Arc<Numbers>,
}

impl Node {
    pub fn new(id: NodeId, surroundings: &Surroundings) -> Self {
        Node {
            id,
            disk: FaultyDisk::default(),
            kept: Kept::default(),
            process: None,
            slowness: Arc::new(AtomicU64::new(3)),
            surroundings: surroundings.clone(),
        }
    }

    /// The identity of its store; makes one.
    pub fn store(&self) -> StoreId {
        identity::ensure(&self.disk, self.id).unwrap()
    }

    /// Starts the process at `now`; false when it cannot open its store, as with a full disk.
    pub fn start(&mut self, now: Duration, random: &mut Random) -> bool {
        let disk = Arc::new(self.disk.clone());
        let opened =
            identity::ensure(&self.disk, self.id).and_then(|store| Ok((store, LogStore::prepare(disk, SIZES)?)));
        let (store, (log, worker)) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                if error.kind() == std::io::ErrorKind::InvalidData {
                    self.surroundings.ledger.fault(format!("node {}: {error}", self.id));
                }
                return false;
            }
        };
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.unwrap();
        let guard = runtime.enter();
        let start = Instant::now();
        let slept = Arc::new(AtomicU64::new(0));
        let since_boot = Duration::from_millis(1000 + random.below(1_000_000));
        let boot = slept.clone();
        let clock =
            Arc::new(move || since_boot + start.elapsed() + Duration::from_millis(boot.load(Ordering::Relaxed)));
        let scope = Scope::new();
        let (slowness, seed) = (self.slowness.clone(), Mutex::new(Random::new(random.below(1 << 30))));
        scope.spawn(worker.run_in_task(move || {
            Duration::from_millis(seed.lock().unwrap().below(slowness.load(Ordering::Relaxed).max(1)))
        }));
        let (running, has_failed) = (Arc::default(), Arc::default());
        let acknowledgements = Arc::default();
        let around = &self.surroundings;
        let serving = Serving {
            id: self.id,
            wire: around.wire.clone(),
            running: Arc::clone(&running),
            acknowledgements: Arc::clone(&acknowledgements),
            scope: scope.clone(),
        };
        let settings = Settings {
            me: self.id,
            copies: Copies {
                wanted: around.copies,
                least: 1,
            },
            sizes: SIZES,
        };
        let machine = SimMachine::open(
            self.id,
            self.kept.clone(),
            around.checkpoints.clone(),
            around.ledger.clone(),
        );
        let line = Arc::new(Line {
            wire: around.wire.clone(),
            me: self.id,
        });
        let calls = around.wire.open_door(self.id);
        let failed: Arc<AtomicBool> = Arc::clone(&has_failed);
        scope.clone().spawn(async move {
            let boxed = Box::new(machine.clone());
            let group = Group::start(settings, store, log, boxed, line, clock, &serving.scope).await;
            if let Ok(group) = group {
                serving.run(group, machine, calls).await;
            }
            failed.store(true, Ordering::Relaxed);
        });
        drop(guard);
        self.process = Some(Process {
            runtime,
            start,
            began: now,
            rate: 970 + random.below(60),
            slept,
            running,
            has_failed,
            acknowledgements,
        });
        true
    }

    /// Ends the process where it stands. What the kernel has not written stays there, unless the power goes too.
    pub fn crash(&mut self, power: Option<&mut Random>) {
        self.surroundings.wire.close_door(self.id);
        self.process = None;
        if let Some(random) = power {
            self.disk.restart(random);
        }
    }

    pub fn running(&self) -> Option<Running> {
        self.process.as_ref()?.running.lock().unwrap().clone()
    }
}

impl Process {
    /// Runs all that is due until simulated time `now`.
    pub fn run_until(&self, now: Duration) {
        let local = (now - self.began) * u32::try_from(self.rate).unwrap() / 1000;
        let slept = Duration::from_millis(self.slept.load(Ordering::Relaxed));
        let until = self.start + local.saturating_sub(slept);
        self.runtime.block_on(async { tokio::time::sleep_until(until).await });
    }

    /// Lets `time` pass without running anything, as a stopped process sees it: all that was due comes at once.
    pub fn skip(&self, time: Duration) {
        self.runtime.block_on(async { tokio::time::advance(time).await });
    }

    /// As a suspended machine sees it: timers stood still, only the clock since boot went on.
    pub fn suspend(&self, time: Duration) {
        self.slept
            .fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }

    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Looks with the eyes of this process: its clock is the one that counts.
    pub fn look<T>(&self, at: impl FnOnce(&Group) -> T) -> Option<T> {
        let _guard = self.runtime.enter();
        let running = self.running.lock().unwrap();
        running.as_ref().map(|running| at(&running.group))
    }

    /// Has the process do something beside its work.
    pub fn run<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let _guard = self.runtime.enter();
        Scope::new().spawn(task);
    }

    /// The term in which it may answer reads now.
    pub fn lease(&self) -> Option<u64> {
        self.look(|group| {
            let term = group.raft().server_metrics().borrow().vote.leader_id.term;
            group.is_readable().then_some(term)
        })?
    }
}

/// The part of a process that answers calls.
struct Serving {
    id: NodeId,
    wire: Wire,
    running: Arc<Mutex<Option<Running>>>,
    acknowledgements: Arc<Mutex<Vec<Acknowledgement>>>,
    scope: Scope,
}

impl Serving {
    /// Answers until the replica fails, which ends the process.
    async fn run(&self, group: Group, machine: SimMachine, mut calls: mpsc::Receiver<Call>) {
        let running = Running {
            batcher: group.batcher(&self.scope),
            group: group.clone(),
            machine,
            numbers: Arc::default(),
        };
        *self.running.lock().unwrap() = Some(running.clone());
        let failed = group.failed();
        tokio::pin!(failed);
        loop {
            let call = tokio::select! {
                biased;
                _ = &mut failed => return,
                call = calls.recv() => call,
            };
            let Some(call) = call else { return };
            let (running, wire, id) = (running.clone(), self.wire.clone(), self.id);
            let acknowledgements = self.acknowledgements.clone();
            self.scope.spawn(async move {
                let answer = running.answer(call.request, id, &acknowledgements).await;
                wire.answer(id, call.from, call.reply, answer);
            });
        }
    }
}

impl Running {
    async fn answer(&self, request: Request, id: NodeId, acknowledged: &Mutex<Vec<Acknowledgement>>) -> Answer {
        match request {
            Request::Peer(bytes) => Answer::Peer(self.group.serve(bytes).await),
            Request::Install(header, checkpoint) => {
                let _ = self.group.incoming().await;
                Answer::Peer(self.group.install(header, checkpoint).await)
            }
            Request::Submit(submission) => {
                let result = self.submit(submission).await;
                if let Ok((index, _)) = result {
                    acknowledged.lock().unwrap().push(Acknowledgement {
                        node: id,
                        index,
                        in_sync: self.group.in_sync(),
                    });
                }
                Answer::Submitted(result)
            }
            Request::Read => Answer::Read(self.read().await),
        }
    }

    /// As the leader takes a change: it knows all numbers that were given, and chooses one.
    async fn submit(&self, submission: Submission) -> Result<Done, Refused> {
        if !self.group.is_readable() {
            let leader = self.group.leader().filter(|node| *node != self.group.me());
            return Err(Refused::NotLeader { leader });
        }
        let fresh = self.numbers.fresh(self.machine.highest());
        let answer = self.batcher.submit(machine::encode(submission, fresh.0)).await;
        answer.map(machine::decode_done)
    }

    /// As a door reads: under the lease before and after.
    async fn read(&self) -> Option<super::machine::View> {
        if !self.group.is_readable() {
            return None;
        }
        let view = self.machine.view();
        tokio::time::sleep(Duration::from_millis(view.count % 4)).await;
        self.group.is_readable().then_some(view)
    }
}
