//! Floating addresses that this node is about to give to another one. What came by them gets its answer and no further one: a
//! connection cannot go along.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;

use crate::base::Scope;
use crate::cluster::{self, Snapshots};

/// How long an idle HTTP/1 connection by such an address is kept. Busy clients ask again within it.
pub const LAST_CHANCE: Duration = Duration::from_millis(500);

#[derive(Default)]
pub struct Leaving(watch::Sender<Vec<IpAddr>>);

impl Leaving {
    /// `local`: where a client reached us.
    pub fn has(&self, local: IpAddr) -> bool {
        self.0.borrow().contains(&local.to_canonical())
    }

    /// Resolves when the address leaves, or at once. Cancel safe.
    pub async fn leaves(&self, local: IpAddr) {
        let local = local.to_canonical();
        let mut all = self.0.subscribe();
        // The sender lives as long as this borrow of it.
        let _ = all.wait_for(|all| all.contains(&local)).await;
    }

    /// What the cluster says, until the scope drains.
    pub async fn follow(&self, mut snapshots: Snapshots, scope: Scope) {
        loop {
            let leaving = cluster::leaving(&snapshots.borrow_and_update());
            self.0.send_if_modified(|known| {
                let is_new = *known != leaving;
                *known = leaving;
                is_new
            });
            tokio::select! {
                () = scope.draining() => return,
                changed = snapshots.changed() => if changed.is_err() { return },
            }
        }
    }
}
