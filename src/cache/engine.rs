//! `Engine`: executes commands on this node's store, and holds what connections share. Where there are other nodes, `desk` decides
//! what is executed here.

use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};

use super::backend::Backend;
use super::command::{Command, Reply};
use super::hot::Hot;
use super::peer::Space;
use super::router::{Order, Patience, Router};
use super::stats;
use super::store::{Clock, Moment, Record, Store};

/// A block of places, and a doubled vector of chains.
const GROWTH: usize = 32 << 10;
const FULL: &str = "SERVER_ERROR out of memory storing object";

/// Everything that the connections of a cache share.
pub struct Engine {
    pub store: Arc<Store>,
    /// Where there are other nodes.
    route: OnceLock<Route>,
    /// Where items are not in the store.
    backend: OnceLock<Arc<Backend>>,
    /// What `flush_all` empties where there are none; `None`: nothing.
    pub flushed: Option<Arc<Store>>,
    pub hot: Arc<Hot>,
    pub clock: Clock,
    pub limits: Limits,
    rules: Rules,
    pub traffic: Traffic,
}

/// How the keys of these connections are placed.
pub struct Route {
    pub router: Arc<Router>,
    pub space: Space,
    /// What `flush_all` may do.
    pub flushes: Flushes,
}

/// What a client's `flush_all` empties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushes {
    /// That space, on all nodes.
    Space(Space),
    /// Nothing, and the client is told so.
    Nothing,
}

/// To whom `flush_all` may not be said.
pub const NO_FLUSH: &str = "CLIENT_ERROR flush_all not allowed";

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_connections: usize,
    pub workers: usize,
    pub tcp_port: u16,
}

/// What a command may do.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Items are dropped when memory is full; else new ones are refused.
    pub evicts: bool,
    pub allows_flush: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            evicts: true,
            allows_flush: true,
        }
    }
}

/// What connections have done since the start or since `stats reset`.
#[derive(Debug, Default)]
pub struct Traffic {
    pub connections: AtomicUsize,
    pub connections_total: AtomicU64,
    /// Times that the last free connection was taken, so that further ones had to wait.
    pub full: AtomicU64,
    pub bytes_read: AtomicU64,
    pub bytes_written: AtomicU64,
    pub flushes: AtomicU64,
    /// Values for which no memory was left.
    pub refused: AtomicU64,
}

impl Engine {
    /// Of a node that is alone.
    pub fn new(store: impl Into<Arc<Store>>, limits: Limits) -> Self {
        Self::with_rules(store, limits, Rules::default())
    }

    pub fn with_rules(store: impl Into<Arc<Store>>, limits: Limits, rules: Rules) -> Self {
        let store = store.into();
        Engine {
            flushed: rules.allows_flush.then(|| store.clone()),
            store,
            route: OnceLock::new(),
            backend: OnceLock::new(),
            hot: Arc::default(),
            clock: Clock::default(),
            limits,
            rules,
            traffic: Traffic::default(),
        }
    }

    /// From now on keys are placed on nodes.
    pub fn place(&self, route: Route) {
        // Said once, before the first connection.
        let _ = self.route.set(route);
    }

    pub fn route(&self) -> Option<&Route> {
        self.route.get()
    }

    /// From now on items are kept on a server.
    pub fn keep_in(&self, backend: Arc<Backend>) {
        // Said once, before the first connection.
        let _ = self.backend.set(backend);
    }

    pub fn backend(&self) -> Option<&Arc<Backend>> {
        self.backend.get()
    }

    /// Answers what `desk` could not answer at once; as much of it as has `enough` bytes.
    pub async fn perform(&self, orders: &mut [Order], enough: usize, patience: &mut Patience) {
        match (self.route(), self.backend()) {
            (Some(route), _) => route.router.perform(orders, enough, patience).await,
            (None, Some(backend)) => backend.perform(orders, enough).await,
            (None, None) => {}
        }
    }

    /// A client's `flush_all` is for what these connections see.
    pub fn flushes_own(&self) -> bool {
        self.flushed
            .as_ref()
            .is_some_and(|flushed| Arc::ptr_eq(flushed, &self.store))
    }

    pub fn execute(&self, command: Command<'_>, moment: Moment) -> Reply {
        match command {
            Command::Stats(words) => stats::answer(self, &words, moment),
            Command::Version => Reply::Version,
            Command::Verbosity | Command::Noop => Reply::Done,
            Command::Quit => Reply::Quit,
            Command::Set(set) if !self.rules.evicts && self.is_full_for(&set.record) => {
                stats::count(&self.traffic.refused, 1);
                Reply::Refused(FULL)
            }
            Command::Flush { .. } => {
                stats::count(&self.traffic.flushes, 1);
                let flushed = self.flushed.as_ref();
                let reply = flushed.and_then(|store| store.execute(command, moment.now));
                reply.unwrap_or(Reply::Refused(NO_FLUSH))
            }
            command => self.of_store(command, moment),
        }
    }

    /// Where nothing is dropped for it, a value needs its own bytes and what the tables may grow by.
    fn is_full_for(&self, record: &Record) -> bool {
        self.store.used() + record.footprint() + GROWTH > self.store.budget()
    }

    fn of_store(&self, command: Command<'_>, moment: Moment) -> Reply {
        self.store.execute(command, moment.now).unwrap_or(Reply::Unknown)
    }
}
