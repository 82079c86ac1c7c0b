//! The table: every module and daemon as a `ChildSpec`.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::sockets::Sockets;
use crate::agent::Kind;
use crate::base::BoxFuture;
use crate::config::{Config, Engine};
use crate::db::galera::Orders;
use crate::host::account::Account;
use crate::host::child::Launch;
use crate::host::transient::Transient;
use crate::host::unit::Unit;

/// Looks whether a daemon answers; the caller sets the deadline.
pub type Probe = Arc<dyn Fn() -> BoxFuture<'static, io::Result<()>> + Send + Sync>;

/// What to run, how to see that it is ready and alive, how to stop and reload it.
#[derive(Clone)]
pub struct ChildSpec {
    pub name: &'static str,
    pub run: Run,
    pub ready: Ready,
    /// Asks it to finish what it holds and end.
    pub stop: Signal,
    /// Asks it to read its configuration again; `None`: it cannot. The same as `stop`: it is started anew for that.
    pub reload: Option<Signal>,
    /// It is started when the portal's files are there, where they are mounted.
    pub needs_files: bool,
    /// Its successor is started before it ends: both can serve side by side, from the same sockets.
    pub overlaps: bool,
    /// It is started only by order, each time anew.
    pub orders: Option<Arc<Orders>>,
    /// Before it is started again after its first crash.
    pub pause: Duration,
}

/// Most crashes are of one request.
pub const SOON: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub enum Run {
    Program(Launch),
    Unit(Unit),
    /// By order alone, each time anew.
    Ordered(Transient),
}

#[derive(Clone)]
pub enum Ready {
    /// It writes `ready` to standard output each second.
    Beats,
    Answers(Probe),
}

impl ChildSpec {
    pub fn kind(&self) -> Kind {
        match (&self.run, &self.ready) {
            (Run::Unit(_) | Run::Ordered(_), _) => Kind::Unit,
            (Run::Program(_), Ready::Beats) => Kind::Module,
            (Run::Program(_), Ready::Answers(_)) => Kind::Daemon,
        }
    }
}

/// The modules of this executable and the sockets that each one gets.
const MODULES: [(&str, &[&str]); 4] = [
    ("agent", &["control", "feed", "view", "admin", "agent-mesh", "verbs"]),
    ("cache", &["cache", "cache-composite", "cache-mesh"]),
    (
        "proxy",
        &[
            "http",
            "https",
            "http3",
            "push-http",
            "push-https",
            "proxy-mesh",
            "proxy-control",
        ],
    ),
    ("push", &["push", "push-mesh", "push-unix", "push-control"]),
];
/// Runs where there are other nodes: the way to the database of one of them, or theirs to this one's.
const DB: (&str, &[&str]) = ("db", &["db", "db-mesh", "db-reads"]);
/// Runs where the configuration asks for it.
const STORAGE: (&str, &[&str]) = ("storage", &["nfs", "nfs-unix", "storage", "storage-mesh", "fuse"]);

/// SQLite's memory is the C library's: one arena for its few threads, instead of one each.
const STORAGE_MEMORY: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.arena_max=1");

fn environment(name: &str) -> Vec<(String, String)> {
    let (variable, value) = STORAGE_MEMORY;
    let is_storage = name == STORAGE.0;
    is_storage
        .then(|| (variable.to_owned(), value.to_owned()))
        .into_iter()
        .collect()
}

/// All modules, as children of this very executable.
pub fn modules(executable: &Path, path: &Path, config: &Config, user: &Account, sockets: &Sockets) -> Vec<ChildSpec> {
    let launch = |name: &str, names: &[&str]| Launch {
        program: executable.to_path_buf(),
        arguments: ["module", name, "--config"]
            .iter()
            .map(OsString::from)
            .chain([path.into()])
            .collect(),
        environment: environment(name),
        account: Some(user.clone()),
        sockets: sockets.named(names),
        // It holds nothing that another start would miss.
        when_orphaned: Signal::SIGKILL,
    };
    let storage = (config.storage.engine == Engine::Replicated).then_some(STORAGE);
    let db = (!config.cluster.address.is_empty()).then_some(DB);
    MODULES
        .into_iter()
        .chain(db)
        .chain(storage)
        .map(|(name, names)| ChildSpec {
            name,
            run: Run::Program(launch(name, names)),
            ready: Ready::Beats,
            stop: Signal::SIGTERM,
            reload: Some(Signal::SIGHUP),
            // The front opens the document root.
            needs_files: name == "proxy",
            // The others have something that only one process may have: the replica, the store, the node's voice.
            overlaps: matches!(name, "proxy" | "db"),
            orders: None,
            pause: SOON,
        })
        .collect()
}
