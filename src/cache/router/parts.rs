//! What a router is made of, and how.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, RwLock};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::memory::Memory;
use super::{Router, fill};
use crate::base::Scope;
use crate::cache::backend::Backend;
use crate::cache::class::Rules;
use crate::cache::council::{Standing, Told};
use crate::cache::peer::Space;
use crate::cache::store::{Clock, Store};
use crate::net::mesh::{Mesh, Name};

pub struct Parts {
    pub own: Name,
    pub rules: Rules,
    /// In the order of `Space::ALL`.
    pub stores: [Arc<Store>; Space::ALL.len()],
    /// Keeps the portal's items instead of its store.
    pub backend: Option<Arc<Backend>>,
    pub clock: Clock,
    pub standing: Standing,
    pub mesh: Mesh,
    /// The council's ear. Full: the router waits with what can wait.
    pub told: mpsc::Sender<Told>,
}

impl Router {
    /// Its tasks are tasks of `scope`.
    pub fn new(parts: Parts, scope: &Scope) -> Arc<Self> {
        let random = || getrandom::u32().unwrap_or_else(|_| std::process::id());
        for store in &parts.stores {
            // Far from those of other nodes, and below 2^53, which every client's numbers can hold.
            store.count_uniques_from(u64::from(random()) << 20);
        }
        if let Some(backend) = &parts.backend {
            backend.must_tell();
        }
        let router = Arc::new(Router {
            own: parts.own,
            rules: parts.rules,
            stores: parts.stores,
            backend: parts.backend,
            clock: parts.clock,
            standing: parts.standing,
            gate: RwLock::default(),
            outstanding: Arc::default(),
            memory: Memory::default(),
            keeper: Mutex::default(),
            filled: Mutex::default(),
            mesh: parts.mesh,
            told: parts.told,
            changed: watch::Sender::new(0),
            began: Instant::now(),
            run: random(),
            requests: AtomicU32::new(1),
            scope: scope.clone(),
        });
        scope.spawn(fill::run(router.clone()));
        router
    }
}
