//! A few seeds always, many with `make test-sim`.

use super::author::simulate;
use super::folder::Flaw;
use super::ledger::Ledger;
use crate::base::seeded::{say, seeds};

fn run(seed: u64, flaw: Flaw) -> Ledger {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(simulate(seed, flaw))
}

#[test]
fn versions_have_one_author_and_follow_one_another() {
    let failed = |seed: &u64| {
        let ledger = run(*seed, Flaw::None);
        say(format_args!("seed {seed}: {}\n", ledger.summary()));
        let faults = ledger.faults();
        if !faults.is_empty() {
            say(format_args!("SEED={seed}\n{}\n", faults.join("\n")));
        }
        !faults.is_empty()
    };
    let failed: Vec<_> = seeds(3).filter(failed).collect();
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}

#[test]
fn a_run_is_made_of_its_seed() {
    assert_eq!(run(7, Flaw::None).summary(), run(7, Flaw::None).summary());
}

#[test]
fn flaws_are_found() {
    for flaw in [Flaw::LinkReplaces, Flaw::SameFile, Flaw::ShortListing] {
        let found = (1..20).find_map(|seed| run(seed, flaw).faults().first().cloned());
        say(format_args!("{flaw:?}: {found:?}\n"));
        assert!(found.is_some(), "{flaw:?}");
    }
}
