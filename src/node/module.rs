//! Life of a module process: take the sockets, run the one `Service`, beat to the supervisor, report to the agent,
//! drain when told. The front locks itself in before. The supervisor started us as an unprivileged user already.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::confined::Confined;
use super::stop;
use crate::agent::{self, Agent, Report};
use crate::base::{Cx, Health, Scope, Service, Status, log};
use crate::cache::{self, Cache};
use crate::config::{self, Config};
use crate::db::Db;
use crate::host::facts;
use crate::net::listen;
use crate::php::pool;
use crate::proxy::{self, Proxy};
use crate::push::Push;
use crate::storage::Storage;

const BEAT: Duration = Duration::from_secs(1);
/// Until the module is ready, so that nobody waits for it longer than it takes.
const FIRST_BEATS: Duration = Duration::from_millis(20);
/// A process that needs a successor at once asks for it after so long: that one may need one, too.
const SETTLED: Duration = Duration::from_secs(2);
/// Of the module's own grace, the share for its tasks; the rest is for ending the process.
const DRAIN_SHARE: f64 = 0.9;

/// A module of this executable, by the name on the command line.
enum Module {
    Agent(Agent),
    Cache(Cache),
    /// In the place of the cache where another node has it.
    CacheRelay(cache::Relay),
    Db(Db),
    Proxy(Proxy),
    Push(Push),
    Storage(Storage),
}

impl Module {
    fn new(name: &str, config: &Arc<Config>) -> anyhow::Result<Self> {
        match name {
            "agent" => Ok(Module::Agent(Agent::new(config.clone()))),
            "cache" if !config.cache.run => Ok(Module::CacheRelay(cache::Relay::new(config.clone()))),
            "cache" => Ok(Module::Cache(Cache::new(config.clone()))),
            "db" => Ok(Module::Db(Db::new(config.clone()))),
            "proxy" => Ok(Module::Proxy(Proxy::new(config.clone()))),
            "push" => Ok(Module::Push(Push::new(config.clone()))),
            "storage" => Ok(Module::Storage(Storage::new(config))),
            _ => anyhow::bail!("there is no module \"{name}\"; there are agent, cache, db, proxy, push and storage"),
        }
    }

    fn service(&self) -> &dyn Service {
        match self {
            Module::Agent(agent) => agent,
            Module::Cache(cache) => cache,
            Module::CacheRelay(relay) => relay,
            Module::Db(db) => db,
            Module::Proxy(proxy) => proxy,
            Module::Push(push) => push,
            Module::Storage(storage) => storage,
        }
    }

    fn workers(&self, config: &Config) -> usize {
        let or_processors = |workers: usize, most: usize| match workers {
            0 => facts::processors().min(most),
            workers => workers,
        };
        match self {
            Module::Agent(_) => 1,
            // What passes through is copied and encrypted, nothing more; PHP needs the processors.
            Module::CacheRelay(_) | Module::Db(_) => or_processors(0, 2),
            // Disk work has its own threads, and what is left is too short to be handed to another one.
            Module::Storage(_) => 1,
            // More threads than this only contend for the store's locks.
            Module::Cache(_) => or_processors(config.cache.workers, 4),
            // All meet at one lock.
            Module::Push(_) => or_processors(config.push.workers, 2),
            Module::Proxy(_) => or_processors(config.proxy.workers, usize::MAX),
        }
    }

    /// Whether memory comes in pages of 2 MiB. Each thread has memory of its own, and the pool for file work up to 512 threads: with such
    /// pages a front of 64 clients takes 420 MiB for what lies in 160, and is busy with clearing them.
    fn has_huge_pages(&self) -> bool {
        match self {
            Module::Agent(_) | Module::CacheRelay(_) | Module::Db(_) | Module::Proxy(_) | Module::Push(_) => false,
            // Large memory that is used throughout.
            Module::Cache(_) | Module::Storage(_) => true,
        }
    }
}

