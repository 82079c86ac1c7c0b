//! `Db`: the module. With `db.run = false`, and in a Galera cluster, it listens in the place of MariaDB and relays to the node that holds
//! the role, which may be this one; everywhere
//! it answers the other nodes, and lets them in to MariaDB where that runs here and the role is held.
//!
//! A second port leads to a node that can be read from (`readers`): a Galera node other than the writer, where there is one.
//!
//! A session stays on one node whole, whatever is in it: every way to log in, TLS, locks, temporary tables.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use tracing::info;

use super::packet::{NO_SERVER, TOO_MANY, refusal};
use super::readers::Readers;
use crate::base::{BoxFuture, Cx, Scope, Service, Status};
use crate::cluster::{Held, Role};
use crate::config::{Config, Port};
use crate::metrics::names;
use crate::net::local::Local;
use crate::net::mesh::Tunnel;
use crate::net::relay::{self, Connect, Here, Offer, Refusal, Relay, Words};
use crate::net::tally::{More, Names};

const WORDS: Words = Words {
    authority: "db",
    refusal: |why| match why {
        Refusal::Full => refusal(TOO_MANY, "Too many connections wait for the database"),
        Refusal::Nobody => refusal(NO_SERVER, "No node of the cluster has the database now"),
        Refusal::Unreachable => refusal(NO_SERVER, "The node that has the database cannot be reached"),
    },
    metrics: Names {
        relayed: names::DB_RELAYED,
        refused: names::DB_REFUSED,
        more: Some(More {
            begun: names::DB_SESSIONS,
            cut: names::DB_CUT,
            seconds: names::DB_CONNECT_SECONDS,
        }),
    },
};

const READS: Words = Words {
    authority: "db-reads",
    metrics: Names {
        relayed: names::DB_READS_RELAYED,
        refused: names::DB_READS_REFUSED,
        more: Some(More {
            begun: names::DB_READS_SESSIONS,
            cut: names::DB_READS_CUT,
            seconds: names::DB_READS_CONNECT_SECONDS,
        }),
    },
    ..WORDS
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
    reads: Option<Reads>,
}

/// To read from, and for others to read from.
struct Reads {
    offer: Arc<Offer>,
    relay: Arc<Relay>,
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
        let here = door(config, true);
        let connect = match config.db.run {
            true => to_mariadb(here.clone()),
            false => relay::nowhere(),
        };
        let offer = held.offer(WORDS, connect);
        let reads = config.db.reads().map(|_| self.reads(&held, ways));
        let offers: Vec<Arc<Offer>> = std::iter::once(offer.clone())
            .chain(reads.as_ref().map(|reads| reads.offer.clone()))
            .collect();
        for listener in cx.take_tcp("db-mesh") {
            Offer::listen_all(offers.clone(), listener, held.tls.clone(), doors).context("answer other nodes")?;
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
        for listener in cx.take_tcp("db-reads") {
            let reads = reads.as_ref().context("db.reads is not set")?;
            reads.relay.listen(listener, doors).context("listen for reads")?;
        }
        info!(runs = config.db.run, "the way to the database is open");
        let _ = self.ways.set(Ways { offer, relay, reads });
        Ok(())
    }

    fn reads(&self, held: &Held, ways: &Scope) -> Reads {
        let config = &self.config;
        let mut readers = Readers::default();
        let held = held.of(Box::new(move |snapshot| readers.choose(snapshot)), ways);
        let here = door(config, false);
        match config.db.run {
            true => Reads {
                offer: held.offer(READS, to_mariadb(here.clone())),
                relay: held.relay_or_here(READS, here, ways),
            },
            false => Reads {
                offer: held.offer(READS, relay::nowhere()),
                relay: held.relay(READS, ways),
            },
        }
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
        let Some(ways) = self.ways.get() else {
            return String::new();
        };
        let way = ways
            .relay
            .as_ref()
            .map_or_else(|| ways.offer.metrics(), |relay| relay.metrics());
        let reads = ways.reads.as_ref().map(|reads| reads.relay.metrics());
        way + &reads.unwrap_or_default()
    }
}

/// Through its socket, not its port: no closed connection is left in TIME_WAIT, of which a busy portal would run out of ports. Where
/// MariaDB is one of several, it is open only while it is the writer, unless it is for reads, which it takes at any time; a session
/// waits for that, as long as its caller does.
fn door(config: &Config, is_written: bool) -> Here {
    let socket = config.db_socket();
    let mark = (config.db.galera && is_written).then(|| config.db_writer());
    Arc::new(move || {
        let (socket, mark) = (socket.clone(), mark.clone());
        Box::pin(async move {
            while mark.as_ref().is_some_and(|mark| !mark.exists()) {
                tokio::time::sleep(LOOK).await;
            }
            Local::connect(&socket)
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
