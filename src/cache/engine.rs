//! `Engine`: executes commands on this node's store, and holds what connections share. Where there are other nodes, `desk` decides
//! what is executed here.

use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};

use super::command::{Command, Reply};
use super::hot::Hot;
use super::peer::Space;
use super::router::Router;
use super::stats;
use super::store::{Clock, Moment, Store};

/// Everything that the connections of a cache share.
pub struct Engine {
    pub store: Arc<Store>,
    /// Where there are other nodes.
    route: OnceLock<Route>,
    /// What `flush_all` empties where there are none; `None`: nothing.
    pub flushed: Option<Arc<Store>>,
    pub hot: Arc<Hot>,
    pub clock: Clock,
    pub limits: Limits,
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
pub const NO_FLUSH: &str = "SERVER_ERROR flush_all is switched off";

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_connections: usize,
    pub workers: usize,
    pub tcp_port: u16,
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
}

impl Engine {
    /// Of a node that is alone.
    pub fn new(store: impl Into<Arc<Store>>, limits: Limits) -> Self {
        let store = store.into();
        Engine {
            flushed: Some(store.clone()),
            store,
            route: OnceLock::new(),
            hot: Arc::default(),
            clock: Clock::default(),
            limits,
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

    pub fn execute(&self, command: Command<'_>, moment: Moment) -> Reply {
        match command {
            Command::Stats(words) => stats::answer(self, &words, moment),
            Command::Version => Reply::Version,
            Command::Verbosity | Command::Noop => Reply::Done,
            Command::Quit => Reply::Quit,
            Command::Flush { .. } => {
                stats::count(&self.traffic.flushes, 1);
                let flushed = self.flushed.as_ref();
                let reply = flushed.and_then(|store| store.execute(command, moment.now));
                reply.unwrap_or(Reply::Refused(NO_FLUSH))
            }
            command => self.of_store(command, moment),
        }
    }

    fn of_store(&self, command: Command<'_>, moment: Moment) -> Reply {
        self.store.execute(command, moment.now).unwrap_or(Reply::Unknown)
    }
}
