//! A request's body that is lent to an attempt, and can be taken back while all that was taken out of it is still at hand.

use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};

use super::retry::Left;
use crate::proxy::error::{Error, Kind};
use crate::proxy::exchange::Body;
use crate::proxy::gathered::Gathered;

/// What is kept of a body on its way out: the usual form or call of a script. It may be sent again when the node that it was
/// sent to says that its PHP took nothing.
const KEPT: usize = 64 << 10;

/// The owner's side.
pub struct Loan {
    /// Here, when it is not lent.
    held: Option<Body>,
    lent: Option<Arc<Mutex<Slot>>>,
    was_empty: bool,
}

struct Slot {
    /// `None`: taken back.
    body: Option<Body>,
    /// What was taken out; `None`: more than is kept.
    taken: Option<Gathered>,
}

/// The attempt's side.
struct Lent(Arc<Mutex<Slot>>);

/// What was taken out once, then the rest.
struct Again {
    taken: Bytes,
    rest: Body,
}

impl Loan {
    pub fn new(body: Body) -> Self {
        Loan {
            was_empty: body.is_end_stream(),
            held: Some(body),
            lent: None,
        }
    }

    /// The body for an attempt; after another one only when `recall` said that it may be sent again.
    pub fn lend(&mut self) -> Body {
        if self.was_empty {
            return Empty::new().map_err(|never| match never {}).boxed_unsync();
        }
        let slot = Slot {
            body: self.held.take(),
            taken: Some(Gathered::default()),
        };
        let slot = Arc::new(Mutex::new(slot));
        self.lent = Some(slot.clone());
        Lent(slot).boxed_unsync()
    }

    /// Takes it back: the attempt, which may not have noticed yet that it failed, gets an error from now on.
    pub fn recall(&mut self) -> Left {
        if self.was_empty {
            return Left::Empty;
        }
        if let Some(slot) = self.lent.take() {
            let mut slot = lock(&slot);
            if let (Some(rest), Some(taken)) = (slot.body.take(), slot.taken.take()) {
                let taken = taken.join();
                self.held = Some(Again { taken, rest }.boxed_unsync());
            }
        }
        if self.held.is_some() { Left::Whole } else { Left::Begun }
    }
}

impl Slot {
    fn keep(&mut self, frame: &Result<Frame<Bytes>, Error>) {
        let data = frame.as_ref().ok().and_then(Frame::data_ref);
        match (&mut self.taken, data) {
            (Some(taken), Some(data)) if taken.len() + data.len() <= KEPT => taken.push(data.clone()),
            // A body that failed will not do better.
            _ => self.taken = None,
        }
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut slot = lock(&self.0);
        let Some(body) = &mut slot.body else {
            return Poll::Ready(Some(Err(Error::new(
                Kind::Internal,
                "the body was given to another target",
            ))));
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        frame.iter().for_each(|frame| slot.keep(frame));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.0).body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.0).body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl HttpBody for Again {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match mem::take(&mut self.taken) {
            taken if taken.is_empty() => Pin::new(&mut self.rest).poll_frame(cx),
            taken => Poll::Ready(Some(Ok(Frame::data(taken)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.taken.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let taken = self.taken.len() as u64;
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(taken));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(taken));
        }
        hint
    }
}

/// A body that panicked is not asked again: its request is over.
fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::fixture::{crumbled, crumbs, empty, full, read};

    #[tokio::test]
    async fn body_goes_to_the_next_attempt_and_no_longer_to_the_first() {
        let mut loan = Loan::new(full("hello"));
        let first = loan.lend();
        assert_eq!(first.size_hint().exact(), Some(5));
        assert_eq!(loan.recall(), Left::Whole);
        let second = loan.lend();
        assert_eq!(read(first).await.expect_err("taken back").kind, Kind::Internal);
        assert_eq!(read(second).await.expect("whole"), "hello");
        assert_eq!(loan.recall(), Left::Whole);
        let third = loan.lend();
        assert_eq!(third.size_hint().exact(), Some(5));
        assert_eq!(read(third).await.expect("what was taken out, again"), "hello");
    }

    /// Frames of that size.
    fn frames(size: usize, count: usize) -> Body {
        let frame = Bytes::from(vec![b'x'; size]);
        let frames = (0..count).map(move |_| Ok(Frame::data(frame.clone())));
        http_body_util::StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
    }

    #[tokio::test]
    async fn what_was_taken_comes_before_the_rest_and_a_large_body_is_not_kept() {
        let mut loan = Loan::new(frames(KEPT / 2, 3));
        let mut first = loan.lend();
        for _ in 0..2 {
            first.frame().await.expect("one").expect("data");
        }
        assert_eq!(loan.recall(), Left::Whole);
        let mut second = loan.lend();
        let mut size = 0;
        while let Some(frame) = second.frame().await {
            size += frame.expect("data").into_data().expect("data").len();
        }
        assert_eq!(size, 3 * KEPT / 2);
        assert_eq!(loan.recall(), Left::Begun);
    }

    #[tokio::test]
    async fn single_bytes_do_not_keep_what_they_were_read_into() {
        let buffers = Arc::new(());
        let mut loan = Loan::new(crumbled(10_000, &buffers));
        let mut first = loan.lend();
        for _ in 0..9_000 {
            first.frame().await.expect("one").expect("data");
        }
        assert!(
            Arc::strong_count(&buffers) < 5,
            "{} buffers",
            Arc::strong_count(&buffers)
        );
        assert_eq!(loan.recall(), Left::Whole);
        assert_eq!(read(loan.lend()).await.expect("whole"), crumbs(10_000));
    }

    #[tokio::test]
    async fn no_body_can_be_sent_as_often_as_one_likes() {
        let mut loan = Loan::new(empty());
        for _ in 0..3 {
            assert!(loan.lend().is_end_stream());
            assert_eq!(read(loan.lend()).await.expect("empty"), "");
            assert_eq!(loan.recall(), Left::Empty);
        }
    }
}
