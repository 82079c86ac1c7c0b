//! The cluster as a module sees it: an immutable `Snapshot` that the agent makes of the registry and of the heartbeats, and
//! sends to each module of its node. Nobody but the agent reads the registry; a module keeps the last snapshot when the
//! agent is away.
//!
//! ```text
//! registry, heartbeats ─► agent ─► Snapshot ─ view socket ─► follow ─► watch::Receiver<Arc<Snapshot>> of a module
//! ```
//!
//! What must be decided within a third of a second, the nodes of a module decide among themselves: `council`.

pub mod council;
mod fit;
mod follow;
mod gate;
mod held;
mod leaving;
mod place;
mod role;
mod snapshot;

pub use fit::Fit;
pub use follow::{Snapshots, follow, publish};
pub use gate::tls;
pub use held::{Choose, Held};
pub use leaving::leaving;
pub use place::{ADDRESSES, CERTIFICATES, Directions, PINS, Place, TRANSFERS, addresses, places};
pub use role::{GALERA, Role};
pub use snapshot::{Member, Seat, Snapshot, Standing};
