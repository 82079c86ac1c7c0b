//! `Php` against a real PHP-FPM (package php-fpm), started on a socket of its own.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, future, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use super::*;
use crate::proxy::error::Kind;
use crate::proxy::fixture::{empty, exchange, full, read};

struct Fpm {
    /// Dropped first: PHP-FPM waits for connections that are still open.
    php: Php,
    _process: Process,
    folder: tempfile::TempDir,
}

struct Process(Child);

impl Fpm {
    /// PHP-FPM with that many children, of which `kept` may be pinned by us; a child ends after `requests` (0: never).
    async fn start(children: usize, kept: usize, requests: usize) -> Fpm {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = |name: &str| folder.path().join(name);
        let user = if geteuid().is_root() {
            "user = root\ngroup = root"
        } else {
            ""
        };
        let settings = format!(
            "[global]\nerror_log = {log}\n[www]\n{user}\nlisten = {socket}\npm = static\npm.max_children = {children}\n\
             pm.max_requests = {requests}\nphp_admin_value[post_max_size] = 0\n\
             php_admin_value[memory_limit] = 16M\nphp_admin_value[error_log] = /dev/stderr\nphp_admin_flag[log_errors] = on\n",
            log = path("fpm.log").display(),
            socket = path("fpm.sock").display(),
        );
        fs::write(path("fpm.conf"), settings).expect("written");
        #[allow(clippy::disallowed_methods)]
        let process = std::process::Command::new(executable())
            .args(["-F", "-n", "-R", "-y"])
            .arg(path("fpm.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("php-fpm starts");
        let php = Php::new(PhpSettings {
            socket: path("fpm.sock"),
            kept,
            children: 0,
            silence: Duration::from_secs(30),
        });
        let fpm = Fpm {
            php,
            _process: Process(process),
            folder,
        };
        fpm.script("ready.php", "echo 'ready';");
        let started = Instant::now();
        while fpm.get("/ready.php").await.is_err() {
            assert!(started.elapsed() < Duration::from_secs(20), "php-fpm does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        fpm
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn script(&self, name: &str, code: &str) {
        fs::write(self.path(name), format!("<?php {code}")).expect("written");
    }

    fn of(&self, name: &str) -> Script {
        Script {
            root: self.folder.path().to_string_lossy().into(),
            name: name.into(),
            path_info: String::new(),
        }
    }

    async fn get(&self, name: &str) -> Result<Bytes, Error> {
        let response = self
            .php
            .call(&exchange("GET", name, &[]), &self.of(name), empty())
            .await?;
        read(response.into_body()).await
    }

    async fn post(&self, name: &str, fields: &[(&str, &str)], body: Body) -> Result<Bytes, Error> {
        let response = self
            .php
            .call(&exchange("POST", name, fields), &self.of(name), body)
            .await?;
        read(response.into_body()).await
    }

    /// Until the processes of idle connections wait for requests.
    async fn rest(&self) {
        while !self.php.pool.is_at_rest() {
            tokio::task::yield_now().await;
        }
    }

    /// Open connections to PHP-FPM, each by its socket's inode (proc(5), /proc/net/unix). `accepted conn` of its status page counts requests.
    fn connections(&self) -> BTreeSet<String> {
        let sockets = fs::read_to_string("/proc/net/unix").expect("proc");
        let path = self.path("fpm.sock");
        let ours = sockets.lines().filter(|line| line.ends_with(&*path.to_string_lossy()));
        let fields = ours.map(|line| line.split_whitespace().collect::<Vec<_>>());
        // Flags 00010000 mark the listener.
        fields
            .filter(|fields| fields[3] != "00010000")
            .map(|fields| fields[6].to_string())
            .collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.0.id() as i32);
        kill(pid, Signal::SIGTERM).expect("our own child");
        self.0.wait().expect("ended");
    }
}

fn executable() -> PathBuf {
    let entries = fs::read_dir("/usr/sbin").expect("/usr/sbin").flatten();
    let mut found: Vec<_> = entries.map(|entry| entry.path()).filter(|path| is_fpm(path)).collect();
    found.sort();
    found.pop().expect("php-fpm is installed")
}

fn is_fpm(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("php-fpm"))
}

/// A body whose length nobody announced.
fn chunked(chunk: &'static [u8], count: usize) -> Body {
    let frames = stream::iter((0..count).map(move |_| Ok(Frame::data(Bytes::from_static(chunk)))));
    StreamBody::new(frames).boxed_unsync()
}

#[tokio::test]
async fn real_php_answers_and_reads_bodies() {
    let fpm = Fpm::start(2, 1, 0).await;
    fpm.script("hello.php", "header('X-A: b'); setcookie('a', '1'); setcookie('b', '2'); http_response_code(418); echo $_SERVER['REQUEST_URI'];");
    fpm.script("echo.php", "echo file_get_contents('php://input');");
    fpm.script("form.php", "error_log('a complaint'); echo $_POST['name'];");

    let request = exchange("GET", "/hello.php?x=%20", &[]);
    let response = fpm
        .php
        .call(&request, &fpm.of("/hello.php"), empty())
        .await
        .expect("answered");
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-a"]),
        (418, &"b".parse().expect("value"))
    );
    assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
    assert_eq!(read(response.into_body()).await.expect("whole"), "/hello.php?x=%20");

    let head = fpm
        .php
        .call(&exchange("HEAD", "/hello.php", &[]), &fpm.of("/hello.php"), empty())
        .await
        .expect("answered");
    assert_eq!(head.status(), 418);
    assert_eq!(read(head.into_body()).await.expect("nothing"), "");

    assert_eq!(fpm.post("/echo.php", &[], full("body")).await.expect("echo"), "body");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(
        fpm.post("/form.php", &form, full("name=value")).await.expect("form"),
        "value"
    );

    let missing = fpm
        .php
        .call(&exchange("GET", "/no.php", &[]), &fpm.of("/no.php"), empty())
        .await;
    assert_eq!(missing.expect("answered").status(), 404);
}

#[tokio::test]
async fn real_php_reads_bodies_of_unknown_length() {
    let fpm = Fpm::start(1, 1, 0).await;
    fpm.script(
        "echo.php",
        "echo $_SERVER['CONTENT_LENGTH'] ?? 'none', ':', strlen(file_get_contents('php://input'));",
    );
    assert_eq!(
        fpm.post("/echo.php", &[], chunked(b"twelve bytes", 2))
            .await
            .expect("echo"),
        "24:24"
    );
    assert_eq!(
        fpm.post("/echo.php", &[], chunked(&[b'x'; 100_000], 20))
            .await
            .expect("echo"),
        "2000000:2000000"
    );
    // Why they are collected first: PHP reads nothing that was not announced.
    let silent = [("content-length", "0")];
    assert_eq!(
        fpm.post("/echo.php", &silent, full("body")).await.expect("echo"),
        "none:0"
    );
}

#[tokio::test]
async fn real_php_keeps_connections_up_to_the_cap() {
    let fpm = Fpm::start(3, 1, 0).await;
    fpm.script(
        "nap.php",
        "while (!file_exists(__DIR__ . '/go')) { usleep(1000); clearstatcache(); }",
    );
    let before = fpm.connections();
    assert_eq!(before.len(), 1);
    for _ in 0..20 {
        fpm.rest().await;
        assert_eq!(fpm.get("/ready.php").await.expect("answered"), "ready");
    }
    fpm.rest().await;
    assert_eq!(fpm.connections(), before, "one connection served them all");
    let naps = async {
        let naps = future::join_all((0..3).map(|_| fpm.get("/nap.php"))).await;
        assert!(naps.iter().all(Result::is_ok));
    };
    let look = async {
        while fpm.connections().len() < 3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            fpm.php.counts(),
            Counts {
                idle: 0,
                busy: 1,
                fresh: 2
            }
        );
        fs::write(fpm.path("go"), "").expect("written");
    };
    tokio::join!(naps, look);
    assert_eq!(
        fpm.php.counts(),
        Counts {
            idle: 1,
            busy: 0,
            fresh: 0
        }
    );
    // PHP-FPM closes its own end a moment after the answer.
    while fpm.connections().len() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fpm.connections(), before, "only the kept one is still open");
}

