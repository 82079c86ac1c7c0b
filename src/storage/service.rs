//! `Storage`: the service. One replica with one voter in data_dir/storage, and the NFS door before it.
//!
//! ```text
//! state/   the state machine; its lock guards all of this
//! log/     the group's log
//! handles  cluster id and key of the file handles
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use super::disk::Folder;
use super::door::nfs::{Clients, Door, Handles, Server};
use super::group::{Group, Settings};
use super::local::Local;
use super::log::Sizes;
use super::network::{Transport, Unreached};
use super::replica::{Replica, blocking};
use super::state::disk::SystemDisk;
use super::state::{self, Failure};
use super::types::{Checkpoint, NodeId, Peer};
use crate::base::file::{self, Access};
use crate::base::{BoxFuture, Cx, Health, Scope, Service, Status, clock};
use crate::config::Config;

/// Names of the listening sockets.
const TCP_SOCKET: &str = "nfs";
const UNIX_SOCKET: &str = "nfs-unix";
/// The only replica.
const ME: NodeId = 1;
/// A checkpoint at least this often: what a crash makes the next start apply again.
const CHECKPOINT: Duration = Duration::from_secs(60);
/// Log kept behind a checkpoint. Nobody catches up from it yet; it is what an admin has if the state must be looked into.
const LOG_KEPT: u64 = 256 << 20;
/// How long calls under way have to end.
const GRACE: Duration = Duration::from_secs(10);
/// How long to wait for an earlier process that is on its way out.
const IN_USE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

/// The replicated storage of this node.
pub struct Storage {
    folder: PathBuf,
    status: Mutex<Status>,
}

/// What runs.
struct Running {
    machine: state::Shared,
    group: Group,
    local: Local,
    log: PathBuf,
}

/// There are no other replicas.
pub(super) struct Alone;

impl Transport for Alone {
    fn call<'a>(
        &'a self,
        node: NodeId,
        _peer: &'a Peer,
        _request: bytes::Bytes,
        _deadline: Duration,
    ) -> BoxFuture<'a, Result<bytes::Bytes, Unreached>> {
        Box::pin(std::future::ready(Err(Unreached::Refused(format!(
            "no way to node {node}"
        )))))
    }

    fn send_checkpoint<'a>(
        &'a self,
        node: NodeId,
        peer: &'a Peer,
        header: bytes::Bytes,
        _checkpoint: &'a Checkpoint,
    ) -> BoxFuture<'a, Result<bytes::Bytes, Unreached>> {
        self.call(node, peer, header, Duration::ZERO)
    }
}

impl Storage {
    pub fn new(config: &Config) -> Self {
        Storage {
            folder: config.storage(),
            status: Mutex::new(Status::starting()),
        }
    }

    async fn serve(&self, cx: Cx) -> anyhow::Result<()> {
        // Two scopes of its own: first the door is drained, then what its calls need.
        let (doors, core) = (Scope::new(), Scope::new());
        self.report(Status::starting());
        let result = self.serve_in(cx, &doors, &core).await;
        doors.stop(Duration::ZERO).await;
        core.stop(Duration::ZERO).await;
        result
    }

    async fn serve_in(&self, mut cx: Cx, doors: &Scope, core: &Scope) -> anyhow::Result<()> {
        let (tcp, unix) = listeners(&mut cx)?;
        let folder = self.folder.clone();
        let prepared = blocking(move || prepare(&folder)).await;
        let handles = prepared.with_context(|| format!("open {}", self.folder.display()))?;
        let machine = open_state(&self.folder).await?;
        let started = tokio::select! {
            started = self.start(machine, core) => started?,
            () = cx.scope.draining() => return Ok(()),
        };
        let Some(running) = started else { return Ok(()) };
        let door = Door::new(Arc::new(running.local.clone()), handles);
        Server::new(door, Clients::default()).start(tcp, unix, doors);
        info!(folder = %self.folder.display(), "storage is open");
        let kept = tokio::select! {
            kept = self.keep(&running) => kept,
            why = running.group.failed() => Err(anyhow!("the replica has failed: {why}")),
            () = cx.scope.draining() => Ok(()),
        };
        if kept.is_ok() && !doors.stop(GRACE).await {
            warn!("calls under way were cut off");
        }
        running.group.stop().await;
        kept?;
        let machine = running.machine.get();
        blocking(move || machine.close().map_err(io::Error::other)).await?;
        Ok(())
    }

    /// Starts the replica. A new store becomes a group of this one voter.
    async fn start(&self, machine: state::Machine, core: &Scope) -> anyhow::Result<Option<Running>> {
        let machine = state::Shared::new(machine);
        let replica = Replica::new(machine.clone(), self.folder.join("state"), core.clone())?;
        let settings = Settings {
            me: ME,
            copies: 1,
            sizes: Sizes::default(),
        };
        let log = self.folder.join("log");
        let disk = Arc::new(Folder::new(&log));
        let group = Group::open(
            settings,
            disk,
            Box::new(replica),
            Arc::new(Alone),
            Arc::new(clock::boot),
            core,
        );
        let group = group.await.context("open the log")?;
        if !group.raft().is_initialized().await? {
            let peer = Peer {
                store: group.store(),
                ..Peer::default()
            };
            group.initialize([(ME, peer)].into()).await?;
        }
        let batcher = group.batcher(core);
        let local = Local::start(machine.clone(), group.clone(), batcher, core.clone()).await?;
        Ok(local.map(|local| Running {
            machine,
            group,
            local,
            log,
        }))
    }

