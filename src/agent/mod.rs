//! The agent: what is known of this node, for the operator.
//!
//! The supervisor and the modules send reports (`feed`), the agent looks at the machine itself (`survey`), the board keeps the latest,
//! `overview` judges them (pure), and two doors show them: the control socket for root on this machine, the admin port for those who
//! have the token. For the whole cluster the other agents are asked at that moment (`inquiry`).
//! Where the storage is on, `registry` follows the shared facts of the cluster and adds this node's own; `outlook` makes of them the
//! snapshot that the modules get (pure).

mod board;
pub mod doctor;
mod door;
mod feed;
mod inquiry;
mod outlook;
mod overview;
mod ports;
mod registry;
mod report;
mod survey;

use std::sync::Arc;

use anyhow::Context;
use tracing::info;

use crate::base::{BoxFuture, Cx, Service, Status};
use crate::cluster;
use crate::config::Config;

use board::Board;
use door::Source;
pub use feed::send;
use inquiry::Inquiry;
pub use overview::{Certificate, Cluster, Data, Facts, NodeRow, Overview, Part, Quorum, Row, State, Verdict};
pub use ports::Reach;
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
        let inquiry = Inquiry::new(self.board.clone(), self.registry.snapshots(), None, &cx.scope);
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
        let registry = self.registry.clone();
        cx.scope.spawn(registry.run(self.config.clone(), cx.scope.clone()));
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
