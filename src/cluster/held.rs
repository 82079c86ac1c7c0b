//! A service that one node has for all, as the holder of a role: who holds it, and how it is met over the mesh.

use std::sync::Arc;

use anyhow::Context;

use super::{Role, Snapshot, Snapshots, follow};
use crate::base::Scope;
use crate::config::{Config, Port};
use crate::net::mesh::trust::Trust;
use crate::net::mesh::{Addresses, Name, Tls};
use crate::net::relay::{Connect, Here, Holder, Holding, Offer, Relay, Words};
use tokio::sync::watch;

/// What both sides of a relay need.
pub struct Held {
    pub tls: Arc<Tls>,
    holder: Holder,
    addresses: Addresses,
    snapshots: Snapshots,
}

/// Who has the service by a snapshot, best first; asked at each new one.
pub type Choose = Box<dyn FnMut(&Snapshot) -> Vec<Holding> + Send>;

impl Held {
    /// Follows the snapshots of the agent until the scope drains.
    pub fn follow(config: &Config, role: Role, module: Port, scope: &Scope) -> anyhow::Result<Self> {
        let snapshots = follow(config.view_socket(), scope);
        let tls = super::tls(&Trust::new(config.trust()), snapshots.clone(), scope);
        let tls = tls.context("this node's certificate")?;
        let known = snapshots.clone();
        let choose: Choose = Box::new(move |snapshot| holding(snapshot, role).into_iter().collect());
        Ok(Held {
            tls,
            holder: told(snapshots.clone(), choose, scope),
            addresses: Arc::new(move |name: &Name| known.borrow().node(name.as_str())?.port(module)),
            snapshots,
        })
    }

    /// Another service of the same module, which other nodes have.
    pub fn of(&self, choose: Choose, scope: &Scope) -> Self {
        Held {
            tls: self.tls.clone(),
            holder: told(self.snapshots.clone(), choose, scope),
            addresses: self.addresses.clone(),
            snapshots: self.snapshots.clone(),
        }
    }

    /// The side of the programs.
    pub fn relay(&self, words: Words, scope: &Scope) -> Arc<Relay> {
        let (tls, addresses) = (self.tls.clone(), self.addresses.clone());
        Relay::new(tls, addresses, self.holder.clone(), words, scope)
    }

    /// The same where this node may hold the service itself.
    pub fn relay_or_here(&self, words: Words, here: Here, scope: &Scope) -> Arc<Relay> {
        let (tls, addresses) = (self.tls.clone(), self.addresses.clone());
        Relay::with_here(tls, addresses, self.holder.clone(), words, Some(here), scope)
    }

    /// The side of the service.
    pub fn offer(&self, words: Words, connect: Connect) -> Arc<Offer> {
        Offer::new(self.tls.identity().node, self.holder.clone(), words, connect)
    }
}

fn told(snapshots: Snapshots, choose: Choose, scope: &Scope) -> Holder {
    let sender = watch::Sender::default();
    let holder = sender.subscribe();
    scope.spawn(tell(snapshots, choose, sender));
    holder
}

async fn tell(mut snapshots: Snapshots, mut choose: Choose, sender: watch::Sender<Vec<Holding>>) {
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        // An agent that has just started knows nothing yet: what was known holds.
        if snapshot.revision > 0 {
            let holding = choose(&snapshot);
            sender.send_if_modified(|known| {
                let is_new = *known != holding;
                *known = holding;
                is_new
            });
        }
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

/// Who holds the role. That its heart does not beat ends nothing: while nobody else holds the role, the sessions go on.
fn holding(snapshot: &Snapshot, role: Role) -> Option<Holding> {
    let seat = snapshot.seats.iter().find(|seat| seat.role == role)?;
    let node = snapshot.node(seat.holder.as_deref()?)?;
    Some(Holding {
        node: node.name.parse().ok()?,
        epoch: seat.epoch,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Fit, Member, Seat, Standing};

    fn snapshot(revision: u64, holder: Option<&str>, epoch: u64) -> Arc<Snapshot> {
        let member = |name: &str| Member {
            name: name.into(),
            address: Some("10.0.0.1:7400".parse().unwrap()),
            standing: Standing::Member,
            is_live: false,
            fit: Fit::NONE,
        };
        let seat = Seat {
            role: Role::Db,
            seat: String::new(),
            holder: holder.map(str::to_string),
            epoch,
        };
        Arc::new(Snapshot {
            revision,
            nodes: vec![member("n1"), member("n2")],
            seats: vec![seat],
            ..Snapshot::default()
        })
    }

    #[tokio::test]
    async fn the_holder_changes_with_the_seat_and_outlives_an_agent_that_knows_nothing() {
        let newest = watch::Sender::new(snapshot(1, Some("n1"), 3));
        let scope = Scope::new();
        let choose: Choose = Box::new(|snapshot| holding(snapshot, Role::Db).into_iter().collect());
        let mut holder = told(newest.subscribe(), choose, &scope);
        let mut is = async |node: Option<&str>, epoch| {
            let holding = |node: &str| Holding {
                node: node.parse().unwrap(),
                epoch,
            };
            let wanted: Vec<Holding> = node.map(holding).into_iter().collect();
            holder.wait_for(|now| *now == wanted).await.map(drop).unwrap();
            holder.mark_unchanged();
        };
        is(Some("n1"), 3).await;
        newest.send_replace(Arc::default());
        newest.send_replace(snapshot(2, Some("n1"), 4));
        is(Some("n1"), 4).await;
        newest.send_replace(snapshot(3, Some("n9"), 5));
        is(None, 5).await;
        newest.send_replace(snapshot(4, Some("n2"), 6));
        is(Some("n2"), 6).await;
        assert_eq!(holding(&snapshot(1, Some("n1"), 1), Role::Cache), None);
    }
}
