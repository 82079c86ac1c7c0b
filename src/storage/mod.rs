//! Storage: files that are acknowledged only when they are safe on several machines.
//!
//! ```text
//! door/nfs ─► client (a session: numbers, repeats) ─► mesh ─► leader (times, inode numbers) ─► batch ─► group: openraft, log
//! cli      ─► unix socket ──────────────────────────┘                                         each replica: replica ─► state
//! ```
//!
//! A `door` turns its protocol into `call`s; its session (`client`, `session`) brings them as `request`s to whoever leads and repeats
//! them over a fail-over; the leader puts mutations as `operation`s into the log. One replicated log (`log`, driven by openraft in
//! `group`) carries every mutation; `batch` puts many into one entry; the `state` of each replica applies them in log order.
//! Members come by invitation (`members`, `waiting`), catch up by log or by files (`transfer`, `checkpoints`), and vote when
//! `membership` says so; a `witness` votes without files. `scrub` compares the copies, `recovery` lets the last one go on alone,
//! `rescue` shows one without any quorum.
//!
//! What must hold: an acknowledged operation is fsynced in the logs of a majority and of every in-sync data replica, or of as many of
//! them as copies are wanted (`insync`);
//! a leader answers reads only inside its lease (`lease`), and doors of other nodes from memory inside a part of it (`promise`);
//! a node that comes back disturbs nobody (`guard`); a wiped node never comes back under its old id (`identity`), nor one that was
//! set back to an older image (`held`). A write or fsync error ends the log, and with it the process.

pub mod archive;
pub mod batch;
pub mod call;
mod charter;
#[cfg(test)]
mod checkpoint_tests;
mod checkpoints;
mod client;
#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod cluster_tests;
pub mod command;
mod control;
pub mod disk;
pub mod door;
pub mod entry;
mod exact;
mod executor;
#[cfg(test)]
pub mod faulty_disk;
pub mod group;
#[cfg(test)]
mod group_tests;
mod guard;
mod held;
mod identity;
mod insync;
mod leader;
mod lease;
mod listener;
#[cfg(test)]
mod listener_tests;
pub mod log;
pub mod machine;
mod members;
mod membership;
#[cfg(test)]
pub mod memory_machine;
pub mod mesh;
pub mod network;
mod opening;
pub mod operation;
mod operation_codec;
mod pace;
mod promise;
mod recovery;
mod replica;
pub mod request;
pub mod rescue;
#[cfg(test)]
mod rescue_tests;
mod running;
pub mod scrub;
mod service;
#[cfg(test)]
mod service_tests;
mod session;
#[cfg(test)]
mod sim;
pub mod state;
pub mod transfer;
pub mod types;
mod waiting;
mod watchers;
mod wire;
pub mod witness;

pub use batch::{Batcher, Refused};
pub use client::Client;
pub use group::{Group, Settings};
pub use insync::Copies;
pub use leader::RESERVE;
pub use opening::found;
pub use promise::{Heed, Recalls};
pub use service::Storage;
