//! `make bench-cache`, second part: three nodes whose caches are one beside nutcracker before three memcacheds, on one loopback; all
//! servers on processor 1 with one thread each, the load on processor 0 and always at the first node. They take turns round by round.
//! Prints medians and ratios; fails when a goal is missed.
//!
//! A get that is routed costs two processes: the one that is asked, and the one that has the key. The first is compared with
//! nutcracker, the second is shown beside memcached.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::sessions::caches::{Caches, Kind};
use crate::sessions::machine::Setting;

const ROUNDS: usize = 7;
const SECONDS: &str = "1";
const CONNECTIONS: &str = "50";
const KEYS: usize = 3000;
/// Classes that `stats cachedump` may have.
const CLASSES: usize = 64;
const LOAD_PROCESSOR: &str = "0";
const SERVERS: Setting = Setting {
    threads: 1,
    processor: Some(1),
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// That the first of our nodes must ask another one for.
    Others,
    /// Of which it has a third itself.
    All,
}

struct Case {
    name: &'static str,
    operation: &'static str,
    value: &'static str,
    depth: &'static str,
    multi: &'static str,
    keys: Keys,
    /// Processor time of the router, at most so many times nutcracker's.
    goal: Option<f64>,
}

const CASES: [Case; 6] = [
    Case::new("get 100 B of others", "get", "100", ["1", "1"], Keys::Others, Some(1.0)),
    Case::new("the same, 16 at once", "get", "100", ["16", "1"], Keys::Others, None),
    Case::new("get 100 B, 16 keys", "get", "100", ["1", "16"], Keys::All, Some(0.7)),
    Case::new("get 100 B", "get", "100", ["1", "1"], Keys::All, None),
    Case::new("get 10 KiB of others", "get", "10240", ["1", "1"], Keys::Others, None),
    Case::new("set 100 B of others", "set", "100", ["1", "1"], Keys::Others, None),
];

impl Case {
    const fn new(
        name: &'static str,
        operation: &'static str,
        value: &'static str,
        [depth, multi]: [&'static str; 2],
        keys: Keys,
        goal: Option<f64>,
    ) -> Self {
        Case {
            name,
            operation,
            value,
            depth,
            multi,
            keys,
            goal,
        }
    }
}

/// Of one round: commands per second, and microseconds of processor time per command of the router and of those behind it.
#[derive(Clone, Copy)]
struct Figures([f64; 3]);

struct Files {
    all: PathBuf,
    others: PathBuf,
}

/// What the load prints.
fn load(caches: &Caches, words: &[&str]) -> String {
    let first = &caches.machines[0];
    let mut command = first.inside(Path::new("/usr/bin/taskset"), &[]);
    command.args(["-c", LOAD_PROCESSOR]).arg(program());
    command.arg(first.place.cache.to_string()).args(words);
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?} of {:?}: {error}", caches.kind);
    String::from_utf8(output.stdout).unwrap()
}

fn program() -> PathBuf {
    #[allow(clippy::disallowed_methods)]
    let named = std::env::var_os("CACHE_LOAD");
    named
        .expect("CACHE_LOAD names the load; `make bench-cache` builds it")
        .into()
}

/// Nanoseconds of all its threads, as the scheduler counts them.
fn processor_time(process: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let times = tasks.map(|task| {
        let text = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
        text.split(' ').next().unwrap().parse::<u64>().unwrap()
    });
    times.sum()
}

/// Of the router, and of the processes that have the keys.
fn times(caches: &Caches) -> [u64; 2] {
    let mut behind: Vec<u32> = caches.machines.iter().flat_map(|machine| machine.processes()).collect();
    let place = match caches.kind {
        Kind::Ours | Kind::OursBacked => 0,
        // Of a machine it comes after its memcached; those of the other machines have nothing to do.
        Kind::Nutcracker => 1,
    };
    let router = behind.remove(place);
    [processor_time(router), behind.into_iter().map(processor_time).sum()]
}

