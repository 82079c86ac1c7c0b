//! PHP's sessions on three nodes under faults: the cache module of the real executable in network namespaces, PHP with both of its
//! extensions, and a comparison of all that was written with all that was seen. Needs root; `make test-sessions` runs it.

mod machine;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitrix_node::base::Scope;
use bitrix_node::cluster::{self, Snapshot};
use bitrix_node::net::listen;
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::sleep;

use self::machine::Machine;
use self::worker::{End, Handler, Worker, doubled, lost};
use crate::support::netns::Network;

const PATIENCE: Duration = Duration::from_secs(30);
/// Between two faults nothing is wrong for so long.
const CALM: Duration = Duration::from_secs(2);
/// A lock's life in the PHP settings, in nanoseconds, less what opening and writing take.
const LOCK: u64 = 2_000_000_000;

#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Freeze,
    Cut,
}

struct Caches {
    machines: Vec<Machine>,
    network: Network,
    _views: Vec<watch::Sender<Arc<Snapshot>>>,
    agents: Scope,
    folder: Option<TempDir>,
}

impl Caches {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let network = Network::new(3);
        let mut machines: Vec<Machine> = Vec::new();
        for number in 1..=3 {
            let own = folder.path().join(format!("n{number}"));
            let machine = Machine::new(number, &own, network.host(number - 1), machines.first());
            machines.push(machine);
        }
        let (agents, mut views) = (Scope::new(), Vec::new());
        for machine in &machines {
            let snapshot = Snapshot {
                revision: 1,
                own: machine.name.clone(),
                nodes: machines.iter().map(Machine::member).collect(),
                ..Snapshot::default()
            };
            let (view, snapshots) = watch::channel(Arc::new(snapshot));
            let socket = listen::unix(&machine.folder.join("view.sock")).unwrap();
            cluster::publish(socket, snapshots, &agents).unwrap();
            views.push(view);
        }
        for machine in &mut machines {
            machine.start();
        }
        let caches = Caches {
            machines,
            network,
            _views: views,
            agents,
            folder: Some(folder),
        };
        caches.until_whole().await;
        caches
    }

    /// Until each of the three serves a part of the shards; how long that took.
    async fn until_whole(&self) -> Duration {
        let start = Instant::now();
        loop {
            let said: Vec<_> = self
                .machines
                .iter()
                .map(|machine| machine.ask("stats cluster", &["END", "ERROR"]))
                .collect();
            let serves = |lines: &std::io::Result<Vec<String>>| {
                let lines = lines.as_deref().unwrap_or_default();
                let owned = lines.iter().filter_map(|line| line.split_once(":shards_owned "));
                owned.filter(|(_, count)| *count != "0").count() == 3
            };
            if said.iter().all(serves) {
                return start.elapsed();
            }
            if start.elapsed() > PATIENCE {
                panic!("the caches are not whole: {said:#?}");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn harm(&mut self, fault: Fault, at: usize, length: Duration) {
        match fault {
            Fault::Kill => {
                self.machines[at].kill();
                sleep(length).await;
                self.machines[at].start();
            }
            Fault::Freeze => {
                self.machines[at].signal(Signal::SIGSTOP);
                sleep(length).await;
                self.machines[at].signal(Signal::SIGCONT);
            }
            Fault::Cut => {
                self.network.host(at).cut(true);
                sleep(length).await;
                self.network.host(at).cut(false);
            }
        }
    }
}

impl Drop for Caches {
    fn drop(&mut self) {
        self.agents.drain();
        let panicked = self
            .machines
            .iter()
            .any(|machine| machine.log().contains("panicked at"));
        if (std::thread::panicking() || panicked)
            && let Some(folder) = self.folder.take()
        {
            println!("the machines' files are kept in {}", folder.keep().display());
        }
        assert!(!panicked || std::thread::panicking(), "a cache panicked");
    }
}

/// CLOCK_MONOTONIC in nanoseconds, which is PHP's hrtime().
fn clock() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// Sessions of one process each on all nodes, and two that processes of two nodes share.
fn workers(caches: &Caches, seconds: u64) -> Vec<Worker> {
    let mut workers = Vec::new();
    for (at, machine) in caches.machines.iter().enumerate() {
        for handler in [Handler::MemcachedBinary, Handler::MemcachedAscii, Handler::Memcache] {
            // A memcache extension whose own cache is away opens an empty session and writes it when the cache is back:
            // that loses sessions with any server.
            if at > 0 && handler == Handler::Memcache {
                continue;
            }
            for _ in 0..2 {
                let number = workers.len();
                let session = format!("alone{number:02}abcdefghijklmnopqrst");
                workers.push(Worker::start(machine, handler, &session, (seconds, 0), number));
            }
        }
    }
    for (session, pair) in [
        ("shared1abcdefghijklmnopqrstu", [0, 1]),
        ("shared2abcdefghijklmnopqrstu", [0, 2]),
    ] {
        for at in pair {
            let number = workers.len();
            let machine = &caches.machines[at];
            workers.push(Worker::start(
                machine,
                Handler::MemcachedBinary,
                session,
                (seconds, 3000),
                number,
            ));
        }
    }
    workers
}

async fn rounds(faults: &[(Fault, usize)]) {
    let mut caches = Caches::start().await;
    let length = Duration::from_secs(2);
    let seconds = faults.len() as u64 * 8 + 4;
    let mut workers = workers(&caches, seconds);
    let (start, mut struck) = (Instant::now(), Vec::new());
    for (fault, at) in faults {
        sleep(CALM).await;
        struck.push(clock());
        caches.harm(*fault, *at, length).await;
        let took = caches.until_whole().await;
        println!(
            "{:5.1} s: {fault:?} of n{}: whole again {took:.1?} after its end",
            start.elapsed().as_secs_f64(),
            at + 1
        );
    }
    let (mut shared, mut bad) = (BTreeMap::<String, Vec<_>>::new(), Vec::new());
    let (mut written, mut not_opened, mut worst, mut waits) = (0, 0, 0, Vec::new());
    for worker in &mut workers {
        let rounds = worker.rounds();
        let count = |end| rounds.iter().filter(|round| round.end == end).count();
        let slowest = rounds
            .iter()
            .map(|round| (round.opened - round.begun).max(round.closed - round.closing))
            .max();
        println!(
            "{} {:?} {}: {} written, {} unknown, {} not opened, slowest {} ms",
            worker.node,
            worker.handler,
            worker.session,
            count(End::Written),
            count(End::Unknown),
            count(End::NotOpened),
            slowest.unwrap_or_default() / 1_000_000
        );
        written += count(End::Written);
        if worker.session.starts_with("shared") {
            shared.entry(worker.session.clone()).or_default().extend(rounds);
            continue;
        }
        bad.extend(
            lost(&rounds)
                .into_iter()
                .map(|text| format!("{} {:?}: {text}", worker.node, worker.handler)),
        );
        // Faults are of the other nodes.
        if worker.node == "n1" {
            not_opened += count(End::NotOpened) + count(End::Unknown);
            worst = worst.max(slowest.unwrap_or_default());
            waits.extend(
                rounds
                    .iter()
                    .flat_map(|round| [(round.begun, round.opened), (round.closing, round.closed)]),
            );
        }
    }
    for rounds in shared.into_values() {
        bad.extend(doubled(rounds, LOCK));
    }
    println!(
        "{written} rounds written; on n1 {not_opened} failed and the longest wait was {} ms",
        worst / 1_000_000
    );
    assert!(bad.is_empty(), "{bad:#?}");
    assert_eq!(not_opened, 0, "a node that is well fails nobody");
    assert!(written > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root; run by `make test-sessions`"]
async fn no_session_is_lost_while_a_node_is_killed_frozen_or_cut_off() {
    rounds(&[
        (Fault::Kill, 1),
        (Fault::Freeze, 2),
        (Fault::Cut, 1),
        (Fault::Kill, 2),
        (Fault::Freeze, 1),
        (Fault::Cut, 2),
    ])
    .await;
}
