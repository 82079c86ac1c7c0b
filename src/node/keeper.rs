//! One child's life: start, see it ready, see it alive, restart it with capped backoff, stop it.

use std::io;
use std::mem::take;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::children::{ChildSpec, Probe, Ready, Run};
use super::leftover::Note;
use super::output::{Form, Output};
use super::stop;
use super::succession::{Inherited, Succession};
use crate::agent::{ChildReport, Kind, Phase};
use crate::base::Scope;
use crate::base::backoff::Backoff;
use crate::db::galera::Orders;
use crate::host::child::{Child, Launch};
use crate::host::process;
use crate::host::unit::Unit;

pub(super) const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// After this long a crash counts as the first one again: what crashes at its start has crashed by then.
const STABLE: Duration = Duration::from_secs(3);
/// A module beats each second. Two windows in a row without a beat: it hangs. Two, because a machine
/// that was paused shows one empty window.
const BEAT_WINDOW: Duration = Duration::from_secs(5);
const EMPTY_WINDOWS: u32 = 2;
/// Between two looks whether a child that says nothing any more is gone.
const SPENT_LOOK: Duration = Duration::from_millis(20);
/// How often a daemon is asked whether it answers, before and after it first did.
pub(super) const PROBE_STARTING: Duration = Duration::from_millis(100);
const PROBE_READY: Duration = Duration::from_secs(2);
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// The same for one that other nodes take over from as soon as it fails.
pub(super) const PROBE_ORDERED: Duration = Duration::from_millis(300);
const DEADLINE_ORDERED: Duration = Duration::from_millis(1500);
/// One that is of no use may hang; its data are recovered as after any kill.
pub(super) const UNWANTED: Duration = Duration::from_secs(30);

/// State of a child, for the report.
#[derive(Clone, Debug)]
pub struct State {
    pub phase: Phase,
    pub pid: Option<u32>,
    pub restarts: u32,
    pub since: Instant,
    pub detail: String,
}

impl State {
    pub fn starting() -> Self {
        State {
            phase: Phase::Starting,
            pid: None,
            restarts: 0,
            since: Instant::now(),
            detail: String::new(),
        }
    }
}

/// Notes a change of state and tells of it.
pub fn enter(state: &watch::Sender<State>, changed: &Notify, phase: Phase, pid: Option<u32>, detail: &str) {
    state.send_if_modified(|state| {
        let is_new = state.phase != phase || state.pid != pid;
        if is_new {
            state.since = Instant::now();
        }
        let differs = is_new || state.detail != detail;
        (state.phase, state.pid) = (phase, pid);
        detail.clone_into(&mut state.detail);
        differs
    });
    changed.notify_one();
}

/// Keeps one child running until told to stop.
pub struct Keeper {
    pub spec: ChildSpec,
    pub state: watch::Sender<State>,
    pub stop: CancellationToken,
    pub reload: Arc<Notify>,
    /// Asks for another start without a fault, for there is a new executable.
    pub replace: Arc<Notify>,
    /// Told whenever the state changes.
    pub changed: Arc<Notify>,
    pub output: Output,
    pub note: Arc<Note>,
    pub scope: Scope,
    pub succession: Arc<Succession>,
    /// Goes on with this one, where there is one.
    adopted: Option<Child>,
    /// The last line that the child wrote: mostly the reason of its end.
    last_line: Arc<Mutex<String>>,
}

/// Why one run of a child is over.
enum End {
    Ended(ExitStatus),
    /// The same, but for a thread that hangs in the kernel.
    Spent,
    /// Another one shall be started in its place.
    Replaced,
}

impl Keeper {
    pub fn new(spec: ChildSpec, output: Output, note: Arc<Note>, changed: Arc<Notify>, scope: Scope) -> Self {
        let succession = Succession::new(spec.name, spec.stop, stop::grace(spec.name), note.clone());
        Keeper {
            spec,
            state: watch::Sender::new(State::starting()),
            stop: CancellationToken::new(),
            reload: Arc::default(),
            replace: Arc::default(),
            changed,
            output,
            note,
            scope,
            succession: Arc::new(succession),
            adopted: None,
            last_line: Arc::default(),
        }
    }

