//! The life of the mount: when the storage is up, until PHP has ended.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::decide::{Act, Pulse, Title, decide, say};
use super::door::{Door, Inherited, Parts};
use super::numbers::Numbers;
use crate::agent::{Phase, Report};
use crate::base::backoff::Backoff;
use crate::base::{Health, Status};
use crate::config::{Config, Files};
use crate::host::account::Account;
use crate::host::mount::{Answer, Error, Order, Placed, Space, Table, Worker};
use crate::node::keeper::{State, enter};

/// How long each act may take. A server in the same network answers in milliseconds; a mount asks it several times, and its
/// portmapper.
pub const MOUNT: Duration = Duration::from_secs(15);
pub const PROBE: Duration = Duration::from_secs(5);
/// Letting go asks nobody; it takes as long as a process takes to start.
pub const DETACH: Duration = Duration::from_secs(5);
/// Between two looks, while all is well and while it is not.
const PAUSE: Duration = Duration::from_secs(5);
const SHORT_PAUSE: Duration = Duration::from_secs(1);
const BEAT: Duration = Duration::from_secs(1);
/// Between two attempts to mount.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Why a FUSE mount that is there cannot be served.
const LOST: &str = "nobody has its device any more";

/// Its name among the children.
pub const NAME: &str = "mount";

pub struct Keeper {
    files: Files,
    /// The document root, where it must be made on the files, and whose it is.
    portal: Option<(PathBuf, Account)>,
    /// It is there since the last mount.
    has_portal: bool,
    space: Space,
    /// Where this node's storage serves the mount.
    door: Option<Door>,
    pub parts: Option<Parts>,
    /// On this machine's own disk.
    data_dir: PathBuf,
    worker: Worker,
    pulse: Pulse,
    numbers: Numbers,
    pub state: watch::Sender<State>,
    pub reports: watch::Sender<Report>,
    /// True once the files are there: those whose work lies on them may start.
    pub gate: watch::Sender<bool>,
    pub stop: CancellationToken,
    /// The storage of this node, where that is what is mounted.
    storage: Option<watch::Receiver<State>>,
    changed: Arc<Notify>,
    /// Held during each act: who holds it knows that none is under way.
    pub acting: Arc<Mutex<()>>,
}

impl Keeper {
    /// `None`: the files are on this machine's own disk. `executable`: this program. `inherited`: the mount goes on. Must be called
    /// inside a runtime.
    pub fn new(
        config: &Config,
        executable: &Path,
        portal: &Account,
        space: Space,
        inherited: Option<Inherited>,
    ) -> io::Result<Option<Self>> {
        let Some(files) = config.files() else { return Ok(None) };
        let is_made = !matches!(files, Files::Watched(_)) && config.is_portal_on_files();
        let (door, parts) = match files {
            Files::Door { .. } => Some(Door::new(executable.to_path_buf(), inherited)?).unzip(),
            _ => (None, None),
        };
        let is_inherited = door.as_ref().is_some_and(Door::has_mount);
        Ok(Some(Keeper {
            portal: is_made.then(|| (config.portal_root(), portal.clone())),
            has_portal: !is_made || is_inherited,
            files,
            space,
            data_dir: config.node.data_dir.clone(),
            worker: Worker::new(executable.to_path_buf()),
            // A mount that is there from before lost its device with the supervisor that had it.
            pulse: match door {
                Some(_) if !is_inherited => Pulse::Dead(LOST.to_owned()),
                _ => Pulse::Unknown,
            },
            door,
            parts,
            numbers: Numbers::new(),
            state: watch::Sender::new(State::starting()),
            reports: watch::Sender::new(report(Status::starting(), String::new())),
            gate: watch::Sender::new(false),
            stop: CancellationToken::new(),
            storage: None,
            changed: Arc::default(),
            acting: Arc::default(),
        }))
    }

    /// Who is told of changes, and the storage module where this node runs one.
    pub fn attach(&mut self, changed: Arc<Notify>, storage: Option<watch::Receiver<State>>) {
        self.changed = changed;
        self.storage = storage;
    }

