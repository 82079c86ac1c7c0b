//! The simulated registry, lines, clocks and supervisors.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::agent::role::Hands;
use crate::base::seeded::Random;
use crate::base::{BoxFuture, Scope};
use crate::host::verb::{Answer, Root, Task, Verb};
use crate::registry::{
    Change, Error, Failure, File, Files, Found, Link, MemoryRegistry, NodeState, Record, Registry, Revision, Setting,
    View,
};

pub const NAMES: [&str; 3] = ["n1", "n2", "n3"];
pub const ADDRESS: [&str; 2] = ["10.0.0.10/24", "fd00::10/64"];
/// Calls that take longer are given up.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// What all nodes share.
pub struct World {
    pub started: Instant,
    pub random: Mutex<Random>,
    pub scope: Scope,
    pub registry: MemoryRegistry,
    pub beats: Mutex<BTreeMap<String, Bytes>>,
    pub links: [Mutex<Wire>; 3],
    pub clocks: [(Duration, f64); 3],
    /// What each supervisor does: epoch and end, on the node's clock.
    pub acting: Mutex<[BTreeMap<Task, (u64, Duration)>; 3]>,
    /// The newest epoch under which anybody acted, and who did.
    pub epochs: Mutex<BTreeMap<Task, (u64, usize)>>,
    /// The newest that each supervisor has seen.
    pub own_epochs: Mutex<[BTreeMap<Task, u64>; 3]>,
    pub faults: Mutex<Vec<String>>,
    pub story: Mutex<Vec<String>>,
    pub holds: Mutex<u64>,
}

/// Between a node and the registry.
#[derive(Clone, Copy)]
pub struct Wire {
    pub takes: bool,
    pub brings: bool,
    pub delay: u64,
}

pub const WHOLE: Wire = Wire {
    takes: true,
    brings: true,
    delay: 20,
};

impl World {
    pub fn new(seed: u64) -> Arc<Self> {
        let mut random = Random(seed);
        // Fastest to slowest stays below four thirds, which the rules allow for.
        let mut clock = || {
            let zero = Duration::from_secs(random.below(100_000));
            (zero, 0.88 + random.below(1000) as f64 * 0.00026)
        };
        let clocks = [clock(), clock(), clock()];
        Arc::new(World {
            started: Instant::now(),
            random: Mutex::new(random),
            scope: Scope::new(),
            registry: MemoryRegistry::new("operator"),
            beats: Mutex::default(),
            links: std::array::from_fn(|_| Mutex::new(WHOLE)),
            clocks,
            acting: Mutex::default(),
            epochs: Mutex::default(),
            own_epochs: Mutex::default(),
            faults: Mutex::default(),
            story: Mutex::default(),
            holds: Mutex::default(),
        })
    }

    pub fn below(&self, end: u64) -> u64 {
        self.random.lock().unwrap().below(end)
    }

    pub fn pick<T: Copy>(&self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    pub fn clock(&self, node: usize) -> Duration {
        let (zero, rate) = self.clocks[node];
        zero + self.started.elapsed().mul_f64(rate)
    }

    pub fn tell(&self, what: String) {
        let line = format!("{:7.3} {what}", self.started.elapsed().as_secs_f64());
        self.story.lock().unwrap().push(line);
    }

    pub fn fault(&self, what: String) {
        self.tell(format!("FAULT {what}"));
        self.faults.lock().unwrap().push(what);
    }

    pub fn wire(&self, node: usize) -> Wire {
        *self.links[node].lock().unwrap()
    }

    /// A call to the registry: it happens some time later, even without its caller; `None`: no answer in time.
    pub async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        node: usize,
        act: impl FnOnce(&World) -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        let world = self.clone();
        self.scope.spawn(async move {
            let pause = |world: &World| Duration::from_micros(1 + world.below(world.wire(node).delay * 1000));
            sleep(pause(&world)).await;
            if !world.wire(node).takes {
                return;
            }
            let answer = act(&world);
            sleep(pause(&world)).await;
            if world.wire(node).brings {
                let _ = sender.send(answer);
            }
        });
        timeout(PATIENCE, receiver).await.ok()?.ok()
    }

    /// Who acts for the task now.
    pub fn actors(&self, task: &Task) -> Vec<usize> {
        let acting = self.acting.lock().unwrap();
        let acts = |node: &usize| {
            acting[*node]
                .get(task)
                .is_some_and(|(_, until)| self.clock(*node) < *until)
        };
        (0..3).filter(acts).collect()
    }

