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
//! messages of each channel, a day, the memory that is set aside. Nothing is written to disk.
//!
//! Where there are other nodes, `membership` meets their hubs, `order` has all of them show the same messages in the same order, and
//! `roster` tells who is online where. A message becomes everybody's by `Hub::enter` alone.

mod channel;
mod control;
mod desk;
mod door;
#[cfg(test)]
mod door_tests;
mod entry;
mod frame;
mod history;
mod hub;
#[cfg(test)]
mod hub_tests;
mod key;
mod line;
mod membership;
#[cfg(test)]
mod mesh_tests;
mod message;
mod metrics;
mod mid;
mod order;
mod poll;
mod presence;
mod publish;
mod query;
mod queue;
mod refusal;
mod roster;
mod service;
mod socket;
mod tap;
mod token;
mod upgrade;
mod visitor;

pub use service::Push;
