//! The seat of the backups (`cluster::Role::Backup`), as the agent's snapshots tell of it to the process that makes one.
//!
//! Nothing comes to harm when two make one at the same time: each is whole. So it goes on while nobody can say who has the seat, and
//! ends only when another node is known to have it.

use std::time::Duration;

use anyhow::Context;
use tokio::time::timeout;

use crate::base::Scope;
use crate::cluster::{self, Role, Snapshot, Snapshots};
use crate::config::Config;

/// The agent says at once what it knows.
const ANSWER: Duration = Duration::from_secs(5);

pub struct Seat {
    snapshots: Snapshots,
    /// Its task ends with it.
    scope: Scope,
}

impl Seat {
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let scope = Scope::new();
        let mut snapshots = cluster::follow(config.view_socket(), &scope);
        let heard = timeout(ANSWER, snapshots.wait_for(|snapshot| snapshot.revision > 0)).await;
        heard
            .ok()
            .and_then(Result::ok)
            .map(drop)
            .context("the agent does not answer")?;
        Ok(Seat { snapshots, scope })
    }

    /// `None`: nobody has it, as far as is known.
    pub fn holder(&self) -> Option<String> {
        self.snapshots
            .borrow()
            .holder(Role::Backup)
            .map(|node| node.name.clone())
    }

    pub fn is_own(&self) -> bool {
        is_own(&self.snapshots.borrow()) == Some(true)
    }

    /// Resolves when another node has it.
    pub async fn lost(&self) {
        let mut snapshots = self.snapshots.clone();
        let lost = snapshots.wait_for(|snapshot| is_own(snapshot) == Some(false)).await;
        if lost.is_err() {
            std::future::pending().await
        }
    }

    pub async fn close(self) {
        self.scope.stop(Duration::ZERO).await;
    }
}

/// `None`: it is not known. Pure.
fn is_own(snapshot: &Snapshot) -> Option<bool> {
    let is_known = snapshot.revision > 0 && !snapshot.is_stale;
    let holder = snapshot.holder(Role::Backup).map(|node| node.name.as_str());
    is_known.then_some(holder == Some(snapshot.own.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Fit, Member, Standing};

    #[test]
    fn only_a_registry_that_answers_takes_the_seat_away() {
        let mut snapshot = Snapshot {
            revision: 3,
            own: "n2".into(),
            nodes: vec![Member {
                name: "n2".into(),
                address: None,
                standing: Standing::Member,
                is_live: true,
                fit: Fit::BACKUP,
            }],
            seats: vec![cluster::Seat {
                role: Role::Backup,
                seat: String::new(),
                holder: Some("n2".into()),
                epoch: 1,
            }],
            ..Snapshot::default()
        };
        assert_eq!(is_own(&snapshot), Some(true));
        snapshot.seats[0].holder = Some("n3".into());
        assert_eq!(is_own(&snapshot), Some(false));
        snapshot.is_stale = true;
        assert_eq!(is_own(&snapshot), None);
        assert_eq!(is_own(&Snapshot::default()), None);
    }
}
