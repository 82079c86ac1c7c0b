//! The real executable gives way to another one under load, with real PHP-FPM: nobody outside notices.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bitrix_node::host::process::identity;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::command::EXECUTABLE;
use crate::support::daemon::free_port;
use crate::support::eventually::eventually;
use crate::support::http;
use crate::support::node::Node;
use crate::support::program;

/// Each of them asks again as soon as it has its answer.
const PATHS: [(&str, bool); 4] = [
    ("/check.json", true),
    ("/check.json", false),
    ("/style.css", true),
    ("/style.css", false),
];

/// What a client saw: answers, faults, its longest wait.
#[derive(Debug, Default)]
struct Seen {
    answered: u32,
    /// Answers of a portal whose cache has just begun anew.
    missed: u32,
    faults: Vec<String>,
    worst: Duration,
}

/// Clients that never try a request twice.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Seen>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = PATHS.map(|(path, is_kept)| {
            let stop = stop.clone();
            std::thread::spawn(move || ask(address, path, is_kept, &stop))
        });
        Load {
            stop,
            clients: clients.into(),
        }
    }

    fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.clients.into_iter().map(|client| client.join().unwrap());
        seen.fold(Seen::default(), |mut sum, seen| {
            sum.answered += seen.answered;
            sum.missed += seen.missed;
            sum.faults.extend(seen.faults);
            sum.worst = sum.worst.max(seen.worst);
            sum
        })
    }
}

fn ask(address: SocketAddr, path: &str, is_kept: bool, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut kept: Option<TcpStream> = None;
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        match once(address, path, is_kept, &mut kept) {
            Ok(true) => seen.answered += 1,
            Ok(false) => seen.missed += 1,
            Err(fault) => seen.faults.push(format!("{path}, kept {is_kept}: {fault}")),
        }
        seen.worst = seen.worst.max(asked.elapsed());
    }
    seen
}

/// One request, over the connection that is open if it is to be kept. False: the portal missed what had been in the cache.
fn once(address: SocketAddr, path: &str, is_kept: bool, kept: &mut Option<TcpStream>) -> Result<bool, String> {
    use std::io::Write;
    let text = |error: std::io::Error| error.to_string();
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => http::connect(address).map_err(text)?,
    };
    let close = if is_kept { "" } else { "Connection: close\r\n" };
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{close}\r\n");
    stream.write_all(head.as_bytes()).map_err(text)?;
    let answer = http::read_answer(&mut stream).map_err(text)?;
    let is_whole = answer.status == 200;
    if !is_whole && !only_misses(&answer.body) {
        return Err(answer.text());
    }
    let is_closed = answer.header("connection") == Some("close");
    *kept = (is_kept && !is_closed && answer.header("content-length").is_some()).then_some(stream);
    Ok(is_whole)
}

/// Whether every check of the portal is well but those that ask the cache for what they gave it.
fn only_misses(body: &[u8]) -> bool {
    let Ok(check) = serde_json::from_slice::<serde_json::Value>(body) else {
        return false;
    };
    let checks = check["checks"].as_object();
    checks.is_some_and(|checks| {
        let mut ill = checks.iter().filter(|(_, check)| check["ok"] != true);
        ill.all(|(name, _)| name == "cache" || name == "sessions")
    })
}

fn pids(node: &Node, names: &[&str]) -> Vec<Option<i32>> {
    names.iter().map(|name| node.pid(name)).collect()
}

const MODULES: [&str; 4] = ["agent", "cache", "proxy", "push"];
const DAEMONS: [&str; 2] = ["mariadb", "php-fpm"];

