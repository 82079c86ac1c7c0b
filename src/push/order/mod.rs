//! The order of messages over the hubs of all nodes: each one shows the same messages in the same order, for a client has one id as its
//! cursor, wherever it comes back.
//!
//! One hub orders (`Lead`). Which, the council says: the owner of one fixed shard, while its lease holds. What holds at every moment,
//! whatever is lost, late, frozen or started anew (`sim_tests`):
//! - a hub delivers ids in growing order, and all hubs the same message under an id;
//! - a message is delivered and acknowledged when every hub that serves by the council's tables has it, and so two nodes at least, unless one
//!   is alone. So who orders next has all that any subscriber has seen, and who was frozen delivers nothing that others do not have;
//! - a publish comes once, however often its hub asks again.
//!
//! How (each rule is pure and in a file of its own; `Part` puts them together):
//! - **Log** (`log`): what a hub has delivered, and a tail that waits. A hub listens to the newest reign that it has heard of and to no older
//!   one; of an older reign's tail it keeps what the new one is known to have.
//! - **Reign** (`muster`): before it orders, a hub asks all others of the table how far they are, takes what it lacks, and begins ids above
//!   all that were. So a message that reached one hub only is either ordered for all, or for none and then asked for again.
//! - **Publishes** (`outbox`, `origins`): a hub sends its publishers' messages one batch after the other, with numbers. They stand in the log;
//!   whoever orders knows by the last one which it has.
//! - **Coming back** (`part`): a hub that was away asks from the end of what it delivered, is given the rest beside the running ones, and counts
//!   in when it has all. What it had delivered was on every hub that counted then, so nothing comes twice and nothing is left out.
//! - **Cursors** (`cursor`): a subscriber whose id is above what this hub has delivered waits until the hub has come there.
//!
//! What it costs: a hub that hangs holds up all until the council has left it out, about a third of a second. Without a majority (of two nodes:
//! without the one that votes) nothing is ordered: publishers are refused, subscribers stay, and get what they missed when it is there again.
//! When more nodes lose their memory or are cut off at once than the council bears, the longest log that is left goes on; then messages may be
//! lost, and a publish that was not acknowledged yet may come a second time.

pub mod cursor;
mod lead;
mod log;
mod message;
mod muster;
mod origins;
mod outbox;
mod part;
#[cfg(test)]
mod sim_tests;
pub mod wire;

pub use log::Log;
pub use message::Presence;
pub use part::{Act, Moment, Part};