#[tokio::test]
async fn turnover_of_php_processes_goes_unnoticed() {
    let fpm = Fpm::start(2, 1, 2).await;
    fpm.script(
        "echo.php",
        "echo file_get_contents('php://input'); fastcgi_finish_request(); usleep(rand(0, 3000));",
    );
    for round in 0..100 {
        let text = format!("round {round}");
        assert_eq!(
            fpm.post("/echo.php", &[], full(text.clone())).await.expect("echo"),
            text
        );
    }
}

#[tokio::test]
async fn a_page_does_not_wait_for_what_another_one_left_to_do() {
    let fpm = Fpm::start(2, 1, 0).await;
    fpm.script(
        "work.php",
        "echo file_get_contents('php://input'); fastcgi_finish_request(); touch(__DIR__ . '/works'); \
         while (!file_exists(__DIR__ . '/go')) { usleep(1000); clearstatcache(); } unlink(__DIR__ . '/go');",
    );
    for body in ["", "a body", &"x".repeat(300_000)] {
        let answer = fpm.post("/work.php", &[], full(body.to_string())).await;
        assert_eq!(answer.expect("answered"), body);
        while !fpm.path("works").exists() {
            tokio::task::yield_now().await;
        }
        assert_eq!(fpm.get("/ready.php").await.expect("by the other process"), "ready");
        let echo = fpm.post("/ready.php", &[], full("body")).await;
        assert_eq!(echo.expect("by the other process"), "ready");
        fs::remove_file(fpm.path("works")).expect("removed");
        fs::write(fpm.path("go"), "").expect("written");
        while fpm.path("go").exists() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn real_php_notices_that_the_client_left() {
    let fpm = Fpm::start(2, 1, 0).await;
    fpm.script(
        "endless.php",
        "register_shutdown_function(fn() => file_put_contents(__DIR__ . '/left', connection_aborted())); while (true) { echo str_repeat('x', 9000); flush(); }",
    );
    fpm.script("wait.php", "usleep(10000); echo @file_get_contents(__DIR__ . '/left');");
    let request = exchange("GET", "/endless.php", &[]);
    let mut body = fpm
        .php
        .call(&request, &fpm.of("/endless.php"), empty())
        .await
        .expect("answered")
        .into_body();
    body.frame().await.expect("a frame").expect("data");
    drop(body);
    let started = Instant::now();
    while fpm.get("/wait.php").await.expect("answered") != "1" {
        assert!(started.elapsed() < Duration::from_secs(20), "PHP goes on");
    }
}

/// Bytes that do not repeat within the test: a counter in each 8 bytes.
fn numbered(frame: u64, size: usize) -> Bytes {
    let first = frame * (size as u64 / 8);
    (0..size as u64 / 8)
        .flat_map(|index| (first + index).to_le_bytes())
        .collect()
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/statm").expect("proc");
    let pages: usize = status.split(' ').nth(1).expect("a field").parse().expect("a number");
    pages * 4096
}

/// Memory can only be measured where no other test runs, hence in a process of its own.
#[test]
fn large_bodies_pass_both_ways_in_little_memory() {
    let name = "proxy::fastcgi::fpm_tests::large_bodies_alone";
    #[allow(clippy::disallowed_methods)]
    let alone = std::process::Command::new("/proc/self/exe")
        .args([name, "--exact", "--ignored", "--nocapture"])
        .output()
        .expect("this program");
    let output = String::from_utf8_lossy(&alone.stdout);
    assert!(alone.status.success() && output.contains("1 passed"), "{output}");
}

#[tokio::test]
#[ignore = "run by large_bodies_pass_both_ways_in_little_memory"]
async fn large_bodies_alone() {
    const SIZE: usize = 64 * 1024 * 1024;
    const FRAME: usize = 64 * 1024;
    let fpm = Fpm::start(1, 1, 0).await;
    fpm.script(
        "echo.php",
        "$in = fopen('php://input', 'rb'); while (!feof($in)) echo fread($in, 65536);",
    );
    let hashes = std::sync::Arc::new(std::sync::Mutex::new(DefaultHasher::new()));
    let sent = hashes.clone();
    let frames = stream::iter(0..(SIZE / FRAME) as u64).map(move |index| {
        let data = numbered(index, FRAME);
        sent.lock().expect("not poisoned").write(&data);
        Ok(Frame::data(data))
    });
    let before = resident();
    let length = SIZE.to_string();
    let request = exchange("POST", "/echo.php", &[("content-length", &length)]);
    let upload = StreamBody::new(frames).boxed_unsync();
    let response = fpm
        .php
        .call(&request, &fpm.of("/echo.php"), upload)
        .await
        .expect("answered");
    let (mut received, mut size, mut most) = (DefaultHasher::new(), 0, resident());
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let data = frame.expect("whole").into_data().expect("data");
        received.write(&data);
        size += data.len();
        most = most.max(resident());
    }
    assert_eq!(size, SIZE);
    assert_eq!(received.finish(), hashes.lock().expect("not poisoned").finish());
    assert!(most.saturating_sub(before) < 4 * 1024 * 1024, "{before} grew to {most}");
}

#[tokio::test]
async fn stopped_php_is_unavailable() {
    let fpm = Fpm::start(1, 1, 0).await;
    let php = Php::new(PhpSettings {
        socket: fpm.path("fpm.sock"),
        kept: 0,
        children: 0,
        silence: Duration::from_secs(5),
    });
    let script = fpm.of("/ready.php");
    drop(fpm);
    let error = php
        .call(&exchange("GET", "/", &[]), &script, empty())
        .await
        .expect_err("refused");
    assert_eq!(error.kind, Kind::Unavailable);
}
