//! The privileged acts (`host::verb`), done for the agent alone: one file per verb.
//!
//! ```text
//! acts      which act each verb is
//! door      the pair with the agents, one after another: takes questions apart, bounds them, answers
//! holder    holds of exclusive seats: begun, renewed, released, ended
//! holdings  which are held, until when, and which epochs were seen (pure)
//! note      what the next supervisor must know of them
//! means     how they are carried out: addresses, and by
//! cron      the portal's jobs, each run with its
//! guard     which ends it in time
//! sign      a node's certificate
//! secrets   what the nodes of a cluster share; also its writing, for one that joins
//! database  MariaDB as a node of a Galera cluster: looked at, started, ended
//! renew     this node's own certificate
//! parts     what all of that is done with
//! upgrade   another version of this executable
//! ```
//!
//! Each act that changes something is one line in the log, with its reason. Nothing here reads from the network: what the agent
//! passes on from there is a name, a number or a key, and is looked at as such before it is used.

mod acts;
mod cron;
mod database;
mod door;
pub mod guard;
mod holder;
mod holdings;
mod means;
mod note;
mod parts;
mod renew;
pub mod secrets;
mod sign;
mod upgrade;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::galera;
use crate::base::Scope;
use crate::db::galera::group::Group;
use crate::db::galera::writer::Gate;
use crate::host::pair::pair;
use crate::net::mesh::trust::Trust;

use acts::Acts;
use cron::Cron;
use door::Door;
use holder::Holder;
use means::Means;
use note::Note;

pub use parts::Parts;

/// The portal expects its jobs so often.
pub const MINUTE: Duration = Duration::from_secs(60);

type Pair = (OwnedFd, OwnedFd);

/// The acts of a running supervisor.
pub struct Verbs {
    holder: Arc<Holder>,
    scope: Scope,
    /// Ours and the agents'. Between two agents nobody else has theirs, and ours must not take that for the end.
    pair: Pair,
}

impl Verbs {
    /// Returns the agents' end of the pair, too, handed down as "verbs". Must be called inside a runtime.
    pub fn start(parts: Parts) -> io::Result<(Self, OwnedFd)> {
        let (config, user, scope) = (parts.config, parts.user, Scope::new());
        let cluster = Trust::new(config.trust()).identity();
        let cluster = cluster.map(|own| own.cluster.to_string()).unwrap_or_default();
        let note = Note::new(&config.node.run_dir, cluster)?;
        let cron = Cron {
            config: config.clone(),
            executable: parts.executable.to_path_buf(),
            output: parts.output,
            note: parts.leftover,
            scope: scope.clone(),
            period: parts.period,
        };
        let means = Means {
            config: config.clone(),
            executable: parts.executable.to_path_buf(),
            user: user.clone(),
            doors: parts.doors,
            cron,
            gate: Arc::new(Gate::new(config.db_socket(), config.db_writer())),
        };
        if config.db.galera {
            let goes_on = parts.past.is_some() || galera::is_unit(config);
            means::begin_shut(&means.gate, goes_on, &scope);
            let renewed = parts.renewed.subscribe();
            scope.spawn(database::renew(config.clone(), renewed, goes_on, scope.clone()));
        }
        let holder = Holder::new(note, means, scope.clone(), parts.past.is_some());
        let acts = Acts {
            config: config.clone(),
            user: user.clone(),
            holder: holder.clone(),
            upgrade: parts.upgrade,
            orders: parts.orders,
            group: Group::new(config.db_socket()),
            renewed: parts.renewed,
        };
        let pair = parts.past.map_or_else(pair, Ok)?;
        let (door, theirs) = (Door::new(acts, pair.0.try_clone()?)?, pair.1.try_clone()?);
        scope.spawn(door.run(scope.clone()));
        Ok((Verbs { holder, scope, pair }, theirs))
    }

    /// For the next executable: the name of the pair, and copies of both ends.
    pub fn legacy(&self) -> io::Result<(&'static str, OwnedFd, OwnedFd)> {
        Ok(("verbs", self.pair.0.try_clone()?, self.pair.1.try_clone()?))
    }

    /// Ends what is held; nothing is held any more after that, and the agent is told so until the end.
    pub async fn let_go(&self) {
        self.holder.stop().await;
    }

    /// After the agent's end.
    pub async fn stop(&self) {
        self.scope.stop(Duration::ZERO).await;
    }
}
