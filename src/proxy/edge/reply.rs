//! An answer out of a stored one: conditions, ranges, age. Pure but for the clocks that are handed in.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RANGE};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};

use super::entry::Entry;
use crate::proxy::conditional::{Outcome, Validators, decide};
use crate::proxy::error::{Error, Kind};
use crate::proxy::exchange::Body;
use crate::proxy::range::{Ranges, parse};

/// How an answer came about (RFC 9211).
pub const STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What a 304 says (RFC 9110 §15.4.5) is all but what speaks of a body.
const OF_BODY: [HeaderName; 3] = [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_RANGE];

/// `note`: what `Cache-Status` says.
pub fn reply(
    method: &Method,
    request: &HeaderMap,
    entry: &Entry,
    age: Duration,
    wall: SystemTime,
    note: &'static str,
) -> Result<Response<Body>, Error> {
    let mut headers = entry.headers.clone();
    headers.insert(AGE, HeaderValue::from(age.as_secs()));
    headers.append(STATUS, HeaderValue::from_static(note));
    let mut status = entry.status;
    let mut body = entry.body.clone();
    if status == StatusCode::OK {
        let validators = Validators {
            etag: entry.etag().unwrap_or_default(),
            // Without a date of its own, when it came (RFC 9111 §4.3.2).
            modified: entry.modified().unwrap_or(entry.wall),
        };
        match decide(request, &validators, wall) {
            Outcome::NotModified => {
                OF_BODY.iter().for_each(|name| _ = headers.remove(name));
                return Ok(respond(StatusCode::NOT_MODIFIED, headers, Bytes::new()));
            }
            Outcome::Failed => return Ok(respond(StatusCode::PRECONDITION_FAILED, HeaderMap::new(), Bytes::new())),
            Outcome::Proceed { with_range } => {
                let range = request.get(RANGE).filter(|_| with_range && *method == Method::GET);
                let size = body.len() as u64;
                match range
                    .and_then(|range| range.to_str().ok())
                    .map(|range| parse(range, size))
                {
                    Some(Ranges::Unsatisfiable) => {
                        return Err(Error::new(Kind::Range(size), "no range lies within the answer"));
                    }
                    // Several parts are sent as the whole, which is always allowed (RFC 9110 §14.2).
                    Some(Ranges::Parts(parts)) if parts.len() == 1 => {
                        for part in parts {
                            let range = format!("bytes {}-{}/{size}", part.start, part.end - 1);
                            if let Ok(value) = HeaderValue::try_from(range) {
                                headers.insert(CONTENT_RANGE, value);
                            }
                            let end = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(body.len());
                            body = body.slice(end(part.start)..end(part.end));
                            status = StatusCode::PARTIAL_CONTENT;
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    if status != StatusCode::NO_CONTENT {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let body = if *method == Method::HEAD { Bytes::new() } else { body };
    Ok(respond(status, headers, body))
}

fn respond(status: StatusCode, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let mut answer = Response::new(Full::new(body).map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::proxy::edge::freshness::Life;
    use crate::proxy::fixture::{headers, read};

    async fn ask(method: &str, request: &[(&'static str, &'static str)]) -> (u16, HeaderMap, Bytes) {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let mut answer = headers(&[
            ("etag", "\"a\""),
            ("content-type", "text/plain"),
            ("last-modified", "Sun, 06 Nov 1994 02:00:00 GMT"),
        ]);
        let life = Life::of(&answer, wall, wall, false);
        let mut entry = Entry::new(&HeaderMap::new(), StatusCode::OK, &mut answer, life, wall);
        entry.body = Bytes::from_static(b"0123456789");
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let answer = reply(
            &method,
            &headers(request),
            &entry,
            Duration::from_secs(7),
            wall,
            "bitrix-node; hit",
        );
        let (parts, body) = answer.expect("answered").into_parts();
        (parts.status.as_u16(), parts.headers, read(body).await.expect("whole"))
    }

    #[tokio::test]
    async fn a_stored_answer_serves_every_form_of_request() {
        let (status, headers, body) = ask("GET", &[]).await;
        assert_eq!((status, &body[..]), (200, &b"0123456789"[..]));
        assert_eq!(headers["age"], "7");
        assert_eq!(headers["cache-status"], "bitrix-node; hit");
        let (status, headers, body) = ask("HEAD", &[]).await;
        assert_eq!(
            (status, &headers["content-length"], body.len()),
            (200, &HeaderValue::from(10), 0)
        );
        let (status, headers, body) = ask("GET", &[("if-none-match", "W/\"a\"")]).await;
        assert_eq!(
            (status, headers.contains_key("content-type"), body.len()),
            (304, false, 0)
        );
        let (status, headers, body) = ask("GET", &[("range", "bytes=2-4")]).await;
        assert_eq!((status, &body[..]), (206, &b"234"[..]));
        assert_eq!(headers["content-range"], "bytes 2-4/10");
        let (status, _, _) = ask("GET", &[("range", "bytes=0-1,8-9")]).await;
        assert_eq!(status, 200);
        let (status, _, _) = ask("GET", &[("range", "bytes=2-4"), ("if-range", "\"b\"")]).await;
        assert_eq!(status, 200);
    }
}
