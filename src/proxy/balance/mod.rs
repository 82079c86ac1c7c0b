//! The balancing front: a request that PHP answers goes to the best target, which is the local PHP-FPM or the front of another node.
//!
//! ```text
//! visit ─► balancer ─► choose (pure) ─┬─► local PHP-FPM
//!              │ retry, budget (pure) └─► peer ─ mesh, HTTP/2 ─► door of another front ─► its own PHP-FPM
//!              table ◄─ roster (pure) ◄─ Snapshot        pulse ─► each peer, once a second
//! ```
//!
//! - Every node does this, so it does not matter which front a client reached. A front that got a request from another one
//!   answers it itself: what came over the mesh is never sent on. Only the mesh's door can say that a request did (`hop`).
//! - Files are served where the client is. Where the portal's files are not there (`Fit::WEB` is missing), everything goes elsewhere.
//! - A target is judged by what it does (`health`: failures, lost connections), by its pulse, and by the snapshot. A snapshot that is
//!   stale removes nobody. When no target seems to live, the least doubtful one is tried all the same.
//! - What failed is repeated once, on another target, where that is safe (`retry`), within a budget (`budget`).
//!   An answer that has begun is never repeated.
//! - A node that drains gets nothing new from other fronts, and sends its own clients' requests to them.
//!
//! WebSockets and other upgrades do not pass between fronts: PHP knows none, and further upstreams are each front's own.
//! A body of unknown length is collected before PHP gets it, so a request with one is repeated only when its target could not be reached.

pub mod affinity;
mod balancer;
mod budget;
mod choose;
mod door;
mod health;
pub mod hop;
mod loan;
mod peer;
mod pulse;
mod retry;
mod roster;
mod table;
mod target;

pub use balancer::{Balancer, Local, Manner};
pub use door::Door;
