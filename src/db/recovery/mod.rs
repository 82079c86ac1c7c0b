//! How a Galera cluster comes up again, whatever went down in which order: by a written algorithm that fails closed. Pure; who looks
//! and who starts is elsewhere.
//!
//! ```text
//! grastate.dat, gvwstate.dat, --wsrep-recover ─► Report ─┐
//! the other nodes' reports and hearts, the registry ─────┴─► decide ─► Start
//! ```
//!
//! The rules, in this order:
//! 1. A server is started only from a report: its position is read from its own data, never left to the provider. (Restored views
//!    without a position form a cluster with an empty history.)
//! 2. Where a Primary component lives, a node joins it, one node at a time. Data of another history are not overwritten: that is
//!    refused, and so are data of a server that was none of Galera's.
//! 3. Without one, and if all database nodes are here and were in one and the same last view, all start with their positions.
//! 4. Else one is elected, among nodes of the cluster's own history: every database node must have reported, or those that have not
//!    were provably left behind. That is so when all members of the newest view that anybody here was in are here, and each of
//!    them was in none since: any later Primary view would have had one of them. An election breaks that chain, so each has the next
//!    epoch, and only views from the newest epoch count: a node's view is removed when it is started to join, and then its epoch noted.
//! 5. The highest number wins, then the lowest name. An empty node never does once the cluster has data; one whose data have no number
//!    that can be found has not reported. The provider's own
//!    `safe_to_bootstrap` decides nothing.
//! 6. Changes that an election did not know are lost, as after the operator's word. A node that has some, by its number and those of the
//!    elections after it, comes back with a copy of the others' data: what it lacks since would not fit on what it has more.
//! 7. What cannot be proven waits, and says for whom; two histories are refused. Only the operator's word goes beyond (I8, I11).

mod decide;
#[cfg(test)]
mod decide_tests;
pub mod grastate;
#[cfg(test)]
mod parted_tests;
mod position;
#[cfg(test)]
mod property_tests;
pub mod recovered;
pub mod status;
pub mod view;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use crate::host::verb::How;
pub use decide::decide;
pub use position::{Malformed, Position, Uuid};
pub use view::View;

/// What a node whose server does not run found in its own data folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// By `grastate.dat`, or by the data themselves where that does not know.
    pub position: Position,
    /// `safe_to_bootstrap`. For people.
    pub is_safe: bool,
    /// It has been a Galera node before, whatever became of it.
    pub is_galera: bool,
    /// The portal's database is there.
    pub has_portal: bool,
    pub view: Option<View>,
    /// Of the last election that it was started under; its view, if it has one, is not from before that.
    #[serde(default)]
    pub epoch: u64,
    /// A start with positions was tried from here, and no Primary component came of it.
    pub was_restored: bool,
}

/// What is known of a node's server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "server", rename_all = "lowercase")]
pub enum Server {
    Down {
        report: Report,
    },
    /// Started from that report; it may have died since.
    Started {
        how: How,
        report: Report,
    },
    /// It does not run, and what its data are cannot be said: nobody waits for it to begin or to join, and for no election has it
    /// reported. `tried`: a start with positions from there came to nothing.
    Broken {
        why: String,
        tried: Option<Report>,
    },
}

/// A database node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its heart beats: what it said last holds.
    pub is_live: bool,
    /// Its server is synced, in a Primary component.
    pub is_primary: bool,
    /// `None`: it has not said anything yet.
    pub server: Option<Server>,
}

/// What the registry knows of the whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// All database nodes that were not removed, by name.
    pub nodes: BTreeMap<String, Node>,
    /// The history of its data; `None`: it has none yet.
    pub history: Option<Uuid>,
    /// Of the last election.
    pub epoch: u64,
    /// The last elections, and the number that each began from.
    pub begun: Vec<(u64, i64)>,
    /// The node that the operator chose to begin from.
    pub forced: Option<String>,
}

/// What to do with the own server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// A Primary component lives.
    Join,
    /// The same, but its own data have what is lost: it takes a copy of the others'.
    JoinAnew,
    /// Together with all others, each with its position.
    WithPosition,
    /// Begin the cluster anew from these data. Only under the lease (see `db::control`).
    Bootstrap,
    /// For what.
    Wait(String),
    /// Why, and what the operator can do.
    Refuse(String),
}

impl Cluster {
    /// These data have changes that the cluster went on without (rule 6): some election since began from less. One that is not known
    /// any more counts as so.
    pub fn has_parted(&self, report: &Report) -> bool {
        if !report.position.is_known() || report.epoch >= self.epoch {
            return false;
        }
        let had_it_all = |election: u64| {
            let began = self.begun.iter().find(|(epoch, _)| *epoch == election);
            began.is_some_and(|(_, seqno)| report.position.seqno <= *seqno)
        };
        !(report.epoch + 1..=self.epoch).all(had_it_all)
    }

    fn names<'a>(nodes: impl IntoIterator<Item = &'a str>) -> String {
        let names: BTreeSet<&str> = nodes.into_iter().collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    }
}
