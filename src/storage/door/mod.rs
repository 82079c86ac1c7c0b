//! Doors: where clients' protocols become calls. A door knows the state machine only through `Calls`.

pub mod fuse;
pub mod nfs;

use serde::{Deserialize, Serialize};

use super::call::{Caller, Error, Inode, Mutation, Query, Reply};
use crate::base::service::BoxFuture;

/// Who executes calls. Everything a door needs of the replicated state.
/// Without a leader calls fail soon with `Error::Unavailable`; the door has the patience.
pub trait Calls: Send + Sync {
    /// Executes a call that changes nothing.
    ///
    /// `Lookup` also takes the name `..` and answers the folder's parent; the parent of an export's root is the root.
    fn query<'a>(&'a self, caller: &'a Caller, query: Query) -> BoxFuture<'a, Result<Reply, Error>>;

    /// The answer of `query`, if it is in this process's memory; no waiting. `None`: use `query`.
    fn recall(&self, _caller: &Caller, _query: &Query) -> Option<Result<Reply, Error>> {
        None
    }

    /// Executes a change. The same key again is the same call: it is answered as before, not executed again.
    /// After `Error::Unavailable` it may or may not have happened; only repeating it under its key settles that.
    fn mutate<'a>(
        &'a self,
        caller: &'a Caller,
        key: RequestKey,
        mutation: Mutation,
    ) -> BoxFuture<'a, Result<Reply, Error>>;

    /// Returns when all that was written to the file before is durable.
    fn commit(&self, inode: Inode) -> BoxFuture<'_, Result<(), Error>>;

    /// Whether `mutate` answers only what is durable already. Then writes need no `commit`.
    fn is_durable(&self) -> bool;

    /// Changes whenever data may be gone that `mutate` answered and `commit` did not follow (RFC 1813 §3.3.7).
    fn verifier(&self) -> u64;
}

/// Identity of a client's request: what a retransmission, on whatever connection, has in common with the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestKey {
    /// Hash of the client's address and its own name. Not of its port, which a reconnect may change.
    pub client: u64,
    /// The client's number of the request.
    pub xid: u32,
    /// Of the procedure, who asks, and the arguments.
    pub checksum: u64,
}
