//! The storage of three nodes under faults: the real executable in network namespaces, clients that repeat what is not answered, and
//! a comparison of all that was promised with all that is there. Needs root; `make test-storage` runs these.

mod check;
mod client;
mod cluster;
mod disk;
mod fault;
mod history;
mod machine;
mod outages;
mod rounds;
mod workload;

use fault::{Fault, Target};

const FAULTS: [Fault; 5] = [Fault::Kill, Fault::Cut, Fault::Freeze, Fault::Mute, Fault::Deaf];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root; run by `make test-storage`"]
async fn a_short_round_loses_and_doubles_nothing() {
    rounds::run(&[(Fault::Kill, Target::Leader), (Fault::Cut, Target::Follower)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root; run by `make test-storage`"]
async fn twenty_rounds_lose_and_double_nothing() {
    let both = FAULTS
        .iter()
        .flat_map(|fault| [(*fault, Target::Leader), (*fault, Target::Follower)]);
    let first: Vec<_> = both.collect();
    // The second time a killed process is replaced at once, and links that lose one way are lost in other ways.
    let second = first.iter().map(|(fault, target)| match (fault, target) {
        (Fault::Kill, target) => (Fault::Replace, *target),
        (Fault::Mute, Target::Leader) => (Fault::Flap, Target::Leader),
        (Fault::Mute, Target::Follower) => (Fault::Part, Target::Follower),
        other => (*other.0, *other.1),
    });
    let all: Vec<_> = first.iter().copied().chain(second).collect();
    assert_eq!(all.len(), 20);
    rounds::run(&all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root; run by `make test-storage`"]
async fn an_acknowledged_upload_is_on_the_machine_that_survives() {
    outages::survivor(6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root; run by `make test-storage`"]
async fn without_a_majority_calls_wait_and_nothing_is_lost() {
    outages::no_majority().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root; run by `make test-storage`"]
async fn a_node_that_was_cut_off_for_long_is_honest_about_its_calls() {
    outages::long_cut().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root; run by `make test-storage`"]
async fn power_lost_everywhere_loses_nothing() {
    outages::power_loss(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root; run by `make test-storage`"]
async fn a_full_disk_is_told_or_passed_over_and_loses_nothing() {
    outages::full_disk().await;
}
