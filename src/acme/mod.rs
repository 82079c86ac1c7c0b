//! Certificates of an ACME directory (RFC 8555), step by step: each step begins from what the registry says of the order and ends with
//! what is to be written down, so that any node can take the next one.
//!
//! ```text
//! no order ─► placed ─► challenges told ─► every front answers them ─► validated ─► finalized ─► issued
//!         Write       Write             (the caller waits)         Wait         Wait        Issued
//! ```
//!
//! Not here: who takes the steps and when (`agent::cert`), how challenges are answered (`proxy`, `net::tls`).

mod account;
mod error;
mod http;
mod order;
#[cfg(test)]
mod window_tests;

pub use account::{Account, open};
pub use error::{Error, Kind};
pub use order::{Moment, Step, Told, revoke, step, window};
