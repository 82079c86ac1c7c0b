//! `Agent`: the service. Opens its doors, meets the others, starts what it looks after.

use std::sync::Arc;

use anyhow::Context;
use tracing::info;

use super::board::Board;
use super::door::{self, Source};
use super::inquiry::{Inquiry, Others};
use super::mesh::{self, Agents};
use super::registry::Follower;
use super::{cert, feed, galera, members, renew, role, survey, upgrade};
use crate::base::{BoxFuture, Cx, Service, Status};
use crate::cluster;
use crate::config::{Config, Engine};
use crate::host::verb::{Root, Supervisor};
use crate::net::mesh::trust::Trust;

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
        let supervisor = match cx.take_pair("verbs") {
            Some(end) => Some(Arc::new(Supervisor::new(end).context("the pair with the supervisor")?)),
            None => None,
        };
        let agents = self.meet_others(&mut cx, supervisor.clone())?;
        let others = agents.map(|agents| Arc::new(agents) as Arc<dyn Others>);
        let inquiry = Inquiry::new(self.board.clone(), self.registry.snapshots(), others, &cx.scope);
        let source = Source {
            board: self.board.clone(),
            inquiry: Arc::new(inquiry),
        };
        cx.scope
            .spawn(survey::run(self.config.clone(), self.board.clone(), cx.scope.clone()));
        for listener in controls {
            door::control(listener, source.clone(), &cx.scope).context("control socket")?;
        }
        for listener in admins {
            door::admin(listener, &self.config, source.clone(), &cx.scope).context("admin port")?;
        }
        for listener in cx.take_unix("view") {
            cluster::publish(listener, self.registry.snapshots(), &cx.scope).context("view socket")?;
        }
        if let Some(root) = supervisor.clone() {
            let kept = upgrade::keep(self.config.clone(), self.registry.clone(), root, cx.scope.clone());
            cx.scope.spawn(kept);
        }
        if let Some(root) = supervisor.clone().filter(|_| self.config.db.galera) {
            let (follower, board, scope) = (self.registry.clone(), self.board.clone(), cx.scope.clone());
            cx.scope
                .spawn(galera::group::follow(follower, board, root.clone(), scope.clone()));
            cx.scope.spawn(galera::keep(self.registry.clone(), root, scope));
        }
        if self.config.storage.engine != Engine::None {
            cx.scope
                .spawn(cert::keep(self.config.clone(), self.registry.clone(), cx.scope.clone()));
        }
        let hands = supervisor.map(|supervisor| supervisor as Arc<dyn role::Hands>);
        let followed = self.registry.clone().run(self.config.clone(), hands, cx.scope.clone());
        cx.scope.spawn(followed);
        info!("agent serves");
        cx.scope.draining().await;
        Ok(())
    }

    /// Where there may be other nodes: serves their agents and machines that join, keeps this node's certificate and the
    /// storage's members. Returns the way to the others.
    fn meet_others(&self, cx: &mut Cx, supervisor: Option<Arc<Supervisor>>) -> anyhow::Result<Option<Agents>> {
        let listeners = cx.take_tcp("agent-mesh");
        if listeners.is_empty() {
            return Ok(None);
        }
        let root = supervisor.map(|supervisor| supervisor as Arc<dyn Root>);
        let parts = mesh::Parts {
            board: self.board.clone(),
            follower: self.registry.clone(),
            root: root.clone(),
        };
        let agents = Agents::start(&self.config, listeners, parts, &cx.scope)?;
        if let Some(root) = root {
            let (trust, snapshots) = (Trust::new(self.config.trust()), self.registry.snapshots());
            let kept = renew::keep(trust, root, agents.clone(), snapshots, cx.scope.clone());
            cx.scope.spawn(kept);
        }
        let kept = members::keep(self.config.clone(), self.registry.views(), cx.scope.clone());
        cx.scope.spawn(kept);
        Ok(Some(agents))
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
