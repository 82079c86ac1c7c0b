//! The router: brings each command to the node that has its key, and keeps a second copy of what must not be lost.
//!
//! - Messages between nodes are of one table: what was sent under another one is not executed, however late it comes.
//! - A node is asked by its own clients. What it owns it answers from its store at once (`desk`); for the rest it makes an `Order`
//!   that `perform` carries to the owner, again and again until it is answered or its time is up. A command that changes something is
//!   executed once however often it is carried (`memory`).
//! - An owner executes a command under the lock of its store and puts the *state* that came of it into the stream of each node that
//!   keeps a copy (`owner`, `stream`); the reply leaves when the copies are confirmed. A read of something that is not confirmed yet waits too.
//! - A node that keeps copies takes them from the owner of the shard only, in the order of the stream (`keeper`).
//! - Who owns what is the council's: the router looks at its `Standing` inside `gate`, and at the lease again before it answers.
//!   `change` carries out the council's events; `fill` brings items to a node that shall have them.
//!
//! Locks are taken in this order: `keeper`'s, `gate`, a stripe of `memory`, a shard of a store, a stream's queue.

mod asking;
mod change;
mod fan;
mod far;
mod fill;
mod handlers;
mod holding;
mod keeper;
mod memory;
mod order;
mod owner;
mod parts;
mod patience;
mod perform;
mod send;
mod stream;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub use handlers::{ITEM_MAX, LIMITS, services};
pub use order::{OnKey, Order, Work, give_up};
pub use owner::Entered;
pub use parts::Parts;
pub use patience::Patience;
pub use perform::DEADLINE;

use self::change::View;
use self::fill::Filled;
use self::keeper::Keeper;
use self::memory::Memory;
use self::stream::Outstanding;
use super::backend::Backend;
use super::class::{Class, Rules};
use super::council::{Standing, Told};
use super::peer::{RequestId, Space};
use super::store::{Clock, Store};
use crate::base::{Health, Scope, Status};
use crate::net::mesh::{Mesh, Name};

/// One node's part in the cluster's cache.
pub struct Router {
    own: Name,
    rules: Rules,
    stores: [Arc<Store>; Space::ALL.len()],
    /// Keeps the portal's items instead of its store.
    backend: Option<Arc<Backend>>,
    clock: Clock,
    standing: Standing,
    /// Held for reading while a command is executed, for writing while the view changes.
    gate: RwLock<View>,
    outstanding: Arc<Outstanding>,
    memory: Memory,
    keeper: Mutex<Keeper>,
    filled: Mutex<Filled>,
    mesh: Mesh,
    told: mpsc::Sender<Told>,
    /// Grows with every event: who waits looks again.
    changed: watch::Sender<u64>,
    /// Memory is kept by the clock that deadlines are measured by.
    began: Instant,
    run: u32,
    requests: AtomicU32,
    scope: Scope,
}

impl Router {
    /// How much care an item of that key needs. The composite storage makes anew what it misses.
    pub fn class(&self, space: Space, key: &[u8]) -> Class {
        match space {
            Space::Portal => self.rules.class(key),
            Space::Composite => Class::Bulk,
        }
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    fn store(&self, space: Space) -> &Store {
        &self.stores[space.index()]
    }

    /// A number that no other command has, of any node.
    pub fn request_id(&self) -> RequestId {
        let counter = self.requests.fetch_add(1, Ordering::Relaxed);
        u64::from(self.run) << 32 | u64::from(counter)
    }

    /// For the module's own row in `status`.
    pub fn status(&self, detail: &str) -> Status {
        let entered = self.enter();
        let health = if entered.has_table() {
            Health::Good
        } else {
            Health::Degraded
        };
        let detail = match (entered.is_alone(), entered.has_table()) {
            (true, _) => format!("{detail}; alone: no majority of nodes is in reach"),
            (false, false) => format!("{detail}; not among the other nodes' caches yet"),
            (false, true) => detail.to_string(),
        };
        Status { health, detail }
    }

    /// Milliseconds since the start.
    fn elapsed(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn filled(&self) -> std::sync::MutexGuard<'_, Filled> {
        self.filled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bump(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod cluster_tests;
