//! The portal's jobs: one run at a time, as the portal's user, and none beyond the hold.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bitrix_node::base::clock;
use bitrix_node::host::process;
use bitrix_node::host::verb::Task;

use super::machine::Machine;
use crate::support::eventually::eventually;

const SECOND: Duration = Duration::from_secs(1);
const HOLD: Duration = Duration::from_secs(3);

/// Notes when it begins and ends, and what it sees.
const WORK: &str = r#"<?php
$note = fn(string $what) => file_put_contents(__DIR__ . '/note', "$what\n", FILE_APPEND);
$note('begin');
file_put_contents(__DIR__ . '/seen', json_encode([posix_getpwuid(posix_geteuid())['name'], ini_get('memory_limit'),
    getenv('BITRIX_NODE'), count(getenv())]));
echo "the jobs say something\n";
usleep(1500000);
$note('end');
"#;

/// Does not end when asked, and has a child.
const STUBBORN: &str = r#"<?php
pcntl_async_signals(true);
pcntl_signal(SIGTERM, SIG_IGN);
$child = proc_open(['sleep', '300'], [], $pipes);
file_put_contents(__DIR__ . '/pids.new', getmypid() . "\n" . proc_get_status($child)['pid']);
rename(__DIR__ . '/pids.new', __DIR__ . '/pids');
sleep(300);
"#;

fn machine(script: &str) -> (Machine, PathBuf) {
    let machine = Machine::new(None, SECOND);
    let folder = machine.config.portal_root().join("bitrix/modules/main/tools");
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    fs::write(folder.join("cron_events.php"), script).unwrap();
    (machine, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_run_one_after_another_as_the_portals_user() {
    let (machine, folder) = machine(WORK);
    let note = folder.join("note");
    let ran = || fs::read_to_string(&note).unwrap_or_default();
    eventually("three runs have ended", async || {
        machine.must_hold(&Task::Cron, 1, HOLD).await;
        match ran().matches("end").count() {
            0..3 => Err(ran()),
            _ => Ok(()),
        }
    })
    .await;
    machine.release(&Task::Cron).await;
    let lines = ran();
    let lines: Vec<&str> = lines.lines().collect();
    assert!(
        lines.chunks(2).all(|run| run == ["begin", "end"] || run == ["begin"]),
        "one at a time: {lines:?}"
    );
    let seen = fs::read_to_string(folder.join("seen")).unwrap();
    let limit = (77 << 20).to_string();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&seen).unwrap(),
        serde_json::json!(["www-data", limit, "n1", 3]),
        "and nothing of our environment"
    );
    let log = fs::read_to_string(machine.config.node_log()).unwrap();
    assert!(log.contains("cron the jobs say something"), "{log}");
}

/// The run's process and its child.
async fn pids(folder: &std::path::Path) -> [u32; 2] {
    let file = folder.join("pids");
    eventually("it runs", async || fs::metadata(&file).map(drop)).await;
    let text = fs::read_to_string(&file).unwrap();
    let pids: Vec<u32> = text.lines().map(|line| line.trim().parse().unwrap()).collect();
    pids.try_into().unwrap()
}

async fn are_gone(pids: [u32; 2], until: Duration, what: &str) {
    eventually("the run and its child are gone", async || {
        let left: Vec<u32> = pids
            .into_iter()
            .filter(|pid| process::identity(*pid).is_some())
            .collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
    let gone = clock::boot();
    println!(
        "{what}: gone {:+.2} s from the end of the hold",
        gone.as_secs_f64() - until.as_secs_f64()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_with_its_hold_whoever_is_silent() {
    let length = HOLD * 3;
    // 1. An agent that says it no more.
    let (silent, folder) = machine(STUBBORN);
    let until = clock::boot() + length;
    silent.must_hold(&Task::Cron, 1, length).await;
    are_gone(pids(&folder).await, until, "silent agent").await;
    // 2. A supervisor that stands still: the guard looks at the clock by itself.
    let (frozen, folder) = machine(STUBBORN);
    let until = clock::boot() + length;
    frozen.must_hold(&Task::Cron, 1, length).await;
    let pair = pids(&folder).await;
    frozen.freeze(length * 2).await;
    are_gone(pair, until, "frozen supervisor").await;
    // 3. A guard that stands still: the supervisor kills it, and with it what it started.
    let (stopped, folder) = machine(STUBBORN);
    let until = clock::boot() + length;
    stopped.must_hold(&Task::Cron, 1, length).await;
    let pair = pids(&folder).await;
    let guard = parent(pair[0]);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(guard), nix::sys::signal::Signal::SIGSTOP).unwrap();
    are_gone(pair, until, "frozen guard").await;
}

fn parent(pid: u32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest = stat.rsplit(')').next().unwrap();
    rest.split_whitespace().nth(1).unwrap().parse().unwrap()
}
