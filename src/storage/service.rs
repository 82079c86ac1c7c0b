//! `Storage`: the service. A replica of the group in data_dir/storage, the doors before it, and what it says to other nodes.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use super::charter::Charter;
use super::checkpoints::Receiving;
use super::client::Client;
use super::control::{SET_BACK, describe};
use super::disk::Folder;
use super::door::fuse;
use super::door::nfs::{Clients, Door, Server};
use super::insync::Copies;
use super::log::Sizes;
use super::mesh::{COMMANDS, ForwardHandler, LIMITS, RAFT, REQUESTS, RaftHandler, RequestHandler, SCRUB, ToLeader};
use super::operation::Place;
use super::replica::blocking;
use super::running::{Files, Running, Wanted};
use super::scrub::ScrubHandler;
use super::types::{NodeId, Peer};
use super::waiting::Waiting;
use super::{identity, opening, recovery};
use crate::base::{BoxFuture, Cx, Scope, Service, Status};
use crate::cluster;
use crate::config::{self, Config};
use crate::host::facts;
use crate::host::mount::Heir;
use crate::net::mesh::trust::Trust;
use crate::net::mesh::{self, Handler, Identity, Services, Streams, Tls};
use crate::net::serve::serve;

/// Names of the listening sockets.
const NFS: &str = "nfs";
const NFS_UNIX: &str = "nfs-unix";
const COMMAND: &str = "storage";
const MESH: &str = "storage-mesh";
/// By which the supervisor hands the mount over.
const FUSE: &str = "fuse";
/// A checkpoint at least this often: what a crash makes the next start apply again.
const CHECKPOINT: Duration = Duration::from_secs(60);
/// Log kept behind a checkpoint, for replicas that come back: applying it is quicker than pulling files.
const LOG_KEPT: u64 = 256 << 20;
/// Bits rot slowly: each content is compared with the other copies once a week.
const SCRUB_EVERY: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long calls under way have to end.
const GRACE: Duration = Duration::from_secs(10);
/// Operators and this node's own programs.
const COMMAND_CONNECTIONS: usize = 64;

/// The replicated storage of this node.
pub struct Storage {
    folder: PathBuf,
    settings: config::Storage,
    node: String,
    trust: Trust,
    /// Where the agent says who left.
    view: PathBuf,
    /// Where others meet this one.
    address: Option<String>,
    status: Mutex<Status>,
}

/// Serves the mount; ends only by a fault.
type Mount = BoxFuture<'static, anyhow::Result<()>>;

struct Sockets {
    tcp: Vec<TcpListener>,
    unix: Vec<UnixListener>,
    command: Vec<UnixListener>,
    mesh: Vec<TcpListener>,
    fuse: Option<OwnedFd>,
}

impl Storage {
    pub fn new(config: &Config) -> Self {
        Storage {
            folder: config.storage(),
            settings: config.storage.clone(),
            node: facts::node_name(config),
            trust: Trust::new(config.trust()),
            view: config.view_socket(),
            address: config.storage_mesh().map(|address| address.to_string()),
            status: Mutex::new(Status::starting()),
        }
    }

    async fn serve(&self, cx: Cx) -> anyhow::Result<()> {
        // Two scopes of its own: first the doors are drained, then what their calls need.
        let (doors, core) = (Scope::new(), Scope::new());
        self.report(Status::starting());
        let result = self.serve_in(cx, &doors, &core).await;
        doors.stop(Duration::ZERO).await;
        core.stop(Duration::ZERO).await;
        result
    }

