//! What the caches of a cluster say to one another, as bytes: codecs without I/O.
//!
//! Three services on the cache's port of the mesh:
//!
//! - `ASK` — commands on keys, from the node whose client asks to the keys' owners. A `message::Ask` holds many; each is
//!   answered by a reply or by "not here, not now". A command that changes something carries an id, which stays the same
//!   when it is sent again, also to another owner.
//! - `COPY` — the stream of an owner to a node that keeps copies: states of keys in their order (`message::States`).
//! - `CONTROL` — flushes and statistics, which concern no key.
//!
//! Every message opens with a version and the sender's epoch. Expiries are relative, because clocks differ.

pub mod bytes;
pub mod command;
pub mod message;
pub mod reply;
pub mod state;

pub use bytes::Damaged;

pub use super::council::Epoch;

/// Services of the cache's port. Never reused for something else; 1 to 9 are the council's.
pub const ASK: u16 = 10;
pub const COPY: u16 = 11;
pub const CONTROL: u16 = 12;

/// Which of a node's stores: they are placed alike, flushed apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    Portal,
    /// The portal's composite storage, which flushes all that it sees.
    Composite,
}

impl Space {
    pub const ALL: [Space; 2] = [Space::Portal, Space::Composite];

    pub fn index(self) -> usize {
        match self {
            Space::Portal => 0,
            Space::Composite => 1,
        }
    }

    fn decode(byte: u8) -> Result<Self, Damaged> {
        match byte {
            0 => Ok(Space::Portal),
            1 => Ok(Space::Composite),
            _ => Err(Damaged),
        }
    }

    fn encode(self) -> u8 {
        match self {
            Space::Portal => 0,
            Space::Composite => 1,
        }
    }
}

/// Names one command of one client for good: which run of which node, and a counter.
pub type RequestId = u64;

/// Who only reads may read twice.
pub const NAMELESS: RequestId = 0;

#[cfg(test)]
mod codec_tests;
