//! `Agent`: the service. Opens its doors, meets the others, starts what it looks after.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use tracing::{error, info};

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
use crate::net::tls::Certificate;

pub struct Agent {
    config: Arc<Config>,
    board: Arc<Board>,
    registry: Arc<Follower>,
    /// Of the admin port.
    certificates: Mutex<Vec<Arc<Certificate>>>,
}

impl Agent {
    pub fn new(config: Arc<Config>) -> Self {
        let board = Arc::new(Board::new(config.clone()));
        let registry = Follower::new(board.clone());
        Agent {
            config,
            board,
            registry,
            certificates: Mutex::default(),
        }
    }

    /// Shows the certificate of a new, valid configuration from now on, or that of the same files anew. All else stays until a restart.
    pub fn reconfigure(&self, config: &Config) {
        let (chain, key) = config.certificate();
        for shown in self.certificates().iter() {
            if let Err(error) = shown.reload(&chain, &key) {
                error!(%error, "the admin port shows the certificate that it had");
            }
        }
    }

    fn certificates(&self) -> MutexGuard<'_, Vec<Arc<Certificate>>> {
        self.certificates.lock().unwrap_or_else(PoisonError::into_inner)
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
            let shown = door::admin(listener, &self.config, source.clone(), &cx.scope).context("admin port")?;
            self.certificates().push(shown);
        }
        for listener in cx.take_unix("view") {
            cluster::publish(listener, self.registry.snapshots(), &cx.scope).context("view socket")?;
        }
        if let Some(root) = supervisor.clone() {
            let kept = upgrade::keep(self.config.clone(), self.registry.clone(), root, cx.scope.clone());
            cx.scope.spawn(kept);
        }
        if !self.config.db.galera {
            cx.scope.spawn(galera::retire(self.registry.clone(), cx.scope.clone()));
        } else if let Some(root) = supervisor.clone() {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::Scope;
    use crate::base::service::{NamedSocket, Socket};
    use crate::net::{listen, tls};

    #[tokio::test]
    async fn after_a_reload_the_admin_port_shows_what_the_files_hold_then() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let text = format!(
            "[node]\ndata_dir = {0:?}\nrun_dir = {0:?}\nlog_dir = {0:?}\n[proxy]\ncertificate = {1:?}\nkey = {2:?}\n",
            folder.path(),
            place("chain"),
            place("key"),
        );
        let config = Arc::new(crate::config::parse(&text, std::iter::empty()).unwrap().config);
        std::fs::create_dir_all(config.secrets()).unwrap();
        std::fs::write(config.secrets().join("admin.token"), "token").unwrap();
        // As certbot does; a copy of the chain is what a client believes.
        let renew = |copy: &str| {
            let (chain, key) = tls::self_signed(vec!["n1.example".into()]).unwrap();
            std::fs::write(place("chain"), &chain).unwrap();
            std::fs::write(place("key"), key).unwrap();
            std::fs::write(place(copy), chain).unwrap();
        };
        renew("first");
        let listener = listen::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let unix = |name: &str| Socket::Unix(listen::unix(&place(name)).unwrap());
        let named = |name: &str, socket| NamedSocket {
            name: name.to_string(),
            socket,
        };
        let scope = Scope::new();
        let cx = Cx {
            scope: scope.clone(),
            sockets: vec![
                named("feed", unix("feed")),
                named("control", unix("control")),
                named("admin", Socket::Tcp(listener)),
            ],
        };
        let shown = async |copy: &str| {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let connector = tls::Connector::new(Some(&place(copy))).unwrap();
            connector.connect("n1.example", stream).await.map(drop)
        };
        let agent = Agent::new(config.clone());
        let looked = async {
            shown("first").await.unwrap();
            renew("second");
            agent.reconfigure(&config);
            shown("second").await.unwrap();
            assert!(shown("first").await.is_err());
            // Half of a pair is no certificate: the one that was shown stays.
            std::fs::remove_file(place("key")).unwrap();
            agent.reconfigure(&config);
            shown("second").await.unwrap();
            scope.drain();
        };
        let (served, ()) = tokio::join!(agent.run(cx), looked);
        served.unwrap();
        scope.stop(Duration::ZERO).await;
    }
}
