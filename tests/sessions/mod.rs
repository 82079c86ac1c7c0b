//! PHP's sessions on three nodes under faults: the cache module of the real executable in network namespaces, PHP with both of its
//! extensions on each, every node struck in its turn, and a comparison of all that was written with all that was seen. The same for
//! nutcracker before three memcacheds, which is not judged. Needs root; `make test-sessions` runs it.

pub mod caches;
mod judge;
pub mod machine;
mod worker;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;

use self::caches::{Caches, Fault, Kind};
use self::judge::{Felt, Finding, Strike, Wrong};
use self::machine::Setting;
use self::worker::{Handler, Round, Worker};

/// Before a fault nothing is wrong for so long: longer than nutcracker leaves out who failed.
const CALM: Duration = Duration::from_secs(4);
const LENGTH: Duration = Duration::from_secs(2);
/// What all of it takes at most.
const STRIKE_SECONDS: u64 = 8;
/// A lock's life in the PHP settings, in nanoseconds, less what opening and writing take.
const LOCK: u64 = 2_000_000_000;
/// Each fault on each node; never the same node twice in a row.
const FAULTS: [(Fault, usize); 9] = [
    (Fault::Kill, 0),
    (Fault::Freeze, 1),
    (Fault::Cut, 2),
    (Fault::Freeze, 0),
    (Fault::Cut, 1),
    (Fault::Kill, 2),
    (Fault::Cut, 0),
    (Fault::Kill, 1),
    (Fault::Freeze, 2),
];

/// CLOCK_MONOTONIC in nanoseconds, which is PHP's hrtime().
fn clock() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// Sessions of one process each on all nodes, and some that processes of two nodes share.
fn workers(caches: &Caches, seconds: u64) -> Vec<Worker> {
    // nutcracker does not speak the binary protocol, which is what PHP speaks unless told otherwise.
    let usual = match caches.kind {
        Kind::Ours | Kind::OursBacked => Handler::MemcachedBinary,
        Kind::Nutcracker => Handler::MemcachedAscii,
    };
    let mut workers = Vec::new();
    for (at, machine) in caches.machines.iter().enumerate() {
        for (number, handler) in [usual, usual, Handler::MemcachedAscii, Handler::Memcache]
            .into_iter()
            .enumerate()
        {
            let session = format!("alone{at}{number}abcdefghijklmnopqrst");
            workers.push(Worker::start(machine, at, handler, &session, (seconds, 0)));
        }
    }
    for pair in [[0, 1], [1, 2], [2, 0]] {
        let session = format!("shared{}{}abcdefghijklmnopqrst", pair[0], pair[1]);
        for at in pair {
            let machine = &caches.machines[at];
            workers.push(Worker::start(machine, at, usual, &session, (seconds, 3000)));
        }
    }
    workers
}

/// What came of it all.
struct Outcome {
    strikes: Vec<Strike>,
    /// Of sessions that are one process's.
    alone: Vec<Round>,
    findings: Vec<Finding>,
    written: usize,
}

impl Outcome {
    fn judge(strikes: Vec<Strike>, workers: &mut [Worker]) -> Self {
        let (mut alone, mut shared, mut findings) = (Vec::new(), BTreeMap::<String, Vec<_>>::new(), Vec::new());
        let mut written = 0;
        for worker in workers {
            let rounds = worker.rounds();
            written += rounds.iter().filter(|round| round.end == worker::End::Written).count();
            if worker.session.starts_with("shared") {
                shared.entry(worker.session.clone()).or_default().extend(rounds);
                continue;
            }
            findings.extend(judge::of_one(&rounds, |round| judge::is_own_fault(&strikes, round)));
            alone.extend(rounds);
        }
        findings.extend(shared.into_values().flat_map(|rounds| judge::of_several(rounds, LOCK)));
        Outcome {
            strikes,
            alone,
            findings,
            written,
        }
    }

    fn well(&self) -> Felt {
        Felt::of(self.alone.iter().filter(|round| !judge::is_hit(&self.strikes, round)))
    }

    fn must_be_faultless(&self) {
        let texts: Vec<_> = self.findings.iter().map(|finding| &finding.text).collect();
        assert!(texts.is_empty(), "{texts:#?}");
        assert_eq!(self.well().failed, 0, "a node that is well fails nobody");
        assert!(self.written > 1000);
    }

    fn tell(&self, kind: Kind) {
        judge::tell(&self.strikes, &self.alone);
        let count = |wrong| self.findings.iter().filter(|finding| finding.wrong == wrong).count();
        println!(
            "{kind:?}: {} rounds written; sessions lost {}, stale {}, locks given twice {}; on nodes that are well rounds, failed, longest wait:{}",
            self.written,
            count(Wrong::Lost),
            count(Wrong::Stale),
            count(Wrong::Doubled),
            self.well()
        );
    }
}

async fn strike(caches: &mut Caches, fault: Fault, at: usize) -> Strike {
    let begun = clock();
    caches.harm(fault, at, LENGTH).await;
    let over = clock();
    caches.until_whole().await;
    let whole = clock();
    println!(
        "{fault:?} of n{}: whole again {} ms after its end",
        at + 1,
        (whole - over) / 1_000_000
    );
    Strike {
        fault,
        at,
        begun,
        whole,
    }
}

async fn outcome(kind: Kind, faults: &[(Fault, usize)]) -> Outcome {
    let setting = Setting {
        threads: 2,
        processor: None,
    };
    let mut caches = Caches::apart(kind, setting).await;
    let mut workers = workers(&caches, faults.len() as u64 * STRIKE_SECONDS);
    let mut strikes = Vec::new();
    for (fault, at) in faults {
        sleep(CALM).await;
        strikes.push(strike(&mut caches, *fault, *at).await);
    }
    let outcome = Outcome::judge(strikes, &mut workers);
    outcome.tell(kind);
    outcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root; run by `make test-sessions`"]
async fn no_session_is_lost_while_a_node_is_killed_frozen_or_cut_off() {
    outcome(Kind::Ours, &FAULTS).await.must_be_faultless();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root; run by `make test-sessions`"]
async fn no_session_is_lost_where_memcacheds_keep_them() {
    let faults = [
        (Fault::ServerKill, 1),
        (Fault::ServerFreeze, 2),
        (Fault::Kill, 0),
        (Fault::ServerFreeze, 1),
        (Fault::Freeze, 2),
        (Fault::ServerKill, 0),
        (Fault::Cut, 1),
    ];
    outcome(Kind::OursBacked, &faults).await.must_be_faultless();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root; run by `make test-sessions`"]
async fn the_same_with_nutcracker_for_comparison() {
    let outcome = outcome(Kind::Nutcracker, &FAULTS).await;
    assert!(outcome.written > 1000, "nutcracker serves nobody");
}
