//! A message with those for whom it is, and the publish that it came from: as it stands in the log of each hub.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::channel::Address;
use super::message::{EXPIRY_MAX, Message, Publication};
use super::mid::Mid;

/// Bytes of the bookkeeping of one message at one address.
const ADDRESS: usize = 64;
/// How long a message that is for those present only can be asked for by hubs that were away for a moment.
pub const LIVE: Duration = Duration::from_secs(10);

/// The publish that it came from: a hub that asks a second time, because it did not hear the answer, names it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// Random, of the process that took it from its publisher.
    pub process: u64,
    /// Grows with each one.
    pub number: u64,
}

#[derive(Debug)]
pub struct Entry {
    pub message: Arc<Message>,
    /// Sorted, and each once.
    pub receivers: Box<[Address]>,
    pub origin: Origin,
}

impl Entry {
    /// `created`: time since 1970, for people.
    pub fn new(mid: Mid, created: Duration, publication: &Publication, origin: Origin) -> Self {
        Entry::of(
            Message::new(mid, created, publication),
            publication.receivers.clone(),
            origin,
        )
    }

    pub fn of(message: Message, mut receivers: Vec<Address>, origin: Origin) -> Self {
        receivers.sort_unstable();
        receivers.dedup();
        Entry {
            message: Arc::new(message),
            receivers: receivers.into(),
            origin,
        }
    }

    pub fn mid(&self) -> Mid {
        self.message.mid
    }

    /// It is told to those who come back.
    pub fn is_kept(&self) -> bool {
        self.message.expiry > 0
    }

    /// How long this hub has it.
    pub fn lasts(&self) -> Duration {
        match self.message.expiry {
            0 => LIVE,
            seconds => Duration::from_secs(seconds.min(EXPIRY_MAX).into()),
        }
    }

    /// Bytes that it is charged for.
    pub fn cost(&self) -> usize {
        self.message.cost() + ADDRESS * self.receivers.len()
    }
}
