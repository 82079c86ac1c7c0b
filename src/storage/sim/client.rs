//! The work: sessions that make, write and remove objects and repeat each operation until its outcome is known, and readers that ask any node.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep, timeout};

use super::ledger::Ledger;
use super::machine::Submission;
use super::object::Act;
use super::wire::{Answer, Request, Wire};
use crate::base::Scope;
use crate::storage::batch::Refused;
use crate::storage::faulty_disk::Random;
use crate::storage::types::NodeId;

/// Numbers of the clients on the wire begin here.
const FIRST: NodeId = 1000;
/// How long a client waits for an answer before it asks elsewhere.
const PATIENCE: Duration = Duration::from_millis(600);

/// All clients, in a process that never fails.
pub struct Clients {
    runtime: Runtime,
    start: Instant,
    is_over: Arc<AtomicBool>,
    shared: Shared,
}

#[derive(Clone)]
struct Shared {
    wire: Wire,
    ledger: Ledger,
    /// Who may be asked.
    nodes: Arc<Mutex<Vec<NodeId>>>,
    is_over: Arc<AtomicBool>,
    /// When the last acknowledgement came, and the longest time between two since it was asked for.
    pace: Arc<Mutex<(Instant, Duration)>>,
}

impl Clients {
    pub fn start(wire: &Wire, ledger: &Ledger, nodes: Vec<NodeId>, sessions: u64, random: &mut Random) -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.unwrap();
        let guard = runtime.enter();
        let (start, is_over) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let shared = Shared {
            wire: wire.clone(),
            ledger: ledger.clone(),
            nodes: Arc::new(Mutex::new(nodes)),
            is_over: is_over.clone(),
            pace: Arc::new(Mutex::new((start, Duration::ZERO))),
        };
        let scope = Scope::new();
        for number in 0..sessions {
            let mut seed = || Random::new(random.below(1 << 30));
            scope.spawn(shared.clone().write(number, seed()));
            if number < 2 {
                scope.spawn(shared.clone().read(FIRST + 100 + number, seed()));
            }
        }
        drop(guard);
        Clients {
            runtime,
            start,
            is_over,
            shared,
        }
    }

    pub fn run_until(&self, now: Duration) {
        self.runtime
            .block_on(async { tokio::time::sleep_until(self.start + now).await });
    }

    /// Ends the work; operations under way are still repeated until they are known.
    pub fn finish(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub fn ask_also(&self, node: NodeId) {
        self.shared.nodes.lock().unwrap().push(node);
    }

    /// The longest time without an acknowledgement since this was last asked.
    pub fn take_stall(&self) -> Duration {
        let _guard = self.runtime.enter();
        let mut pace = self.shared.pace.lock().unwrap();
        let longest = pace.1.max(pace.0.elapsed());
        *pace = (Instant::now(), Duration::ZERO);
        longest
    }
}

impl Shared {
    fn any(&self, random: &mut Random) -> NodeId {
        let nodes = self.nodes.lock().unwrap();
        nodes[random.below(nodes.len() as u64) as usize]
    }

    async fn write(self, session: u64, mut random: Random) {
        let mut target = self.any(&mut random);
        let mut own = Vec::new();
        for sequence in 1.. {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let act = choose(&own, &mut random);
            if let Act::Remove(number) = act {
                self.ledger.leaves(number);
            }
            let operation = (session, sequence);
            let padding = random.below(400) as usize;
            let submission = Submission {
                operation,
                act,
                padding,
            };
            let done = loop {
                let call = self.wire.call(FIRST + session, target, Request::Submit(submission));
                match timeout(PATIENCE, call).await {
                    Ok(Ok(Answer::Submitted(Ok(done)))) => break done,
                    Ok(Ok(Answer::Submitted(Err(Refused::NotLeader { leader: Some(leader) })))) => target = leader,
                    _ => target = self.any(&mut random),
                }
                sleep(Duration::from_millis(5 + random.below(30))).await;
            };
            self.ledger.acknowledged(operation, act, done);
            match act {
                Act::Make => own.push(done.1),
                Act::Remove(number) => own.retain(|other| *other != number),
                Act::Write(_) => {}
            }
            self.keep_pace();
            sleep(Duration::from_millis(random.below(40))).await;
        }
    }

    fn keep_pace(&self) {
        let mut pace = self.pace.lock().unwrap();
        pace.1 = pace.1.max(pace.0.elapsed());
        pace.0 = Instant::now();
    }

    async fn read(self, me: NodeId, mut random: Random) {
        while !self.is_over.load(Ordering::Relaxed) {
            let node = self.any(&mut random);
            let floor = self.ledger.begin_read();
            let call = self.wire.call(me, node, Request::Read);
            if let Ok(Ok(Answer::Read(Some(view)))) = timeout(PATIENCE, call).await {
                self.ledger.end_read(node, &floor, &view);
            }
            sleep(Duration::from_millis(random.below(10))).await;
        }
    }
}

/// What a session does next with the objects that it has.
fn choose(own: &[u64], random: &mut Random) -> Act {
    let (verb, any) = (random.below(8), random.below(own.len().max(1) as u64));
    match own.get(any as usize) {
        Some(number) if verb < 3 => Act::Write(*number),
        Some(number) if verb < 5 => Act::Remove(*number),
        _ => Act::Make,
    }
}
