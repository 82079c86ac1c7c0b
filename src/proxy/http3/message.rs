//! What a request's header says of its body, and what it must not say in HTTP/3 (RFC 9114 §4.1.2, §4.2). Pure. h3 checks names and
//! values of fields, and neither of these.

use http::Request;
use http::header::{self, HeaderMap, HeaderName};

/// Of one connection of HTTP/1: whoever sends them here may hope that the next one believes them.
const OF_HTTP1: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What one field costs beside its bytes (RFC 9114 §4.2.2), and how many there are of those that begin with a colon.
const FIELD: usize = 32;
const PSEUDO: usize = 4;

/// Size of a header, by the protocol's own way to count.
pub fn size(request: &Request<()>) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let fields = request.headers().iter();
    fields.fold(PSEUDO * FIELD + target, |sum, (name, value)| {
        sum + name.as_str().len() + value.len() + FIELD
    })
}

/// The length that is announced, if one is. `Err`: the request is malformed.
pub fn length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    if OF_HTTP1.iter().any(|name| headers.contains_key(name)) {
        return Err("a field of HTTP/1");
    }
    if headers.get_all(header::TE).iter().any(|value| value != "trailers") {
        return Err("a TE other than trailers");
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    if lengths.next().is_some() {
        return Err("more than one Content-Length");
    }
    let digits = length.to_str().unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a Content-Length that is not a number");
    }
    digits.parse().map(Some).map_err(|_| "a Content-Length beyond counting")
}

#[cfg(test)]
mod tests {
    use super::*;

    use http::HeaderValue;

    fn of(fields: &[(&'static str, &'static str)]) -> Result<Option<u64>, &'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        length(&headers)
    }

    #[test]
    fn every_field_counts() {
        let request = Request::get("/a?b").header("x", "yz").header("x", "").body(()).unwrap();
        assert_eq!(size(&request), 4 * 32 + 4 + 32 + 3 + 32 + 1);
    }

    #[test]
    fn one_plain_length_is_taken() {
        assert_eq!(of(&[("accept", "*/*"), ("te", "trailers")]), Ok(None));
        assert_eq!(of(&[("content-length", "0")]), Ok(Some(0)));
        assert_eq!(of(&[("content-length", "0123")]), Ok(Some(123)));
    }

    #[test]
    fn what_the_next_one_might_read_otherwise_is_refused() {
        for fields in [
            &[("content-length", "3"), ("content-length", "3")][..],
            &[("content-length", "3, 3")],
            &[("content-length", "+3")],
            &[("content-length", "")],
            &[("content-length", "99999999999999999999")],
            &[("transfer-encoding", "chunked")],
            &[("connection", "close")],
            &[("keep-alive", "5")],
            &[("upgrade", "websocket")],
            &[("te", "trailers, chunked")],
        ] {
            assert!(of(fields).is_err(), "{fields:?}");
        }
    }
}