fn measure(caches: &Caches, case: &Case, files: &Files) -> Figures {
    let file = match case.keys {
        Keys::All => &files.all,
        Keys::Others => &files.others,
    };
    let keys = format!("@{}", file.display());
    load(caches, &["fill", &keys, "0", case.value]);
    let before = times(caches);
    let (operation, value) = (case.operation, case.value);
    let printed = load(
        caches,
        &[
            operation,
            &keys,
            "0",
            value,
            CONNECTIONS,
            case.depth,
            case.multi,
            SECONDS,
        ],
    );
    let after = times(caches);
    let numbers: Vec<f64> = printed.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let each = |place: usize| (after[place] - before[place]) as f64 / 1000.0 / numbers[0];
    Figures([numbers[0] / numbers[1], each(0), each(1)])
}

fn median(rounds: &[Figures]) -> [f64; 3] {
    [0, 1, 2].map(|place| {
        let mut values: Vec<f64> = rounds.iter().map(|figures| figures.0[place]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    })
}

/// Writes the keys into files: all, and those that lie on other nodes than the first.
fn keys(caches: &Caches, folder: &Path) -> Files {
    // As the portal names them; digits alone would be sessions.
    let all: Vec<String> = (0..KEYS).map(|number| format!("BX|v1|bench|{number:0>28}")).collect();
    let files = Files {
        all: folder.join("all"),
        others: folder.join("others"),
    };
    std::fs::write(&files.all, all.join("\n") + "\n").unwrap();
    load(caches, &["fill", &format!("@{}", files.all.display()), "0", "100"]);
    let mut own = String::new();
    for class in 1..CLASSES {
        let lines = caches.machines[0].ask(&format!("stats cachedump {class} 0"), &["END", "CLIENT_ERROR"]);
        own += &lines.unwrap().join("\n");
    }
    let others = all
        .iter()
        .filter(|key| !own.contains(&format!(" {key} ")))
        .fold(String::new(), |mut text, key| {
            let _ = writeln!(text, "{key}");
            text
        });
    let count = others.lines().count();
    assert!((KEYS / 3..KEYS).contains(&count), "{count} keys are of other nodes");
    std::fs::write(&files.others, others).unwrap();
    files
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make bench-cache"]
async fn routed_gets_beside_nutcracker() {
    let both = [
        Caches::together(Kind::Ours, SERVERS).await,
        Caches::together(Kind::Nutcracker, SERVERS).await,
    ];
    let folder = tempfile::tempdir().unwrap();
    let files = keys(&both[0], folder.path());
    println!(
        "{:22}{:^25} {:^25} {:^18}",
        "", "requests/s", "router us/request", "behind it"
    );
    println!(
        "{:22}{1:>8}{2:>11}{3:>6} {1:>8}{2:>11}{3:>6} {1:>8}{4:>10}",
        "", "ours", "nutcracker", "ratio", "memcached"
    );
    let mut missed = Vec::new();
    for case in &CASES {
        let mut rounds = [Vec::new(), Vec::new()];
        for round in 0..=ROUNDS {
            for place in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                let figures = measure(&both[place], case, &files);
                // The first round warms up.
                if round > 0 {
                    rounds[place].push(figures);
                }
            }
        }
        let [ours, theirs] = rounds.map(|rounds| median(&rounds));
        let ratio = [0, 1].map(|place| ours[place] / theirs[place]);
        println!(
            "{:22}{:8.0}{:11.0}{:6.2} {:8.2}{:11.2}{:6.2} {:8.2}{:10.2}",
            case.name, ours[0], theirs[0], ratio[0], ours[1], theirs[1], ratio[1], ours[2], theirs[2]
        );
        if case.goal.is_some_and(|goal| ratio[1] > goal) {
            missed.push(case.name);
        }
    }
    assert!(missed.is_empty(), "missed their goals: {missed:?}");
}
