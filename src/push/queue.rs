//! What one subscriber has not taken yet. Bounded: a reader that is too slow is cut off, and comes back to be told what it missed.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;

use futures_util::task::AtomicWaker;
use thiserror::Error;

use super::message::Message;
use super::mid::Mid;

/// Messages that may wait. More than a replay holds, so that nobody is cut off for coming back.
const MESSAGES: usize = 512;
/// Bytes that may wait, whatever the first message weighs. A replay holds no more.
pub const BYTES: usize = 4 << 20;

/// Why a subscription is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Ended {
    #[error("it does not take its messages")]
    Slow,
    #[error("newer connections of the same channel took its place")]
    Crowded,
}

#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    /// The one task that takes.
    taker: AtomicWaker,
}

#[derive(Default)]
struct Waiting {
    /// The oldest. Mostly there is no other, and a fan-out to thousands shall not allocate for each.
    first: Option<Arc<Message>>,
    messages: VecDeque<Arc<Message>>,
    bytes: usize,
    /// The newest one that was ever laid in: who is reached by several addresses is told once.
    last: Option<Mid>,
    ended: Option<Ended>,
}

impl Waiting {
    fn is_due(&self, count: usize) -> bool {
        self.ended.is_some() || self.count() >= count
    }

    fn count(&self) -> usize {
        usize::from(self.first.is_some()) + self.messages.len()
    }
}

impl Queue {
    /// From now on it takes only what is newer than this.
    pub fn begin(&self, after: Mid) {
        self.lock().last = Some(after);
    }

    /// Lays a message in; ids must grow. Returns whether it waits now.
    pub fn offer(&self, message: &Arc<Message>) -> bool {
        let mut waiting = self.lock();
        if waiting.ended.is_some() || waiting.last >= Some(message.mid) {
            return false;
        }
        let bytes = waiting.bytes + message.cost();
        let count = waiting.count();
        if count >= MESSAGES || (bytes > BYTES && count > 0) {
            drop(waiting);
            self.end(Ended::Slow);
            return false;
        }
        waiting.last = Some(message.mid);
        waiting.bytes = bytes;
        match waiting.first {
            None => waiting.first = Some(message.clone()),
            Some(_) => waiting.messages.push_back(message.clone()),
        }
        drop(waiting);
        self.taker.wake();
        true
    }

    /// The first reason counts. What waits is dropped.
    pub fn end(&self, ended: Ended) {
        let mut waiting = self.lock();
        waiting.first = None;
        waiting.messages = VecDeque::new();
        waiting.bytes = 0;
        waiting.ended.get_or_insert(ended);
        drop(waiting);
        self.taker.wake();
    }

    /// All that waits, at least one message. Cancel safe. This and the next two are for one task alone.
    pub async fn take(&self) -> Result<VecDeque<Arc<Message>>, Ended> {
        self.look(Self::try_take).await
    }

    /// Resolves when so many messages wait, or the subscription is over. Cancel safe.
    pub async fn waits(&self, count: usize) {
        self.look(|queue| queue.lock().is_due(count).then_some(())).await;
    }

    /// Whether there is something to be told.
    pub fn is_due(&self) -> bool {
        self.lock().is_due(1)
    }

    /// Resolves when the subscription is over, whatever still waits. Cancel safe.
    pub async fn ended(&self) -> Ended {
        self.look(|queue| queue.lock().ended).await
    }

    /// Until there is something to be seen.
    async fn look<T>(&self, see: impl Fn(&Self) -> Option<T>) -> T {
        poll_fn(|cx| {
            // First, or what is laid in meanwhile would wake nobody.
            self.taker.register(cx.waker());
            see(self).map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    pub fn try_take(&self) -> Option<Result<VecDeque<Arc<Message>>, Ended>> {
        let mut waiting = self.lock();
        if let Some(ended) = waiting.ended {
            return Some(Err(ended));
        }
        let first = waiting.first.take()?;
        waiting.bytes = 0;
        let mut taken = std::mem::take(&mut waiting.messages);
        taken.push_front(first);
        Some(Ok(taken))
    }

    /// The one message that waits, where there is just one.
    pub fn try_take_alone(&self) -> Option<Arc<Message>> {
        let mut waiting = self.lock();
        if !waiting.messages.is_empty() {
            return None;
        }
        waiting.bytes = 0;
        waiting.first.take()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics under this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::message::{Body, Publication, Sender};
    use crate::push::mid::Mids;
    use std::time::Duration;

    fn messages(body: &str) -> impl Iterator<Item = Arc<Message>> {
        let mut mids = Mids::new(Duration::ZERO);
        let publication = Publication {
            receivers: Vec::new(),
            sender: Sender::Backend,
            body: Body::new(body.into()).expect("JSON"),
            expiry: 0,
            extras: None,
        };
        std::iter::repeat_with(move || Arc::new(Message::new(mids.take(), Duration::ZERO, &publication)))
    }

    #[tokio::test]
    async fn a_message_reaches_once_whoever_has_several_addresses() {
        let queue = Queue::default();
        for message in messages("1").take(3) {
            assert!(queue.offer(&message));
            assert!(!queue.offer(&message));
        }
        assert_eq!(queue.take().await.expect("not ended").len(), 3);
        assert!(queue.try_take().is_none());
    }

    #[tokio::test]
    async fn a_slow_reader_is_cut_off_by_number_and_by_size() {
        for (body, most) in [("1".to_string(), MESSAGES), (format!("\"{}\"", "x".repeat(1 << 19)), 3)] {
            let queue = Queue::default();
            let taken = messages(&body)
                .take(MESSAGES + 1)
                .take_while(|message| queue.offer(message))
                .count();
            assert_eq!(taken, most);
            assert_eq!(queue.take().await.err(), Some(Ended::Slow));
            queue.end(Ended::Crowded);
            assert_eq!(queue.ended().await, Ended::Slow, "the first reason");
        }
    }

    #[tokio::test]
    async fn one_message_always_fits() {
        let queue = Queue::default();
        let body = format!("\"{}\"", "x".repeat(BYTES));
        assert!(messages(&body).take(1).all(|message| queue.offer(&message)));
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let queue = Arc::new(Queue::default());
        let offer = async { messages("1").take(1).for_each(|message| _ = queue.offer(&message)) };
        let (taken, ()) = tokio::join!(queue.take(), offer);
        assert_eq!(taken.expect("not ended").len(), 1);
        let (ended, ()) = tokio::join!(queue.ended(), async { queue.end(Ended::Crowded) });
        assert_eq!(ended, Ended::Crowded);
    }
}
