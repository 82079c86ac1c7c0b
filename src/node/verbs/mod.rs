//! The privileged acts (`host::verb`), done for the agent alone: one file per verb.
//!
//! ```text
//! door      the pair with the agents, one after another: takes questions apart, bounds them, answers
//! sign      a node's certificate
//! secrets   what the nodes of a cluster share; also its writing, for one that joins
//! renew     this node's own certificate
//! upgrade   another version of this executable
//! ```
//!
//! Each act that changes something is one line in the log, with its reason. Nothing here reads from the network: what the agent
//! passes on from there is a name, a number or a key, and is looked at as such before it is used.

mod door;
mod renew;
pub mod secrets;
mod sign;
mod upgrade;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::base::Scope;
use crate::config::Config;
use crate::host::account::Account;
use crate::host::pair::pair;
use crate::host::verb::{Answer, Verb};
use crate::node::reexec::Requests;
use crate::node::upgrade::Place;

use door::Door;

/// What the acts need.
struct Acts {
    config: Arc<Config>,
    /// The user of the modules.
    user: Account,
    place: Place,
    /// For another executable.
    requests: Requests,
}

impl Acts {
    async fn perform(&self, verb: Verb) -> Answer {
        match verb {
            Verb::Sign { node, key } => sign::sign(&self.config, &node, &key),
            Verb::Secrets => secrets::gather(&self.config),
            Verb::Renew { certificate } => renew::renew(&self.config, &self.user, &certificate),
            Verb::Hold { .. } | Verb::Release { .. } => Answer::refused("this version holds nothing"),
            Verb::Upgrade { hash } => upgrade::upgrade(&self.config, &self.place, &self.requests, &hash).await,
        }
    }
}

/// The acts of a running supervisor.
pub struct Verbs {
    scope: Scope,
    ours: OwnedFd,
    theirs: OwnedFd,
}

impl Verbs {
    /// Returns the agents' end of the pair, too, handed down as "verbs". `past`: the pair that the executable before this one had.
    /// Must be called inside a runtime.
    pub fn start(
        config: Arc<Config>,
        user: &Account,
        place: Place,
        requests: Requests,
        past: Option<(OwnedFd, OwnedFd)>,
    ) -> io::Result<(Self, OwnedFd)> {
        let user = user.clone();
        let (ours, theirs) = past.map_or_else(pair, Ok)?;
        let verbs = Verbs {
            scope: Scope::new(),
            ours: ours.try_clone()?,
            theirs: theirs.try_clone()?,
        };
        let acts = Acts {
            config,
            user,
            place,
            requests,
        };
        let door = Door::new(acts, ours)?;
        verbs.scope.spawn(door.run(verbs.scope.clone()));
        Ok((verbs, theirs))
    }

    /// For the next executable: the name of the pair, and copies of both ends.
    pub fn legacy(&self) -> io::Result<(&'static str, OwnedFd, OwnedFd)> {
        Ok(("verbs", self.ours.try_clone()?, self.theirs.try_clone()?))
    }

    /// Ends what is held; nothing is done any more after that.
    pub async fn stop(&self) {
        self.scope.stop(Duration::ZERO).await;
    }
}