    async fn serve_in(&self, mut cx: Cx, doors: &Scope, core: &Scope) -> anyhow::Result<()> {
        let sockets = Sockets::take(&mut cx)?;
        let tls = match self.address {
            Some(_) => {
                let snapshots = cluster::follow(self.view.clone(), core);
                Some(cluster::tls(&self.trust, snapshots, core).context("this node's certificate")?)
            }
            None => None,
        };
        let charter = tokio::select! {
            charter = self.charter(&sockets, tls.as_ref()) => charter?,
            () = cx.scope.draining() => return Ok(()),
        };
        let (folder, place, witness) = (self.folder.clone(), self.folder.display(), charter.witness);
        let prepared = blocking(move || {
            opening::prepare(&folder, witness)?;
            recovery::perform(&folder, Sizes::default())
        });
        if prepared.await.with_context(|| format!("open {place}"))? {
            warn!("this replica goes on alone, as ordered");
        }
        let wanted = Wanted {
            node: self.node.clone(),
            copies: Copies {
                wanted: self.settings.copies,
                least: self.settings.min_copies,
            },
            sizes: Sizes::default(),
        };
        let running = Running::start(&self.folder, &charter, &wanted, tls.clone(), core).await?;
        if charter.founds {
            self.found(&running, &charter).await?;
        }
        let mount = self.listen(sockets, &charter, &running, tls, doors, core)?;
        info!(folder = %place, replica = charter.number, witness, "storage is open");
        let kept = tokio::select! {
            kept = self.keep(&running) => kept,
            () = running.control.restart.notified() => Err(anyhow!("starting anew for the recovery that was ordered")),
            () = running.group.set_back() => Err(self.disown(charter.number).await),
            why = running.group.failed() => Err(anyhow!("the replica has failed: {why}")),
            served = mount => served.context("the FUSE mount"),
            () = cx.scope.draining() => Ok(()),
        };
        if kept.is_ok() && !doors.stop(GRACE).await {
            warn!("calls under way were cut off");
        }
        // Before: a leader may know it only as long as it leads.
        let exact = running.files.as_ref().and_then(Files::exact);
        running.group.stop().await;
        kept?;
        if let Some(files) = running.files {
            let machine = files.machine.get();
            let is_exact = exact.is_some_and(|exact| Arc::ptr_eq(&exact, &machine));
            let ended = move || match is_exact {
                true => machine.close(),
                false => machine.checkpoint(),
            };
            blocking(move || ended().map_err(std::io::Error::other)).await?;
        }
        Ok(())
    }

    /// What this replica was made as. A node alone makes a group. In a cluster its first node was chartered when it founded the
    /// cluster, and never is again: emptied, it waits for an invitation as all others do.
    async fn charter(&self, sockets: &Sockets, tls: Option<&Arc<Tls>>) -> anyhow::Result<Charter> {
        let folder = self.folder.clone();
        let loaded = blocking(move || Charter::load(&folder)).await?;
        match (loaded, tls) {
            (Some(charter), _) => Ok(charter),
            (None, Some(tls)) => self.wait(sockets, tls).await,
            (None, None) => {
                let folder = self.folder.clone();
                Ok(blocking(move || opening::found(&folder, None)).await?)
            }
        }
    }

    async fn wait(&self, sockets: &Sockets, tls: &Arc<Tls>) -> anyhow::Result<Charter> {
        let waiting = Arc::new(Waiting::new(self.folder.clone(), self.node.clone()));
        let scope = Scope::new();
        let commands: Arc<dyn Handler> = waiting.clone();
        let services: Services = [(COMMANDS, commands)].into_iter().collect();
        for listener in &sockets.mesh {
            answer_mesh(listener.try_clone()?, services.clone(), None, tls.clone(), &scope)?;
        }
        for listener in &sockets.command {
            answer_unix(listener.try_clone()?, services.clone(), self.identity(), &scope)?;
        }
        self.report(Status::good("waits to be taken in by a group"));
        info!(
            node = self.node,
            "there is no replica here yet; waiting for the group's invitation"
        );
        let charter = waiting.invited().await;
        // The answer to the invitation leaves before the connection does.
        scope.stop(GRACE).await;
        self.report(Status::starting());
        Ok(charter)
    }

