//! A mutation as it stands in the log: the call, who asked, and the choices that only the leader makes,
//! so that every replica that applies it comes to the same state.

use serde::{Deserialize, Serialize};

use super::call::{Caller, Inode, Mutation, Time};
use super::door::RequestKey;

/// A door's session with the leader. Calls of a session are numbered; a repeated number is answered from the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Session(pub u64);

/// Where a session is held, one at a time: `NODE/DOOR`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place(pub String);

// Nearly all operations are mutations: a box would cost an allocation each.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Starts a session; its id is the door's choice. It takes the place of the one that was begun there before and takes
    /// over its kept replies, and its locks and opens too if it `adopts` them: the door they belong to lives on.
    Begin {
        session: Session,
        place: Place,
        adopts: bool,
    },
    /// Ends a session: its locks and opens go, unlinked inodes that it held are freed.
    End { session: Session },
    Mutate {
        session: Session,
        /// Grows by one with each mutation of the session.
        sequence: u64,
        /// All replies up to this one have arrived: the state may forget them.
        acknowledged: u64,
        /// The client's own mark of the request, where it has one: the same request in another call, from another door or after
        /// its door was started again, is answered as before.
        key: Option<RequestKey>,
        caller: Caller,
        time: Time,
        /// For what the mutation may make; unused numbers are lost, never reused.
        fresh: Inode,
        mutation: Mutation,
    },
    /// A part of the time is over that inodes without a name are kept for sessions that adopt: frees some of those that were
    /// there at the last one; if none was left, those that came since are next. The leader's own, at an even pace.
    Reap,
}
