//! `Push`: the service. Listens where the supervisor says, and keeps the hub's house.

use std::sync::{Arc, OnceLock};

use anyhow::{Context, ensure};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::info;

use super::control;
use super::desk::Desk;
use super::door::{Door, For};
use super::hub::Hub;
use super::key::Key;
use super::metrics::Metrics;
use crate::base::file::Access;
use crate::base::secret::Secret;
use crate::base::{BoxFuture, Cx, Service, Status};
use crate::config::Config;
use crate::host::facts;
use crate::net::serve::serve;

/// Names of the listening sockets: of clients by way of the front, of the portal, and of operators.
const CLIENTS: &str = "push-unix";
const PORTAL: &str = "push";
const CONTROL: &str = "push-control";
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
        let (portal, clients) = (cx.take_tcp(PORTAL), cx.take_unix(CLIENTS));
        // Who measures the module by itself hands down an address instead.
        let without_front = cx.take_tcp(CLIENTS);
        ensure!(
            !clients.is_empty() || !without_front.is_empty(),
            "no socket named \"{CLIENTS}\" was handed down"
        );
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
        let hub = Hub::new(memory, self.metrics.clone());
        let _ = self.hub.set(hub.clone());
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
        let permits = Arc::new(Semaphore::new(seats));
        for listener in clients {
            listener.set_nonblocking(true)?;
            let listener = UnixListener::from_std(listener).context("listen for clients")?;
            let door = door.clone();
            let handle = move |stream: UnixStream, _| door.clone().serve(stream);
            cx.scope
                .spawn(serve(listener, permits.clone(), cx.scope.clone(), handle));
        }
        for listener in without_front {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener).context("listen for clients")?;
            let door = door.clone();
            let handle = move |stream: TcpStream, _| door.clone().serve(stream);
            cx.scope
                .spawn(serve(listener, permits.clone(), cx.scope.clone(), handle));
        }
        let permits = Arc::new(Semaphore::new(PORTAL_CONNECTIONS));
        for listener in portal {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener).context("listen for the portal")?;
            let door = Door {
                open_to: For::Portal,
                ..door.clone()
            };
            let handle = move |stream: TcpStream, _| door.clone().serve(stream);
            cx.scope
                .spawn(serve(listener, permits.clone(), cx.scope.clone(), handle));
        }
        let permits = Arc::new(Semaphore::new(OPERATORS));
        for listener in cx.take_unix(CONTROL) {
            listener.set_nonblocking(true)?;
            let listener = UnixListener::from_std(listener).context("listen for operators")?;
            let (desk, scope) = (door.desk.clone(), cx.scope.clone());
            let handle = move |stream: UnixStream, _| control::serve(stream, desk.clone(), scope.clone());
            cx.scope
                .spawn(serve(listener, permits.clone(), cx.scope.clone(), handle));
        }
        info!(memory, "the push server is open");
        hub.keep_house(cx.scope.clone()).await;
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
        Status::good(format!(
            "{websockets} WebSockets, {polls} long polls, {} channels, {} messages kept",
            numbers.channels, numbers.kept
        ))
    }

    fn metrics(&self) -> String {
        self.hub
            .get()
            .map(|hub| self.metrics.encode(hub.numbers()))
            .unwrap_or_default()
    }
}
