//! Compression of answers: what (`decide`), how (`coder`), and as it streams (`body`).
//!
//! - Whatever a target answers and has not encoded itself, where its type is text and the client takes one of our codings. The node
//!   that makes the answer compresses it, so the work is where PHP is, and less passes between the nodes.
//! - A streamed answer stays one: whenever its target pauses, everything that came so far goes out.
//! - An entity tag becomes weak (RFC 9110 §8.8.1): two runs need not give the same bytes, so no range of them may be joined.
//! - Memory is bounded by `coder`'s windows and `SEATS`; one answer more than that goes out plain.
//!
//! BREACH: who can make a browser ask again and again with guesses in the address, and sees the length of the answers, can find out
//! a secret in the page. A request that another site made a browser send, with its cookies, gets a plain answer; there
//! is none such where the session's cookie is `SameSite`, as the portal sets it. `proxy.compress = []` turns it all off.

mod body;
mod coder;
mod decide;

use std::sync::Arc;

use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderMap, HeaderValue, VARY};
use http::{Method, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::sync::Semaphore;

use self::body::Compressed;
use self::coder::Coder;
pub use self::coder::pack;
use self::decide::Verdict;
pub use self::decide::is_text;
use super::conditional;
use super::exchange::{Body, Exchange};
use super::metrics::Metrics;
use crate::config::Coding;

/// Answers compressed at once, in some 560 MiB at most. Only slow clients of long answers keep a coder for long.
const SEATS: usize = 256;

/// How the front compresses.
#[derive(Clone, Debug)]
pub struct Compression {
    /// Most wanted first.
    pub codings: Vec<Coding>,
    /// Shorter ones are not worth it.
    pub min_size: u64,
}

/// Bounds the coders at work.
pub struct Compressor {
    seats: Arc<Semaphore>,
}

impl Default for Compressor {
    fn default() -> Self {
        Compressor {
            seats: Arc::new(Semaphore::new(SEATS)),
        }
    }
}

impl Compressor {
    /// Compresses an answer, if that is wanted, or says of it that others get it otherwise.
    pub fn apply(
        &self,
        compression: &Compression,
        exchange: &Exchange,
        mut answer: Response<Body>,
        metrics: &Arc<Metrics>,
    ) -> Response<Body> {
        let request = &exchange.request.headers;
        if answer.status() == StatusCode::NOT_MODIFIED {
            keep_form(request, answer.headers_mut());
            return answer;
        }
        let is_head = exchange.request.method == Method::HEAD;
        // Of an answer to HEAD the empty body says nothing.
        let length = answer.body().size_hint().exact().filter(|_| !is_head);
        let coding = match decide::decide(compression, request, &answer, length) {
            Verdict::Plain => return answer,
            Verdict::Varies => {
                vary(answer.headers_mut());
                return answer;
            }
            Verdict::Compress(coding) => coding,
        };
        vary(answer.headers_mut());
        if is_head {
            mark(answer.headers_mut(), coding);
            return answer;
        }
        let Ok(seat) = self.seats.clone().try_acquire_owned() else {
            metrics.uncompressed();
            return answer;
        };
        let Ok(coder) = Coder::new(coding, length) else {
            return answer;
        };
        mark(answer.headers_mut(), coding);
        let numbers = metrics.of_coding(coding);
        answer.map(|body| Compressed::new(body, coder, numbers, seat).boxed_unsync())
    }
}

/// The fields of a compressed answer.
fn mark(headers: &mut HeaderMap, coding: Coding) {
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    let Some(tag) = headers.get(ETAG).and_then(|tag| tag.to_str().ok()) else {
        return;
    };
    if let Some(weak) = weak(tag) {
        headers.insert(ETAG, weak);
    }
}

/// A 304 names the tag as the client knows it: a strong one would not freshen the stored answer that has it weak (RFC 9111 §4.3.4).
fn keep_form(request: &HeaderMap, headers: &mut HeaderMap) {
    let tag = headers.get(ETAG).and_then(|tag| tag.to_str().ok());
    let Some(weak) = tag.and_then(weak) else { return };
    if weak.to_str().is_ok_and(|weak| conditional::knows(request, weak)) {
        headers.insert(ETAG, weak);
        vary(headers);
    }
}

/// `None`: it is weak already, or none.
fn weak(tag: &str) -> Option<HeaderValue> {
    tag.starts_with('"')
        .then(|| HeaderValue::try_from(format!("W/{tag}")).ok())?
}

fn vary(headers: &mut HeaderMap) {
    let names = headers.get_all(VARY).iter().filter_map(|value| value.to_str().ok());
    let has = names
        .flat_map(|value| value.split(','))
        .any(|name| name.trim() == "*" || name.trim().eq_ignore_ascii_case("accept-encoding"));
    if !has {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        vary(&mut headers);
        mark(&mut headers, Coding::Brotli);
        headers
    }

    #[test]
    fn fields_fit_what_is_sent() {
        let headers = marked(&[("etag", "\"a\""), ("content-length", "7"), ("accept-ranges", "bytes")]);
        assert_eq!(headers["etag"], "W/\"a\"");
        assert_eq!(headers["content-encoding"], "br");
        assert_eq!(headers["vary"], "accept-encoding");
        assert_eq!(headers.len(), 3, "{headers:?}");
        assert_eq!(marked(&[("etag", "W/\"a\"")])["etag"], "W/\"a\"");
        for known in ["Accept-Encoding", "cookie, accept-encoding", "*"] {
            let headers = marked(&[("vary", known)]);
            assert_eq!(headers.get_all("vary").iter().count(), 1, "{known}");
        }
        assert_eq!(marked(&[("vary", "cookie")]).get_all("vary").iter().count(), 2);
    }

    #[test]
    fn a_304_names_the_tag_that_the_client_has() {
        for (known, tag, kept) in [
            ("W/\"a\"", "\"a\"", "W/\"a\""),
            ("\"b\", W/\"a\"", "\"a\"", "W/\"a\""),
            ("\"a\"", "\"a\"", "\"a\""),
            ("*", "\"a\"", "\"a\""),
        ] {
            let asked = HeaderMap::from_iter([(http::header::IF_NONE_MATCH, HeaderValue::from_static(known))]);
            let mut headers = HeaderMap::from_iter([(ETAG, HeaderValue::from_static(tag))]);
            keep_form(&asked, &mut headers);
            assert_eq!(headers["etag"], kept, "{known}");
        }
    }
}
