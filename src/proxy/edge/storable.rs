//! Whether an answer may be kept for others (RFC 9111 §3). Pure. Stricter than the RFC where a portal's pages are at stake: what sets a
//! cookie is never kept, and what was asked with cookies only where the answer says that it is for all.

use http::header::{AUTHORIZATION, CACHE_CONTROL, COOKIE, ETAG, HeaderMap, LAST_MODIFIED, SET_COOKIE, VARY};
use http::{Method, StatusCode};

use super::directives::Directives;
use super::freshness::{Life, TARGETED, directives};

/// Statuses whose time may be guessed (RFC 9110 §15.1), but for parts.
const GUESSED: [u16; 10] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414];

/// Whether a time may be guessed for an answer.
pub fn may_guess(request: &HeaderMap, status: StatusCode, answer: &HeaderMap) -> bool {
    let is_public = directives(answer).has("public");
    (GUESSED.contains(&status.as_u16()) || status == StatusCode::NOT_IMPLEMENTED || is_public)
        && !request.contains_key(COOKIE)
}

/// Whether the answer forbids it, which is what most pages do: that needs no further look.
pub fn is_private(answer: &HeaderMap) -> bool {
    let said = directives(answer);
    said.has("no-store") || said.has("private")
}

pub fn may_store(method: &Method, request: &HeaderMap, status: StatusCode, answer: &HeaderMap, life: &Life) -> bool {
    let said = directives(answer);
    let is_final = status.as_u16() >= 200 && !matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED);
    let is_forbidden = Directives::read(request, &CACHE_CONTROL).has("no-store")
        || said.has("no-store")
        || said.has("private")
        || said.has("must-understand") && status.canonical_reason().is_none()
        || answer.contains_key(SET_COOKIE)
        || varies_by_all(answer);
    let is_for_all = is_for_all(answer);
    let is_shared = match (request.contains_key(AUTHORIZATION), request.contains_key(COOKIE)) {
        // §3.5.
        (true, _) => is_for_all || said.has("must-revalidate"),
        (false, true) => is_for_all,
        (false, false) => true,
    };
    let has_validator = answer.contains_key(ETAG) || answer.contains_key(LAST_MODIFIED);
    let is_useful = life.is_explicit || !life.fresh.is_zero() || life.is_checked && has_validator;
    *method == Method::GET && is_final && !is_forbidden && is_shared && is_useful
}

/// Whether the answer says that it is the same for everybody.
pub fn is_for_all(answer: &HeaderMap) -> bool {
    let said = directives(answer);
    said.has("public") || said.has("s-maxage") || answer.contains_key(TARGETED)
}

fn varies_by_all(answer: &HeaderMap) -> bool {
    let fields = answer.get_all(VARY).iter();
    fields
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim() == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::SystemTime;

    use http::HeaderValue;

    type Fields<'a> = &'a [(&'static str, &'static str)];

    fn headers(fields: Fields<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn is_kept(method: &str, request: Fields<'_>, status: u16, answer: Fields<'_>) -> bool {
        let (request, answer) = (headers(request), headers(answer));
        let status = StatusCode::from_u16(status).expect("a status");
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(784_111_777);
        let life = Life::of(&answer, now, now, may_guess(&request, status, &answer));
        may_store(&method, &request, status, &answer, &life)
    }

    #[test]
    fn what_is_said_to_be_for_all_is_kept() {
        const HOUR: (&str, &str) = ("cache-control", "max-age=3600");
        for (method, request, status, answer, expected) in [
            ("GET", &[][..], 200, &[HOUR][..], true),
            ("GET", &[], 404, &[HOUR], true),
            ("GET", &[], 599, &[HOUR], true),
            ("GET", &[], 599, &[HOUR, ("cache-control", "must-understand")], false),
            ("GET", &[], 404, &[HOUR, ("cache-control", "must-understand")], true),
            ("GET", &[], 200, &[], false),
            (
                "GET",
                &[],
                200,
                &[("last-modified", "Sun, 06 Nov 1994 02:00:00 GMT")],
                true,
            ),
            (
                "GET",
                &[],
                403,
                &[("last-modified", "Sun, 06 Nov 1994 02:00:00 GMT")],
                false,
            ),
            ("GET", &[], 206, &[HOUR], false),
            ("GET", &[], 304, &[HOUR], false),
            ("POST", &[], 200, &[HOUR], false),
            ("HEAD", &[], 200, &[HOUR], false),
            ("GET", &[("cache-control", "no-store")], 200, &[HOUR], false),
            ("GET", &[], 200, &[HOUR, ("vary", "accept, *")], false),
            ("GET", &[], 200, &[HOUR, ("set-cookie", "a=1")], false),
            ("GET", &[], 200, &[("cache-control", "max-age=1, private")], false),
            ("GET", &[], 200, &[("cache-control", "max-age=1, No-Store")], false),
            ("GET", &[("authorization", "x")], 200, &[HOUR], false),
            (
                "GET",
                &[("authorization", "x")],
                200,
                &[("cache-control", "s-maxage=1")],
                true,
            ),
            ("GET", &[("cookie", "PHPSESSID=1")], 200, &[HOUR], false),
            (
                "GET",
                &[("cookie", "PHPSESSID=1")],
                200,
                &[("cache-control", "public, max-age=1")],
                true,
            ),
            (
                "GET",
                &[("cookie", "PHPSESSID=1")],
                200,
                &[("last-modified", "Sun, 06 Nov 1994 02:00:00 GMT")],
                false,
            ),
        ] {
            assert_eq!(
                is_kept(method, request, status, answer),
                expected,
                "{method} {request:?} {status} {answer:?}"
            );
        }
    }

    #[test]
    fn a_portals_page_is_never_kept() {
        // What PHP's session says by itself.
        let session: Fields<'_> = &[
            ("expires", "Thu, 19 Nov 1981 08:52:00 GMT"),
            ("cache-control", "no-store, no-cache, must-revalidate"),
            ("pragma", "no-cache"),
        ];
        assert!(!is_kept("GET", &[], 200, session));
    }
}
