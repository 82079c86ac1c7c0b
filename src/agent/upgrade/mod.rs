//! Another version of bitrix-node in the whole cluster, node by node.
//!
//! The operator lays the file and its signature into the registry's folder (`parcel`) and names it in settings; each node's agent
//! takes its turn (`decide`, pure; `run`): drain, fetch, have it checked and installed by the supervisor, be well again, take work again. A node
//! that the operator had drained stays so.
//!
//! Settings: `upgrade.target` is what to run (`Target`), `upgrade.state` how it goes (`running`, `paused`, `failed: …`, `done`),
//! `upgrade.turn` whose turn it is. The turn is taken by a guarded commit, so there is one at a time. Which version a node runs is
//! its label `build`, that each agent writes of its own executable.
//!
//! Without the registry nothing goes on: a node whose turn it is stays drained until it can say that it has finished.

mod decide;
mod parcel;
mod run;
mod turn;

pub use parcel::{Parcel, Target};
pub use run::keep;
pub use turn::Turn;

use crate::registry::{Record, Setting};

/// Keys of the settings.
pub const TARGET: &str = "upgrade.target";
pub const STATE: &str = "upgrade.state";
pub const TURN: &str = "upgrade.turn";
/// Whether a node that nobody can stand in for may restart.
pub const DOWNTIME: &str = "upgrade.downtime";
/// Values of the state.
pub const RUNNING: &str = "running";
pub const PAUSED: &str = "paused";
pub const DONE: &str = "done";
/// Label of a node.
pub const BUILD: &str = "build";

pub fn setting(key: &str, value: &str) -> Record {
    Record::Setting(Setting {
        key: key.to_owned(),
        value: value.to_owned(),
    })
}
