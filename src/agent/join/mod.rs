//! How a machine becomes a node: with one line that its admin pastes, which holds a token.
//!
//! ```text
//! machine ── TLS, only the node shows a certificate; its authority has the token's fingerprint ──► a node's agent
//! machine ── Request {token's id and secret, name, address, request for a certificate} ─────────► decide
//!                                              registry: Node{joining}, guarded by the token ◄──┘
//!                                              supervisor: signs, tells the shared secrets
//! machine ◄── Answer {certificate, authority, secrets, settings, members} ──────────────────────── agent
//! ```
//!
//! - Nothing secret is sent before the fingerprint was found right (`net::mesh::guest`).
//! - The registry keeps the SHA-256 of a secret of 256 random bits: whoever steals a copy of it can join nowhere.
//! - A token is used up by the commit with which the joined node's own agent turns its record from joining to member
//!   (`agent::registry`). Until then the same machine, known by its key, may ask again with it as often as it must.
//! - Who is refused learns that his token is not valid, never why; the log has it, with his address.
//!
//! What the machine does with the answer is `cli::join`'s.

mod ask;
mod codec;
mod decide;
mod limits;
mod serve;
#[cfg(test)]
mod serve_tests;

pub use ask::{Met, ask, meet};
pub use codec::{Request, Token, Welcome, digest};
pub use decide::{KEY, TOKEN};
pub use serve::{Door, Source};
