//! Three nodes and two seats under every sequence of a few faults, against `decide` and `Pulse` as they are: breadth first, so that what
//! is found is found by the shortest way. A second is one tick.
//!
//! Each second every node writes its heartbeat and hears that it is written; it reads the view, then the heartbeats, and decides when the
//! answer comes; its commit is applied and answered. Undisturbed all this happens in turn. A fault sets one of these loose: from then on
//! each of its steps comes between any two others, in this second or in any later one, until it has come to its end. So agents stand
//! still, messages are slow, and looks and commits are answered long after they were true. A loose look may fail, a loose commit
//! may be given up by its author and happen all the same. The other fault: an agent dies, its successor starts in the next second.

mod world;

use std::collections::{HashMap, hash_map};
use std::fmt::Write as _;
use std::io::Write as _;

use self::world::{Duty, Flaw, Step, World};

/// What a search came to.
struct Found {
    states: usize,
    ends: usize,
    violation: Option<String>,
}

/// What goes wrong: these duties get loose in the first second, and so many more faults come at any time.
#[derive(Clone, Debug)]
struct Trouble {
    loose: Vec<(Duty, usize)>,
    more: u8,
    /// Those only of commits.
    is_narrow: bool,
}

impl Trouble {
    fn any(loose: &[(Duty, usize)], more: u8) -> Self {
        Trouble {
            loose: loose.to_vec(),
            more,
            is_narrow: false,
        }
    }

    fn commits(loose: &[(Duty, usize)], more: u8) -> Self {
        Trouble {
            is_narrow: true,
            ..Trouble::any(loose, more)
        }
    }
}

/// All that can happen within so many seconds.
fn search(trouble: &Trouble, horizon: u64, flaw: Flaw) -> Found {
    let mut first = World::calm(trouble.more + u8::try_from(trouble.loose.len()).unwrap());
    for (duty, node) in &trouble.loose {
        first.take(Step::Loosen(*duty, *node), flaw);
    }
    first.is_narrow = trouble.is_narrow;
    let end = first.now + horizon;
    let mut came: HashMap<u128, (u128, Step)> = [(first.mark(), (0, Step::Tick))].into();
    let (mut level, mut ends) = (vec![first], 0);
    while !level.is_empty() {
        let mut next = Vec::new();
        for world in level {
            let mark = world.mark();
            if world.now == end {
                ends += 1;
                if let Err(why) = world.settles() {
                    return found(&came, mark, ends, &why);
                }
                continue;
            }
            for step in world.steps() {
                let mut after = world.clone();
                after.take(step, flaw);
                let reached = after.mark();
                if let hash_map::Entry::Vacant(entry) = came.entry(reached) {
                    entry.insert((mark, step));
                    if let Some(why) = after.broken() {
                        return found(&came, reached, ends, &why);
                    }
                    next.push(after);
                }
            }
        }
        level = next;
    }
    Found {
        states: came.len(),
        ends,
        violation: None,
    }
}

fn found(came: &HashMap<u128, (u128, Step)>, mut at: u128, ends: usize, why: &str) -> Found {
    let mut way = Vec::new();
    while let Some((from, step)) = came.get(&at).filter(|(from, _)| *from != 0) {
        way.push(*step);
        at = *from;
    }
    let mut story = why.to_string();
    for step in way.iter().rev() {
        write!(story, "\n  {step:?}").unwrap();
    }
    Found {
        states: came.len(),
        ends,
        violation: Some(story),
    }
}

fn say(what: std::fmt::Arguments<'_>) {
    std::io::stderr().write_fmt(what).unwrap();
}

fn holds(trouble: &Trouble, horizon: u64, floor: usize) {
    let found = search(trouble, horizon, Flaw::None);
    say(format_args!(
        "{trouble:?}: {} states, {} ends\n",
        found.states, found.ends
    ));
    let story = found.violation.unwrap_or_default();
    assert!(story.is_empty(), "{trouble:?}: {story}");
    assert!(
        found.states >= floor && found.ends >= floor / 100,
        "{trouble:?}: {} states are too few",
        found.states
    );
}

/// The address's holder cannot be heard for as long as may be.
const SILENT: (Duty, usize) = (Duty::Beat, 0);

#[test]
fn after_any_one_fault_there_are_never_two_holders_and_soon_one() {
    holds(&Trouble::any(&[], 1), 8, 5000);
}

#[test]
fn nor_when_looks_and_commits_go_astray_too() {
    for node in 0..3 {
        holds(&Trouble::commits(&[SILENT, (Duty::Look, node)], 0), 7, 5000);
    }
    holds(&Trouble::commits(&[SILENT], 1), 7, 500);
}

/// Minutes: `make test-sim`.
#[test]
#[ignore = "make test-sim"]
fn nor_when_faults_come_at_any_time() {
    holds(&Trouble::any(&[SILENT], 1), 8, 100_000);
    for node in 0..3 {
        holds(&Trouble::commits(&[SILENT, (Duty::Look, node)], 1), 8, 20_000);
    }
    holds(&Trouble::any(&[], 2), 6, 200_000);
}

#[test]
fn what_is_done_wrong_is_found_out() {
    let flaws = [
        (Flaw::Resumes, Trouble::commits(&[SILENT, (Duty::Look, 0)], 1)),
        (Flaw::HeartsFirst, Trouble::any(&[SILENT], 1)),
        (Flaw::ByAnswer, Trouble::any(&[SILENT], 1)),
        (Flaw::Hasty, Trouble::any(&[SILENT], 0)),
    ];
    for (flaw, trouble) in flaws {
        let found = search(&trouble, 8, flaw);
        let story = found.violation.unwrap_or_default();
        say(format_args!("{flaw:?}: {} states\n{story}\n", found.states));
        assert!(
            story.contains("is held by"),
            "{flaw:?} was not found in {} states",
            found.states
        );
    }
}
