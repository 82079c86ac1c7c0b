//! `Seen`: key and value of an item that was read. What the store gives out is its record; what another node has sent stays where it was
//! received, because a record of its own would be one allocation for each key.

use std::fmt;

use bytes::Bytes;

use super::store::{Record, footprint};

#[derive(Clone)]
pub enum Seen {
    Kept(Record),
    Sent { key: Bytes, value: Bytes },
}

impl Seen {
    pub fn key(&self) -> &[u8] {
        match self {
            Seen::Kept(record) => record.key(),
            Seen::Sent { key, .. } => key,
        }
    }

    pub fn value(&self) -> &[u8] {
        match self {
            Seen::Kept(record) => record.value(),
            Seen::Sent { value, .. } => value,
        }
    }

    /// Bytes of memory that a record takes for it.
    pub fn footprint(&self) -> usize {
        footprint(self.key().len(), self.value().len())
    }
}

impl From<Record> for Seen {
    fn from(record: Record) -> Self {
        Seen::Kept(record)
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Seen").field(&self.key()).field(&self.value()).finish()
    }
}
