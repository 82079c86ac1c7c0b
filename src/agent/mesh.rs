//! Agents among themselves: what another node's agent may ask of this one, and this one of others. On the same port machines ask
//! to join (`join`).

use std::net::TcpListener as StdTcpListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use tokio::net::TcpListener;

use super::board::Board;
use super::inquiry::Others;
use super::join::Door;
use super::overview::Overview;
use super::ports::{Prober, Reach};
use super::registry::Follower;
use super::renew::Renewals;
use crate::base::{BoxFuture, Scope};
use crate::cluster;
use crate::config::{Config, Engine};
use crate::host::verb::Root;
use crate::net::mesh::trust::Trust;
use crate::net::mesh::{Class, Fault, Guests, Handler, Identity, Limits, Mesh, Name, Server, Services, TcpDial};

/// Services of the agent's port. Never reused for something else.
const OVERVIEW: u16 = 1;
pub const RENEW: u16 = 2;
const PORTS: u16 = 3;

/// Another node's answer; it is asked by people who wait, and by a renewal that is repeated.
const PATIENCE: Duration = Duration::from_secs(5);

/// Few calls, and none is large: an overview lists a node's services.
const LIMITS: Limits = Limits {
    body: 1 << 20,
    queued: 4 << 20,
    outstanding: 64,
    concurrent: 64,
    received: 4 << 20,
};

/// Calls to the agents of other nodes. Clones share the connections.
#[derive(Clone)]
pub struct Agents {
    pub(super) mesh: Mesh,
    pub(super) prober: Prober,
}

/// What a node among others is made of.
pub struct Parts {
    pub board: Arc<Board>,
    pub follower: Arc<Follower>,
    /// `None`: there is no supervisor that would do what only root does.
    pub root: Option<Arc<dyn Root>>,
}

impl Agents {
    /// Serves other agents and machines that join, until the scope drains.
    pub fn start(config: &Config, listeners: Vec<StdTcpListener>, parts: Parts, scope: &Scope) -> anyhow::Result<Self> {
        let trust = Trust::new(config.trust());
        let snapshots = parts.follower.snapshots();
        let tls = cluster::tls(&trust, snapshots.clone(), scope).context("this node's certificate")?;
        let overview: Arc<dyn Handler> = Arc::new(OverviewHandler(parts.board));
        let prober = Prober {
            tls: tls.clone(),
            snapshots: snapshots.clone(),
            has_storage: config.storage.engine == Engine::Replicated,
        };
        let ports: Arc<dyn Handler> = Arc::new(PortsHandler(prober.clone()));
        let mut handlers = vec![(OVERVIEW, overview), (PORTS, ports)];
        let follower = parts.follower.clone();
        let mut guests = None;
        if let Some(root) = &parts.root {
            handlers.push((RENEW, Arc::new(Renewals::new(follower.views(), root.clone()))));
            let source = Arc::new(move || follower.registry());
            let door = Door::new(source, root.clone(), trust.authority_pem()?);
            guests = Some(Arc::new(door) as Arc<dyn Guests>);
        }
        let server = Arc::new(Server {
            tls: tls.clone(),
            services: handlers.into_iter().collect::<Services>(),
            streams: None,
            limits: LIMITS,
        });
        for listener in listeners {
            let listener = TcpListener::from_std(listener).context("the agents' port")?;
            match guests.clone() {
                Some(guests) => scope.spawn(server.clone().serve_with(listener, guests, scope.clone())),
                None => scope.spawn(server.clone().serve(listener, scope.clone())),
            };
        }
        let addresses = Arc::new(move |name: &Name| snapshots.borrow().node(name.as_str())?.address);
        let mesh = Mesh::new(Arc::new(TcpDial { tls, addresses }), LIMITS, scope);
        Ok(Agents { mesh, prober })
    }

    pub async fn call(&self, node: &str, service: u16, body: Bytes) -> anyhow::Result<Bytes> {
        let name: Name = node.parse()?;
        let answer = self.mesh.peer(&name).call(Class::Calls, service, body, PATIENCE).await;
        answer.with_context(|| format!("ask the agent of {node}"))
    }
}

impl Others for Agents {
    fn overview<'a>(&'a self, node: &'a str) -> BoxFuture<'a, anyhow::Result<Overview>> {
        Box::pin(async move {
            let answer = self.call(node, OVERVIEW, Bytes::new()).await?;
            serde_json::from_slice(&answer).with_context(|| format!("the overview of {node}"))
        })
    }

    fn ports<'a>(&'a self, node: Option<&'a str>) -> BoxFuture<'a, anyhow::Result<Vec<Reach>>> {
        Box::pin(async move {
            let Some(node) = node else {
                return Ok(self.prober.try_all().await);
            };
            let answer = self.call(node, PORTS, Bytes::new()).await?;
            serde_json::from_slice(&answer).with_context(|| format!("the ports that {node} tried"))
        })
    }
}

struct OverviewHandler(Arc<Board>);

impl Handler for OverviewHandler {
    fn call<'a>(&'a self, _peer: &'a Identity, _body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            let overview = serde_json::to_vec(&self.0.overview()).expect("plain data");
            Ok(overview.into())
        })
    }
}

struct PortsHandler(Prober);

impl Handler for PortsHandler {
    fn call<'a>(&'a self, _peer: &'a Identity, _body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            let ports = serde_json::to_vec(&self.0.try_all().await).expect("plain data");
            Ok(ports.into())
        })
    }
}
