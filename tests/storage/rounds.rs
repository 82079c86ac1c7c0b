//! Rounds of one fault each, under load: what each did to the clients, and what a machine did when it came back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::check;
use super::cluster::Cluster;
use super::fault::{Fault, Target};
use super::history::{History, distribution};
use super::workload::Load;

/// Load before a fault, so that there is something to interrupt.
const BEFORE: Duration = Duration::from_millis(700);
/// The bound of the design, and what a busy machine and a debug build may add to it.
const STALL: Duration = Duration::from_secs(5);
const ALLOWANCE: u32 = 3;
/// A replica says so in its log when it asks for votes.
const STANDS: &str = "standing for election";

/// What one round did.
struct Round {
    fault: Fault,
    target: Target,
    /// Longest waits of the clients at other machines while it lasted, and after it was taken back.
    during: Vec<Duration>,
    after: Vec<Duration>,
    /// From taking it back until three copies were in sync.
    whole: Duration,
    terms: u64,
    /// Terms begun after it was taken back.
    terms_after: u64,
}

pub async fn run(rounds: &[(Fault, Target)]) {
    let mut cluster = Cluster::start(None).await;
    let history = Arc::new(History::new());
    let doors: Vec<(usize, PathBuf)> = cluster
        .machines
        .iter()
        .map(|machine| machine.door())
        .enumerate()
        .collect();
    let load = Load::start(&doors, "rounds", &history).await;
    let mut done = Vec::new();
    for (number, (fault, target)) in rounds.iter().enumerate() {
        let round = one(&mut cluster, *fault, *target, &history).await;
        println!(
            "round {:>2}: {target:<8} {fault:<18}  during {}  after {}  whole {:>5}  terms +{} +{}",
            number + 1,
            distribution(&round.during),
            distribution(&round.after),
            round.whole.as_millis(),
            round.terms,
            round.terms_after
        );
        done.push(round);
    }
    let model = load.stop().await;
    cluster.whole().await;
    check::everything(&cluster, &model, &history).await;
    report(&done, &history);
    judge(&cluster, &done, &history);
}

async fn one(cluster: &mut Cluster, fault: Fault, target: Target, history: &History) -> Round {
    let (leader, term) = cluster.whole().await;
    tokio::time::sleep(BEFORE).await;
    let at = match target {
        Target::Leader => leader,
        Target::Follower => (leader + 1) % 3,
    };
    let others: Vec<usize> = (0..3).filter(|other| *other != at).collect();
    let struck = history.now();
    fault.strike(cluster, at, leader);
    fault.last(cluster, at).await;
    // Somebody must lead before it is taken back, or the round shows nothing.
    let (_, elected) = match fault.is_short() {
        true => cluster.whole().await,
        false => led_by_others(cluster, at).await,
    };
    let stood = cluster.machines[at].log().matches(STANDS).count();
    let undone = history.now();
    fault.undo(cluster, at);
    let (_, last) = cluster.whole().await;
    let whole = history.now();
    tokio::time::sleep(BEFORE).await;
    let again = cluster.machines[at].log().matches(STANDS).count() - stood;
    if fault.is_survived() && again > 0 {
        history.violation(format!(
            "{target} {fault}: when it was back it stood for election {again} times"
        ));
    }
    if history.changes(&others, undone, history.now()) == 0 {
        history.violation(format!("{target} {fault}: nothing was written afterwards"));
    }
    Round {
        fault,
        target,
        during: history.stalls(&others, struck, undone),
        after: history.stalls(&others, undone, whole),
        whole: whole - undone,
        terms: elected - term,
        terms_after: last - elected,
    }
}

/// Waits until one of the others leads with a copy elsewhere; its place and term.
async fn led_by_others(cluster: &Cluster, at: usize) -> (usize, u64) {
    cluster
        .until("the others are led", async || {
            for other in (0..3).filter(|other| *other != at) {
                let report = cluster.report(other).await;
                if let Some(report) = report
                    .filter(|report| report.role == bitrix_node::storage::command::Role::Leader && report.copies >= 2)
                {
                    return Some((other, report.term));
                }
            }
            None
        })
        .await
}

fn report(rounds: &[Round], history: &History) {
    let mut kinds: BTreeMap<(Target, Fault), Vec<&Round>> = BTreeMap::new();
    for round in rounds {
        kinds.entry((round.target, round.fault)).or_default().push(round);
    }
    println!("\nlongest waits of clients at other machines, ms: min, median, p99, max");
    println!(
        "{:<28}rounds  {:<24}  {:<24}  terms during, after",
        "fault", "while it lasts", "when it is back"
    );
    for ((target, fault), rounds) in &kinds {
        let all = |of: fn(&Round) -> &Vec<Duration>| -> Vec<Duration> {
            rounds.iter().flat_map(|round| of(round)).copied().collect()
        };
        println!(
            "{:<28}{:>6}  {}  {}  {:?}",
            format!("{target} {fault}"),
            rounds.len(),
            distribution(&all(|round| &round.during)),
            distribution(&all(|round| &round.after)),
            rounds
                .iter()
                .map(|round| (round.terms, round.terms_after))
                .collect::<Vec<_>>()
        );
    }
    summary(history);
}

/// Numbers of the whole run.
pub fn summary(history: &History) {
    let calls = history.lock();
    let mut procedures: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for call in calls.iter() {
        procedures
            .entry(call.procedure)
            .or_default()
            .push(call.end - call.start);
    }
    println!("\ncalls, ms: min, median, p99, max");
    for (procedure, times) in procedures {
        println!("{procedure:<10}{:>7}  {}", times.len(), distribution(&times));
    }
    let repeated = calls.iter().filter(|call| call.sent > 1 + call.later).count();
    let later = calls.iter().filter(|call| call.later > 0).count();
    println!(
        "{} calls, {repeated} sent again, {later} told to come later",
        calls.len()
    );
}

fn judge(cluster: &Cluster, rounds: &[Round], history: &History) {
    // A run in which nothing happened shows nothing.
    if history.unknown() > 0 {
        history.violation(format!(
            "of {} calls nobody knows whether they were done",
            history.unknown()
        ));
    }
    assert!(
        history.changes(&[0, 1, 2], Duration::ZERO, history.now()) > 50 * rounds.len(),
        "too little load"
    );
    let elections = rounds
        .iter()
        .filter(|round| round.target == Target::Leader && round.terms > 0)
        .count();
    let expected = rounds
        .iter()
        .filter(|round| round.target == Target::Leader && !round.fault.is_short());
    assert!(elections >= expected.count(), "a leader was struck and nobody followed");
    assert!(
        history.lock().iter().any(|call| call.sent > 1 + call.later),
        "no call was ever repeated"
    );
    if history.refusals() > 0 {
        history.violation(format!("{} calls were refused for want of room", history.refusals()));
    }
    let longest = rounds
        .iter()
        .flat_map(|round| round.during.iter().chain(&round.after))
        .max();
    if longest.is_some_and(|longest| *longest > STALL * ALLOWANCE) {
        history.violation(format!("clients waited {longest:?}"));
    }
    conclude(cluster, history);
}

/// Fails the test for what was seen; the history is kept with the machines' files.
pub fn conclude(cluster: &Cluster, history: &History) {
    let violations = history.violations();
    if !violations.is_empty() {
        std::fs::write(cluster.path().join("history"), history.text()).unwrap();
    }
    assert!(
        violations.is_empty(),
        "{} violations:\n{}",
        violations.len(),
        violations.join("\n")
    );
}