    /// Goes on with children that were started before; all but the last finish what they hold when that one is ready.
    pub fn adopt(&mut self, mut children: Vec<Inherited>) -> io::Result<()> {
        let Some(last) = children.pop() else { return Ok(()) };
        for older in children {
            self.succession.hold(&older.child)?;
            self.succession.set_aside(older.child);
        }
        self.state.send_modify(|state| {
            state.phase = if last.is_ready { Phase::Ready } else { Phase::Starting };
            (state.pid, state.restarts) = (Some(last.child.pid), last.restarts);
        });
        self.adopted = Some(last.child);
        Ok(())
    }

    /// Runs until stopped. Must run on the main thread, like everything that starts children. `files`: true once what it needs
    /// is mounted.
    pub async fn run(mut self, files: Option<watch::Receiver<bool>>) {
        let adopted = take(&mut self.adopted);
        if adopted.is_some() || self.has(files).await {
            match self.spec.run.clone() {
                Run::Program(launch) => self.keep_program(&launch, adopted).await,
                Run::Unit(unit) => self.keep_unit(&unit).await,
                Run::Ordered(unit) => self.keep_ordered(&unit).await,
            }
        }
        self.succession.finish(&self.scope).await;
        self.enter(Phase::Stopped, None, "");
    }

    /// Waits for the files; false when told to stop before they are there.
    async fn has(&self, files: Option<watch::Receiver<bool>>) -> bool {
        let Some(mut files) = files else { return true };
        self.enter(Phase::Starting, None, "waits for the files to be mounted");
        let mounted = self
            .stop
            .run_until_cancelled(files.wait_for(|is_there| *is_there))
            .await;
        matches!(mounted, Some(Ok(_)))
    }

    async fn keep_program(&self, launch: &Launch, mut adopted: Option<Child>) {
        let mut backoff = Backoff::new(self.spec.pause, LONGEST_BACKOFF);
        loop {
            let ordered = match &self.spec.orders {
                Some(orders) if adopted.is_none() => {
                    let told = |detail: &str| self.enter(Phase::Waiting, None, detail);
                    let Some(arguments) = self.stop.run_until_cancelled(orders.next(told)).await else {
                        return;
                    };
                    let mut launch = launch.clone();
                    launch.arguments.extend(arguments);
                    Some(launch)
                }
                _ => None,
            };
            let started = Instant::now();
            let ended = self.run_once(ordered.as_ref().unwrap_or(launch), adopted.take()).await;
            if self.stop.is_cancelled() {
                return;
            }
            if started.elapsed() > STABLE {
                backoff.reset();
            }
            let delay = backoff.delay();
            let why = match ended {
                Ok(End::Replaced) => continue,
                Ok(End::Ended(status)) if status.code().is_some_and(|code| code != 0) => {
                    let last = self.last_line.lock().expect("nothing panics under this lock");
                    format!("{status}, {last}")
                }
                Ok(End::Ended(status)) => status.to_string(),
                Ok(End::Spent) => "ended, but for a thread that hangs in the kernel".to_owned(),
                Err(error) => error.to_string(),
            };
            warn!(name = self.spec.name, why, ?delay, "child ended; starting it again");
            self.state.send_modify(|state| state.restarts += 1);
            self.enter(Phase::Waiting, None, &why);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    async fn run_once(&self, launch: &Launch, adopted: Option<Child>) -> io::Result<End> {
        let is_adopted = adopted.is_some();
        let mut child = match adopted {
            Some(child) => child,
            None => Child::launch(launch)?,
        };
        if is_adopted && self.state.borrow().phase == Phase::Ready {
            self.succession.retire(&self.scope);
        } else {
            self.enter(Phase::Starting, Some(child.pid), "");
        }
        self.note.set(self.spec.name, process::identity(child.pid))?;
        self.succession.hold(&child)?;
        let form = match self.spec.ready {
            Ready::Beats => Form::Ours,
            Ready::Answers(_) => Form::Foreign(self.spec.name),
        };
        self.forward(child.errors.take(), form);
        let ended = match self.spec.ready.clone() {
            Ready::Beats => {
                let beats = child.output.take().map(|pipe| BufReader::new(pipe).lines());
                self.watch_beats(&mut child, beats).await
            }
            Ready::Answers(probe) => {
                self.forward(child.output.take(), form);
                self.watch_probe(&mut child, probe).await
            }
        };
        if self.spec.overlaps && matches!(ended, Ok(End::Replaced)) {
            self.succession.set_aside(child);
            return ended;
        }
        child.end_group().await;
        self.succession.let_go(child.pid);
        self.note.set(self.spec.name, None)?;
        // What hangs in the kernel is waited for as long as that takes.
        self.scope.spawn(child.outlive());
        ended
    }

    fn forward(&self, pipe: Option<impl tokio::io::AsyncRead + Unpin + Send + 'static>, form: Form) {
        if let Some(pipe) = pipe {
            let (output, last) = (self.output.clone(), self.last_line.clone());
            self.scope.spawn(async move { output.forward(pipe, form, &last).await });
        }
    }

    /// A module writes a line each second: `ready`, or `starting`; or `replace`, where it needs a successor.
    async fn watch_beats(&self, child: &mut Child, beats: Option<Lines<BufReader<Receiver>>>) -> io::Result<End> {
        let mut beats = beats.ok_or_else(|| io::Error::other("its standard output was not piped"))?;
        let mut windows = interval(BEAT_WINDOW);
        windows.set_missed_tick_behavior(MissedTickBehavior::Delay);
        windows.reset();
        let mut empty = 0;
        let mut is_open = true;
        let pid = child.pid;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return self.end(child).await,
                () = self.replace.notified() => return self.give_way(child).await,
                () = self.reload.notified() => child.signal(Signal::SIGHUP),
                beat = beats.next_line(), if is_open => match beat {
                    Ok(Some(line)) if line == "replace" => {
                        info!(name = self.spec.name, pid, "asks for a successor");
                        return self.give_way(child).await;
                    }
                    Ok(Some(line)) => {
                        empty = 0;
                        self.heard(pid, line == "ready");
                    }
                    _ => is_open = false,
                },
                ended = child.wait() => return ended.map(End::Ended),
                () = spent(pid), if !is_open => return Ok(End::Spent),
                _ = windows.tick() => {
                    empty += 1;
                    if empty >= EMPTY_WINDOWS {
                        warn!(name = self.spec.name, pid, "no sign of life; killing it");
                        child.signal(Signal::SIGKILL);
                    }
                }
            }
        }
    }

