//! Whether an answer is compressed, and with what. Pure.

use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName,
};
use http::{Response, StatusCode};

use super::Compression;
use crate::config::Coding;
use crate::proxy::conditional::choose;

/// Fields that state a checksum of the bytes as they are: RFC 9530, and its forerunners.
const CHECKSUMS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Says in the requests of browsers who made them (Fetch Metadata).
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Plain,
    /// Plain for this client, compressed for others.
    Varies,
    Compress(Coding),
}

/// `length`: of the content, where it is known but not among the fields.
pub fn decide<B>(compression: &Compression, request: &HeaderMap, answer: &Response<B>, length: Option<u64>) -> Verdict {
    let headers = answer.headers();
    let stated = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let length = stated.and_then(|length| length.parse().ok()).or(length);
    let is_short = length.is_some_and(|length: u64| length < compression.min_size);
    if compression.codings.is_empty() || is_short || !may_change(answer.status(), headers) {
        return Verdict::Plain;
    }
    if is_guessed(request) {
        return Verdict::Varies;
    }
    choose(request, compression.codings.iter().copied()).map_or(Verdict::Varies, Verdict::Compress)
}

/// Whether the answer is whole, as its target has it, and of a kind that is worth it.
fn may_change(status: StatusCode, headers: &HeaderMap) -> bool {
    let has_content = !status.is_informational()
        && !matches!(
            status,
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED
        );
    let is_fixed = [CONTENT_ENCODING, CONTENT_RANGE]
        .iter()
        .chain(&CHECKSUMS)
        .any(|name| headers.contains_key(name));
    let kind = headers
        .get(CONTENT_TYPE)
        .map(|kind| kind.as_bytes())
        .unwrap_or_default();
    has_content && !is_fixed && !forbids(headers) && is_text(kind)
}

/// RFC 9111 §5.2.2.6.
fn forbids(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CACHE_CONTROL).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case("no-transform"))
}

/// Whether content of this type is worth it.
pub fn is_text(kind: &[u8]) -> bool {
    let kind = std::str::from_utf8(kind).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    let kind = kind.trim().to_ascii_lowercase();
    kind.starts_with("text/")
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
        || matches!(
            kind.strip_prefix("application/").unwrap_or_default(),
            "json" | "xml" | "javascript" | "x-javascript" | "wasm" | "x-ndjson" | "rtf" | "vnd.ms-fontobject"
        )
        || matches!(kind.as_str(), "font/ttf" | "font/otf" | "image/x-icon" | "image/bmp")
}

/// Another site made the browser ask in its user's name: it may guess at a secret by the length of the answer.
fn is_guessed(request: &HeaderMap) -> bool {
    request.contains_key(COOKIE) && request.get(SITE).is_some_and(|site| site == "cross-site")
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields<'a> = &'a [(&'a str, &'a str)];

    const HTML: (&str, &str) = ("content-type", "text/html; charset=utf-8");

    fn verdict(request: Fields<'_>, status: u16, answer: Fields<'_>, length: Option<u64>) -> Verdict {
        let compression = Compression {
            codings: vec![Coding::Zstd, Coding::Brotli, Coding::Gzip],
            min_size: 1000,
        };
        let mut asked = http::Request::builder();
        for (name, value) in request {
            asked = asked.header(*name, *value);
        }
        let mut answered = Response::builder().status(status);
        for (name, value) in answer {
            answered = answered.header(*name, *value);
        }
        let (asked, ()) = asked.body(()).expect("a request").into_parts();
        decide(
            &compression,
            &asked.headers,
            &answered.body(()).expect("an answer"),
            length,
        )
    }

    #[test]
    fn text_is_compressed_as_the_client_likes_it() {
        for (accepted, wanted) in [
            ("gzip, deflate, br, zstd", Verdict::Compress(Coding::Zstd)),
            ("gzip, deflate, br", Verdict::Compress(Coding::Brotli)),
            ("gzip", Verdict::Compress(Coding::Gzip)),
            ("zstd;q=0.1, gzip;q=0.9", Verdict::Compress(Coding::Gzip)),
            ("identity, gzip;q=0.5", Verdict::Varies),
            ("zstd;q=0, br;q=0", Verdict::Varies),
            ("", Verdict::Varies),
        ] {
            let request = [("accept-encoding", accepted)];
            assert_eq!(verdict(&request, 200, &[HTML], None), wanted, "{accepted}");
        }
        assert_eq!(verdict(&[], 200, &[HTML], None), Verdict::Varies);
    }

    #[test]
    fn what_is_not_whole_text_stays_as_it_is() {
        let gzip = [("accept-encoding", "gzip")];
        let yes = Verdict::Compress(Coding::Gzip);
        for (status, fields, wanted) in [
            (200, &[HTML][..], yes),
            (404, &[HTML], yes),
            (200, &[("content-type", "application/problem+json")], yes),
            (200, &[("content-type", "IMAGE/SVG+XML")], yes),
            (200, &[("content-type", "text/event-stream")], yes),
            (200, &[HTML, ("content-length", "1000")], yes),
            (200, &[HTML, ("content-length", "999")], Verdict::Plain),
            (200, &[], Verdict::Plain),
            (200, &[("content-type", "image/png")], Verdict::Plain),
            (200, &[("content-type", "application/zip")], Verdict::Plain),
            (200, &[HTML, ("content-encoding", "gzip")], Verdict::Plain),
            (200, &[HTML, ("content-encoding", "identity")], Verdict::Plain),
            (200, &[HTML, ("content-range", "bytes 0-1/2")], Verdict::Plain),
            (200, &[HTML, ("cache-control", "private, No-Transform")], Verdict::Plain),
            (200, &[HTML, ("repr-digest", "sha-256=:AA==:")], Verdict::Plain),
            (206, &[HTML], Verdict::Plain),
            (204, &[HTML], Verdict::Plain),
            (304, &[HTML], Verdict::Plain),
        ] {
            assert_eq!(verdict(&gzip, status, fields, None), wanted, "{status} {fields:?}");
        }
        assert_eq!(verdict(&gzip, 200, &[HTML], Some(999)), Verdict::Plain);
    }

    #[test]
    fn other_sites_cannot_measure_a_users_pages() {
        let asked = |site: &'static str, cookie: bool| {
            let mut fields = vec![("accept-encoding", "br"), ("sec-fetch-site", site)];
            fields.extend(cookie.then_some(("cookie", "PHPSESSID=1")));
            verdict(&fields, 200, &[HTML], None)
        };
        assert_eq!(asked("cross-site", true), Verdict::Varies);
        assert_eq!(asked("cross-site", false), Verdict::Compress(Coding::Brotli));
        assert_eq!(asked("same-origin", true), Verdict::Compress(Coding::Brotli));
    }
}
