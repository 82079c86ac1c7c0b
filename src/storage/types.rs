//! The types of our Raft group, as openraft wants them.

use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::entry::Body;

/// A replica's number in the group. Never used again after its store was lost.
pub type NodeId = u64;
pub type LogId = openraft::LogId<NodeId>;
pub type Vote = openraft::Vote<NodeId>;
pub type Entry = openraft::Entry<Types>;
pub type Payload = openraft::EntryPayload<Types>;
pub type Membership = openraft::Membership<NodeId, Peer>;
pub type StorageError = openraft::StorageError<NodeId>;

openraft::declare_raft_types!(
    /// One replica group.
    pub Types:
        D = Body,
        R = Replies,
        NodeId = NodeId,
        Node = Peer,
        SnapshotData = Checkpoint,
);

/// A member of the group, as its membership entries name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The node's name, which its certificate proves.
    pub name: String,
    /// Where its storage is met over the mesh, `ADDRESS:PORT`.
    pub address: String,
    /// The store it joined with. A node that shows another one was wiped and is refused.
    pub store: StoreId,
    /// Votes and keeps the log, but holds no files.
    pub witness: bool,
}

/// Random identity of one store, made at its first start.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(out)
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// What the state machine answered to the operations of an entry, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replies(pub Vec<Bytes>);

/// A snapshot: a folder that the state machine wrote, or that it will install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub folder: PathBuf,
}

/// A log id without the turbofish.
pub fn log_id(term: u64, node: NodeId, index: u64) -> LogId {
    LogId::new(openraft::CommittedLeaderId::new(term, node), index)
}

/// The index after `id`; 0 where there is none.
pub fn next_index(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}