    fn heard(&self, pid: u32, is_ready: bool) {
        let was_ready = self.state.borrow().phase == Phase::Ready;
        if is_ready && !was_ready {
            info!(name = self.spec.name, pid, "ready");
            self.enter(Phase::Ready, Some(pid), "");
            self.succession.retire(&self.scope);
        }
    }

    async fn watch_probe(&self, child: &mut Child, probe: Probe) -> io::Result<End> {
        let mut is_ready = self.state.borrow().phase == Phase::Ready;
        loop {
            let pause = match &self.spec.orders {
                _ if !is_ready => PROBE_STARTING,
                Some(_) => PROBE_ORDERED,
                None => PROBE_READY,
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return self.end(child).await,
                () = unwanted(self.spec.orders.as_deref()) => return self.end_within(child, UNWANTED).await,
                () = self.reload.notified() => match self.spec.reload {
                    Some(signal) if signal == self.spec.stop => return self.end(child).await,
                    Some(signal) => child.signal(signal),
                    None => {}
                },
                ended = child.wait() => return ended.map(End::Ended),
                () = tokio::time::sleep(pause) => {}
            }
            // The probe is waited for together with the child: one that hangs must not hide an end.
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return self.end(child).await,
                ended = child.wait() => return ended.map(End::Ended),
                answer = timeout(self.patience(), probe()) => is_ready = self.probed(child.pid, is_ready, answer),
            }
        }
    }

    /// With a probe.
    pub(super) fn patience(&self) -> Duration {
        match self.spec.orders {
            Some(_) => DEADLINE_ORDERED,
            None => PROBE_DEADLINE,
        }
    }

    /// Takes an answer of the probe; returns whether the daemon is ready now.
    pub(super) fn probed(
        &self,
        pid: u32,
        was_ready: bool,
        answer: Result<io::Result<()>, tokio::time::error::Elapsed>,
    ) -> bool {
        let why = match answer {
            Ok(Ok(())) => {
                self.heard(pid, true);
                return true;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {:?}", self.patience()),
        };
        if was_ready {
            warn!(name = self.spec.name, why, "does not answer");
            self.enter(Phase::Starting, Some(pid), &why);
        } else {
            self.state.send_if_modified(|state| {
                let is_new = state.detail != why;
                state.detail.clone_from(&why);
                is_new
            });
        }
        false
    }

    /// For a successor: at once where both can serve side by side, else when this one has ended.
    async fn give_way(&self, child: &mut Child) -> io::Result<End> {
        if !self.spec.overlaps {
            self.end(child).await?;
        }
        Ok(End::Replaced)
    }

    async fn end(&self, child: &mut Child) -> io::Result<End> {
        self.end_within(child, stop::grace(self.spec.name)).await
    }

    async fn end_within(&self, child: &mut Child, grace: Duration) -> io::Result<End> {
        self.enter(Phase::Stopping, Some(child.pid), "");
        child.signal(self.spec.stop);
        if let Ok(ended) = timeout(grace, over(child)).await {
            return ended;
        }
        warn!(name = self.spec.name, ?grace, "does not stop; killing it");
        child.signal(Signal::SIGKILL);
        over(child).await
    }

    /// systemd restarts the unit by its own rules; we start it when it is down, and watch. It outlives us.
    async fn keep_unit(&self, unit: &Unit) {
        let mut backoff = Backoff::new(Duration::from_secs(1), LONGEST_BACKOFF);
        let Ready::Answers(probe) = self.spec.ready.clone() else {
            return;
        };
        loop {
            let was_ready = self.state.borrow().phase == Phase::Ready;
            let seen = unit.look().await;
            let is_up =
                matches!(&seen, Ok(seen) if matches!(seen.state.as_str(), "active" | "activating" | "reloading"));
            let mut pause = if was_ready { PROBE_READY } else { PROBE_STARTING };
            match seen {
                Ok(seen) if is_up => {
                    let answer = timeout(PROBE_DEADLINE, probe()).await;
                    if self.probed(seen.main_pid, was_ready, answer) {
                        backoff.reset();
                    }
                    self.state
                        .send_modify(|state| state.restarts = state.restarts.max(seen.restarts));
                }
                Ok(seen) => {
                    self.enter(Phase::Waiting, None, &format!("{} is {}", unit.0, seen.state));
                    if let Err(error) = unit.start().await {
                        self.enter(Phase::Waiting, None, &error.to_string());
                        pause = backoff.delay();
                    }
                }
                Err(error) => {
                    self.enter(Phase::Waiting, None, &error.to_string());
                    pause = backoff.delay();
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.reload.notified() => if let Err(error) = unit.reload().await {
                    warn!(name = self.spec.name, %error, "cannot reload");
                },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    pub(super) fn enter(&self, phase: Phase, pid: Option<u32>, detail: &str) {
        enter(&self.state, &self.changed, phase, pid, detail);
    }
}

/// Resolves when a child that is started by order shall end. Cancel safe.
pub(super) async fn unwanted(orders: Option<&Orders>) {
    match orders {
        Some(orders) => orders.ended().await,
        None => std::future::pending().await,
    }
}

/// Waits for the end of a child that was told to end. Cancel safe.
async fn over(child: &mut Child) -> io::Result<End> {
    let pid = child.pid;
    tokio::select! {
        biased;
        ended = child.wait() => ended.map(End::Ended),
        () = spent(pid) => Ok(End::Spent),
    }
}

/// Resolves when a process has let go of all that it had, although a thread of it hangs in the kernel; what that thread waits for
/// may be an answer of the process that comes next. One that is only about to be waited for is not seen twice.
async fn spent(pid: u32) {
    let mut looks = 0;
    while looks < 2 {
        tokio::time::sleep(SPENT_LOOK).await;
        looks = if process::is_running(pid) { 0 } else { looks + 1 };
    }
}

/// A child's line in the report.
pub fn report(name: &str, kind: Kind, state: &State) -> ChildReport {
    ChildReport {
        name: name.to_string(),
        kind,
        phase: state.phase,
        pid: state.pid,
        restarts: state.restarts,
        seconds: state.since.elapsed().as_secs(),
        detail: state.detail.clone(),
    }
}
