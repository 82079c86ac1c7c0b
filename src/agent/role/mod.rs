//! The self-election: which exclusive seats this node claims, holds and gives up (DESIGN.md §6).
//!
//! ```text
//! Look (view, heartbeats, when they were read) ─► Memory ─► decide ─► Act ─┬─► change ─► Registry   claim, give up
//!                                         (pure)           (pure)          └─► Hands ─► supervisor  hold, release
//! ```
//!
//! Why no two nodes act in one seat at one instant (I7):
//! - A tenure begins with the commit of a claim, and lives as an unbroken chain: each link lasts until 3 s after a heartbeat was *sent*
//!   that was acknowledged before the link before it ran out. The first link stands on a heartbeat acknowledged before the commit began.
//! - Another node takes a seat only from a holder that gave it up, or from one whose newest heartbeat it has known for 4 s at a look
//!   that it began *after* it had read the holder in the registry. Had any link's heartbeat been acknowledged before that look,
//!   the look would have shown it: so the last link had run out by then, and no link can follow it.
//! - The writer of a Galera cluster is fenced where it writes: a server that is not in the Primary component acknowledges no change. So
//!   its seat is taken as soon as the taker's own server has answered, since the taker knew of this holder, that the group is there and
//!   the holder's server is not in it. Sessions of the former one may last a moment longer, and commit nothing: its supervisor cuts them
//!   once its server says that it is out, and when the chain has run out whatever it says.
//! - A chain that broke is never mended: the holder claims its own seat again, epoch + 1. That commit and the other node's are guarded
//!   by the same record; one of them fails.
//! - The view need not be the newest: nobody else can change the holder of a live chain. But an operator can let the seat go, so a
//!   link also lasts no longer than 3 s after the question for a view that gave this node the seat.
//! - The supervisor ends the act at the link's end by its own timer, whatever became of the agent. What it cannot do: end it while
//!   the whole machine stands still. The kernel's lifetime of an address does that.
//!
//! The work of some seats (`acme`) the agent does itself: it is told until when it may (`Election::own`), and each of its commits is guarded
//! by the record that it changes.

mod change;
mod decide;
#[cfg(test)]
mod decide_tests;
mod memory;
#[cfg(test)]
mod model_tests;
mod prefer;
mod run;
#[cfg(test)]
mod sim_tests;

use std::collections::BTreeSet;
use std::time::Duration;

use super::galera::group::Group;
use crate::cluster::{Place, Role, Seat, Snapshot};

pub use change::direct;
pub use run::{Election, Hands, Look, Tenures};

/// What a decision looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub snapshot: Snapshot,
    /// Nodes whose seats others may take.
    pub silent: BTreeSet<String>,
    /// What this node's database said of its group before the look.
    pub group: Group,
}

/// An answer of the database shows how its group was at most so long before the question: `evs.keepalive_period`.
const SHOWN: Duration = Duration::from_millis(300);

impl Seen {
    pub fn record(&self, place: &Place) -> Option<&Seat> {
        let mut seats = self.snapshot.seats.iter();
        seats.find(|seat| seat.role == place.role && seat.seat == place.seat)
    }

    pub fn is_silent(&self, node: &str) -> bool {
        self.silent.contains(node)
    }

    /// Its holder acts no more. `since`: when this node knew that it has it under this epoch; `None`: only now.
    pub fn is_lost(&self, place: &Place, holder: &str, since: Option<Duration>) -> bool {
        let group = &self.group;
        let is_out = group.nodes.contains(&self.snapshot.own) && !group.nodes.contains(holder);
        let is_recent = since.is_some_and(|since| group.asked >= since + SHOWN);
        let is_fenced = place.role == Role::Db && is_out && is_recent;
        self.is_silent(holder) || is_fenced
    }
}
