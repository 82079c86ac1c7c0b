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
//! Not here: NLM and NSM. Kernel clients must mount with `nolock`; their locks then hold within one machine only. The FUSE
//! door has locks across machines. For locks by NFS these pieces are missing, and half of them would be worse than none,
//! for a client that was granted a lock never asks again whether it still has it:
//! - NLMv4 (program 100021: TEST, LOCK, CANCEL, UNLOCK with the lock calls of `call.rs`, the owner being a hash of caller_name,
//!   svid and oh; FREE_ALL; the _MSG/_RES pairs). GRANTED calls back to the client's own NLM port; Linux asks again
//!   every 30 s by itself, so without them waiting would only be slow.
//! - A session for each client machine. The locks of a door end with its session, which ends when the process starts anew: the
//!   sessions of NLM clients must outlive process and leader, and locks be taken back only by the next two.
//! - NSM (program 100024): a client's SM_NOTIFY after its restart frees its locks; ours to each client that has locks, kept
//!   in the replicated state, where locks were lost, with a time of grace for reclaims (`reclaim`, DENIED_GRACE_PERIOD).
//! - A listener on port 111 (there is no mount option for NLM's port; every listener of this door answers all its programs)
//!   at an address that is not the client's own: on loopback port 111 and program 100021 belong to the client's rpcbind and lockd.

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