    /// Until stopped; then lets go of what it mounted.
    pub async fn run(self) {
        let beat = beat(self.reports.clone());
        tokio::select! {
            () = self.live() => {}
            () = beat => {}
        }
    }

    async fn live(mut self) {
        self.keep().await;
        self.enter(Phase::Stopping, "");
        self.release().await;
        self.enter(Phase::Stopped, "");
    }

    async fn keep(&mut self) {
        let stop = self.stop.clone();
        if stop.run_until_cancelled(self.storage_is_up()).await.is_none() {
            return;
        }
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let acting = self.acting.clone();
        loop {
            let act = acting.lock().await;
            let pause = match self.next() {
                // Waited for to its end: one that was cut short could still take effect.
                Act::Mount { renew } => self.mount(renew, &mut backoff).await,
                Act::Probe => match stop.run_until_cancelled(self.probe()).await {
                    Some(pause) => pause,
                    None => return,
                },
                Act::Complain(why) => {
                    self.trouble(&why);
                    PAUSE
                }
            };
            drop(act);
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    async fn storage_is_up(&mut self) {
        if let Some(storage) = &mut self.storage {
            enter(
                &self.state,
                &self.changed,
                Phase::Starting,
                None,
                "waits for the storage",
            );
            // Its sender lives as long as the supervisor.
            let _ = storage.wait_for(|state| state.phase == Phase::Ready).await;
        }
    }

    fn next(&self) -> Act {
        match Table::read(self.space) {
            Ok(table) => decide(self.files.placed(&table).as_ref(), &self.pulse),
            Err(error) => Act::Complain(format!("the table of mounts cannot be read: {error}")),
        }
    }

    async fn mount(&mut self, renew: bool, backoff: &mut Backoff) -> Duration {
        let source = self.files.source();
        if self.state.borrow().phase == Phase::Ready {
            self.trouble("not mounted any more");
        }
        let device = match self.door.as_ref().map(Door::renew).transpose() {
            Ok(device) => device,
            Err(why) => {
                self.trouble(&why);
                return backoff.delay();
            }
        };
        let Some(order) = self.order(renew) else { return PAUSE };
        match self.worker.ask_with(device, &order, MOUNT).await {
            Ok(Answer::Mounted(is_new)) => {
                info!(source, is_new, renew, "the files are mounted");
                if is_new {
                    self.numbers.mounted();
                }
                self.note_connection();
                // What was mounted before may have been lost with all that was in it.
                (self.pulse, self.has_portal) = (Pulse::Unknown, self.portal.is_none());
                backoff.reset();
                Duration::ZERO
            }
            answer => {
                let why = match answer {
                    Ok(other) => format!("told to mount, the worker said {other:?}"),
                    Err(error @ (Error::Late(_) | Error::Busy)) => format!("mount {source}: {error}"),
                    Err(other) => other.to_string(),
                };
                if let Some(door) = &self.door {
                    door.withdraw();
                    // A worker that was late may have mounted it.
                    self.pulse = Pulse::Dead(LOST.to_owned());
                }
                self.trouble(&why);
                backoff.delay()
            }
        }
    }

    fn note_connection(&self) {
        let Some(door) = &self.door else { return };
        if let Some(entry) = Table::read(self.space)
            .ok()
            .as_ref()
            .and_then(|table| table.at(self.files.folder()))
        {
            door.is_mounted(entry.minor);
        }
    }

    fn order(&self, renew: bool) -> Option<Order> {
        let space = self.space;
        match self.files.clone() {
            Files::Mounted { export, at } => Some(Order::Mount {
                export,
                at,
                space,
                renew,
            }),
            Files::Door { at } => Some(Order::Fuse { at, space }),
            Files::Watched(_) => None,
        }
    }

    async fn probe(&mut self) -> Duration {
        let folder = self.files.folder().to_path_buf();
        self.pulse = Pulse::of(self.worker.ask(&Order::Probe { folder }, PROBE).await);
        if matches!(self.pulse, Pulse::Good(_)) && !self.has_portal {
            self.make_portal().await;
        }
        self.numbers.probed(&self.pulse);
        let (phase, status) = say(&self.title(), &self.pulse);
        match phase {
            Phase::Ready => {
                let detail = status.detail.clone();
                if self.state.borrow().phase != Phase::Ready {
                    info!(detail, "the files are there");
                }
                self.enter(Phase::Ready, &detail);
                self.gate.send_replace(true);
            }
            phase => self.lose(phase, &status.detail),
        }
        self.reports.send_replace(report(status, self.numbers.text()));
        if matches!(self.pulse, Pulse::Good(_)) {
            PAUSE
        } else {
            SHORT_PAUSE
        }
    }

    async fn make_portal(&mut self) {
        let Some((path, account)) = &self.portal else { return };
        let order = Order::Folder {
            path: path.clone(),
            uid: account.uid,
            gid: account.gid,
        };
        match self.worker.ask(&order, PROBE).await {
            Ok(_) => self.has_portal = true,
            Err(error) => self.pulse = Pulse::of(Err(error)),
        }
    }

    fn title(&self) -> Title {
        let folder = self.files.folder();
        Title {
            source: self.files.source(),
            folder: folder.display().to_string(),
            is_apart: Table::read(self.space).is_ok_and(|table| table.is_apart(folder, &self.data_dir)),
        }
    }

    fn trouble(&mut self, why: &str) {
        self.lose(Phase::Waiting, why);
        let health = Health::Failed;
        let detail = why.to_owned();
        self.reports
            .send_replace(report(Status { health, detail }, self.numbers.text()));
    }

    /// Not there (any more): said once for each reason.
    fn lose(&self, phase: Phase, why: &str) {
        let was_ready = self.state.borrow().phase == Phase::Ready;
        if self.state.borrow().detail != why {
            warn!(why, "the files are not there");
        }
        if was_ready {
            self.state.send_modify(|state| state.restarts += 1);
        }
        self.enter(phase, why);
    }

    /// Whatever hangs on it: PHP has ended, and what was written is with the server, or with this node's storage, which ends later
    /// and keeps a FUSE mount's device until then.
    async fn release(&mut self) {
        let placed = Table::read(self.space).map(|table| self.files.placed(&table));
        if !matches!(placed, Ok(Some(Placed::Ours))) {
            return;
        }
        let at = self.files.folder().to_path_buf();
        let order = Order::Detach {
            at: at.clone(),
            space: self.space,
        };
        // Not by the worker of the probes: its last one may hang.
        if let Err(error) = self.worker.another().ask(&order, DETACH).await {
            warn!(%error, folder = %at.display(), "the files stay mounted");
        }
    }

    fn enter(&self, phase: Phase, detail: &str) {
        enter(&self.state, &self.changed, phase, None, detail);
    }
}

/// Lets go of the FUSE mount of a supervisor that was killed. Before anything else: what it ran cannot end while it hangs there, and
/// has its sockets open.
pub async fn leave(config: &Config, executable: &Path, space: Space) {
    let Some(Files::Door { at }) = config.files() else {
        return;
    };
    let order = Order::Leave { at, space };
    match Worker::new(executable.to_path_buf()).ask(&order, DETACH).await {
        Ok(Answer::Detached(1..)) => info!("the mount of a former supervisor is let go"),
        Ok(_) => {}
        Err(error) => warn!(%error, "the mount of a former supervisor is still there"),
    }
}

/// Says the latest again each second, as everybody does: the agent takes silence for a fault. Never ends.
async fn beat(reports: watch::Sender<Report>) {
    let mut second = tokio::time::interval(BEAT);
    loop {
        second.tick().await;
        reports.send_modify(|_| {});
    }
}

fn report(status: Status, metrics: String) -> Report {
    Report::Module {
        name: NAME.to_owned(),
        status,
        metrics,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Scope;
    use crate::config::parse;
    use crate::host::tests;
    use std::fs;
    use tempfile::TempDir;

    /// A watched folder whose worker answers what the file `answer` says.
    fn keeper() -> (TempDir, Keeper) {
        let folder = tempfile::tempdir().expect("temp dir");
        let place = folder.path().display();
        let program = folder.path().join("worker");
        tests::script(&program, &format!("cat {place}/answer"));
        let text =
            format!("[storage]\nengine = \"external\"\nexternal = \"{place}\"\n[portal]\nroot = \"{place}/portal\"\n");
        let config = parse(&text, std::iter::empty()).expect("valid").config;
        let portal = Account {
            name: "bitrix".into(),
            uid: 7,
            gid: 7,
        };
        let keeper = Keeper::new(&config, &program, &portal, Space::Own, None)
            .expect("made")
            .expect("something is shared");
        (folder, keeper)
    }

    fn answer(folder: &TempDir, text: &str) {
        let new = folder.path().join("answer.new");
        fs::write(&new, text).expect("written");
        fs::rename(new, folder.path().join("answer")).expect("in place");
    }

    const GOOD: &str =
        r#"{"Ok":{"probed":{"total_bytes":8,"free_bytes":4,"is_read_only":false,"took":{"secs":0,"nanos":5}}}}"#;
    const ABSENT: &str = r#"{"Err":{"text":"no such folder","errno":2}}"#;

    #[tokio::test]
    async fn the_gate_opens_with_the_first_good_probe_and_not_before() {
        let (folder, keeper) = keeper();
        answer(&folder, ABSENT);
        let (mut state, mut gate, stop) = (keeper.state.subscribe(), keeper.gate.subscribe(), keeper.stop.clone());
        let reports = keeper.reports.subscribe();
        let scope = Scope::new();
        let task = scope.spawn(keeper.run());
        let lost = state
            .wait_for(|state| state.phase == Phase::Waiting)
            .await
            .expect("kept")
            .clone();
        assert_eq!((lost.detail.as_str(), *gate.borrow()), ("no such folder", false));
        answer(&folder, GOOD);
        gate.wait_for(|is_open| *is_open).await.expect("kept");
        let Report::Module { name, status, metrics } = reports.borrow().clone() else {
            panic!("of a module")
        };
        assert_eq!((name.as_str(), state.borrow().phase), (NAME, Phase::Ready));
        // The folder of the test is on a disk of this machine.
        assert_eq!(status.health, Health::Degraded);
        assert!(
            metrics.contains("bitrix_mount_probes_total{result=\"good\"} 1"),
            "{metrics}"
        );
        assert!(metrics.contains("bitrix_mount_free_bytes 4"), "{metrics}");
        stop.cancel();
        task.await.expect("no panic");
        assert_eq!(state.borrow().phase, Phase::Stopped);
    }

    #[tokio::test]
    async fn it_waits_for_the_storage_of_this_node() {
        let (folder, mut keeper) = keeper();
        answer(&folder, GOOD);
        let storage = watch::Sender::new(State::starting());
        keeper.attach(Arc::default(), Some(storage.subscribe()));
        let (mut state, stop) = (keeper.state.subscribe(), keeper.stop.clone());
        let scope = Scope::new();
        let task = scope.spawn(keeper.run());
        state
            .wait_for(|state| state.detail == "waits for the storage")
            .await
            .expect("kept");
        storage.send_modify(|state| state.phase = Phase::Ready);
        state.wait_for(|state| state.phase == Phase::Ready).await.expect("kept");
        stop.cancel();
        task.await.expect("no panic");
    }

    #[tokio::test]
    async fn told_to_stop_it_does_not_wait_for_a_storage_that_never_comes() {
        let (_folder, mut keeper) = keeper();
        let storage = watch::Sender::new(State::starting());
        keeper.attach(Arc::default(), Some(storage.subscribe()));
        let (state, stop) = (keeper.state.subscribe(), keeper.stop.clone());
        stop.cancel();
        keeper.run().await;
        assert_eq!(state.borrow().phase, Phase::Stopped);
    }
}
