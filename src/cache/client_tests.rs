//! The service under clients that others wrote: memccapable, PHP's two extensions, memcache-async.
//! A client that is not installed fails its test: these are what the cache is for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Cache;
use crate::base::service::{NamedSocket, Socket};
use crate::base::{Cx, Scope, Service};
use crate::config;
use crate::host::command::Program;
use crate::net::listen;

pub const PATIENCE: Duration = Duration::from_secs(60);
const PHP: &str = "/usr/bin/php8.2";

/// A cache that serves on a port of its own.
pub struct Running {
    pub address: SocketAddr,
    pub cache: Arc<Cache>,
    pub scope: Scope,
}

impl Running {
    pub fn start(configuration: &str) -> Self {
        let listener = listen::tcp("127.0.0.1:0".parse().expect("address")).expect("bound");
        let address = listener.local_addr().expect("address");
        let running = Self::on(configuration, Socket::Tcp(listener));
        Running { address, ..running }
    }

    pub fn on(configuration: &str, socket: Socket) -> Self {
        let loaded = config::parse(configuration, std::iter::empty()).expect("valid");
        let cache = Arc::new(Cache::new(Arc::new(loaded.config)));
        let scope = Scope::new();
        let cx = Cx {
            scope: scope.clone(),
            sockets: vec![NamedSocket {
                name: "cache".into(),
                socket,
            }],
        };
        let inner = cache.clone();
        scope.spawn(async move { inner.run(cx).await.expect("runs until drained") });
        Running {
            address: "0.0.0.0:0".parse().expect("address"),
            cache,
            scope,
        }
    }

    pub async fn stop(self) {
        assert!(self.scope.stop(PATIENCE).await, "connections end by themselves");
    }

    fn session(&self, handler: &str, settings: &[String], script: &str) -> Program {
        let path = match handler {
            "memcache" => format!("tcp://{}", self.address),
            _ => self.address.to_string(),
        };
        let own = [
            format!("session.save_handler={handler}"),
            format!("session.save_path={path}"),
        ];
        php(&[&own[..], settings].concat(), script)
    }
}

/// A script of `tests/data/php` with these ini settings.
fn php(settings: &[String], script: &str) -> Program {
    let mut program = Program::new(PHP).args(["-d", "error_reporting=-1", "-d", "display_errors=stderr"]);
    for setting in settings {
        program = program.args(["-d", setting]);
    }
    program.arg(format!("{}/tests/data/php/{script}", env!("CARGO_MANIFEST_DIR")))
}

#[tokio::test(flavor = "multi_thread")]
async fn memccapable_is_content() {
    let running = Running::start("");
    let output = Program::new("/usr/bin/memccapable")
        .args(["-h", "127.0.0.1", "-p", &running.address.port().to_string()])
        .run(PATIENCE)
        .await
        .expect("runs");
    let report = format!("{}{}", output.output, output.errors);
    assert_eq!(report.matches("[pass]").count(), 54, "{report}");
    assert!(output.succeeded && !report.contains("[FAIL]"), "{report}");
    running.stop().await;
}

async fn sessions_are_kept_and_locked(handler: &str, settings: &[&str]) {
    let running = Running::start("");
    let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
    let run = |script: &str, arguments: &[&str]| {
        let program = running.session(handler, &settings, script).args(arguments);
        async { program.check(PATIENCE).await.expect("succeeds") }
    };
    assert_eq!(run("session_count.php", &["first", "1"]).await, "1 6000\n");
    assert_eq!(run("session_count.php", &["first", "1"]).await, "2 6000\n");
    // Two processes at once: without a lock some additions would be lost.
    let (one, two) = tokio::join!(
        run("session_count.php", &["first", "30"]),
        run("session_count.php", &["first", "30"])
    );
    assert!(one == "62 6000\n" || two == "62 6000\n", "{one}{two}");
    assert_eq!(run("session_destroy.php", &["first"]).await, "62 none\n");
    running.stop().await;
}

/// Waits for a lock are short, so that the test is; there are enough of them for a loaded machine.
const LOCK: [&str; 3] = [
    "memcached.sess_lock_retries=2000",
    "memcached.sess_lock_wait_min=1",
    "memcached.sess_lock_wait_max=10",
];

#[tokio::test(flavor = "multi_thread")]
async fn memcached_sessions_in_binary_are_kept_and_locked() {
    sessions_are_kept_and_locked("memcached", &LOCK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memcached_sessions_in_text_are_kept_and_locked() {
    let settings = [&LOCK[..], &["memcached.sess_binary_protocol=Off"]].concat();
    sessions_are_kept_and_locked("memcached", &settings).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memcache_sessions_are_kept_and_locked() {
    sessions_are_kept_and_locked("memcache", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memcached_extension_finds_what_it_expects() {
    let running = Running::start("");
    let port = running.address.port().to_string();
    for protocol in ["binary", "ascii"] {
        let program = php(&[], "memcached_api.php").args(["127.0.0.1", &port, protocol]);
        let finished = program.run(PATIENCE).await.expect("runs");
        assert_eq!(finished.output, "ok\n", "{protocol}: {}", finished.errors);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memcache_extension_finds_what_it_expects() {
    let running = Running::start("");
    let port = running.address.port().to_string();
    let program = php(&[], "memcache_api.php").args(["127.0.0.1", &port]);
    let finished = program.run(PATIENCE).await.expect("runs");
    assert_eq!(finished.output, "ok\n", "{}", finished.errors);
    running.stop().await;
}
