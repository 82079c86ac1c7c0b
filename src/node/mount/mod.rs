//! The portal's files on this node: mounted before PHP starts, looked after, let go when PHP has ended.
//!
//! Here and not in a module of its own, because mounting is root's and the supervisor is all of root that there is. It touches no
//! mount itself: `host::mount`'s workers do, each with a deadline, so that a server that hangs never holds up the supervisor. Of a
//! FUSE mount it keeps the open device, which whichever storage process runs is handed.
//!
//! ```text
//! decide  what is mounted, how it answered → what to do next, and what to say (pure)
//! keeper  does it, from the first mount to the last
//! door    what the supervisor keeps of a FUSE mount
//! numbers for /metrics
//! ```
//!
//! A mount that hangs is left as it is: its server may come back, and then every call that waits goes on. Only one that can never
//! answer again is replaced.

mod decide;
mod door;
mod keeper;
mod numbers;

pub use super::keeper::State;
pub use decide::{Pulse, Title, say};
pub use door::{Closing, Inherited, Legacy};
pub use keeper::{DETACH, Keeper, MOUNT, NAME, PROBE, leave};
