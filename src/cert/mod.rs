//! Certificates of the portal, as all nodes have them: settings of the registry, one per set of names, with what becomes of it.
//!
//! ```text
//! agent of the node with the seat `acme` ─► Entry ─► setting `cert.of.ID` ─► snapshot ─► every front: Served
//!                                        (codec)                                        names → certificate
//!                                                                                       token → answer to a challenge
//! ```
//!
//! Settings are shown and lie in backups, so private keys and the account's are sealed in them (`seal`): only who has
//! `secrets/cert.key` opens them, root and the modules of a node of this cluster.
//! Beside them lie the keys of the fronts' session tickets (`tickets`), sealed as well.
//! Everything here is pure. Not here: how a certificate is got (`acme`), and who does that (`agent::cert`).

mod entry;
mod facts;
mod name;
mod renew;
mod seal;
mod served;
pub mod tickets;

pub use entry::{ACCOUNT, ByWhom, Certificate, Challenge, Entry, Failure, Kind, Order, PREFIX, Source, entries};
pub use facts::Facts;
pub use name::{is_covered, key, normal};
pub use renew::{after_failure, due, within};
pub use seal::{Sealed, Sealer};
pub use served::{Served, served};
