//! The council: the cache nodes decide among themselves who serves which shard, within a third of a second.
//!
//! The registry is too slow for it and only names the voters. What the rest of the cache needs of it is `Standing` (may this node serve, and who
//! does), the `Event`s that ask for something to be done, and `Placement`, which is the same on every node.
//!
//! What holds at every moment, whatever is lost, late, frozen or started anew (`sim_tests`):
//! - no two nodes may serve one shard;
//! - a node that serves a shard was in every table since it began empty, or began empty itself: it has nothing from before a partition.

mod event;
mod placement;
mod shard;
mod standing;
mod table;

pub use event::{Event, Told};
pub use placement::Placement;
pub use shard::{SHARDS, Shard, ShardSet};
pub use standing::{Reader, Route, Standing, StandingWriter, State};
pub use table::{Epoch, Node, Stage, Table, Term, majority};

#[cfg(test)]
pub use table::fixture;
