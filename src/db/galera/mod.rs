//! MariaDB as one node of a Galera cluster.
//!
//! ```text
//! render   its part of the configuration
//! ground   what a stopped server's data folder says; makes it ready for one start
//! order    one start at a time, and only by order
//! group    who is in it, as the server that runs says
//! writer   opens the server for writing while this node holds the role, and shuts it
//! ```
//!
//! The supervisor does all of it, by the typed verbs of the agent (`host::verb`); what to do is decided there
//! (`agent::galera`), from `db::recovery`.

pub mod ground;
pub mod group;
pub mod order;
pub mod render;
pub mod writer;

pub use order::{Orders, State};
