//! The supervisor's part of a FUSE mount, with the real worker and a kernel: what is mounted, handed over, made anew and let go. The
//! storage behind it is a stub, so that it can die as it pleases.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bitrix_node::agent::Phase;
use bitrix_node::base::Scope;
use bitrix_node::config::{Config, parse};
use bitrix_node::host::account::Account;
use bitrix_node::host::mount::{Answer, Error, Handed, Heir, Order, Placed, Space, Table, Worker};
use bitrix_node::node::mount::{Closing, Keeper};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::command::EXECUTABLE;
use crate::support::eventually::eventually;
use crate::support::fuse::Door;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a test leaves mounted goes with it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    fn files(&self) -> PathBuf {
        self.0.path().join("files")
    }

    fn config(&self) -> Config {
        let text = format!(
            "[node]\ndata_dir = \"{0}\"\nrun_dir = \"{0}/run\"\nlog_dir = \"{0}/log\"\n\
             [storage]\nengine = \"replicated\"\nmount = \"fuse\"\n",
            self.0.path().display()
        );
        parse(&text, std::iter::empty()).unwrap().config
    }

    fn placed(&self) -> Placed {
        let table = Table::read(Space::Own).unwrap();
        self.config().files().unwrap().placed(&table).unwrap()
    }

    async fn probe(&self) -> Result<Answer, Error> {
        let folder = self.files();
        let mut worker = Worker::new(EXECUTABLE.into());
        worker.ask(&Order::Probe { folder }, PATIENCE).await
    }

    fn detach(&self) -> bool {
        umount2(&self.files(), MntFlags::MNT_DETACH).is_ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        while self.detach() {}
    }
}

/// The mount as the supervisor keeps it.
struct Supervisor {
    state: watch::Receiver<bitrix_node::node::mount::State>,
    gate: watch::Receiver<bool>,
    stop: CancellationToken,
    end: OwnedFd,
    keeper: Scope,
    trustee: Scope,
    closing: Closing,
}

impl Supervisor {
    fn start(place: &Place) -> Self {
        let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        let portal = Account {
            name: "portal".into(),
            uid,
            gid,
        };
        let keeper = Keeper::new(&place.config(), Path::new(EXECUTABLE), &portal, Space::Own, None);
        let mut keeper = keeper.unwrap().expect("files are mounted");
        let parts = keeper.parts.take().expect("it has a door");
        let (state, gate, stop) = (keeper.state.subscribe(), keeper.gate.subscribe(), keeper.stop.clone());
        let scopes = (Scope::new(), Scope::new());
        scopes.0.spawn(keeper.run());
        scopes.1.spawn(parts.trustee.run());
        Supervisor {
            state,
            gate,
            stop,
            end: parts.end,
            keeper: scopes.0,
            trustee: scopes.1,
            closing: parts.closing,
        }
    }

    /// As each storage process does at its start.
    fn heir(&self) -> Heir {
        Heir::new(self.end.try_clone().unwrap()).unwrap()
    }

    async fn is(&mut self, phase: Phase) {
        let changed = self.state.wait_for(|state| state.phase == phase);
        let changed = tokio::time::timeout(PATIENCE, changed)
            .await
            .map(|state| drop(state.unwrap()));
        assert!(changed.is_ok(), "not {phase:?} in time: {:?}", *self.state.borrow());
    }

    /// As SIGKILL does: nothing is let go by hand.
    async fn die(self) {
        self.keeper.stop(Duration::ZERO).await;
        self.trustee.stop(Duration::ZERO).await;
    }

    /// As it ends when the storage has, whatever that left.
    async fn end(self) {
        self.trustee.stop(Duration::ZERO).await;
        self.closing.close().await;
    }
}

async fn handed(heir: &Heir) -> Handed {
    tokio::time::timeout(PATIENCE, heir.handed()).await.unwrap().unwrap()
}

