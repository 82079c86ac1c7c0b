//! The mesh: how a module meets the same module on other nodes. Nothing travels between nodes in plain text.
//!
//! A connection is mutual TLS 1.3 with node certificates (`identity`, `tls`), long-lived, and carries one of two
//! protocols:
//!
//! - **framed calls** (`frame`, `caller`, `service`): many small calls with request ids;
//! - **HTTP/2** (`streams`, `server`): requests and byte streams that are many and short.
//!
//! `Mesh` and `Peer` keep the connections to other nodes, `Server` accepts theirs. Rules that all of it follows:
//!
//! - Each side pings every second; after three seconds without a byte a connection is dead, and everything under
//!   way on it fails at once with an error that says whether it may have happened (`CallError`).
//! - Certificates are looked at when a connection is made. So connections are replaced when ours changes and once
//!   an hour; the next one stands before the old one goes, and the old one finishes what it holds.
//! - Every queue and table is bounded; full ones answer Busy at once or let the sender wait, never the reader.
//! - Who left the cluster is refused although its certificate holds (`Tls::keep_out`).
//! - Machines that are no nodes yet get in only where `Guests` hear them, and show no certificate (`guest`).
//! - A call crosses at most once. Repeating it is the caller's choice, safe where the error says so.

#[cfg(test)]
mod call_tests;
mod caller;
mod dial;
mod error;
mod expect;
mod frame;
pub mod guest;
pub mod identity;
mod keeper;
mod link;
mod peer;
#[cfg(test)]
mod peer_tests;
mod queue;
mod refusals;
mod server;
mod service;
mod streams;
mod tls;
pub mod trust;

pub use caller::{Call, Caller};
pub use dial::{Addresses, Dial, Stream, TcpDial};
pub use error::{CallError, ConnectError, Fault, OpenError, Why};
pub use identity::{Fingerprint, Identity, Name};
pub use link::{Limits, Phase, Pulse};
pub use peer::{Class, Mesh, Peer};
pub use server::{Guests, Server, Streams, Tunnel, serve_streams};
pub use service::{Begun, Handler, Services};
pub use streams::{Body, BoxError, ByteStream, empty};
pub use tls::{Came, Protocol, Renewal, Tls};
