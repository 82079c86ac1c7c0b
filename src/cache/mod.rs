//! Cache: a server of the memcached protocols with its own store, for PHP sessions and the portal's cache.
//!
//! - Three dialects on one port: classic text (`ascii`) and meta commands (`meta`), told apart line by line, and binary
//!   (`binary`), told by the first byte of a connection. All speak of the same `Command` and `Reply`.
//! - `session` turns bytes into commands and replies into bytes, in order and without a socket; `connection` moves the bytes.
//! - `engine` executes a command on this node's store. Where the nodes' caches are one (`cache.shared`) `desk` decides what may be
//!   answered at once; the rest is the `router`'s, which brings each command to the node that has its key. The `council` says which
//!   node that is.
//! - Limits and error texts are memcached's, with two exceptions: keys with control bytes are refused in the text
//!   protocols, and `noreply` silences errors too.

mod ascii;
mod backend;
mod binary;
mod class;
pub mod command;
mod compat;
mod connection;
mod desk;
mod engine;
mod hot;
mod late;
mod membership;
mod meta;
mod metrics;
mod number;
mod output;
mod peer;
mod relay;
mod request;
mod router;
mod seen;
mod service;
mod session;
mod stats;
pub mod store;

use crate::cluster::council;

pub use compat::Compat;
pub use relay::Relay;
pub use service::Cache;

#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod conversation_tests;
#[cfg(test)]
mod service_tests;
#[cfg(test)]
mod session_tests;