    /// Once a second: room, status, and a checkpoint when one is due.
    async fn keep(&self, running: &Running) -> anyhow::Result<()> {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut checkpoint, mut calls) = (Instant::now(), running.local.count());
        loop {
            second.tick().await;
            running.local.measure().await?;
            let log = running.log.clone();
            let size = blocking(move || folder_size(&log)).await?;
            let total = running.local.count();
            self.report(describe(size, total - calls, running.local.is_full()));
            calls = total;
            let machine = running.machine.get();
            let is_old = checkpoint.elapsed() > CHECKPOINT && machine.durable() != machine.applied();
            if is_old || machine.wants_checkpoint() {
                running.group.checkpoint().await?;
                checkpoint = Instant::now();
            }
            // What the last checkpoint covers, if it is finished by now.
            running.group.purge(LOG_KEPT).await?;
        }
    }

    fn report(&self, status: Status) {
        *self.status.lock().expect("no holder of this lock panics") = status;
    }
}

impl Service for Storage {
    fn name(&self) -> &'static str {
        "storage"
    }

    fn run<'a>(&'a self, cx: Cx) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(self.serve(cx))
    }

    fn status(&self) -> Status {
        self.status.lock().expect("no holder of this lock panics").clone()
    }
}

fn listeners(cx: &mut Cx) -> anyhow::Result<(Vec<TcpListener>, Vec<UnixListener>)> {
    let (tcp, unix) = (cx.take_tcp(TCP_SOCKET), cx.take_unix(UNIX_SOCKET));
    ensure!(
        !tcp.is_empty() || !unix.is_empty(),
        "no socket named \"{TCP_SOCKET}\" or \"{UNIX_SOCKET}\" was handed down"
    );
    let tcp = tcp.into_iter().map(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    let unix = unix.into_iter().map(|listener| {
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    });
    let tcp: io::Result<_> = tcp.collect();
    let unix: io::Result<_> = unix.collect();
    Ok((tcp?, unix?))
}

/// Makes the folders and the handles' key, and refuses a store of which a part is missing.
fn prepare(folder: &Path) -> io::Result<Handles> {
    let has_log = folder.join("log/store").exists();
    // The state is made before the log.
    if has_log && !folder.join("state/checkpoint").exists() {
        let why = "there is a log but no state; put back storage/state, or restore the storage from a backup";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    // Log and state hold the portal's passwords.
    for folder in [folder, &folder.join("state"), &folder.join("log")] {
        file::ensure_folder(folder, Access::mode(0o700))?;
    }
    handles(&folder.join("handles"), has_log)
}

/// Reads or makes cluster id (8 bytes) and key (16 bytes). With others, all handles that clients hold would be stale.
fn handles(path: &Path, must_exist: bool) -> io::Result<Handles> {
    let mut bytes = [0; 24];
    match std::fs::read(path) {
        Ok(found) => {
            let whole = found.try_into();
            bytes = whole.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "storage/handles is damaged"))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => {
            getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
            file::replace(path, &bytes, Access::mode(0o600))?;
        }
        Err(error) => return Err(io::Error::new(error.kind(), format!("storage/handles: {error}"))),
    }
    let (cluster, key) = bytes.split_first_chunk().expect("it has 24 bytes");
    let key = key.try_into().expect("16 bytes are left");
    Ok(Handles::new(u64::from_be_bytes(*cluster), key))
}

/// Opens the state; an earlier process may still be on its way out.
async fn open_state(folder: &Path) -> anyhow::Result<state::Machine> {
    let started = Instant::now();
    loop {
        let place = folder.join("state");
        let opened = blocking(move || Ok(state::Machine::open(&place, Arc::new(SystemDisk)))).await?;
        match opened {
            Err(Failure::InUse) if started.elapsed() < IN_USE => tokio::time::sleep(LOOK).await,
            opened => {
                let machine = opened.context("open the state")?;
                let is_whole = machine.applied().is_none() || folder.join("log/store").exists();
                ensure!(
                    is_whole,
                    "there is a state but no log; put back storage/log, or restore the storage from a backup"
                );
                return Ok(machine);
            }
        }
    }
}

fn folder_size(folder: &Path) -> io::Result<u64> {
    let mut size = 0;
    for entry in std::fs::read_dir(folder)? {
        match entry?.metadata() {
            Ok(found) => size += found.len(),
            // Purged in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(size)
}

/// "1 copy, log 12 MiB, 3 calls/s"
fn describe(log: u64, calls: u64, is_full: bool) -> Status {
    let detail = format!("1 copy, log {} MiB, {calls} calls/s", log.div_ceil(1 << 20));
    match is_full {
        false => Status::good(detail),
        true => Status {
            health: Health::Degraded,
            detail: format!("{detail}; the disk is nearly full, nothing new is taken"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detail_is_one_short_line() {
        assert_eq!(
            describe(12 << 20, 3, false),
            Status::good("1 copy, log 12 MiB, 3 calls/s")
        );
        assert_eq!(describe(1, 0, true).health, Health::Degraded);
    }
}
