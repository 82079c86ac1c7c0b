//! The targets of this front: its own PHP, and a target for every other node that the cluster has.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use tokio::time::Instant;

use super::pulse;
use super::roster::{Roster, Said};
use super::target::{Target, Way};
use crate::base::Scope;
use crate::net::mesh::{Addresses, Limits, Mesh, Name, TcpDial, Tls};
use crate::proxy::metrics::Metrics;

/// Label of this node's own PHP.
const LOCAL: &str = "local";

pub struct Table {
    local: Arc<Target>,
    /// The local one first.
    targets: RwLock<Arc<[Arc<Target>]>>,
    /// `None`: there are no others.
    links: Option<Links>,
    metrics: Arc<Metrics>,
    capacity: AtomicUsize,
    /// Name of this node, once the cluster said who is in it.
    own: RwLock<Option<Arc<str>>>,
}

/// Connections to other fronts.
struct Links {
    mesh: Mesh,
    directory: Directory,
    /// Not the module's: requests that are finished while it drains still need them.
    scope: Scope,
    /// Of each peer's pulse.
    pulses: Mutex<HashMap<Name, Scope>>,
}

/// Where nodes are met.
type Directory = Arc<Mutex<HashMap<Name, SocketAddr>>>;

impl Links {
    fn new(tls: Arc<Tls>) -> Self {
        let directory = Directory::default();
        let known = directory.clone();
        let addresses: Addresses =
            Arc::new(move |name| known.lock().expect("nothing panics under this lock").get(name).copied());
        let scope = Scope::new();
        Links {
            mesh: Mesh::new(Arc::new(TcpDial { tls, addresses }), Limits::default(), &scope),
            directory,
            scope,
            pulses: Mutex::default(),
        }
    }
}

impl Links {
    /// Lets go of the nodes that are no peers any more.
    fn gone(&self, roster: &Roster) -> Vec<Name> {
        let mut gone = Vec::new();
        let mut pulses = self.pulses.lock().expect("nothing panics under this lock");
        pulses.retain(|name, scope| {
            let stays = roster.peers.contains_key(name);
            if !stays {
                scope.drain();
                gone.push(name.clone());
            }
            stays
        });
        drop(pulses);
        let mut directory = self.directory.lock().expect("nothing panics under this lock");
        directory.retain(|name, _| !gone.contains(name));
        gone
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.scope.drain();
    }
}

impl Table {
    /// `tls`: how other fronts are met, if there are any. `capacity`: requests that this node's PHP works on at a time.
    pub fn new(tls: Option<Arc<Tls>>, capacity: usize, metrics: Arc<Metrics>) -> Self {
        let local = Target::new(
            LOCAL,
            Way::Local,
            Said::UNKNOWN,
            capacity,
            None,
            metrics.of_target(LOCAL),
        );
        Table {
            targets: RwLock::new(Arc::from([local.clone()])),
            local,
            links: tls.map(Links::new),
            metrics,
            capacity: AtomicUsize::new(capacity),
            own: RwLock::default(),
        }
    }

    pub fn local(&self) -> &Arc<Target> {
        &self.local
    }

    /// All of them, the local one first.
    pub fn targets(&self) -> Arc<[Arc<Target>]> {
        self.targets.read().expect("nothing panics under this lock").clone()
    }

    /// Whether a node may send us requests: its certificate is of our cluster, but it may have left.
    pub fn knows(&self, node: &Name) -> bool {
        let is_one = || self.targets().iter().any(|target| target.name == node.as_str());
        self.own().is_none() || is_one()
    }

    /// Name of this node, as the others know it; `None`: nobody said it yet.
    pub fn own(&self) -> Option<Arc<str>> {
        self.own.read().expect("nothing panics under this lock").clone()
    }

    pub fn set_capacity(&self, capacity: usize) {
        self.capacity.store(capacity, Ordering::Relaxed);
        self.local.set_capacity(capacity);
    }

    /// Takes up what the cluster says. Called by one task.
    pub fn follow(&self, roster: &Roster) {
        self.local.say(roster.local);
        let Some(links) = &self.links else { return };
        let own = (!roster.own.is_empty()).then(|| Arc::from(roster.own.as_str()));
        let before = std::mem::replace(&mut *self.own.write().expect("nothing panics under this lock"), own);
        // Those of the first roster were there before us, so they need no warming up.
        let since = before.map(|_| Instant::now());
        let before = self.targets();
        let mut targets = vec![self.local.clone()];
        for (name, (address, said)) in &roster.peers {
            let known = before
                .iter()
                .find(|target| target.name == name.as_str() && !target.is_local());
            links
                .directory
                .lock()
                .expect("nothing panics under this lock")
                .insert(name.clone(), *address);
            let target = match known {
                Some(known) => known.clone(),
                None => self.admit(links, name, *said, since),
            };
            target.say(*said);
            targets.push(target);
        }
        *self.targets.write().expect("nothing panics under this lock") = targets.into();
        for name in links.gone(roster) {
            links.mesh.forget(&name);
            self.metrics.forget_target(name.as_str());
        }
    }

    fn admit(&self, links: &Links, name: &Name, said: Said, since: Option<Instant>) -> Arc<Target> {
        let peer = links.mesh.peer(name);
        // Nodes are much alike; until it says its own number, ours is the best guess.
        let capacity = self.capacity.load(Ordering::Relaxed);
        let numbers = self.metrics.of_target(name.as_str());
        let target = Target::new(name.as_str(), Way::Peer(peer.clone()), said, capacity, since, numbers);
        let scope = links.scope.child();
        scope.spawn(pulse::feel(target.clone(), peer, scope.clone()));
        links
            .pulses
            .lock()
            .expect("nothing panics under this lock")
            .insert(name.clone(), scope);
        target
    }
}
