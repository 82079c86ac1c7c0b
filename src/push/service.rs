//! `Push`: the service. Listens where the supervisor says, and keeps the hub's house.

use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::info;

use super::control;
use super::desk::Desk;
use super::door::{Door, For};
use super::hub::Hub;
use super::key::Key;
use super::membership;
use super::metrics::Metrics;
use crate::base::file::Access;
use crate::base::secret::Secret;
use crate::base::{BoxFuture, Cx, Health, Scope, Service, Status};
use crate::config::Config;
use crate::host::facts;
use crate::net::serve::serve;

/// Names of the listening sockets: of clients by way of the front, of the portal, of operators, and of other nodes.
const CLIENTS: &str = "push-unix";
const PORTAL: &str = "push";
const CONTROL: &str = "push-control";
const OTHERS: &str = "push-mesh";
/// Doors stay closed so long until all that came before is here; who knocks waits.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Least memory for messages.
const MEMORY_MIN: usize = 16 << 20;
/// Requests of the portal at once: more than PHP has processes.
const PORTAL_CONNECTIONS: usize = 1024;
const OPERATORS: usize = 16;

/// The push & pull server of this node.
pub struct Push {
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    hub: OnceLock<Arc<Hub>>,
}

impl Push {
    pub fn new(config: Arc<Config>) -> Self {
        Push {
            config,
            metrics: Arc::default(),
            hub: OnceLock::new(),
        }
    }

    async fn serve(&self, mut cx: Cx) -> anyhow::Result<()> {
        let doors = Doors::take(&mut cx)?;
        let path = self.config.push_key();
        // The supervisor made it; a module of its own makes one for itself alone.
        let key = Secret::ensure(&path, Access::mode(0o600)).context("read the key that signs channels")?;
        let push = &self.config.push;
        let memory = match push.memory.bytes() {
            0 => usize::try_from(facts::memory() / 64)
                .unwrap_or(usize::MAX)
                .max(MEMORY_MIN),
            bytes => bytes,
        };
        let others = cx.take_tcp(OTHERS).into_iter().next();
        let join = |listener| membership::join(&self.config, (memory, self.metrics.clone()), listener, &cx.scope);
        let joined = others.map(join).transpose()?;
        let hub = match &joined {
            Some(joined) => joined.hub.clone(),
            None => Hub::new(memory, self.metrics.clone()),
        };
        let _ = self.hub.set(hub.clone());
        if joined.is_some() {
            hub.caught_up(CATCH_UP).await;
        }
        let seats = push.max_connections.min(Semaphore::MAX_PERMITS);
        let door = Door {
            desk: Arc::new(Desk {
                hub: hub.clone(),
                key: Key::new(key.expose()),
                metrics: self.metrics.clone(),
            }),
            open_to: For::Clients,
            seats: Arc::new(Semaphore::new(seats)),
            scope: cx.scope.clone(),
        };
        doors.open(&door, seats, &cx.scope)?;
        info!(memory, "the push server is open");
        let Some(joined) = joined else {
            hub.keep_house(cx.scope.clone()).await;
            return Ok(());
        };
        let mut over = pin!(joined.over());
        tokio::select! {
            () = hub.keep_house(cx.scope.clone()) => {}
            // Without it nothing is ordered: a new process begins anew.
            ended = over.as_mut() => return ended.context("the council of hubs"),
        }
        // Until another one orders, others ask for what is here.
        over.await.context("the council of hubs")
    }
}

/// Where the module is asked.
struct Doors {
    clients: Vec<StdUnixListener>,
    /// Who measures the module by itself hands down an address instead.
    without_front: Vec<StdTcpListener>,
    portal: Vec<StdTcpListener>,
    operators: Vec<StdUnixListener>,
}

impl Doors {
    fn take(cx: &mut Cx) -> anyhow::Result<Self> {
        let doors = Doors {
            clients: cx.take_unix(CLIENTS),
            without_front: cx.take_tcp(CLIENTS),
            portal: cx.take_tcp(PORTAL),
            operators: cx.take_unix(CONTROL),
        };
        ensure!(
            !doors.clients.is_empty() || !doors.without_front.is_empty(),
            "no socket named \"{CLIENTS}\" was handed down"
        );
        Ok(doors)
    }

    /// `door`: for clients; `seats`: how many connections they may have.
    fn open(self, door: &Door, seats: usize, scope: &Scope) -> anyhow::Result<()> {
        let permits = Arc::new(Semaphore::new(seats));
        for listener in self.clients {
            listener.set_nonblocking(true)?;
            let listener = UnixListener::from_std(listener).context("listen for clients")?;
            let door = door.clone();
            let handle = move |stream: UnixStream, _| door.clone().serve(stream);
            scope.spawn(serve(listener, permits.clone(), scope.clone(), handle));
        }
        let portal = Door {
            open_to: For::Portal,
            ..door.clone()
        };
        let of_portal = Arc::new(Semaphore::new(PORTAL_CONNECTIONS));
        let without_front = self
            .without_front
            .into_iter()
            .map(|listener| (listener, door, &permits));
        let of_php = self.portal.into_iter().map(|listener| (listener, &portal, &of_portal));
        for (listener, door, permits) in without_front.chain(of_php) {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener).context("listen on an address")?;
            let door = door.clone();
            let handle = move |stream: TcpStream, _| door.clone().serve(stream);
            scope.spawn(serve(listener, permits.clone(), scope.clone(), handle));
        }
        let permits = Arc::new(Semaphore::new(OPERATORS));
        for listener in self.operators {
            listener.set_nonblocking(true)?;
            let listener = UnixListener::from_std(listener).context("listen for operators")?;
            let (desk, tasks) = (door.desk.clone(), scope.clone());
            let handle = move |stream: UnixStream, _| control::serve(stream, desk.clone(), tasks.clone());
            scope.spawn(serve(listener, permits.clone(), scope.clone(), handle));
        }
        Ok(())
    }
}

impl Service for Push {
    fn name(&self) -> &'static str {
        "push"
    }

    fn run<'a>(&'a self, cx: Cx) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(self.serve(cx))
    }

    fn status(&self) -> Status {
        let Some(hub) = self.hub.get() else {
            return Status::starting();
        };
        let (websockets, polls) = self.metrics.open();
        let numbers = hub.numbers();
        let said = format!(
            "{websockets} WebSockets, {polls} long polls, {} channels, {} messages kept",
            numbers.channels, numbers.kept
        );
        match (hub.has_others(), hub.is_current()) {
            (true, false) => Status {
                health: Health::Degraded,
                detail: format!("{said}, out of step with the other nodes"),
            },
            (true, true) if hub.orders() => Status::good(format!("{said}, orders for all")),
            _ => Status::good(said),
        }
    }

    fn metrics(&self) -> String {
        self.hub
            .get()
            .map(|hub| self.metrics.encode(hub.numbers()))
            .unwrap_or_default()
    }
}
