//! The privileged acts (`host::verb`), done for the agent alone: one file per verb.
//!
//! ```text
//! door      the pair with the agents, one after another: takes questions apart, bounds them, answers
//! sign      a node's certificate
//! secrets   what the nodes of a cluster share; also its writing, for one that joins
//! renew     this node's own certificate
//! ```
//!
//! Each act that changes something is one line in the log, with its reason. Nothing here reads from the network: what the agent
//! passes on from there is a name, a number or a key, and is looked at as such before it is used.

mod door;
mod renew;
pub mod secrets;
mod sign;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::base::Scope;
use crate::config::Config;
use crate::host::account::Account;
use crate::host::verb::{Answer, Verb};

use door::Door;

/// What the acts need.
struct Acts {
    config: Arc<Config>,
    /// The user of the modules.
    user: Account,
}

impl Acts {
    async fn perform(&self, verb: Verb) -> Answer {
        match verb {
            Verb::Sign { node, key } => sign::sign(&self.config, &node, &key),
            Verb::Secrets => secrets::gather(&self.config),
            Verb::Renew { certificate } => renew::renew(&self.config, &self.user, &certificate),
            Verb::Hold { .. } | Verb::Release { .. } => Answer::refused("this version holds nothing"),
            Verb::Upgrade { .. } => Answer::refused("this version is not upgraded by its agent"),
        }
    }
}

/// The acts of a running supervisor.
pub struct Verbs {
    scope: Scope,
}

impl Verbs {
    /// Returns the agents' end of the pair, too, handed down as "verbs". Must be called inside a runtime.
    pub fn start(config: Arc<Config>, user: &Account) -> io::Result<(Self, OwnedFd)> {
        let user = user.clone();
        let (door, end) = Door::new(Acts { config, user })?;
        let scope = Scope::new();
        scope.spawn(door.run(scope.clone()));
        Ok((Verbs { scope }, end))
    }

    /// Ends what is held; nothing is done any more after that.
    pub async fn stop(&self) {
        self.scope.stop(Duration::ZERO).await;
    }
}