    /// Makes the group, unless that was done before a crash.
    async fn found(&self, running: &Running, charter: &Charter) -> anyhow::Result<()> {
        let group = &running.group;
        if !group.raft().is_initialized().await? {
            let peer = Peer {
                name: self.node.clone(),
                address: self.address.clone().unwrap_or_default(),
                store: group.store(),
                witness: false,
            };
            group.initialize([(charter.number, peer)].into()).await?;
        }
        let (folder, charter) = (self.folder.clone(), charter.founded());
        Ok(blocking(move || charter.save(&folder)).await?)
    }

    /// Opens the doors, and answers other nodes and operators.
    fn listen(
        &self,
        sockets: Sockets,
        charter: &Charter,
        running: &Running,
        tls: Option<Arc<Tls>>,
        doors: &Scope,
        core: &Scope,
    ) -> anyhow::Result<Mount> {
        let (group, leader) = (
            running.group.clone(),
            running.files.as_ref().map(|files| files.leader.clone()),
        );
        let way = Arc::new(ToLeader::new(
            group.clone(),
            leader.clone(),
            running.links.clone(),
            core,
        ));
        let place = Place(format!("{}/nfs", self.node));
        let client = Client::start(way.clone(), place, false, core);
        let door = Door::new(Arc::new(client), charter.handles());
        let clients = Clients {
            networks: self.settings.clients.clone(),
            allows_any_port: false,
        };
        let tcp: std::io::Result<Vec<_>> = sockets.tcp.into_iter().map(tokio_tcp).collect();
        let unix: std::io::Result<Vec<_>> = sockets.unix.into_iter().map(tokio_unix).collect();
        Server::new(door, clients).start(tcp?, unix?, doors);
        let mount = match sockets.fuse {
            Some(end) => {
                let (heir, place) = (Heir::new(end)?, Place(format!("{}/fuse", self.node)));
                Box::pin(fuse::serve(heir, way.clone(), place, core.clone())) as Mount
            }
            None => Box::pin(std::future::pending()),
        };

        let commands: (u16, Arc<dyn Handler>) = (COMMANDS, running.control.clone());
        let forward: (u16, Arc<dyn Handler>) = (REQUESTS, Arc::new(ForwardHandler(way)));
        let inner: Services = [commands.clone(), forward].into_iter().collect();
        for listener in sockets.command {
            answer_unix(listener, inner.clone(), self.identity(), core)?;
        }
        let Some(tls) = tls else { return Ok(mount) };
        let mut outer: Vec<(u16, Arc<dyn Handler>)> = vec![commands, (RAFT, Arc::new(RaftHandler(group.clone())))];
        if let Some(files) = &running.files {
            outer.push((REQUESTS, Arc::new(RequestHandler(files.leader.clone()))));
            outer.push((SCRUB, Arc::new(ScrubHandler(files.machine.clone()))));
            let (scrub, scope) = (files.scrub.clone(), core.clone());
            core.spawn(async move { scrub.run(SCRUB_EVERY, scope).await });
        }
        let outer: Services = outer.into_iter().collect();
        let receiving = Receiving {
            group,
            own: running.files.as_ref().map(|files| files.machine.clone()),
            progress: running.sending.progress.clone(),
            scope: core.clone(),
        };
        let streams: Arc<dyn Streams> = Arc::new(receiving);
        for listener in sockets.mesh {
            answer_mesh(listener, outer.clone(), Some(streams.clone()), tls.clone(), core)?;
        }
        Ok(mount)
    }

    /// Who connects over the unix socket is this node.
    fn identity(&self) -> Identity {
        let name = self.node.parse().or_else(|_| "local".parse());
        let name: mesh::Name = name.expect("it is a name");
        Identity {
            cluster: name.clone(),
            node: name,
        }
    }