/// Waits until somebody waits for an answer of this mount.
async fn asks(handed: &Handed) {
    eventually("somebody asks", async || {
        let mut looked_at = [PollFd::new(handed.device.as_fd(), PollFlags::POLLIN)];
        match poll(&mut looked_at, PollTimeout::ZERO) {
            Ok(1) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

fn inode(descriptor: &OwnedFd) -> u64 {
    File::from(descriptor.try_clone().unwrap()).metadata().unwrap().ino()
}

fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Refused(refusal) if refusal.is_final())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_dies_is_replaced_under_the_mount() {
    let place = Place::new();
    let mut supervisor = Supervisor::start(&place);
    let heir = supervisor.heir();
    let first = handed(&heir).await;
    // The first storage leaves something for the next one.
    File::from(first.memory.try_clone().unwrap())
        .write_all_at(b"kept", 0)
        .unwrap();
    let door = Door::open(&first);
    supervisor.is(Phase::Ready).await;
    let opened = tokio::time::timeout(PATIENCE, supervisor.gate.wait_for(|is_open| *is_open)).await;
    assert!(opened.is_ok_and(|gate| gate.is_ok()));
    let table = Table::read(Space::Own).unwrap();
    let entry = table.at(&place.files()).expect("mounted");
    assert_eq!(
        (entry.kind.as_str(), entry.source.as_str()),
        ("fuse.bitrix", "bitrix-node")
    );
    for option in ["allow_other", "default_permissions", "max_read=1048576", "user_id=0"] {
        assert!(entry.options.contains(option), "{}", entry.options);
    }
    assert!(matches!(place.probe().await, Ok(Answer::Probed(_))));

    let (mount, memory) = (first.mount, inode(&first.memory));
    drop((door, heir, first));
    let (probed, door) = tokio::join!(place.probe(), async {
        let second = handed(&supervisor.heir()).await;
        assert_eq!((second.mount, inode(&second.memory)), (mount, memory));
        let mut kept = [0; 4];
        File::from(second.memory.try_clone().unwrap())
            .read_exact_at(&mut kept, 0)
            .unwrap();
        assert_eq!(&kept, b"kept");
        Door::open(&second)
    });
    assert!(matches!(probed, Ok(Answer::Probed(_))), "whoever asks in between waits");
    assert_eq!(supervisor.state.borrow().restarts, 0);
    supervisor.stop.cancel();
    supervisor.is(Phase::Stopped).await;
    assert_eq!(place.placed(), Placed::Nothing);
    drop(door);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_took_away_or_broke_is_mounted_anew() {
    let place = Place::new();
    let mut supervisor = Supervisor::start(&place);
    let heir = supervisor.heir();
    let first = handed(&heir).await;
    let mut door = Door::open(&first);
    supervisor.is(Phase::Ready).await;
    assert!(place.detach());
    let second = handed(&heir).await;
    assert_ne!(second.mount, first.mount);
    assert_ne!(inode(&second.memory), inode(&first.memory));
    drop(std::mem::replace(&mut door, Door::open(&second)));
    supervisor.is(Phase::Ready).await;

    let connections = Connections::mount();
    // Each request is counted at its connection; there is one that this mount's device number names.
    let probe = place.probe().await;
    assert!(matches!(probe, Ok(Answer::Probed(_))), "{probe:?}");
    connections.abort(&place.files());
    let third = handed(&heir).await;
    assert!(![first.mount, second.mount].contains(&third.mount));
    drop(std::mem::replace(&mut door, Door::open(&third)));
    eventually("it answers again", async || place.probe().await).await;
    supervisor.is(Phase::Ready).await;
    let again = supervisor.state.borrow().restarts;
    assert!(again > 0, "each loss is counted");
    drop((first, second));
    supervisor.stop.cancel();
    supervisor.is(Phase::Stopped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mount_of_a_killed_supervisor_is_replaced() {
    let place = Place::new();
    let mut killed = Supervisor::start(&place);
    let first = handed(&killed.heir()).await;
    let door = Door::open(&first);
    killed.is(Phase::Ready).await;
    drop((door, first));
    killed.die().await;
    let error = place.probe().await.expect_err("nobody has the device");
    assert!(is_gone(&error), "{error}");
    assert_eq!(place.placed(), Placed::Ours);
    comes_after(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_on_the_mount_of_a_killed_supervisor_is_freed() {
    let place = Place::new();
    let mut killed = Supervisor::start(&place);
    let first = handed(&killed.heir()).await;
    let door = Door::open(&first);
    killed.is(Phase::Ready).await;
    // A thread of the storage hangs in the kernel and has the device open.
    drop(door);
    killed.die().await;
    let (probed, ()) = tokio::join!(place.probe(), async {
        asks(&first).await;
        comes_after(&place).await;
    });
    let error = probed.expect_err("nobody answered");
    assert!(!error.is_silence(), "told by the kernel, not by its deadline: {error}");
    drop(first);
}

/// The next supervisor, whose storage is well.
async fn comes_after(place: &Place) {
    let mut next = Supervisor::start(place);
    let second = handed(&next.heir()).await;
    let door = Door::open(&second);
    next.is(Phase::Ready).await;
    assert!(matches!(place.probe().await, Ok(Answer::Probed(_))));
    next.stop.cancel();
    next.is(Phase::Stopped).await;
    assert_eq!(place.placed(), Placed::Nothing, "one mount, not two");
    drop(door);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_without_a_storage_nobody_is_left_hanging() {
    let place = Place::new();
    let mut supervisor = Supervisor::start(&place);
    let heir = supervisor.heir();
    let first = handed(&heir).await;
    let door = Door::open(&first);
    supervisor.is(Phase::Ready).await;
    // 1. The storage dies for good, but for a thread that has the device open. 2. Somebody asks. 3. The node stops: the mount goes, and
    // the question ends.
    drop((door, heir));
    let probe = place.probe();
    let stopped = async {
        supervisor.is(Phase::Starting).await;
        supervisor.stop.cancel();
        supervisor.is(Phase::Stopped).await;
        assert_eq!(place.placed(), Placed::Nothing);
        supervisor.end().await;
    };
    let (probed, ()) = tokio::join!(probe, stopped);
    let error = probed.expect_err("it was never answered");
    assert!(!error.is_silence(), "told by the kernel, not by its deadline: {error}");
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_mounted_leaves_nothing() {
    let place = Place::new();
    std::fs::create_dir(place.files()).unwrap();
    std::fs::write(place.files().join("file"), "precious").unwrap();
    let mut supervisor = Supervisor::start(&place);
    supervisor.is(Phase::Waiting).await;
    assert!(supervisor.state.borrow().detail.contains("is not empty"));
    assert_eq!(place.placed(), Placed::Nothing);
    // What was offered meanwhile waits for nobody.
    let heir = supervisor.heir();
    std::fs::remove_file(place.files().join("file")).unwrap();
    let door = Door::open(&handed(&heir).await);
    supervisor.is(Phase::Ready).await;
    supervisor.stop.cancel();
    supervisor.is(Phase::Stopped).await;
    drop(door);
}

/// The kernel's list of FUSE connections, in a folder of its own.
struct Connections(TempDir);

impl Connections {
    fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        mount(
            Some("none"),
            folder.path(),
            Some("fusectl"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        Connections(folder)
    }

    /// The folder of a connection has the minor number of its device, which is what the mount shows.
    fn abort(&self, at: &Path) {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table
            .lines()
            .find(|line| line.split(' ').nth(4) == at.to_str())
            .expect("mounted");
        let (_, minor) = line.split(' ').nth(2).unwrap().split_once(':').unwrap();
        std::fs::write(self.0.path().join(minor).join("abort"), "1").unwrap();
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}