    /// The supervisor's part of `host::verb`.
    pub fn perform(&self, node: usize, verb: &Verb) -> Answer {
        match verb {
            Verb::Hold { task, epoch, until } => {
                let mut epochs = self.epochs.lock().unwrap();
                let (seen, by) = epochs.get(task).copied().unwrap_or((0, node));
                // As the contract has it: by what this supervisor has seen itself, and not what others have.
                let mut own = self.own_epochs.lock().unwrap();
                let highest = own[node].entry(task.clone()).or_default();
                if *epoch < *highest {
                    return Answer::refused("an older epoch");
                }
                *highest = *epoch;
                if *until <= self.clock(node) {
                    return Answer::refused("too late");
                }
                if *epoch < seen || (*epoch == seen && by != node) {
                    self.fault(format!(
                        "{} acts for {task} under epoch {epoch} after {seen}",
                        NAMES[node]
                    ));
                }
                epochs.insert(task.clone(), (*epoch, node));
                self.acting.lock().unwrap()[node].insert(task.clone(), (*epoch, *until));
                *self.holds.lock().unwrap() += 1;
                let actors = self.actors(task);
                if actors.len() > 1 {
                    self.fault(format!("{task} is held by {actors:?}"));
                }
                Answer::Done
            }
            Verb::Release { task, .. } => {
                self.acting.lock().unwrap()[node].remove(task);
                Answer::Done
            }
            other => Answer::refused(format!("{other:?} is not simulated")),
        }
    }

    pub async fn put(&self, key: &str, value: &str) {
        let setting = Record::Setting(Setting {
            key: key.into(),
            value: value.into(),
        });
        self.registry.commit(Change::put(setting)).await.unwrap();
    }

    pub async fn turn(&self, node: usize, state: NodeState) {
        let view = self.registry.read().await.unwrap();
        let mut record = view.node(NAMES[node]).unwrap().clone();
        record.state = state;
        self.registry.commit(Change::put(Record::Node(record))).await.unwrap();
    }
}

/// The registry and the heartbeats as one node reaches them.
#[derive(Clone)]
pub struct Reach {
    pub world: Arc<World>,
    pub node: usize,
}

impl Registry for Reach {
    fn revision(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        Box::pin(async { Ok(Registry::read(self).await?.revision) })
    }

    fn read(&self) -> BoxFuture<'_, Result<Arc<View>, Error>> {
        Box::pin(async {
            let read = self.world.call(self.node, |world| now(world.registry.read()));
            read.await.unwrap_or_else(|| Err(Error::Unreachable("cut".into())))
        })
    }

    fn commit(&self, change: Change) -> BoxFuture<'_, Result<Arc<View>, Error>> {
        let name = NAMES[self.node];
        Box::pin(async move {
            let act = move |world: &World| now(world.registry.of(name).commit(change));
            let made = self.world.call(self.node, act).await;
            made.unwrap_or_else(|| Err(Error::Unreachable("cut".into())))
        })
    }
}

/// What the memory registry answers at once.
pub fn now<T>(answer: BoxFuture<'_, T>) -> T {
    futures_util::FutureExt::now_or_never(answer).expect("it waits for nothing")
}

pub fn unused<T>() -> BoxFuture<'static, Result<T, Failure>> {
    Box::pin(async { Err(Failure("only heartbeats are simulated".into())) })
}

impl Files for Reach {
    fn create<'a>(&'a self, _: &'a str, _: Bytes) -> BoxFuture<'a, Result<File, Failure>> {
        unused()
    }

    fn link<'a>(&'a self, _: &'a File, _: &'a str) -> BoxFuture<'a, Result<Link, Failure>> {
        unused()
    }

    fn look<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Found>, Failure>> {
        unused()
    }

    fn read<'a>(&'a self, name: &'a str, _: usize) -> BoxFuture<'a, Result<Option<Bytes>, Failure>> {
        let name = name.to_string();
        Box::pin(async move {
            let act = move |world: &World| world.beats.lock().unwrap().get(&name).cloned();
            self.world.call(self.node, act).await.ok_or(Failure("cut".into()))
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Failure>> {
        unused()
    }

    fn remove<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        unused()
    }

    fn rename<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        unused()
    }

    fn overwrite<'a>(&'a self, name: &'a str, content: Bytes) -> BoxFuture<'a, Result<(), Failure>> {
        let name = name.to_string();
        Box::pin(async move {
            let act = move |world: &World| drop(world.beats.lock().unwrap().insert(name, content));
            self.world.call(self.node, act).await.ok_or(Failure("cut".into()))
        })
    }
}

impl Hands for Reach {
    fn now(&self) -> Duration {
        self.world.clock(self.node)
    }
}

impl Root for Reach {
    fn ask<'a>(&'a self, verb: &'a Verb) -> BoxFuture<'a, std::io::Result<Answer>> {
        let verb = verb.clone();
        // The supervisor carries out what it was asked though the agent dies, and what it takes up first is its own affair.
        let (sender, receiver) = oneshot::channel();
        let (world, node) = (self.world.clone(), self.node);
        self.world.scope.spawn(async move {
            let longest = if world.below(10) == 0 { 800 } else { 5 };
            sleep(Duration::from_millis(world.below(longest))).await;
            let _ = sender.send(world.perform(node, &verb));
        });
        Box::pin(async move { receiver.await.map_err(std::io::Error::other) })
    }
}
