//! The supervisor: starts the table of children, passes signals on, feeds systemd's watchdog, reports to the agent,
//! and stops everything in the written order. It reads nothing from the network.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::mem::take;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::children::{self, ChildSpec, Run};
use super::keeper::{self, Keeper, State};
use super::leftover::Note;
use super::output::Output;
use super::reexec::{self, Leaver, Module, Requests, Turn};
use super::sockets::Sockets;
use super::succession::{Held, Inherited};
use super::upgrade::{Guard, Place};
use super::verbs::{self, Verbs};
use super::{backup, galera, mount, prepare, stop, succession};
use crate::agent::{self, ChildReport, Kind, Phase, Report};
use crate::base::file::try_lock;
use crate::base::{Scope, log};
use crate::config::{self, Config, Loaded};
use crate::host::address::farewell::Doors;
use crate::host::{account, child, inheritance};

/// Reports, readiness and the watchdog; systemd's own interval is never below this.
const TICK: Duration = Duration::from_secs(1);

/// Becomes the node: returns when told to stop and every child has ended.
pub fn run(loaded: Loaded, path: &Path) -> anyhow::Result<()> {
    let reserved = child::reserve()?;
    // Not in a folder that may be, or come to be, on a mount that only our own child serves.
    nix::unistd::chdir("/").context("enter /")?;
    let config = Arc::new(loaded.config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(supervise(config, path));
    drop(reserved);
    ended
}

async fn supervise(config: Arc<Config>, path: &Path) -> anyhow::Result<()> {
    prepare::folders(&config)?;
    let journal = config::var("JOURNAL_STREAM").is_some();
    let output = if journal {
        Output::journal()
    } else {
        Output::file(&config.node_log())?
    };
    let filter = log::start("supervisor", &config.node.log, journal, output.clone())?;
    let scope = Scope::new();
    let mut past = reexec::inherit(&scope);
    let lock = match past.lock.take() {
        Some(lock) => lock,
        None => lock(&config)?,
    };
    child::adopt_orphans()?;
    let executable = std::env::current_exe().context("path of this executable")?;
    let note = Arc::new(Note::new(&config.node.run_dir));
    if !past.is_there() {
        mount::leave(&config, &executable, prepare::space(&config)).await;
        note.clear().await?;
    }
    prepare::kernel(&config);
    let node = prepare::node(&config, past.is_there()).await?;
    let mut sockets = Sockets::bind(&config, &node.user, take(&mut past.sockets))?;
    let (requests, wishes) = mpsc::channel(1);
    let renewed = watch::Sender::new(());
    let parts = verbs::Parts {
        config: &config,
        executable: &executable,
        user: &node.user,
        output: output.clone(),
        leftover: note.clone(),
        doors: Doors::new(sockets.copies(&["http", "https", "push-http", "push-https"])?),
        period: verbs::MINUTE,
        past: past.pairs.remove("verbs"),
        upgrade: Some((Place::new(executable.clone()), requests.clone())),
        orders: node.daemons.iter().find_map(|daemon| daemon.orders.clone()),
        renewed: renewed.clone(),
    };
    let (verbs, end) = Verbs::start(parts)?;
    sockets.add("verbs", &end)?;
    let portal = account::require(&config.portal.user)?;
    let files = mount::Keeper::new(&config, &executable, &portal, prepare::space(&config), past.mount())?;
    if let Some(parts) = files.as_ref().and_then(|files| files.parts.as_ref()) {
        sockets.add("fuse", &parts.end)?;
    }
    let mut specs = children::modules(&executable, path, &config, &node.user, &sockets);
    specs.extend(node.daemons);
    if let Some(backups) = backup::Backups::new(&config, &executable, path, &output, &scope) {
        scope.spawn(backups.run());
    }
    let leaver = Leaver {
        executable,
        arguments: ["run".into(), "--config".into(), path.into()].into(),
        lock,
        sockets,
        pairs: vec![verbs.legacy()?],
        mount: None,
        acting: None,
        children: Vec::new(),
    };
    let is_heir = past.is_there();
    let ground = Ground {
        output,
        note,
        scope,
        path: path.to_path_buf(),
        filter,
        renewed: renewed.subscribe(),
    };
    let mut supervisor = Supervisor::start(&config, specs, files, past.children, ground, requests)?;
    // Open until all children have ended.
    let _leaver = supervisor.take_turns(&config, leaver, is_heir, past.guard, wishes);
    supervisor.renew(&node.changed);
    supervisor.run(&verbs).await
}

/// What everything in the supervisor stands on.
struct Ground {
    output: Output,
    note: Arc<Note>,
    scope: Scope,
    path: PathBuf,
    filter: log::Filter,
    /// This node's certificate is a new one.
    renewed: watch::Receiver<()>,
}

fn lock(config: &Config) -> anyhow::Result<File> {
    let path = config.node.data_dir.join("lock");
    let lock = try_lock(&path).with_context(|| path.display().to_string())?;
    let mut lock = lock.with_context(|| {
        format!(
            "{} is in use by a running bitrix-node; stop that one first, or set node.data_dir",
            path.display()
        )
    })?;
    // For whoever must tell this process something.
    lock.set_len(0)?;
    writeln!(lock, "{}", std::process::id())?;
    Ok(lock)
}

struct Kept {
    kind: Kind,
    state: watch::Receiver<State>,
    stop: CancellationToken,
    reload: Arc<Notify>,
    replace: Arc<Notify>,
    held: Held,
    task: JoinHandle<Option<()>>,
}

impl Kept {
    fn mount(files: mount::Keeper, scope: &Scope) -> Self {
        Kept {
            kind: Kind::Mount,
            state: files.state.subscribe(),
            stop: files.stop.clone(),
            // Where the files are mounted changes at a restart only.
            reload: Arc::default(),
            replace: Arc::default(),
            held: Held::default(),
            task: scope.spawn(files.run()),
        }
    }
}

struct Supervisor {
    children: BTreeMap<&'static str, Kept>,
    /// Some child's state changed.
    changed: Arc<Notify>,
    reports: watch::Sender<Report>,
    /// Of a FUSE mount.
    closing: Option<mount::Closing>,
    legacy: Option<mount::Legacy>,
    acting: Option<Arc<Mutex<()>>>,
    /// For another executable.
    requests: Requests,
    stopping: CancellationToken,
    ground: Ground,
}

impl Supervisor {
    /// `past`: children to go on with, by name.
    fn start(
        config: &Config,
        specs: Vec<ChildSpec>,
        files: Option<mount::Keeper>,
        mut past: BTreeMap<String, Vec<Inherited>>,
        ground: Ground,
        requests: Requests,
    ) -> anyhow::Result<Self> {
        let scope = ground.scope.clone();
        let reports = watch::Sender::new(Report::Supervisor { children: Vec::new() });
        let mut supervisor = Supervisor {
            children: BTreeMap::new(),
            changed: Arc::new(Notify::new()),
            reports,
            closing: None,
            legacy: None,
            acting: None,
            requests,
            stopping: CancellationToken::new(),
            ground,
        };
        let gate = files.as_ref().filter(|_| config.is_portal_on_files());
        let gate = gate.map(|files| files.gate.subscribe());
        for spec in specs {
            let gate = gate.clone().filter(|_| spec.needs_files);
            let inherited = match spec.run {
                Run::Program(_) => past.remove(spec.name),
                Run::Unit(_) | Run::Ordered(_) => None,
            };
            supervisor.keep(spec, gate, inherited.unwrap_or_default())?;
        }
        succession::end(past.into_values().flatten(), &supervisor.ground.note, &scope);
        if let Some(files) = files {
            supervisor.keep_files(config, files);
        }
        send(config, supervisor.reports.subscribe(), &scope);
        Ok(supervisor)
    }

    fn keep(
        &mut self,
        spec: ChildSpec,
        gate: Option<watch::Receiver<bool>>,
        past: Vec<Inherited>,
    ) -> anyhow::Result<()> {
        let Ground {
            output, note, scope, ..
        } = &self.ground;
        let (name, kind) = (spec.name, spec.kind());
        let mut keeper = Keeper::new(spec, output.clone(), note.clone(), self.changed.clone(), scope.clone());
        keeper.adopt(past).with_context(|| name.to_owned())?;
        let kept = Kept {
            kind,
            state: keeper.state.subscribe(),
            stop: keeper.stop.clone(),
            reload: keeper.reload.clone(),
            replace: keeper.replace.clone(),
            held: keeper.succession.held.clone(),
            task: scope.spawn(keeper.run(gate)),
        };
        self.children.insert(name, kept);
        Ok(())
    }

    fn keep_files(&mut self, config: &Config, mut files: mount::Keeper) {
        let scope = &self.ground.scope;
        let storage = self.children.get("storage").map(|kept| kept.state.clone());
        files.attach(self.changed.clone(), storage);
        self.acting = Some(files.acting.clone());
        if let Some(parts) = files.parts.take() {
            // Of the supervisor's own scope, which ends after the storage.
            scope.spawn(parts.trustee.run());
            self.closing = Some(parts.closing);
            self.legacy = Some(parts.legacy);
        }
        send(config, files.reports.subscribe(), scope);
        self.children.insert(mount::NAME, Kept::mount(files, scope));
    }

    /// From here on it gives way to another executable when it is asked to.
    fn take_turns(
        &mut self,
        config: &Arc<Config>,
        mut leaver: Leaver,
        is_heir: bool,
        guard: Option<Guard>,
        wishes: mpsc::Receiver<reexec::Request>,
    ) -> Arc<Leaver> {
        leaver.mount = self.legacy.take();
        leaver.acting = self.acting.take();
        let held = self.children.iter();
        leaver.children = held
            .map(|(name, kept)| (*name, kept.held.clone(), kept.state.clone()))
            .collect();
        let modules = self.children.iter().filter(|(_, kept)| kept.kind == Kind::Module);
        let places = modules.map(|(name, kept)| Module {
            name,
            replace: kept.replace.clone(),
            state: kept.state.clone(),
        });
        let leaver = Arc::new(leaver);
        let turn = Turn {
            leaver: leaver.clone(),
            modules: reexec::order(places.collect()),
            requests: wishes,
            stopping: self.stopping.clone(),
            config: config.clone(),
            path: self.ground.path.clone(),
            guard,
            scope: self.ground.scope.clone(),
        };
        self.ground.scope.spawn(turn.run(is_heir));
        leaver
    }

    async fn run(mut self, verbs: &Verbs) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut another = signal(SignalKind::user_defined2())?;
        let mut renewed = self.ground.renewed.clone();
        inheritance::listen()?;
        let mut ticks = interval(TICK);
        // The sockets are bound: connections wait in their queues from here on.
        notify(&[NotifyState::Ready, NotifyState::Status("starting")]);
        let mut is_ready = false;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => self.reload(),
                _ = another.recv() => self.request(),
                Ok(()) = renewed.changed() => self.renew(&[galera::ARBITER]),
                () = self.changed.notified() => drop(self.report()),
                _ = ticks.tick() => {
                    let children = self.report();
                    notify(&[NotifyState::Watchdog]);
                    if !is_ready && children.iter().all(|child| child.phase == Phase::Ready) {
                        is_ready = true;
                        info!("node is ready");
                        notify(&[NotifyState::Status("serving")]);
                    }
                }
            }
        }
        info!("stopping");
        self.stopping.cancel();
        notify(&[NotifyState::Stopping]);
        tokio::select! {
            () = async { verbs.let_go().await; self.stop().await } => info!("stopped"),
            // A second signal is an operator who does not want to wait.
            _ = terminate.recv() => error!("told to stop again: children are killed"),
            _ = interrupt.recv() => error!("told to stop again: children are killed"),
        }
        verbs.stop().await;
        self.ground.scope.stop(Duration::ZERO).await;
        if let Some(closing) = self.closing {
            closing.close().await;
        }
        Ok(())
    }

    /// Tells the agent how the children do; returns the same.
    fn report(&self) -> Vec<ChildReport> {
        let children: Vec<ChildReport> = self
            .children
            .iter()
            .map(|(name, kept)| keeper::report(name, kept.kind, &kept.state.borrow()))
            .collect();
        self.reports.send_replace(Report::Supervisor {
            children: children.clone(),
        });
        children
    }

    async fn stop(&mut self) {
        for (name, grace) in stop::ORDER {
            let Some(kept) = self.children.get_mut(name) else {
                continue;
            };
            kept.stop.cancel();
            let mut ticks = interval(TICK);
            while let Some(kept) = self.children.get_mut(name) {
                tokio::select! {
                    _ = &mut kept.task => break,
                    _ = ticks.tick() => {
                        notify(&[NotifyState::Watchdog, NotifyState::Status(&format!("stopping {name}, up to {grace:?}"))]);
                        self.report();
                    }
                }
            }
            self.children.remove(name);
        }
    }

    /// Reads the file again and, when it is valid, tells the children.
    fn reload(&self) {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
        let now = now.map_or(0, |now| {
            i128::from(now.tv_sec()) * 1_000_000 + i128::from(now.tv_nsec()) / 1_000
        });
        notify(&[NotifyState::Reloading, NotifyState::MonotonicUsec(now)]);
        match config::load(&self.ground.path, false) {
            Ok(loaded) => {
                if let Err(error) = self.ground.filter.set(&loaded.config.node.log) {
                    error!(%error, "log filter not changed");
                }
                match prepare::reload(&loaded.config) {
                    Ok(changed) => self.tell(&changed),
                    Err(error) => error!(error = format!("{error:#}"), "daemons not reloaded"),
                }
                info!("configuration reloaded");
            }
            Err(problems) => {
                problems
                    .iter()
                    .for_each(|problem| error!(%problem, "configuration not reloaded"));
            }
        }
        notify(&[NotifyState::Ready]);
    }

    /// Daemons whose configuration or certificate is another one than they were started with.
    fn renew(&self, changed: &[&str]) {
        let kept = changed.iter().filter_map(|name| self.children.get(name));
        kept.for_each(|kept| kept.reload.notify_one());
    }

    fn request(&self) {
        let request = reexec::Request {
            may_go_back: true,
            refused: None,
        };
        if self.requests.try_send(request).is_err() {
            warn!("another executable is asked for while one takes its place");
        }
    }

    /// Modules always, a daemon only when its own configuration changed.
    fn tell(&self, changed: &[&str]) {
        for (name, kept) in &self.children {
            if kept.kind == Kind::Module || changed.contains(name) {
                kept.reload.notify_one();
            }
        }
    }
}

/// Tells the agent until the scope drains.
fn send(config: &Config, reports: watch::Receiver<Report>, scope: &Scope) {
    let (feed, sender) = (config.feed_socket(), scope.clone());
    scope.spawn(async move { agent::send(&feed, reports, &sender).await });
}

/// Without systemd there is nobody to notify, and that is fine.
pub(super) fn notify(states: &[NotifyState]) {
    let _ = sd_notify::notify(states);
}