/// Runs a module until it is told to stop.
pub fn run(name: &str, path: &Path) -> anyhow::Result<()> {
    let (count, names) = (config::var("LISTEN_FDS"), config::var("LISTEN_FDNAMES"));
    let sockets = listen::inherited(count.as_deref(), names.as_deref()).context("handed-down sockets")?;
    let loaded = load(path)?;
    let config = Arc::new(loaded);
    let module = Module::new(name, &config)?;
    let journal = config::var("JOURNAL_STREAM").is_some();
    let filter = log::start(module.service().name(), &config.node.log, journal, std::io::stderr)?;
    if matches!(module, Module::Storage(_) | Module::Agent(_)) {
        end_at_panic();
    }
    if matches!(module, Module::Storage(_)) {
        // A dump waits for every thread to end; one that hangs in the kernel may wait for an answer of the next process.
        nix::sys::prctl::set_dumpable(false)?;
    }
    if !module.has_huge_pages() {
        // Where it is not allowed it only costs memory.
        let _ = nix::sys::prctl::set_thp_disable(true);
    }
    // Before there are other threads.
    let confined = match &module {
        Module::Proxy(_) => Some(Confined::lock_in(proxy::grounds(&config, path), config.roots())),
        _ => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(module.workers(&config))
        .thread_name(module.service().name())
        .enable_all()
        .build()?;
    let process = Process {
        module,
        config,
        path: path.to_path_buf(),
        filter,
        confined,
    };
    runtime.block_on(process.run(Cx {
        scope: Scope::new(),
        sockets,
    }))
}

/// State that a panic left half done must not serve: the process ends at once, and its successor starts from the disk.
fn end_at_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

fn load(path: &Path) -> anyhow::Result<Config> {
    match config::load(path, false) {
        Ok(loaded) => Ok(with_php_numbers(loaded.config)),
        Err(problems) => {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::bail!("{}: {}", path.display(), problems.join("; "))
        }
    }
}

/// The proxy must know how many PHP processes there are; where the file leaves it open, the machine decides.
fn with_php_numbers(mut config: Config) -> Config {
    config.php.children = pool::children(&config, facts::memory(), facts::processors());
    config.php.kept_connections = pool::kept(&config, config.php.children);
    config
}

struct Process {
    module: Module,
    config: Arc<Config>,
    path: PathBuf,
    filter: log::Filter,
    confined: Option<Confined>,
}

impl Process {
    async fn run(self, cx: Cx) -> anyhow::Result<()> {
        let scope = cx.scope.clone();
        // The reporter is outside of the module's scope: it reports the draining too.
        let outer = Scope::new();
        let reports = watch::Sender::new(self.report(Status::starting()));
        let feed = self.config.feed_socket();
        let (reporter, receiver) = (outer.clone(), reports.subscribe());
        outer.spawn(async move { agent::send(&feed, receiver, &reporter).await });

        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let since = Instant::now();
        let mut next_beat = since;
        let mut service = self.module.service().run(cx);
        loop {
            tokio::select! {
                ended = &mut service => {
                    ended.with_context(|| format!("module {}", self.module.service().name()))?;
                    break;
                }
                () = sleep_until(next_beat) => {
                    let status = self.module.service().status();
                    let is_ready = matches!(status.health, Health::Good | Health::Degraded);
                    let needs_another = is_ready && since.elapsed() > SETTLED && self.take_outgrown();
                    beat(if needs_another { "replace" } else if is_ready { "ready" } else { "starting" });
                    reports.send_replace(self.report(self.remarked(status)));
                    next_beat = Instant::now() + if is_ready { BEAT } else { FIRST_BEATS };
                }
                _ = terminate.recv() => scope.drain(),
                // Ctrl-C reaches the whole terminal group; the supervisor decides the order.
                _ = interrupt.recv() => {}
                _ = hang_up.recv() => self.reload(),
            }
        }
        let grace = stop::grace(self.module.service().name()).mul_f64(DRAIN_SHARE);
        if !scope.stop(grace).await {
            warn!(?grace, "cut what had not finished");
        }
        outer.stop(Duration::ZERO).await;
        Ok(())
    }

    /// Whether this process cannot do any more what is wanted of it. What is found out now is said with a later beat.
    fn take_outgrown(&self) -> bool {
        let Some(confined) = &self.confined else { return false };
        confined.look();
        confined.take_outgrown()
    }

    fn remarked(&self, mut status: Status) -> Status {
        if let Some(remark) = self.confined.as_ref().and_then(Confined::remark) {
            status.detail = format!("{}, {remark}", status.detail);
        }
        status
    }

    fn report(&self, status: Status) -> Report {
        let service = self.module.service();
        Report::Module {
            name: service.name().to_string(),
            status,
            metrics: service.metrics(),
        }
    }

    /// A broken file changes nothing: the node goes on with what it has.
    fn reload(&self) {
        let fresh = match load(&self.path) {
            Ok(fresh) => Arc::new(fresh),
            Err(error) => {
                error!(error = format!("{error:#}"), "configuration not reloaded");
                return;
            }
        };
        if let Err(error) = self.filter.set(&fresh.node.log) {
            error!(%error, "log filter not changed");
        }
        if let Module::Agent(agent) = &self.module {
            agent.reconfigure(&fresh);
        }
        if let Module::Proxy(proxy) = &self.module {
            let grounds = proxy::grounds(&fresh, &self.path);
            if self.confined.as_ref().is_some_and(|confined| !confined.takes(&grounds)) {
                info!("other files than before are needed: another process serves with the new configuration");
                return;
            }
            proxy.reconfigure(fresh);
            proxy.reload();
        }
        info!("configuration reloaded");
    }
}

/// One line on standard output is a sign of life; the supervisor reads it.
fn beat(said: &str) {
    // A supervisor that is gone takes us with it; nothing is left to do here.
    let _ = std::io::stdout().lock().write_all(format!("{said}\n").as_bytes());
}
