//! `Outbox`: what this node's publishers want to be ordered. One batch is under way at a time, so that the orderer gets them in their order,
//! and needs to remember no more than the last. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use crate::push::entry::Origin;
use crate::push::message::Publication;

/// Publishes that may wait.
const WAITING: usize = 20_000;
/// And their bytes.
const WAITING_BYTES: usize = 32 << 20;
/// Bytes of one batch, but for its first publish.
const BATCH: usize = 256 << 10;
/// Bytes that a publish is charged for besides its texts, and each of its receivers and of those who are told something else.
const OVERHEAD: usize = 256;
const RECEIVER: usize = 24;
const USER: usize = 16;

pub struct Outbox {
    process: u64,
    last: u64,
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// Of those that wait, so many are under way.
    sent: usize,
}

struct Waiting {
    number: u64,
    publication: Arc<Publication>,
    until: Instant,
}

impl Outbox {
    /// `process`: random.
    pub fn new(process: u64) -> Self {
        Outbox {
            process,
            last: 0,
            waiting: VecDeque::new(),
            bytes: 0,
            sent: 0,
        }
    }

    /// Returns its number; `None`: too much waits. After `until` nobody waits for the answer.
    pub fn put(&mut self, publication: Arc<Publication>, until: Instant) -> Option<u64> {
        let bytes = self.bytes + cost(&publication);
        if self.waiting.len() == WAITING || (bytes > WAITING_BYTES && !self.waiting.is_empty()) {
            return None;
        }
        self.last += 1;
        self.bytes = bytes;
        self.waiting.push_back(Waiting {
            number: self.last,
            publication,
            until,
        });
        Some(self.last)
    }

    /// The oldest that wait, to be sent now; nothing while others are under way.
    pub fn batch(&mut self) -> Vec<(Origin, Arc<Publication>)> {
        if self.sent > 0 {
            return Vec::new();
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for waiting in &self.waiting {
            bytes += cost(&waiting.publication);
            if bytes > BATCH && !batch.is_empty() {
                break;
            }
            let origin = Origin {
                process: self.process,
                number: waiting.number,
            };
            batch.push((origin, waiting.publication.clone()));
        }
        self.sent = batch.len();
        batch
    }

    /// Those under way are safe. Returns the last one's number.
    pub fn done(&mut self) -> Option<u64> {
        let sent = std::mem::take(&mut self.sent);
        self.drop_first(sent)
    }

    /// Those under way may be safe or not: they are sent again, by the same numbers.
    pub fn again(&mut self) {
        self.sent = 0;
    }

    /// Drops those for which nobody waits any more, unless they are under way. Returns the last one's number.
    pub fn expire(&mut self, now: Instant) -> Option<u64> {
        if self.sent > 0 {
            return None;
        }
        let expired = self.waiting.iter().take_while(|waiting| waiting.until <= now);
        let expired = expired.count();
        self.drop_first(expired)
    }

    fn drop_first(&mut self, count: usize) -> Option<u64> {
        let dropped = self.waiting.drain(..count);
        let (bytes, last) = dropped.fold((0, None), |(bytes, _), waiting| {
            (bytes + cost(&waiting.publication), Some(waiting.number))
        });
        self.bytes -= bytes;
        last
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn is_under_way(&self) -> bool {
        self.sent > 0
    }
}

/// About as many bytes as it has on the wire.
fn cost(publication: &Publication) -> usize {
    let extras = publication.extras.as_ref().map_or(0, |extras| {
        let params = extras.user_params.values().map(|params| params.get().len() + USER);
        params.sum::<usize>() + extras.dictionary.as_ref().map_or(0, |text| text.get().len())
    });
    OVERHEAD + publication.body.as_str().len() + extras + publication.receivers.len() * RECEIVER
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::push::message::{Body, Sender};

    fn publication(bytes: usize) -> Arc<Publication> {
        Arc::new(Publication {
            receivers: Vec::new(),
            sender: Sender::Backend,
            body: Body::new(format!("\"{}\"", "x".repeat(bytes))).expect("JSON"),
            expiry: 0,
            extras: None,
        })
    }

    fn numbers(batch: &[(Origin, Arc<Publication>)]) -> Vec<u64> {
        batch.iter().map(|(origin, _)| origin.number).collect()
    }

    #[test]
    fn one_batch_at_a_time_and_the_same_numbers_again() {
        let (mut outbox, now) = (Outbox::new(7), Instant::now());
        let later = now + Duration::from_secs(3);
        (0..2).for_each(|_| _ = outbox.put(publication(1), later));
        assert_eq!(numbers(&outbox.batch()), [1, 2]);
        assert_eq!(outbox.put(publication(BATCH), later), Some(3));
        assert!(outbox.batch().is_empty() && outbox.expire(later).is_none());
        outbox.again();
        assert_eq!(numbers(&outbox.batch()), [1, 2], "the large one goes by itself");
        assert_eq!(outbox.done(), Some(2));
        assert_eq!(numbers(&outbox.batch()), [3]);
        outbox.again();
        assert_eq!((outbox.expire(now), outbox.expire(later)), (None, Some(3)));
        assert!(outbox.is_empty() && outbox.batch().is_empty() && outbox.bytes == 0);
    }

    #[test]
    fn what_waits_is_bounded_by_number_and_by_size() {
        let later = Instant::now() + Duration::from_secs(3);
        for (bytes, most) in [(1, WAITING), (WAITING_BYTES / 4, 3)] {
            let mut outbox = Outbox::new(7);
            let taken = (0..=WAITING).take_while(|_| outbox.put(publication(bytes), later).is_some());
            assert_eq!(taken.count(), most);
        }
    }
}
