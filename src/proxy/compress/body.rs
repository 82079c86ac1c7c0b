//! A body on its way through a coder.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame};
use tokio::sync::OwnedSemaphorePermit;

use super::coder::Coder;
use crate::proxy::error::{Error, Kind};
use crate::proxy::exchange::Body;
use crate::proxy::metrics::OfCoding;

/// Input of one step.
const STEP: usize = 16 << 10;

/// Output is handed on when there is so much of it.
const FULL: usize = 8 << 10;

/// After so much input in a row others get the thread: about a millisecond.
const TURN: usize = 64 << 10;

pub struct Compressed {
    body: Body,
    /// `None` after the end.
    coder: Option<Coder>,
    /// What the coder has not got yet.
    input: Bytes,
    /// The coder may hold something back.
    is_dirty: bool,
    turn: usize,
    numbers: OfCoding,
    _seat: OwnedSemaphorePermit,
}

impl Compressed {
    pub fn new(body: Body, coder: Coder, numbers: OfCoding, seat: OwnedSemaphorePermit) -> Self {
        Compressed {
            body,
            coder: Some(coder),
            input: Bytes::new(),
            is_dirty: false,
            turn: 0,
            numbers,
            _seat: seat,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let Some(coder) = &mut self.coder else {
            return Poll::Ready(None);
        };
        loop {
            while !self.input.is_empty() {
                if self.turn >= TURN {
                    self.turn = 0;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let count = self.input.len().min(STEP);
                coder
                    .write(self.input.get(..count).unwrap_or_default())
                    .map_err(broken)?;
                self.input.advance(count);
                self.turn += count;
                self.numbers.taken.inc_by(count as u64);
                self.is_dirty = true;
                if coder.ready() >= FULL {
                    return Poll::Ready(Some(Ok(coder.take())));
                }
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers speak of the bytes as they were.
                    self.input = frame.into_data().unwrap_or_default();
                }
                Poll::Ready(Some(Err(error))) => {
                    self.coder = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => {
                    let last = self.coder.take().map_or(Ok(Bytes::new()), Coder::finish);
                    return Poll::Ready(Some(last.map_err(broken)));
                }
                Poll::Pending => {
                    self.turn = 0;
                    if !std::mem::take(&mut self.is_dirty) {
                        return Poll::Pending;
                    }
                    coder.flush().map_err(broken)?;
                    let flushed = coder.take();
                    if flushed.is_empty() {
                        return Poll::Pending;
                    }
                    return Poll::Ready(Some(Ok(flushed)));
                }
            }
        }
    }
}

impl HttpBody for Compressed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let me = self.get_mut();
        let next = std::task::ready!(me.poll_next(cx));
        if let Some(Ok(bytes)) = &next {
            me.numbers.given.inc_by(bytes.len() as u64);
        }
        Poll::Ready(next.map(|next| next.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.coder.is_none()
    }
}

fn broken(error: io::Error) -> Error {
    Error::with(Kind::Internal, "an answer could not be compressed", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;

    use futures_util::stream;
    use futures_util::{FutureExt, StreamExt};
    use http_body_util::{BodyExt, StreamBody};
    use tokio::sync::Semaphore;

    use crate::config::Coding;
    use crate::proxy::compress::coder::tests::{ALL, decoded};
    use crate::proxy::metrics::Metrics;

    async fn compressed(coding: Coding, body: Body) -> Compressed {
        let seat = Arc::new(Semaphore::new(1)).acquire_owned().await.expect("open");
        let coder = Coder::new(coding, None).expect("made");
        Compressed::new(body, coder, Metrics::new().of_coding(coding), seat)
    }

    fn piece(text: &'static str) -> Result<Frame<Bytes>, Error> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    #[tokio::test]
    async fn a_pause_sends_what_came_before_it() {
        for coding in ALL {
            let (tell, told) = tokio::sync::oneshot::channel();
            let later = stream::once(async { told.await.map_or_else(|_| piece("lost"), piece) });
            let body = StreamBody::new(stream::iter([piece("data: "), piece("1\n\n")]).chain(later));
            let mut body = compressed(coding, body.boxed_unsync()).await;
            let mut coded = Vec::new();
            while let Some(frame) = body.frame().now_or_never() {
                coded.extend(frame.expect("more").expect("data").into_data().expect("data"));
            }
            assert_eq!(decoded(coding, &coded), b"data: 1\n\n", "{coding:?}");
            assert!(!body.is_end_stream());
            tell.send("data: 2\n\n").expect("heard");
            while let Some(frame) = body.frame().await {
                coded.extend(frame.expect("data").into_data().expect("data"));
            }
            assert_eq!(decoded(coding, &coded), b"data: 1\n\ndata: 2\n\n", "{coding:?}");
            assert!(body.is_end_stream());
        }
    }

    #[tokio::test]
    async fn a_long_answer_leaves_the_thread_to_others() {
        let big = Bytes::from(vec![b'a'; 4 * TURN]);
        let whole = StreamBody::new(stream::iter([Ok(Frame::data(big))])).boxed_unsync();
        let mut body = compressed(Coding::Gzip, whole).await;
        assert!(body.frame().now_or_never().is_none(), "all in one go");
        let bytes = body.collect().await.expect("whole").to_bytes();
        assert_eq!(decoded(Coding::Gzip, &bytes).len(), 4 * TURN);
    }

    #[tokio::test]
    async fn an_answer_that_breaks_does_not_look_whole() {
        for coding in ALL {
            let error = Err(Error::new(Kind::Upstream, "broke"));
            let body = StreamBody::new(stream::iter([piece("half"), error])).boxed_unsync();
            let result = compressed(coding, body).await.collect().await;
            assert_eq!(result.expect_err("broken").kind, Kind::Upstream);
        }
    }
}
