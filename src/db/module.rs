//! `Db`: the module. With `db.run = false`, and in a Galera cluster, it listens in the place of MariaDB and relays to the node that holds
//! the role, which may be this one; everywhere
//! it answers the other nodes, and lets them in to MariaDB where that runs here and the role is held.
//!
//! A session stays on one node whole, whatever is in it: every way to log in, TLS, locks, temporary tables.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use tokio::net::UnixStream;
use tracing::info;

use super::packet::{NO_SERVER, TOO_MANY, refusal};
use crate::base::{BoxFuture, Cx, Scope, Service, Status};
use crate::cluster::{Held, Role};
use crate::config::{Config, Port};
use crate::metrics::names;
use crate::net::mesh::Tunnel;
use crate::net::relay::{self, Connect, Here, Offer, Refusal, Relay, Words};

const WORDS: Words = Words {
    authority: "db",
    refusal: |why| match why {
        Refusal::Full => refusal(TOO_MANY, "Too many connections wait for the database"),
        Refusal::Nobody => refusal(NO_SERVER, "No node of the cluster has the database now"),
        Refusal::Unreachable => refusal(NO_SERVER, "The node that has the database cannot be reached"),
    },
    relayed: names::DB_RELAYED,
    refused: names::DB_REFUSED,
};

/// Between two looks whether MariaDB here is the writer already.
const LOOK: Duration = Duration::from_millis(10);

/// For the sessions of answers under way: as long as a front may take for one, and less than the supervisor has patience.
const GRACE: Duration = Duration::from_secs(27);

pub struct Db {
    config: Arc<Config>,
    ways: OnceLock<Ways>,
}

struct Ways {
    offer: Arc<Offer>,
    /// Where MariaDB runs elsewhere.
    relay: Option<Arc<Relay>>,
}

impl Db {
    pub fn new(config: Arc<Config>) -> Self {
        Db {
            config,
            ways: OnceLock::new(),
        }
    }

    async fn serve(&self, mut cx: Cx) -> anyhow::Result<()> {
        // Sessions that are under way when this module ends need their way to the holder, and hear of another one.
        let (doors, ways) = (Scope::new(), Scope::new());
        let served = self.listen(&mut cx, &doors, &ways);
        if served.is_ok() {
            cx.scope.draining().await;
            doors.stop(GRACE).await;
        }
        ways.stop(Duration::ZERO).await;
        served
    }

    fn listen(&self, cx: &mut Cx, doors: &Scope, ways: &Scope) -> anyhow::Result<()> {
        let config = &self.config;
        let held = Held::follow(config, Role::Db, Port::Db, ways)?;
        let here = door(config);
        let connect = match config.db.run {
            true => to_mariadb(here.clone()),
            false => relay::nowhere(),
        };
        let offer = held.offer(WORDS, connect);
        for listener in cx.take_tcp("db-mesh") {
            offer
                .listen(listener, held.tls.clone(), doors)
                .context("answer other nodes")?;
        }
        let relay = match (config.db.run, config.db.galera) {
            (true, true) => Some(held.relay_or_here(WORDS, here, ways)),
            (true, false) => None,
            (false, _) => Some(held.relay(WORDS, ways)),
        };
        for listener in cx.take_tcp("db") {
            let relay = relay.as_ref().context("MariaDB itself listens there")?;
            relay.listen(listener, doors).context("listen for PHP")?;
        }
        info!(runs = config.db.run, "the way to the database is open");
        let _ = self.ways.set(Ways { offer, relay });
        Ok(())
    }
}

impl Service for Db {
    fn name(&self) -> &'static str {
        "db"
    }

    fn run<'a>(&'a self, cx: Cx) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(self.serve(cx))
    }

    fn status(&self) -> Status {
        match self.ways.get() {
            None => Status::starting(),
            Some(Ways { relay: Some(relay), .. }) => relay.status(),
            Some(Ways { offer, .. }) => offer.status(),
        }
    }

    fn metrics(&self) -> String {
        match self.ways.get() {
            None => String::new(),
            Some(Ways { relay: Some(relay), .. }) => relay.metrics(),
            Some(Ways { offer, .. }) => offer.metrics(),
        }
    }
}

/// Through its socket, not its port: no closed connection is left in TIME_WAIT, of which a busy portal would run out of ports. Where
/// MariaDB is one of several, it is open only while it is the writer; a session waits for that, as long as its caller does.
fn door(config: &Config) -> Here {
    let socket = config.db_socket();
    let mark = config.db.galera.then(|| config.db_writer());
    Arc::new(move || {
        let (socket, mark) = (socket.clone(), mark.clone());
        Box::pin(async move {
            while mark.as_ref().is_some_and(|mark| !mark.exists()) {
                tokio::time::sleep(LOOK).await;
            }
            UnixStream::connect(socket).await
        })
    })
}

fn to_mariadb(here: Here) -> Connect {
    Arc::new(move || {
        let entered = here();
        Box::pin(async move {
            let mut server = entered.await?;
            let tunnel = move |stream| -> BoxFuture<'static, ()> {
                Box::pin(async move { relay::copy(&mut server, stream).await })
            };
            Ok(Box::new(tunnel) as Tunnel)
        })
    })
}
