//! The database nodes' control: each one's agent says what its own data are, decides by what all of them said (`db::recovery`), and has
//! the supervisor start MariaDB so.
//!
//! ```text
//! supervisor: State ─► record (settings of the registry, pure) ─► recovery::decide ─► change, guarded ─► Verb::Start
//! ```
//!
//! - A node's record says either what its data are while its server is down, or that it was started, and is changed *before* the
//!   start. So a record that says `down` at the moment of a commit is true at that moment. One that can be started no more says `broken`.
//! - The right to begin the cluster is one commit: guarded by the records of all nodes that the decision was made from, it takes the
//!   next epoch and notes its own node as started. Of two nodes that decide at once, one fails. It is over with that one start.
//! - Who is in the group now, and whether the server here keeps up with it, is asked beside that (`group`).
//! - Nothing here is remembered but the registry's; a new agent goes on where the last one was.

mod change;
pub mod group;
mod record;
mod run;

pub use record::{FORCE, cluster};
pub use run::{keep, retire};
