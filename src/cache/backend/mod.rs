//! A memcached server in the place of the embedded store: `cache.backend` names it. It is this node's alone.
//!
//! The server keeps bytes under names, and no more (`wire`). What a command does to an item is said here, by the verbs of the embedded
//! store (`Store::execute_on`): an item is fetched, the command is executed on it, and what came of it is put back, under a lock of the
//! key. So answers are those of the embedded store, and other nodes get the same states of keys.
//!
//! - `name`: the name of a key. `envelope`: an item as bytes. `stamp`: which items count, so that dropping many is done at once.
//! - `link`: one connection. `server`: up or lost, watched by `memcache-async`; after a loss it begins empty, under other names.
//!   `walk`: all it holds.
//! - `perform` carries out a client's orders where there are no other nodes; where there are, `router` does.
//!
//! Whatever changes something runs in a task of its own, because it must not be left half done: who asked may go away at any time.

mod envelope;
mod item;
mod link;
mod list;
mod lock;
mod name;
mod perform;
mod server;
mod stamp;
mod void;
mod walk;
mod wire;

#[cfg(test)]
mod backend_tests;
#[cfg(test)]
mod loss_tests;
#[cfg(test)]
pub mod memcached_tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::{Mutex, RwLock, watch};

pub use self::item::{Changed, Puts};
pub use self::name::Name;
pub use self::server::{Lost, Numbers, PATIENCE, Seen};

use self::name::STRIPES;
use self::server::Server;
use super::class::Rules;
use super::store::{Clock, Store};
use crate::base::Scope;

/// What a backend is made of.
pub struct Parts {
    pub address: SocketAddr,
    /// A server that does not answer within this is lost.
    pub patience: Duration,
    /// Its verbs, counters and limits are used; items are in it for a moment only.
    pub bench: Arc<Store>,
    pub rules: Rules,
    pub clock: Clock,
}

pub struct Backend {
    server: Arc<Server>,
    bench: Arc<Store>,
    rules: Rules,
    clock: Clock,
    keys: Vec<RwLock<()>>,
    still: RwLock<()>,
    intake: Mutex<()>,
    /// When a delayed flush falls due.
    flush_at: AtomicU64,
    scope: Scope,
}

impl Backend {
    /// Its tasks are tasks of `scope`.
    pub fn new(parts: Parts, scope: &Scope) -> Arc<Self> {
        let random = || getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()) << 32);
        // Far from those of a process before this one, and below 2^53, which every client's numbers can hold.
        parts.bench.count_uniques_from(u64::from(random() as u32) << 20);
        let server = Arc::new(Server::new(parts.address, parts.patience, random()));
        scope.spawn(server::watch(server.clone(), scope.clone()));
        Arc::new(Backend {
            server,
            bench: parts.bench,
            rules: parts.rules,
            clock: parts.clock,
            keys: (0..STRIPES).map(|_| RwLock::default()).collect(),
            still: RwLock::default(),
            intake: Mutex::default(),
            flush_at: AtomicU64::new(void::NO_FLUSH),
            scope: scope.clone(),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    pub fn is_up(&self) -> bool {
        self.server.is_up()
    }

    pub fn seen(&self) -> watch::Receiver<Seen> {
        self.server.seen()
    }

    /// The server's, of a second ago at most; zeros while it is lost.
    pub fn numbers(&self) -> Numbers {
        self.server.numbers()
    }

    /// Where there are other nodes: after a loss nothing is served before `told` says that they know.
    pub fn must_tell(&self) {
        self.server.must_tell();
    }

    pub fn told(&self) {
        self.server.told();
    }

    fn now(&self) -> u64 {
        self.clock.moment().now
    }
}
