//! The supervisor: starts the table of children, passes signals on, feeds systemd's watchdog, reports to the agent,
//! and stops everything in the written order. It reads nothing from the network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::children::{self, ChildSpec};
use super::keeper::{self, Keeper, State};
use super::leftover::Note;
use super::output::Output;
use super::sockets::Sockets;
use super::verbs::{self, Verbs};
use super::{mount, prepare, stop};
use crate::agent::{self, ChildReport, Kind, Phase, Report};
use crate::base::file::try_lock;
use crate::base::{Scope, log};
use crate::config::{self, Config, Loaded};
use crate::host::address::farewell::Doors;
use crate::host::{account, child};

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
    let lock = config.node.data_dir.join("lock");
    let _lock = try_lock(&lock)
        .with_context(|| lock.display().to_string())?
        .with_context(|| {
            format!(
                "{} is in use by a running bitrix-node; stop that one first, or set node.data_dir",
                lock.display()
            )
        })?;
    child::adopt_orphans()?;
    let executable = std::env::current_exe().context("path of this executable")?;
    mount::leave(&config, &executable, prepare::space(&config)).await;
    let note = Arc::new(Note::new(&config.node.run_dir));
    note.clear().await?;
    let node = prepare::node(&config).await?;
    let mut sockets = Sockets::bind(&config, &node.user)?;
    let parts = verbs::Parts {
        config: &config,
        executable: &executable,
        user: &node.user,
        output: output.clone(),
        leftover: note.clone(),
        doors: Doors::new(sockets.copies(&["http", "https"])?),
        period: verbs::MINUTE,
    };
    let (verbs, end) = Verbs::start(parts)?;
    sockets.add("verbs", &end)?;
    let portal = account::require(&config.portal.user)?;
    let files = mount::Keeper::new(&config, &executable, &portal, prepare::space(&config))?;
    if let Some(parts) = files.as_ref().and_then(|files| files.parts.as_ref()) {
        sockets.add("fuse", &parts.end)?;
    }
    let mut specs = children::modules(&executable, path, &config, &node.user, &sockets);
    specs.extend(node.daemons);
    let supervisor = Supervisor::start(&config, specs, files, output, note, path, filter);
    supervisor.run(&verbs).await
}

struct Kept {
    kind: Kind,
    state: watch::Receiver<State>,
    stop: CancellationToken,
    reload: Arc<Notify>,
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
    scope: Scope,
    path: PathBuf,
    filter: log::Filter,
}

impl Supervisor {
    fn start(
        config: &Config,
        specs: Vec<ChildSpec>,
        files: Option<mount::Keeper>,
        output: Output,
        note: Arc<Note>,
        path: &Path,
        filter: log::Filter,
    ) -> Self {
        let scope = Scope::new();
        let changed = Arc::new(Notify::new());
        let mut children = BTreeMap::new();
        let gate = files.as_ref().filter(|_| config.is_portal_on_files());
        let gate = gate.map(|files| files.gate.subscribe());
        for spec in specs {
            let (name, kind) = (spec.name, spec.kind());
            let gate = gate.clone().filter(|_| spec.needs_files);
            let keeper = Keeper::new(spec, output.clone(), note.clone(), changed.clone(), scope.clone());
            let (state, stop, reload) = (keeper.state.subscribe(), keeper.stop.clone(), keeper.reload.clone());
            let task = scope.spawn(keeper.run(gate));
            children.insert(
                name,
                Kept {
                    kind,
                    state,
                    stop,
                    reload,
                    task,
                },
            );
        }
        let mut closing = None;
        if let Some(mut files) = files {
            let storage = children.get("storage").map(|kept: &Kept| kept.state.clone());
            files.attach(changed.clone(), storage);
            if let Some(parts) = files.parts.take() {
                // Of the supervisor's own scope, which ends after the storage.
                scope.spawn(parts.trustee.run());
                closing = Some(parts.closing);
            }
            send(config, files.reports.subscribe(), &scope);
            children.insert(mount::NAME, Kept::mount(files, &scope));
        }
        let reports = watch::Sender::new(Report::Supervisor { children: Vec::new() });
        send(config, reports.subscribe(), &scope);
        Supervisor {
            children,
            changed,
            reports,
            closing,
            scope,
            path: path.to_path_buf(),
            filter,
        }
    }

    async fn run(mut self, verbs: &Verbs) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut ticks = interval(TICK);
        // The sockets are bound: connections wait in their queues from here on.
        notify(&[NotifyState::Ready, NotifyState::Status("starting")]);
        let mut is_ready = false;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => self.reload(),
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
        notify(&[NotifyState::Stopping]);
        tokio::select! {
            () = async { verbs.let_go().await; self.stop().await } => info!("stopped"),
            // A second signal is an operator who does not want to wait.
            _ = terminate.recv() => error!("told to stop again: children are killed"),
            _ = interrupt.recv() => error!("told to stop again: children are killed"),
        }
        verbs.stop().await;
        self.scope.stop(Duration::ZERO).await;
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
        match config::load(&self.path, false) {
            Ok(loaded) => {
                if let Err(error) = self.filter.set(&loaded.config.node.log) {
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
fn notify(states: &[NotifyState]) {
    let _ = sd_notify::notify(states);
}
