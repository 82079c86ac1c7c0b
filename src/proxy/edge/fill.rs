//! A body on its way to the client of which a copy is kept, if it comes whole and is not too large.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::entry::Entry;
use super::flights::Flight;
use super::store::Slot;
use crate::proxy::error::Error;
use crate::proxy::exchange::Body;

pub struct Fill {
    body: Body,
    /// `None`: it was kept, or will not be.
    copy: Option<Copy>,
}

struct Copy {
    entry: Entry,
    slot: Slot,
    bytes: BytesMut,
    most: usize,
    /// As the head says.
    length: Option<usize>,
    flight: Option<Flight>,
}

impl Fill {
    pub fn new(body: Body, entry: Entry, slot: Slot, most: usize, flight: Option<Flight>) -> Self {
        let length = entry
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok());
        let copy = Copy {
            length: length.and_then(|length| length.parse().ok()),
            entry,
            slot,
            bytes: BytesMut::new(),
            most,
            flight,
        };
        let mut fill = Fill { body, copy: Some(copy) };
        fill.settle();
        fill
    }

    /// Keeps the copy when it is whole.
    fn settle(&mut self) {
        let is_over = self.body.is_end_stream();
        let Some(copy) = &self.copy else { return };
        let is_whole = match copy.length {
            Some(length) => copy.bytes.len() == length,
            None => is_over,
        };
        if is_whole {
            self.keep();
        } else if is_over {
            self.copy = None;
        }
    }

    fn keep(&mut self) {
        if let Some(mut copy) = self.copy.take() {
            copy.entry.body = copy.bytes.freeze();
            copy.slot.put(copy.entry);
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        let Some(copy) = &mut self.copy else { return };
        if copy.bytes.len() + bytes.len() <= copy.most {
            copy.bytes.extend_from_slice(bytes);
        } else {
            copy.flight.iter().for_each(Flight::is_in_vain);
            self.copy = None;
        }
    }
}

impl HttpBody for Fill {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let me = self.get_mut();
        let frame = ready!(Pin::new(&mut me.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    me.add(bytes);
                }
                me.settle();
            }
            // Broken off: half an answer is none.
            Some(Err(_)) => me.copy = None,
            None => match &me.copy {
                Some(copy) if copy.length.is_none_or(|length| length == copy.bytes.len()) => me.keep(),
                _ => me.copy = None,
            },
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;
    use std::time::SystemTime;

    use futures_util::stream;
    use http::{HeaderMap, HeaderValue, StatusCode};
    use http_body_util::{BodyExt, StreamBody};

    use crate::proxy::edge::freshness::Life;
    use crate::proxy::edge::store::Store;
    use crate::proxy::error::Kind;
    use crate::proxy::fixture::{full, read};
    use crate::proxy::metrics::OfEdge;

    fn filled(body: Body, length: Option<&'static str>, store: &Arc<Store>) -> Body {
        let mut headers = HeaderMap::new();
        headers.extend(length.map(|length| (CONTENT_LENGTH, HeaderValue::from_static(length))));
        let wall = SystemTime::UNIX_EPOCH;
        let life = Life::of(&headers, wall, wall, false);
        let entry = Entry::new(&HeaderMap::new(), StatusCode::OK, &mut headers, life, wall);
        Fill::new(body, entry, store.slot("key".into()), 10, None).boxed_unsync()
    }

    fn kept(store: &Store) -> Option<Bytes> {
        store.get("key", &HeaderMap::new()).map(|entry| entry.body.clone())
    }

    fn pieces(pieces: Vec<Result<&'static str, Error>>) -> Body {
        let frames = pieces
            .into_iter()
            .map(|piece| piece.map(|text| Frame::data(Bytes::from_static(text.as_bytes()))));
        StreamBody::new(stream::iter(frames.collect::<Vec<_>>())).boxed_unsync()
    }

    #[tokio::test]
    async fn whole_answers_are_kept() {
        for (body, length) in [
            (full("0123456789"), Some("10")),
            (full("0123456789"), None),
            (pieces(vec![Ok("01234"), Ok("56789")]), Some("10")),
            (pieces(vec![Ok("01234"), Ok("56789")]), None),
        ] {
            let store = Arc::new(Store::new(1 << 20, OfEdge::default()));
            let body = filled(body, length, &store);
            assert_eq!(read(body).await.expect("whole"), "0123456789");
            assert_eq!(kept(&store).expect("kept"), "0123456789", "{length:?}");
        }
        let store = Arc::new(Store::new(1 << 20, OfEdge::default()));
        drop(filled(full(""), Some("0"), &store));
        assert_eq!(kept(&store).expect("kept"), "");
    }

    #[tokio::test]
    async fn what_is_large_or_not_whole_is_not() {
        let broken = || Err(Error::new(Kind::Upstream, "broke"));
        for (body, length) in [
            (full("01234567890"), None),
            (pieces(vec![Ok("01234"), broken()]), None),
            (pieces(vec![Ok("01234")]), Some("10")),
        ] {
            let store = Arc::new(Store::new(1 << 20, OfEdge::default()));
            let _ = read(filled(body, length, &store)).await;
            assert_eq!(kept(&store), None, "{length:?}");
        }
        let store = Arc::new(Store::new(1 << 20, OfEdge::default()));
        let mut left = filled(pieces(vec![Ok("01234"), Ok("5")]), None, &store);
        left.frame().await.expect("one").expect("data");
        drop(left);
        assert_eq!(kept(&store), None, "the client left");
    }
}