/// Every module is another process than before, and ready.
async fn be_replaced(node: &Node, modules: &[&str], before: &[Option<i32>]) {
    eventually("all modules are replaced", async || {
        let now = pids(node, modules);
        let is_new = now
            .iter()
            .zip(before)
            .all(|(now, before)| now.is_some() && now != before);
        let is_ready = modules.iter().all(|name| node.service(name)["phase"] == "ready");
        if is_new && is_ready {
            Ok(())
        } else {
            Err(format!("{before:?} {now:?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_supervisor_gives_way_under_load_and_nobody_notices() {
    let mut node = Node::start("").await;
    let daemons = pids(&node, &DAEMONS);
    for round in 1..=2 {
        let modules = pids(&node, &MODULES);
        let load = Load::start(node.http());
        let asked = Instant::now();
        node.signal_supervisor(Signal::SIGUSR2);
        be_replaced(&node, &MODULES, &modules).await;
        let took = asked.elapsed();
        // As long as the old front may take to finish.
        eventually("the old front has ended", async || match node.log() {
            log if log.matches("followed by another one").count() == round => Ok(()),
            log => Err(log),
        })
        .await;
        let seen = load.end();
        println!("round {round}: {took:.2?}; {seen:.2?}");
        assert!(seen.faults.is_empty(), "{:#?}", seen.faults);
        assert!(seen.answered > 10);
        assert_eq!(pids(&node, &DAEMONS), daemons, "the daemons run on");
    }
    node.be_healthy().await;
    node.be_green().await;
    node.signal_supervisor(Signal::SIGTERM);
    assert_eq!(node.wait_for_end(), Some(0), "the same process all the time");
    let log = node.log();
    assert_eq!(log.matches("all modules are of the new executable").count(), 2, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fuse_mount_lives_on_under_another_supervisor() {
    let storage = format!(
        "[storage]\nengine = \"replicated\"\nlisten = \"127.0.0.1:{}\"\n",
        free_port()
    );
    let mut node = Node::start(&storage).await;
    let names = ["agent", "cache", "proxy", "storage"];
    let modules = pids(&node, &names);
    let mounted = mount_line(&node);
    let load = Load::start(node.http());
    node.signal_supervisor(Signal::SIGUSR2);
    be_replaced(&node, &names, &modules).await;
    node.be_green().await;
    let seen = load.end();
    println!("{seen:.2?}");
    assert!(seen.faults.is_empty(), "{:#?}", seen.faults);
    assert_eq!(mount_line(&node), mounted, "it is the same mount");
    // The mount is still let go as ever.
    node.signal_supervisor(Signal::SIGTERM);
    assert_eq!(node.wait_for_end(), Some(0));
    assert_eq!(mount_line(&node), None);
}

/// Works on files as PHP does, until told to stop: returns what failed, and its longest wait.
fn work(folder: PathBuf, number: usize, stop: &AtomicBool) -> (u32, Vec<String>, Duration) {
    let (mut rounds, mut faults, mut worst) = (0, Vec::new(), Duration::ZERO);
    let shared = folder.join("shared");
    let step = |round: u32| -> std::io::Result<()> {
        use std::io::{Read, Write};
        let (own, named) = (
            folder.join(format!("{number}-new")),
            folder.join(format!("{number}-{}", round % 7)),
        );
        let text = vec![b'a' + (round % 26) as u8; 40_000];
        fs::File::create(&own)?.write_all(&text)?;
        fs::rename(&own, &named)?;
        if fs::read(&named)? != text {
            return Err(std::io::Error::other("another text was read than was written"));
        }
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(&shared)?;
        file.lock()?;
        file.write_all(b"one more line\n")?;
        file.read_to_end(&mut Vec::new())?;
        file.unlock()?;
        fs::read_dir(&folder)?.count();
        fs::remove_file(&named)
    };
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        if let Err(error) = step(rounds) {
            faults.push(error.to_string());
        }
        rounds += 1;
        worst = worst.max(begun.elapsed());
    }
    (rounds, faults, worst)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_mount_does_not_hold_up_the_next_storage() {
    let storage = format!(
        "[storage]\nengine = \"replicated\"\nlisten = \"127.0.0.1:{}\"\n",
        free_port()
    );
    let mut node = Node::start(&storage).await;
    let folder = node.config.mount_point().join("busy");
    fs::create_dir_all(&folder).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..6)
        .map(|number| {
            let (folder, stop) = (folder.clone(), stop.clone());
            std::thread::spawn(move || work(folder, number, &stop))
        })
        .collect();
    let load = Load::start(node.http());
    let names = ["agent", "cache", "proxy", "storage"];
    for round in 0..6 {
        let modules = pids(&node, &names);
        let begun = Instant::now();
        node.signal_supervisor(Signal::SIGUSR2);
        be_replaced(&node, &names, &modules).await;
        println!("round {round}: {:.2?}", begun.elapsed());
    }
    let seen = load.end();
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        let (rounds, faults, worst) = worker.join().unwrap();
        println!("{rounds} rounds, {worst:.2?}, {faults:?}");
        assert!(faults.is_empty() && rounds > 10);
    }
    println!("{seen:.2?}");
    assert!(seen.faults.is_empty(), "{:#?}", seen.faults);
    assert!(!node.log().contains("does not stop"), "{}", node.log());
    node.signal_supervisor(Signal::SIGTERM);
    assert_eq!(node.wait_for_end(), Some(0));
}

/// Of /proc/self/mountinfo, with the number of the connection.
fn mount_line(node: &Node) -> Option<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let point = format!(" {} ", node.config.mount_point().display());
    table.lines().find(|line| line.contains(&point)).map(str::to_owned)
}

/// A node whose executable is a file of its own.
async fn with_own_executable(sections: &str) -> Node {
    let mut node = Node::prepare(sections);
    node.executable = node.file.with_file_name("bitrix-node");
    program::copy(EXECUTABLE.as_ref(), &node.executable);
    node.run();
    node.be_healthy().await;
    let settled = node.command(&["portal", "settings"]);
    assert_eq!(settled.code, 0, "{}", settled.err);
    node.be_green().await;
    node
}

/// A program that does this when it is asked to be a node, and is ours otherwise.
fn candidate(node: &Node, name: &str, instead_of_run: &str) -> PathBuf {
    let path = node.file.with_file_name(name);
    let ours = "*) exec $0.previous \"$@\" ;;";
    let probe = format!("upgrade-probe) exec {EXECUTABLE} \"$@\" ;;");
    program::write(
        &path,
        &format!("#!/bin/sh\ncase $1 in\n{probe}\nrun) {instead_of_run} ;;\n{ours}\nesac\n"),
    );
    path
}

fn apply(node: &Node, from: &std::path::Path) -> crate::support::command::Ran {
    node.command(&["upgrade", "apply", "--from", from.to_str().unwrap()])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_bitrix_node_never_takes_its_place() {
    let node = with_own_executable("").await;
    let before = fs::read(&node.executable).unwrap();
    let supervisor = lock_holder(&node);
    let write = |name: &str, text: &str| {
        let path = node.file.with_file_name(name);
        program::write(&path, text);
        path
    };
    for (name, text, why) in [
        ("ends", "#!/bin/sh\nexit 1\n", "failed"),
        ("hangs", "#!/bin/sh\nexec sleep 1000\n", "took longer than"),
        ("other", "#!/bin/sh\necho busybox\n", "it is not a bitrix-node"),
        ("none", "no program\n", "cannot take the place"),
    ] {
        let ran = apply(&node, &write(name, text));
        assert!(ran.code == 1 && ran.err.contains(why), "{name}: {}{}", ran.out, ran.err);
        assert!(ran.err.contains("nobody vouches for"), "{}", ran.err);
    }
    assert_eq!(fs::read(&node.executable).unwrap(), before);
    // Also when it came there by other hands: a package, say.
    fs::rename(write("package", "#!/bin/sh\nexit 1\n"), &node.executable).unwrap();
    let ran = node.command(&["upgrade", "restart"]);
    assert!(ran.code == 1 && ran.err.contains("goes on"), "{}{}", ran.out, ran.err);
    assert_eq!(fs::read(&node.executable).unwrap(), before, "it is put back");
    assert_eq!(lock_holder(&node), supervisor);
    assert!(!node.log().contains("gives way"), "nobody has given way");
    node.be_healthy().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executable_that_does_not_come_up_is_followed_by_the_one_before() {
    let node = with_own_executable("[upgrade]\npatience = \"2s\"\n").await;
    let _ended = Ended(&node);
    let before = fs::read(&node.executable).unwrap();
    for (name, instead) in [("ends", "exit 1"), ("hangs", "exec sleep 1000")] {
        let old = lock_holder(&node);
        let ran = apply(&node, &candidate(&node, name, instead));
        assert!(
            ran.code == 1 && ran.err.contains("goes on: it "),
            "{name}: {}{}",
            ran.out,
            ran.err
        );
        assert_eq!(fs::read(&node.executable).unwrap(), before, "{name}: it is put back");
        // The guard has become the supervisor.
        node.be_healthy().await;
        let new = lock_holder(&node);
        assert_ne!(new, old, "{name}");
    }
    let last = lock_holder(&node);
    kill(Pid::from_raw(last), Signal::SIGTERM).unwrap();
    eventually("the last supervisor has ended", async || {
        match identity(last.try_into().unwrap()) {
            Some(_) => Err(last),
            None => Ok(()),
        }
    })
    .await;
}

/// Ends a supervisor that is not this test's child, also when the test fails; what it runs ends with it.
struct Ended<'a>(&'a Node);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let holder = lock_holder(self.0);
        if identity(holder.try_into().unwrap()).is_some() {
            let _ = kill(Pid::from_raw(holder), Signal::SIGKILL);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_that_does_not_come_up_leaves_the_old_one_serving() {
    let node = with_own_executable("[upgrade]\npatience = \"20s\"\n").await;
    let _ended = Ended(&node);
    let old = node.pid("proxy");
    // A new one cannot open its log.
    let log = node.config.access_log().unwrap();
    fs::rename(&log, log.with_extension("old")).unwrap();
    fs::create_dir(&log).unwrap();
    let load = Load::start(node.http());
    let ran = node.command(&["upgrade", "restart"]);
    assert!(
        ran.code == 1 && ran.err.contains("proxy is not ready in time"),
        "{}{}",
        ran.out,
        ran.err
    );
    let seen = load.end();
    assert!(seen.faults.is_empty() && seen.answered > 10, "{seen:#?}");
    fs::remove_dir(&log).unwrap();
    eventually("a new front follows after all", async || match node.pid("proxy") {
        new if new.is_some() && new != old && node.service("proxy")["phase"] == "ready" => Ok(()),
        new => Err(format!("{new:?}")),
    })
    .await;
}

/// The supervisor's process, as the lock of the data folder says.
fn lock_holder(node: &Node) -> i32 {
    fs::read_to_string(node.config.node.data_dir.join("lock"))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}
