//! The beginning of a body, a request's or an answer's, held in memory while the firewall looks at it, and the body as a whole afterwards.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::proxy::error::Error;
use crate::proxy::exchange::Body;
use crate::proxy::gathered::Gathered;

pub struct Held {
    /// The beginning, at most as much as was asked for.
    pub text: Bytes,
    pub size: usize,
    /// The body goes on behind it.
    pub is_cut: bool,
    pub body: Body,
}

impl Held {
    /// Of a body that is not looked at.
    pub fn none(body: Body) -> Self {
        Held {
            text: Bytes::new(),
            size: 0,
            is_cut: false,
            body,
        }
    }
}

/// Reads until `most` bytes have come, or all. Its time is bounded where the silence of who sends it is.
pub async fn hold(mut body: Body, most: usize) -> Result<Held, Error> {
    let mut text = Gathered::default();
    // Of the piece in which the bound lies, and trailers.
    let mut behind = VecDeque::new();
    let mut size = 0;
    let mut is_whole = body.is_end_stream();
    while !is_whole && size <= most {
        let Some(frame) = body.frame().await.transpose()? else {
            is_whole = true;
            continue;
        };
        match frame.into_data() {
            Ok(mut data) => {
                size += data.len();
                let beyond = data.split_off(data.len().min(most - text.len()));
                text.push(data);
                behind.extend((!beyond.is_empty()).then(|| Frame::data(beyond)));
            }
            Err(trailers) => behind.push_back(trailers),
        }
    }
    let text = text.join();
    let is_cut = !is_whole || size > most;
    let mut first = behind;
    if !text.is_empty() {
        first.push_front(Frame::data(text.clone()));
    }
    let body = match first.is_empty() {
        true => body,
        false => Replayed { first, rest: body }.boxed_unsync(),
    };
    Ok(Held {
        size: text.len(),
        text,
        is_cut,
        body,
    })
}

struct Replayed {
    first: VecDeque<Frame<Bytes>>,
    rest: Body,
}

impl HttpBody for Replayed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let me = self.get_mut();
        match me.first.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut me.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.first.iter().filter_map(Frame::data_ref);
        let held: u64 = held.map(|data| data.len() as u64).sum();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + held);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderMap, HeaderValue};
    use http_body_util::{Full, StreamBody};

    use super::*;
    use crate::proxy::fixture::{crumbled, crumbs, read};

    fn body(parts: &[&'static str]) -> Body {
        let frames: Vec<_> = parts
            .iter()
            .map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))))
            .collect();
        StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
    }

    #[tokio::test]
    async fn the_target_gets_the_whole_body_however_much_was_held() {
        for most in 0..8 {
            let held = hold(body(&["ab", "cd", "ef"]), most).await.unwrap();
            assert_eq!(held.text, &b"abcdef"[..most.min(6)]);
            assert_eq!(held.is_cut, most < 6, "{most}");
            let whole = held.body.collect().await.unwrap().to_bytes();
            assert_eq!(whole, "abcdef");
        }
    }

    #[tokio::test]
    async fn single_bytes_do_not_keep_what_they_were_read_into() {
        for most in [10_000, 20_000, 9_000] {
            let buffers = Arc::new(());
            let held = hold(crumbled(10_000, &buffers), most).await.unwrap();
            assert!(
                Arc::strong_count(&buffers) < 5,
                "{} buffers",
                Arc::strong_count(&buffers)
            );
            assert_eq!(held.text, crumbs(10_000)[..most.min(10_000)]);
            assert_eq!(held.is_cut, most < 10_000);
            assert_eq!(read(held.body).await.unwrap(), crumbs(10_000));
        }
    }

    #[tokio::test]
    async fn trailers_stay_at_the_end() {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("x"))]);
        let frames = [
            Frame::data(Bytes::from_static(b"ab")),
            Frame::data(Bytes::new()),
            Frame::data(Bytes::from_static(b"cd")),
            Frame::trailers(trailers.clone()),
        ];
        for most in 0..5 {
            let frames = frames
                .iter()
                .map(|frame| match (frame.data_ref(), frame.trailers_ref()) {
                    (Some(data), _) => Ok(Frame::data(data.clone())),
                    (None, trailers) => Ok(Frame::trailers(trailers.cloned().unwrap_or_default())),
                });
            let frames: Vec<_> = frames.collect();
            let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
            let whole = hold(body, most).await.unwrap().body.collect().await.unwrap();
            assert_eq!(whole.trailers(), Some(&trailers), "{most}");
            assert_eq!(whole.to_bytes(), "abcd");
        }
    }

    #[tokio::test]
    async fn the_length_that_was_announced_stays_known() {
        let whole = Full::new(Bytes::from_static(b"abcdef"))
            .map_err(|never| match never {})
            .boxed_unsync();
        let held = hold(whole, 100).await.unwrap();
        assert_eq!(held.body.size_hint().exact(), Some(6));
        assert!(!held.body.is_end_stream());
    }
}
