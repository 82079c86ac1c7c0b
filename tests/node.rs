//! The real executable with real PHP-FPM, MariaDB and the demo portal: it serves, and it heals.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::daemon::free_port;
use crate::support::eventually::eventually;
use crate::support::http;
use crate::support::node::Node;

const SERVICES: [&str; 6] = ["agent", "cache", "mariadb", "php-fpm", "proxy", "push"];

/// Connects again and again; a refusal is a fault, an answer that was cut by the kill of a module is counted apart.
struct Load {
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
    cut: Arc<AtomicU64>,
    answered: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(node: &Node, path: &'static str) -> Self {
        let counter = || Arc::new(AtomicU64::new(0));
        let mut load = Load {
            stop: Arc::default(),
            refused: counter(),
            cut: counter(),
            answered: counter(),
            threads: Vec::new(),
        };
        for _ in 0..4 {
            let address = node.http();
            let (stop, refused) = (load.stop.clone(), load.refused.clone());
            let (cut, answered) = (load.cut.clone(), load.answered.clone());
            load.threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let counter = match http::get(address, path) {
                        Ok(_) => &answered,
                        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => &refused,
                        Err(_) => &cut,
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        load
    }

    /// Answered, refused, cut.
    fn end(self) -> (u64, u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        let [answered, refused, cut] = [self.answered, self.refused, self.cut].map(|n| n.load(Ordering::Relaxed));
        (answered, refused, cut)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_modules_come_back_and_no_connection_is_refused() {
    let node = Node::start("").await;
    for name in SERVICES {
        let load = Load::start(&node, "/style.css");
        let old = node.kill(name);
        let killed = Instant::now();
        eventually(&format!("{name} is ready again"), async || {
            let row = node.service(name);
            if row["phase"] == "ready" && row["pid"] != old {
                Ok(())
            } else {
                Err(row.to_string())
            }
        })
        .await;
        let back = killed.elapsed();
        let (answered, refused, cut) = load.end();
        println!("kill -9 {name}: back after {back:.2?}; {answered} answered, {cut} cut, {refused} refused");
        assert_eq!(refused, 0, "{name}");
        assert!(answered > 0, "{name}");
        assert!(
            name == "proxy" || cut == 0,
            "{name}: {cut} answers of another module were cut"
        );
    }
    node.be_green().await;
    assert!(
        node.status()["services"]
            .as_array()
            .unwrap()
            .iter()
            .all(|row| row["restarts"] == 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_supervisor_leaves_nothing_and_the_next_run_heals() {
    // 1. A node runs. 2. Its supervisor is killed. 3. Nothing of it is left. 4. The next run brings all back.
    let mut node = Node::start("").await;
    let second = node.command(&["run"]);
    assert!(
        second.code == 1 && second.err.contains("is in use by a running bitrix-node"),
        "{}",
        second.err
    );
    let pids: Vec<i32> = SERVICES.iter().map(|name| node.pid(name).unwrap()).collect();
    node.signal_supervisor(Signal::SIGKILL);
    node.wait_for_end();
    eventually("nothing is left", async || {
        let left: Vec<_> = pids.iter().filter(|pid| is_running(**pid)).collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
    node.run();
    node.be_healthy().await;
    node.be_green().await;
    node.signal_supervisor(Signal::SIGTERM);
    assert_eq!(node.wait_for_end(), Some(0));
    let log = node.log();
    let ends: Vec<&str> = log.lines().filter(|line| line.contains("supervisor stopped")).collect();
    assert_eq!(ends.len(), 1, "one clean end is logged");
    assert_eq!(node.command(&["status"]).code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_module_is_replaced() {
    let node = Node::start("").await;
    let old = node.pid("cache").unwrap();
    kill(Pid::from_raw(old), Signal::SIGSTOP).unwrap();
    eventually("the cache is replaced", async || {
        let row = node.service("cache");
        if row["phase"] == "ready" && row["pid"] != old {
            Ok(())
        } else {
            Err(row.to_string())
        }
    })
    .await;
    node.be_green().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_runs_where_it_is_asked_for_and_comes_back() {
    let storage = format!(
        "[storage]\nengine = \"replicated\"\nmount = \"none\"\nlisten = \"127.0.0.1:{}\"\n",
        free_port()
    );
    let node = Node::start(&storage).await;
    let serves = async |not: i32| {
        eventually("the storage serves", async || {
            let row = node.service("storage");
            let is_up = row["phase"] == "ready" && row["pid"] != not && row["health"] == "good";
            if is_up
                && row["detail"]
                    .as_str()
                    .is_some_and(|detail| detail.starts_with("leads, 1 copy"))
            {
                Ok(())
            } else {
                Err(row.to_string())
            }
        })
        .await;
    };
    serves(0).await;
    let old = node.kill("storage");
    serves(old).await;
    let owner = fs::metadata(node.config.storage()).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&owner.permissions()) & 0o777,
        0o700
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_doors_answer() {
    let node = Node::start("").await;
    let cluster = node.command(&["status"]);
    assert!(
        cluster.code == 0 && cluster.out.starts_with("HEALTHY  https://") && cluster.out.contains("/  1 node, v"),
        "{}",
        cluster.out
    );
    let lines: Vec<&str> = cluster.out.lines().collect();
    assert!(
        lines[2].starts_with("node1  -        ready  web db cache  "),
        "{}",
        cluster.out
    );
    assert_eq!(lines[3], "Data   files on this machine's disk alone; database on node1");
    let table = node.command(&["status", "--services"]);
    assert!(
        table.code == 0 && table.out.starts_with("HEALTHY  node1  https://"),
        "{}",
        table.out
    );
    assert!(SERVICES.iter().all(|name| table.out.contains(name)), "{}", table.out);
    let logs = node.command(&["logs", "--module", "mariadb", "-n", "500"]);
    assert!(
        logs.out.contains("ready for connections") && !logs.out.contains(" php-fpm "),
        "{}",
        logs.out
    );

    let token = fs::read_to_string(node.config.secrets().join("admin.token")).unwrap();
    let bearer = format!("Authorization: Bearer {}", token.trim());
    let metrics = format!("https://{}/metrics", node.config.admin.listen);
    let refused = curl(&["-o", "/dev/null", "-w", "%{http_code}", &metrics]);
    assert_eq!(refused, "401");
    eventually("every module's numbers are there", async || {
        let text = curl(&["-H", &bearer, &metrics]);
        assert!(
            text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1,
            "{text}"
        );
        let expected = [
            "bitrix_node_child_up{name=\"mariadb\"} 1",
            "bitrix_proxy_requests_total{",
            "bitrix_proxy_fastcgi_connections{state=\"idle\"}",
            "bitrix_cache_items ",
        ];
        match expected.into_iter().find(|line| !text.contains(line)) {
            Some(line) => Err(format!("{line} is not in\n{text}")),
            None => Ok(()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_takes_a_valid_file_and_refuses_a_broken_one() {
    let node = Node::start("max_body_size = \"1MiB\"\n").await;
    let post = |bytes: usize| {
        let body = "x".repeat(bytes);
        let head =
            format!("POST /check.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {bytes}\r\n\r\n");
        http::exchange(node.http(), (head + &body).as_bytes()).unwrap().status
    };
    assert_eq!(post(1_500_000), 413);
    let text = fs::read_to_string(&node.file).unwrap();
    fs::write(&node.file, text.replace("\"1MiB\"", "\"2MiB\"")).unwrap();
    node.signal_supervisor(Signal::SIGHUP);
    eventually("the larger body is taken", async || match post(1_500_000) {
        413 => Err("413"),
        _ => Ok(()),
    })
    .await;
    fs::write(&node.file, text.replace("\"1MiB\"", "\"1 apple\"")).unwrap();
    node.signal_supervisor(Signal::SIGHUP);
    eventually("the mistake is logged", async || {
        let log = node.log();
        if log.contains("\"1 apple\" is not a size") {
            Ok(())
        } else {
            Err("not logged")
        }
    })
    .await;
    assert_ne!(post(1_500_000), 413, "the node goes on with what it had");
}

fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().next())
        .is_some_and(|state| state != "Z")
}

fn curl(arguments: &[&str]) -> String {
    #[allow(clippy::disallowed_methods)]
    let output = std::process::Command::new("curl")
        .args(["-sk", "--max-time", "20"])
        .args(arguments)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}
