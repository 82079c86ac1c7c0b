//! The council: nodes that have a module decide among themselves who serves which shard of it, within a third of a second. The cache has one
//! for its keys, and the push server one for the order of its messages.
//!
//! The registry is too slow for it and only names members and voters. What the rest of the module needs of it is `Standing` (may this node serve, and who
//! does), the `Event`s that ask for something to be done, and `Placement`, which is the same on every node.
//!
//! What holds at every moment, whatever is lost, late, frozen or started anew (`sim_tests`):
//! - no two nodes may serve one shard;
//! - a node that serves a shard was in every table since it began empty, or began empty itself: it has nothing from before a partition.
//!
//! How (each rule is pure and in a file of its own):
//! - **Leader** (`stand`, `voter`, `campaign`). A voter that answers a leader promises not to vote for another for a lease and a bit. So a leader
//!   leads until a lease after the time up to which a majority has answered (`Lead::until`), and does nothing after that. Terms grow.
//! - **Lease** (`machine`, `lead`). A node asks the leader every 40 ms and may serve for a lease from when it *asked*. The leader takes a lease for
//!   over a bit later than the node does. A node that does not hear the answers gets no more.
//! - **Table** (`member`, `lead`, `plan`). A change has two steps. The leader sends the next table; each node stops serving what it will not own in it
//!   and says so. When all have, or their leases are over, and a majority of voters knows the table, it is in force. A node that was left out,
//!   or missed a table of the chain, forgets its data and asks to come back.
//! - **Inheritance** (`campaign`). A new leader takes over the newest table that its voters know. Nothing is on a disk, so it counts who remembers: if
//!   the others could have decided without them, it begins with an empty table.
//! - **Two members** (`driver`): one of them votes alone, for nobody could tell a dead one from a cut line. The cache outlives the other one; without
//!   the voter it waits, as the storage does, and begins empty with it. When a third comes, the voter must hear of it before it is cut off.
//! - **A new leader** must wait a lease for leases that others gave, but for those whose holders answer it, and for the leader before it, which had no
//!   more than its own.

mod campaign;
mod driver;
#[cfg(test)]
mod driver_tests;
mod event;
mod lead;
mod link;
mod machine;
mod member;
mod message;
mod placement;
mod plan;
mod shard;
#[cfg(test)]
mod sim_tests;
mod stand;
mod standing;
mod table;
mod timing;
mod voter;

pub use driver::{COUNCIL, Parts, Seat, Teller, start};
pub use event::{Event, Told};
pub use machine::{Act, Council};
pub use message::{Filled, Message};
pub use placement::Placement;
pub use shard::{SHARDS, Shard, ShardSet};
pub use standing::{Reader, Route, Standing, StandingWriter, State};
pub use table::{Epoch, Node, Stage, Table, Term};
pub use timing::Timing;

#[cfg(test)]
pub use table::fixture;

use crate::net::mesh::Name;

/// Who may have the module's data and who votes, by the registry. Names in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Grows with every change.
    pub version: u64,
    pub members: Vec<Name>,
    /// Of the members.
    pub voters: Vec<Name>,
}
