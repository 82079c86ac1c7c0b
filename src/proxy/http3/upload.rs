//! A request's body as it comes by HTTP/3: as long as it was announced, or broken (RFC 9114 §4.1.2).

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::StreamError;
use h3::server::RequestStream;
use http_body::{Body, Frame, SizeHint};

use super::wire::Incoming;
use crate::proxy::error::{Error, Kind};

pub struct Upload {
    stream: RequestStream<Incoming, Bytes>,
    /// Came with the header.
    first: Option<Bytes>,
    /// What is still to come, where that was announced.
    left: Option<u64>,
    is_over: bool,
}

impl Upload {
    /// `length`: what the header announces. Without that, waits until a piece or the end shows whether there is a body at all: targets
    /// treat the two differently.
    pub async fn begin(mut stream: RequestStream<Incoming, Bytes>, length: Option<u64>) -> Result<Self, StreamError> {
        let first = match length {
            Some(_) => None,
            None => poll_fn(|cx| poll_piece(&mut stream, cx)).await?,
        };
        Ok(Upload {
            is_over: length == Some(0) || (length.is_none() && first.is_none()),
            stream,
            first,
            left: length,
        })
    }

    fn take(&mut self, piece: Option<Bytes>) -> Result<Option<Bytes>, Error> {
        let size = piece.as_ref().map_or(0, Bytes::len) as u64;
        if let Some(left) = &mut self.left {
            *left = left
                .checked_sub(size)
                .ok_or_else(|| malformed("a body beyond its Content-Length"))?;
        }
        if piece.is_none() {
            self.is_over = true;
            if self.left.is_some_and(|left| left > 0) {
                return Err(malformed("a body that ends before its Content-Length"));
            }
        }
        Ok(piece)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let me = self.get_mut();
        if me.is_over {
            return Poll::Ready(None);
        }
        let piece = match me.first.take() {
            Some(first) => Ok(Some(first)),
            None => ready!(poll_piece(&mut me.stream, cx)).map_err(|error| cause(&error)),
        };
        let piece = piece.and_then(|piece| me.take(piece));
        me.is_over |= piece.is_err();
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }

    fn size_hint(&self) -> SizeHint {
        match (self.is_over, self.left) {
            (true, _) => SizeHint::with_exact(0),
            (false, Some(left)) => SizeHint::with_exact(left),
            (false, None) => SizeHint::default(),
        }
    }
}

fn poll_piece(
    stream: &mut RequestStream<Incoming, Bytes>,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Bytes>, StreamError>> {
    let piece = ready!(stream.poll_recv_data(cx))?;
    // It is one chunk, so nothing is copied.
    Poll::Ready(Ok(piece.map(|mut piece| piece.copy_to_bytes(piece.remaining()))))
}

fn malformed(why: &str) -> Error {
    Error::new(Kind::Malformed, why)
}

fn cause(error: &StreamError) -> Error {
    match error {
        StreamError::StreamError { .. } | StreamError::Undefined { .. } => malformed("a body with broken frames"),
        _ => Error::new(Kind::ClientGone, format!("the client stopped sending: {error}")),
    }
}
