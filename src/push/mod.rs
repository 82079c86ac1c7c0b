//! Push: the portal's push & pull server. Browsers listen by WebSocket or long polling; the portal publishes over loopback, clients by
//! what the portal has signed for them.
//!
//! - Three generations of clients on the same URLs, told apart by the query: framed text (3), protocol buffers (4), JSON-RPC with a
//!   token (5). `frame` has their forms, `query`, `channel`, `key` and `token` say who somebody is (`visitor`), `publish` what he may.
//! - `hub` is where all meets, under one lock: ids (`mid`), `history`, queues of subscribers (`queue`), who is online (`presence`).
//! - `desk` carries requests out without a socket; `door` is HTTP, `upgrade`, `line` and `socket` are WebSockets, `poll` is long polling;
//!   `control` is the operator's, who may follow messages by a `tap`.
//!
//! Who comes back with the id of the last message gets each message since exactly once, as far as the history reaches: a hundred
//! messages of each channel, a day, the memory that is set aside. Nothing is written to disk. Hubs of other nodes are not known here:
//! `Hub::enter` is the one place where a message becomes everybody's.

mod channel;
mod control;
mod desk;
mod door;
#[cfg(test)]
mod door_tests;
mod frame;
mod history;
mod hub;
#[cfg(test)]
mod hub_tests;
mod key;
mod line;
mod message;
mod metrics;
mod mid;
mod poll;
mod presence;
mod publish;
mod query;
mod queue;
mod refusal;
mod service;
mod socket;
mod tap;
mod token;
mod upgrade;
mod visitor;

pub use service::Push;
