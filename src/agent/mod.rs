//! The agent: what is known of this node, for the operator.
//!
//! The supervisor and the modules send reports (`feed`), the board keeps the latest, `overview` judges them (pure),
//! and two doors show them: the control socket for root on this machine, the admin port for those who have the token.
//! `mesh` meets the agents of other nodes and lets machines join (`join`), `renew` keeps this node's certificate, `members` the storage's group.
//! Where the storage is on, `registry` follows the shared facts of the cluster and adds this node's own; `outlook` makes of them the
//! snapshot that the modules get (pure).

mod board;
mod door;
mod feed;
pub mod join;
mod members;
mod mesh;
mod outlook;
mod overview;
mod registry;
mod renew;
mod report;

use std::sync::Arc;

use anyhow::Context;
use tracing::info;

use crate::base::{BoxFuture, Cx, Service, Status};
use crate::cluster;
use crate::config::Config;
use crate::host::verb::Supervisor;
use crate::net::mesh::trust::Trust;

use board::Board;
pub use feed::send;
pub use mesh::Agents;
pub use overview::{Overview, Row, Verdict};
use registry::Follower;
pub use report::{ChildReport, Kind, Phase, Report};

pub struct Agent {
    config: Arc<Config>,
    board: Arc<Board>,
    registry: Arc<Follower>,
}

impl Agent {
    pub fn new(config: Arc<Config>) -> Self {
        let board = Arc::new(Board::new(config.clone()));
        let registry = Follower::new(board.clone());
        Agent {
            config,
            board,
            registry,
        }
    }

    async fn serve(&self, mut cx: Cx) -> anyhow::Result<()> {
        let feeds = cx.take_unix("feed");
        let controls = cx.take_unix("control");
        let admins = cx.take_tcp("admin");
        anyhow::ensure!(
            !feeds.is_empty() && !controls.is_empty(),
            "the supervisor handed down no control sockets"
        );
        for listener in feeds {
            feed::listen(listener, self.board.clone(), cx.scope.clone()).context("feed socket")?;
        }
        for listener in controls {
            door::control(listener, self.board.clone(), &cx.scope).context("control socket")?;
        }
        for listener in admins {
            door::admin(listener, &self.config, self.board.clone(), &cx.scope).context("admin port")?;
        }
        for listener in cx.take_unix("view") {
            cluster::publish(listener, self.registry.snapshots(), &cx.scope).context("view socket")?;
        }
        self.meet_others(&mut cx)?;
        let registry = self.registry.clone();
        cx.scope.spawn(registry.run(self.config.clone(), cx.scope.clone()));
        info!("agent serves");
        cx.scope.draining().await;
        Ok(())
    }
}

impl Agent {
    /// Where there may be other nodes: serves their agents and machines that join, keeps this node's certificate and the
    /// storage's members.
    fn meet_others(&self, cx: &mut Cx) -> anyhow::Result<()> {
        let listeners = cx.take_tcp("agent-mesh");
        let supervisor = match cx.take_pair("verbs") {
            Some(end) => Some(Arc::new(Supervisor::new(end).context("the pair with the supervisor")?)),
            None => None,
        };
        if listeners.is_empty() {
            return Ok(());
        }
        let root = supervisor.map(|supervisor| supervisor as Arc<dyn join::Root>);
        let parts = mesh::Parts {
            board: self.board.clone(),
            follower: self.registry.clone(),
            root: root.clone(),
        };
        let agents = mesh::Agents::start(&self.config, listeners, parts, &cx.scope)?;
        if let Some(root) = root {
            let (trust, snapshots) = (Trust::new(self.config.trust()), self.registry.snapshots());
            let kept = renew::keep(trust, root, agents, snapshots, cx.scope.clone());
            cx.scope.spawn(kept);
        }
        let kept = members::keep(self.config.clone(), self.registry.views(), cx.scope.clone());
        cx.scope.spawn(kept);
        Ok(())
    }
}

impl Service for Agent {
    fn name(&self) -> &'static str {
        "agent"
    }

    fn run<'a>(&'a self, cx: Cx) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(self.serve(cx))
    }

    fn status(&self) -> Status {
        self.registry.status()
    }

    fn metrics(&self) -> String {
        self.board.own_metrics()
    }
}
