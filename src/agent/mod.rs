//! The agent: what is known of this node, for the operator.
//!
//! The supervisor and the modules send reports (`feed`), the board keeps the latest, `overview` judges them (pure),
//! and two doors show them: the control socket for root on this machine, the admin port for those who have the token.
//! Where the storage is on, `registry` follows the shared facts of the cluster and adds this node's own; `outlook` makes of them the
//! snapshot that the modules get (pure), and `role` elects this node where it should be.

mod board;
mod door;
mod feed;
mod outlook;
mod overview;
mod registry;
mod report;
mod role;

use std::sync::Arc;

use anyhow::Context;
use tracing::info;

use crate::base::{BoxFuture, Cx, Service, Status};
use crate::cluster;
use crate::config::Config;
use crate::host::verb::Supervisor;

use board::Board;
pub use feed::send;
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
        let supervisor = match cx.take_pair("verbs") {
            Some(end) => Some(Arc::new(Supervisor::new(end).context("the pair with the supervisor")?)),
            None => None,
        };
        let hands = supervisor.map(|supervisor| supervisor as Arc<dyn role::Hands>);
        let registry = self.registry.clone();
        cx.scope
            .spawn(registry.run(self.config.clone(), hands, cx.scope.clone()));
        info!("agent serves");
        cx.scope.draining().await;
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
