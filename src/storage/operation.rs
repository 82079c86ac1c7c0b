//! A mutation as it stands in the log: the call, who asked, and the choices that only the leader makes,
//! so that every replica that applies it comes to the same state.

use serde::{Deserialize, Serialize};

use super::call::{Caller, Inode, Mutation, Time};

/// A door's session with the leader. Calls of a session are numbered; a repeated number is answered from the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Session(pub u64);

// Nearly all operations are mutations: a box would cost an allocation each.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Starts a session; its id is the leader's choice.
    Begin { session: Session },
    /// Ends a session: its locks and opens go, unlinked inodes that it held are freed.
    End { session: Session },
    Mutate {
        session: Session,
        /// Grows by one with each mutation of the session.
        sequence: u64,
        /// All replies up to this one have arrived: the state may forget them.
        acknowledged: u64,
        caller: Caller,
        time: Time,
        /// For what the mutation may make; unused numbers are lost, never reused.
        fresh: Inode,
        mutation: Mutation,
    },
}
