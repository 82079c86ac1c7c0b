//! The embedded store: items in memory, gone on restart.
//!
//! - Keys are spread over shards by a keyed hash (SipHash: a client cannot aim at one chain); one mutex a shard, held for
//!   one verb, never across an await, never two at once.
//! - The byte budget counts everything: records as the allocator rounds them, slots, hash tables, ghosts. It is one budget
//!   for all shards; a write that goes over it drops items of the shards in turn until it holds again, so memory is above
//!   the budget by at most one item a thread, for the moment between. Values still being sent are kept by their readers.
//! - Ends of life are exact to the millisecond when an item is met; `sweep` frees what nobody meets.
//! - What other nodes hold of it leaves and comes as states of keys (`copy`).
//! - Pure files: `policy` (who goes), `time` (expiry rules), `table`, `slab`, `record`.

mod copy;
mod policy;
mod record;
mod shard;
mod sharded;
mod slab;
mod table;
mod time;
mod verb;

#[cfg(test)]
mod model_tests;

pub use copy::{Copy, Cursor, State};
pub use record::{KEY_MAX, Record, SHARE_FROM, footprint};
pub use shard::Counters;
pub use sharded::{SHARDS, Store};
pub use time::{Clock, Expiry, Moment};
