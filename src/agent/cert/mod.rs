//! The certificate robot: on the node that has the seat `acme`, gets certificates for the entries that want one, and new ones in time.
//!
//! ```text
//! snapshot ─► due entry ─► acme::step ─► change (guarded by the entry as it was) ─► registry ─► every node's front
//! ```
//!
//! On any node, makes the key of session tickets anew each day (`cert::tickets`).
//!
//! Nothing is remembered here but what saves questions: a node that takes the seat over goes on with the order in the registry, whose
//! account and key it opens with the cluster's `secrets/cert.key`. Of two nodes that should ever act at once, one fails at its commit.

mod change;
mod run;

pub use change::{account_key, account_sealed_as, put, remove};
pub use run::keep;
