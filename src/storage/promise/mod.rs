//! Leases with pushed recalls: a door on another node answers look-ups and attributes from its own memory, and is never stale.
//!
//! ```text
//! leader                                             another node's door
//! Callbacks: Promises (who may keep what)  ◄─Listen─ client: Kept (answers, until when they may be used)
//!   touched ──► recalls ─────────────────Listened──►   forgets them; the next Listen confirms
//!   a change is answered when all holders confirmed, or their leases ran out
//! ```
//!
//! The leader *promises* with an answer to say when it is true no longer. A door always has one `Listen` open at the leader: its
//! answer brings recalls, and the lease anew. The lease that a door gets is a part of the leader's own read lease, so it
//! is over before any other node can lead: a new leader has nobody to wait for. A door counts its lease from
//! when it sent the request, the leader from when it answered: clocks need not agree, only run at one pace.
//!
//! A door that lets its lease run out delays one change by what is left of it, less than a second; then it holds nothing. Under a
//! new *epoch* a door starts with nothing kept. The same holds for a door that has too many recalls waiting.
//! What a session changes itself is recalled with the change's own answer, without waiting for it.
//!
//! Promises are of *things*: the attributes of one inode, one name of a folder, who may search a folder. So a new file recalls
//! its folder's attributes and its own name, and none of the others.
//!
//! `thing`, `table`, `touches` and `kept` are pure; `callbacks` is the leader's side of it, `client` has the door's.

mod callbacks;
mod kept;
mod table;
#[cfg(test)]
mod tests;
mod thing;
mod touches;

use serde::{Deserialize, Serialize};

pub use callbacks::Callbacks;
pub use kept::Kept;

use super::call::Inode;
use crate::base::BoxFuture;
use table::Promises;
use thing::{Thing, rests_on};

/// What a session must forget, in answer to its `Listen` or with the answer to its change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recalls {
    /// Promises of an earlier one are void.
    pub epoch: u64,
    /// To be confirmed: all recalls up to this number are in here or were confirmed.
    pub last: u64,
    /// Forget all; too much to name.
    pub all: bool,
    /// Their attributes or contents changed; of a folder its own attributes, not its names. A session that adopts hears here too,
    /// promised or not, of each inode that has lost its last name: if it has it open it must say so within half a minute.
    pub inodes: Vec<Inode>,
    /// These names of these folders were made, removed or mean something else.
    pub names: Vec<(Inode, Vec<u8>)>,
    /// Of these folders it changed who may search them.
    pub access: Vec<Inode>,
    /// Look again at the locks of these: one that this session holds stands in another's way, or one that it was refused may be
    /// free. May come before the refusal that it is about.
    pub locks: Vec<Inode>,
}

impl Recalls {
    /// Nothing that was kept counts any more.
    pub fn of_all() -> Self {
        Recalls {
            all: true,
            ..Recalls::default()
        }
    }
}

/// What the holder of a lease does about recalls before they are confirmed.
pub trait Heed: Send + Sync {
    /// `Kept` answers nothing of it any more, and the lease is not longer before this returns; what it answered before may be on its
    /// way to who keeps it. Called for one `Listen` after the other; with `all`, of locks and opens too, when the epoch is new,
    /// when the lease has run out, and again before it begins anew.
    fn recalled<'a>(&'a self, recalls: &'a Recalls) -> BoxFuture<'a, ()>;

    /// What sessions before held is let go; no call was made since. Must not wait.
    fn let_go(&self) {}

    /// A session has begun, and no call was made in it. `has_nothing`: it holds nothing of the one before. Must not wait.
    fn begun(&self, _has_nothing: bool) {}

    /// What the session held may be others' by now: it has ended, or no leader was heard for so long that it may have. Must not wait.
    fn lost(&self) {}
}
