//! The NFSv3 door (RFC 1813) for this machine: kernel clients, the agent's registry, tests.
//! MOUNT and portmap answer on the same port.
//!
//! - A caller is believed to have the uid, gid and groups of its AUTH_UNIX credential: TCP peers on other
//!   than privileged ports may only ping, unless `Clients` says otherwise. Permissions are checked behind `Calls`.
//! - `/registry` is reachable through the unix socket only; the handle carries its tree, so nothing leads from one to the other.
//! - Each connection has bounds on its calls and bytes under way; beyond them it is not read (back-pressure).
//! - A repeated change is answered from memory, and its `RequestKey` goes on to the replicated state.
//! - While there is no leader, reads wait 10 s, then clients are told to come back (JUKEBOX); changes wait until there is one.
//!
//! Not here: NLM and NSM. Kernel clients must mount with `nolock`; their locks then hold within one machine only. For locks
//! across machines by NFS there would be wanted: NLMv4 (program 100021: TEST, LOCK, CANCEL, UNLOCK with the lock calls of
//! `call.rs`; GRANTED calls back to the client; FREE_ALL; the _MSG/_RES pairs), portmap on port 111 of an address that is not
//! shared with the client's own rpcbind (there is no mount option for NLM's port), NSM (program 100024: SM_NOTIFY to the
//! clients after a fail-over), and rpc.statd at each client. The FUSE door has locks across machines.

mod attribute;
mod clients;
mod connection;
mod convert;
mod data;
mod dispatch;
mod handle;
mod listing;
mod mount;
mod name;
mod portmap;
mod record;
mod replay;
mod rpc;
mod server;
mod xdr;

#[cfg(test)]
mod tests;

pub use clients::Clients;
pub use dispatch::Door;
pub use handle::{Handles, Tree};
pub use server::Server;
