//! A body on its way to the client of which a copy is kept, if it comes whole and is not too large.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderMap};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::Edge;
use super::entry::Entry;
use super::flights::{Flight, Flights};
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
    flights: Flights,
    /// Others wait for it.
    _flight: Option<Flight>,
}

impl Fill {
    pub fn new(edge: &Edge, body: Body, entry: Entry, slot: Slot, flight: Option<Flight>) -> Self {
        let copy = Copy {
            length: length(&entry.headers),
            entry,
            slot,
            bytes: BytesMut::new(),
            most: edge.most,
            flights: edge.flights.clone(),
            _flight: flight,
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
            copy.flights.is_in_vain(copy.slot.key());
            self.copy = None;
        }
    }
}

/// Of a body, as its head says.
pub fn length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
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

    use std::time::SystemTime;

    use futures_util::stream;
    use http::{HeaderValue, StatusCode};
    use http_body_util::{BodyExt, StreamBody};

    use crate::proxy::edge::flights::Turn;
    use crate::proxy::edge::freshness::Life;
    use crate::proxy::error::Kind;
    use crate::proxy::fixture::{full, read};
    use crate::proxy::metrics::OfEdge;

    fn edge() -> Edge {
        Edge::new(1 << 20, 10, OfEdge::default())
    }

    fn filled(body: Body, length: Option<&'static str>, edge: &Edge) -> Body {
        let mut headers = HeaderMap::new();
        headers.extend(length.map(|length| (CONTENT_LENGTH, HeaderValue::from_static(length))));
        let wall = SystemTime::UNIX_EPOCH;
        let life = Life::of(&headers, wall, wall, false);
        let entry = Entry::new(&HeaderMap::new(), StatusCode::OK, &mut headers, life, wall);
        Fill::new(edge, body, entry, edge.store.slot("key".into()), None).boxed_unsync()
    }

    fn kept(edge: &Edge) -> Option<Bytes> {
        edge.store.get("key", &HeaderMap::new()).map(|entry| entry.body.clone())
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
            let edge = edge();
            let body = filled(body, length, &edge);
            assert_eq!(read(body).await.expect("whole"), "0123456789");
            assert_eq!(kept(&edge).expect("kept"), "0123456789", "{length:?}");
        }
        let edge = edge();
        drop(filled(full(""), Some("0"), &edge));
        assert_eq!(kept(&edge).expect("kept"), "");
    }

    #[tokio::test]
    async fn what_is_large_or_not_whole_is_not() {
        let broken = || Err(Error::new(Kind::Upstream, "broke"));
        for (body, length) in [
            (full("01234567890"), None),
            (pieces(vec![Ok("01234"), broken()]), None),
            (pieces(vec![Ok("01234")]), Some("10")),
        ] {
            let edge = edge();
            let _ = read(filled(body, length, &edge)).await;
            assert_eq!(kept(&edge), None, "{length:?}");
        }
        let edge = edge();
        let mut left = filled(pieces(vec![Ok("01234"), Ok("5")]), None, &edge);
        left.frame().await.expect("one").expect("data");
        drop(left);
        assert_eq!(kept(&edge), None, "the client left");
    }

    #[tokio::test]
    async fn nobody_waits_for_what_is_too_large() {
        let edge = edge();
        assert!(edge.flights.enter("key").await.flight().is_some());
        read(filled(full("01234567890"), None, &edge)).await.expect("whole");
        assert!(matches!(edge.flights.enter("key").await, Turn::Free));
    }
}