    /// This store forgot what it had promised: under another identity nobody takes it for what it was.
    async fn disown(&self, number: NodeId) -> anyhow::Error {
        let log = Folder::new(self.folder.join("log"));
        match blocking(move || identity::renew(&log, number)).await {
            Ok(_) => anyhow!(SET_BACK),
            Err(error) => anyhow!(error).context(SET_BACK),
        }
    }

    /// Once a second: room, silent sessions, status, and a checkpoint when one is due.
    async fn keep(&self, running: &Running) -> anyhow::Result<()> {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut checkpoint, mut requests) = (Instant::now(), 0);
        // What this start had to apply again, the next one shall not: a process that dies often would never come to a checkpoint.
        let mut is_due = running.has_much_new();
        loop {
            second.tick().await;
            if let Some(files) = &running.files {
                files.leader.measure().await?;
                files.leader.expire().await?;
                let total = files.leader.count();
                running.control.requests.store(total - requests, Ordering::Relaxed);
                requests = total;
            }
            self.say_how(running).await?;
            if is_due || checkpoint.elapsed() > CHECKPOINT || running.wants_checkpoint() {
                if running.has_new() {
                    running.group.checkpoint().await?;
                }
                (checkpoint, is_due) = (Instant::now(), false);
            }
            // What the last checkpoint covers, if it is finished by now.
            running.purge(LOG_KEPT).await?;
        }
    }

    /// Reports, and has the group know where this node is met.
    async fn say_how(&self, running: &Running) -> anyhow::Result<()> {
        let report = running.control.report().await?;
        // A group without a leader is normal while it starts.
        if report.leader.is_some() || self.status() != Status::starting() {
            self.report(describe(&report));
        }
        if let Some(address) = &self.address
            && report.leader.is_some()
            && let Err(error) = running.control.introduce(address).await
        {
            let error = format!("{error:#}");
            tracing::debug!(error, "the group does not know this node's address yet");
        }
        Ok(())
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

impl Sockets {
    fn take(cx: &mut Cx) -> anyhow::Result<Self> {
        let sockets = Sockets {
            tcp: cx.take_tcp(NFS),
            unix: cx.take_unix(NFS_UNIX),
            command: cx.take_unix(COMMAND),
            mesh: cx.take_tcp(MESH),
            fuse: cx.take_pair(FUSE),
        };
        ensure!(
            !sockets.tcp.is_empty() || !sockets.unix.is_empty(),
            "no socket named \"{NFS}\" or \"{NFS_UNIX}\" was handed down"
        );
        Ok(sockets)
    }
}

fn tokio_tcp(listener: TcpListener) -> std::io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

fn tokio_unix(listener: UnixListener) -> std::io::Result<tokio::net::UnixListener> {
    listener.set_nonblocking(true)?;
    tokio::net::UnixListener::from_std(listener)
}

/// Answers other nodes until the scope drains.
fn answer_mesh(
    listener: TcpListener,
    services: Services,
    streams: Option<Arc<dyn Streams>>,
    tls: Arc<Tls>,
    scope: &Scope,
) -> anyhow::Result<()> {
    let server = Arc::new(mesh::Server {
        tls,
        services,
        streams,
        limits: LIMITS,
    });
    scope.spawn(server.serve(tokio_tcp(listener)?, scope.clone()));
    Ok(())
}

/// Answers programs of this machine until the scope drains.
fn answer_unix(listener: UnixListener, services: Services, identity: Identity, scope: &Scope) -> anyhow::Result<()> {
    let permits = Arc::new(tokio::sync::Semaphore::new(COMMAND_CONNECTIONS));
    let tasks = scope.clone();
    let handle = move |stream, _| {
        let (services, identity, scope) = (services.clone(), identity.clone(), tasks.clone());
        async move {
            let leave = scope.draining();
            services.serve(stream, identity, LIMITS, &scope, leave).await;
        }
    };
    scope.spawn(serve(tokio_unix(listener)?, permits, scope.clone(), handle));
    Ok(())
}
