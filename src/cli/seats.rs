//! What `role`, `node drain` and `node label` share: the registry that is changed under a guard, the agent's snapshot that shows
//! what comes of it, and how an operator names a node or a seat.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::timeout;

use super::registry;
use crate::base::Scope;
use crate::cluster::{Member, Place, Role, Snapshot, Snapshots, follow, places};
use crate::config::Config;
use crate::registry::{Change, Error, Publish, Registry, View};

/// The agent sends what it knows at once.
const FIRST: Duration = Duration::from_secs(5);
/// Others change the same record at the same time seldom.
const ATTEMPTS: usize = 5;

/// A command's hold on the cluster. Its tasks end with it.
pub struct Cluster {
    pub registry: Publish,
    snapshots: Snapshots,
    scope: Scope,
}

impl Cluster {
    /// For root; the caller looks whether it is.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let registry = registry::open(config).await?;
        let scope = Scope::new();
        let mut snapshots = follow(config.view_socket(), &scope);
        let first = snapshots.wait_for(|snapshot| snapshot.revision > 0);
        let is_there = matches!(timeout(FIRST, first).await, Ok(Ok(_)));
        anyhow::ensure!(
            is_there,
            "the agent does not answer at {}; does bitrix-node run here?",
            config.view_socket().display()
        );
        Ok(Cluster {
            registry,
            snapshots,
            scope,
        })
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// Commits what `change` makes of the newest version, anew when others were quicker. `None`: there is nothing to do.
    pub async fn commit(
        &self,
        change: impl Fn(&View) -> anyhow::Result<Option<Change>>,
    ) -> anyhow::Result<Option<Arc<View>>> {
        for attempt in 1.. {
            let view = self.registry.read().await?;
            let Some(change) = change(&view)? else { return Ok(None) };
            match self.registry.commit(change).await {
                Ok(view) => return Ok(Some(view)),
                Err(Error::Stale(_)) if attempt < ATTEMPTS => {}
                Err(error) => return Err(error.into()),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Waits until `done` holds of a snapshot that is at least of this version; says whether it came to that. `now` hears each one.
    pub async fn wait(
        &mut self,
        revision: u64,
        patience: Duration,
        done: impl Fn(&Snapshot) -> bool,
        mut now: impl FnMut(&Snapshot),
    ) -> bool {
        let wait = async {
            loop {
                let snapshot = self.snapshots.borrow_and_update().clone();
                if snapshot.revision >= revision && !snapshot.is_stale {
                    if done(&snapshot) {
                        return true;
                    }
                    now(&snapshot);
                }
                if self.snapshots.changed().await.is_err() {
                    return false;
                }
            }
        };
        timeout(patience, wait).await.unwrap_or(false)
    }

    pub async fn close(self) {
        self.scope.stop(Duration::ZERO).await;
    }
}

/// A node of the cluster by its name.
pub fn member<'a>(snapshot: &'a Snapshot, name: &str) -> anyhow::Result<&'a Member> {
    snapshot.node(name).with_context(|| {
        let names: Vec<&str> = snapshot.nodes.iter().map(|node| node.name.as_str()).collect();
        format!("there is no node {name}; there are: {}", names.join(", "))
    })
}

/// Seats that an operator names: `cron`, `edge`, `edge/10.0.0.10`. Only those that go from node to node.
pub fn named(snapshot: &Snapshot, text: &str) -> anyhow::Result<Vec<Place>> {
    let (role, seat) = text
        .split_once('/')
        .map_or((text, None), |(role, seat)| (role, Some(seat)));
    let Some(role) = Role::parse(role) else {
        bail!(
            "there is no role {role:?}; the roles that can be moved are edge and cron, and db and backup where the data are on several nodes"
        );
    };
    anyhow::ensure!(
        role.moves(&snapshot.settings),
        "the {role} stays on the node that has it; the roles that can be moved are edge and cron, and db and backup where the data are on several nodes"
    );
    let mut known = places(&snapshot.settings);
    known.retain(|place| place.role == role);
    let Some(seat) = seat else {
        anyhow::ensure!(
            !known.is_empty(),
            "the cluster has no floating address, so {role} has no seat; the setting {} names them",
            crate::cluster::ADDRESSES
        );
        return Ok(known);
    };
    let keys: Vec<String> = known.iter().map(Place::key).collect();
    // The length of the network's prefix may be left out.
    known.retain(|place| place.seat == seat || place.seat.split('/').next() == Some(seat));
    anyhow::ensure!(
        !known.is_empty(),
        "{role} has no seat {seat}; there are: {}",
        keys.join(", ")
    );
    Ok(known)
}

/// Why the node cannot take a role now; `None`: it can.
pub fn obstacle(member: &Member, role: Role) -> Option<String> {
    let name = &member.name;
    let why = match (member.is_live, member.standing) {
        (false, _) => format!("{name} is silent; is it running?"),
        (_, crate::cluster::Standing::Draining) => format!("{name} drains; bitrix-node node undrain {name}"),
        (_, crate::cluster::Standing::Joining) => format!("{name} has not joined yet"),
        _ if !member.fit.has(role.needs()) => {
            format!(
                "{name} is not fit for {role}; `bitrix-node status` there shows what is wrong, `node label {name}` what is kept from it"
            )
        }
        _ if !member.has_room(role) => format!("the disk under the database of {name} is full; free some of it first"),
        _ => return None,
    };
    Some(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{ADDRESSES, Fit, Standing};

    fn snapshot() -> Snapshot {
        Snapshot {
            settings: [(ADDRESSES.to_string(), "10.0.0.10/24,fd00::10/64".to_string())].into(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn seats_are_named_in_short_and_what_is_none_is_refused_with_what_there_is() {
        let keys = |text: &str| {
            let places = named(&snapshot(), text).map_err(|error| error.to_string())?;
            Ok::<_, String>(places.iter().map(Place::key).collect::<Vec<_>>())
        };
        assert_eq!(keys("cron").unwrap(), ["cron"]);
        assert_eq!(keys("edge").unwrap(), ["edge/10.0.0.10/24", "edge/fd00::10/64"]);
        assert_eq!(keys("edge/10.0.0.10").unwrap(), ["edge/10.0.0.10/24"]);
        assert_eq!(keys("edge/fd00::10/64").unwrap(), ["edge/fd00::10/64"]);
        assert!(keys("edge/10.0.0.11").unwrap_err().contains("edge/10.0.0.10/24"));
        assert!(keys("web").unwrap_err().contains("edge and cron"));
        assert!(keys("db").unwrap_err().contains("stays"));
    }

    #[test]
    fn what_hinders_a_node_is_said() {
        let mut node = Member {
            name: "n2".into(),
            address: None,
            standing: Standing::Member,
            is_live: true,
            fit: Fit::EDGE,
        };
        assert_eq!(obstacle(&node, Role::Edge), None);
        assert!(obstacle(&node, Role::Cron).unwrap().contains("not fit"));
        node.standing = Standing::Draining;
        assert!(obstacle(&node, Role::Edge).unwrap().contains("undrain"));
        node.is_live = false;
        assert!(obstacle(&node, Role::Edge).unwrap().contains("silent"));
    }
}
