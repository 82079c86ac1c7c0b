//! Answers that the proxy makes itself: error pages, redirects. The only place that makes them.
//! They say what the visitor can do and the request's id, by which an admin finds the cause in the log; never the cause itself.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};

use super::balance::hop;
use super::error::{Error, Kind};
use super::exchange::Body;

const TEMPLATE: &str = include_str!("../../assets/errors/page.html");

/// Methods that files and scripts know.
const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// Seconds after which a client may come back when we were full or starting.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// What the vendor's cloud says then; programs that use it know to wait.
const REST_LIMITED: &str = r#"{"error":"QUERY_LIMIT_EXCEEDED","error_description":"Too many requests"}"#;

/// What the client can make of a page.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    pub takes_html: bool,
    pub is_head: bool,
}

impl Reader {
    pub fn of(method: &Method, headers: &HeaderMap) -> Self {
        let accepts = headers.get_all(header::ACCEPT).iter();
        Reader {
            takes_html: accepts
                .into_iter()
                .any(|value| contains(value.as_bytes(), b"text/html")),
            is_head: method == Method::HEAD,
        }
    }
}

/// Status code of an error; 499 for a client that is gone, which only the log sees.
pub fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::ClientGone => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        kind => text(kind).0,
    }
}

/// What a directory of certificates looks for (RFC 8555 §8.3).
pub fn challenge(authorization: String) -> Response<Body> {
    let mut answer = whole(StatusCode::OK, authorization, false);
    let kind = HeaderValue::from_static("application/octet-stream");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// The page of an error.
pub fn page(error: &Error, reader: Reader, id: &str) -> Response<Body> {
    let (_, title, advice) = text(error.kind);
    let code = status(error.kind);
    let (kind, content) = if let Kind::RestLimited(_) = error.kind {
        ("application/json", REST_LIMITED.to_string())
    } else if reader.takes_html {
        let page = TEMPLATE
            .replace("{status}", code.as_str())
            .replace("{title}", title)
            .replace("{text}", advice)
            .replace("{id}", id);
        ("text/html; charset=utf-8", page)
    } else {
        (
            "text/plain; charset=utf-8",
            format!("{} {title}\n{id}\n", code.as_str()),
        )
    };
    let mut answer = whole(code, content, reader.is_head);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    match error.kind {
        Kind::Method => set(headers, header::ALLOW, ALLOWED),
        Kind::Unavailable | Kind::TooMany => set(headers, header::RETRY_AFTER, RETRY_AFTER),
        Kind::Limited(seconds) | Kind::RestLimited(seconds) => set(headers, header::RETRY_AFTER, seconds.into()),
        Kind::Range(whole) => {
            if let Ok(value) = HeaderValue::try_from(format!("bytes */{whole}")) {
                set(headers, header::CONTENT_RANGE, value);
            }
        }
        _ => {}
    }
    answer
}

/// To another front: PHP failed here. It has no page, because the other front shows its own or asks another node.
pub fn fault(error: &Error) -> Response<Body> {
    let mut answer = whole(status(error.kind), String::new(), true);
    hop::write_fault(error, answer.headers_mut());
    answer
}

/// To another place. `location` is an escaped path with its query, or a URL.
pub fn moved(location: &str) -> Result<Response<Body>, Error> {
    let location = HeaderValue::try_from(location)
        .map_err(|_| Error::new(Kind::Malformed, "a query that fits into no Location header"))?;
    let mut answer = whole(StatusCode::MOVED_PERMANENTLY, String::new(), false);
    answer.headers_mut().insert(header::LOCATION, location);
    Ok(answer)
}

/// To the same address by https. What is sent must be sent again by its own method (RFC 9110 §15.4.9).
pub fn secured(location: &str, method: &Method) -> Result<Response<Body>, Error> {
    let mut answer = moved(location)?;
    if !matches!(*method, Method::GET | Method::HEAD) {
        *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
    }
    Ok(answer)
}

/// To `OPTIONS *`: what the server as a whole knows (RFC 9110 §9.3.7).
pub fn options() -> Response<Body> {
    let mut answer = whole(StatusCode::NO_CONTENT, String::new(), true);
    answer.headers_mut().remove(header::CONTENT_LENGTH);
    set(answer.headers_mut(), header::ALLOW, ALLOWED);
    answer
}

/// The bytes of an answer to a connection that is not taken up.
pub fn short(kind: Kind) -> String {
    let (code, title, _) = text(kind);
    let body = format!("{} {title}\n", code.as_str());
    format!(
        "HTTP/1.1 {} {title}\r\nconnection: close\r\ncontent-type: text/plain\r\ncache-control: no-store\r\nretry-after: 5\r\n\
         content-length: {}\r\n\r\n{body}",
        code.as_str(),
        body.len(),
    )
}

fn whole(code: StatusCode, content: String, is_head: bool) -> Response<Body> {
    let length = HeaderValue::from(content.len());
    let content = if is_head { Bytes::new() } else { Bytes::from(content) };
    let body = Full::new(content).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = code;
    let headers = answer.headers_mut();
    set(headers, header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    set(headers, header::CONTENT_LENGTH, length);
    answer
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    headers.insert(name, value);
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

/// Status, title and advice of each kind.
fn text(kind: Kind) -> (StatusCode, &'static str, &'static str) {
    const AGAIN: &str = "Please try again in a moment. If it stays so, tell your administrator the number below.";
    const REPORT: &str = "Please tell your administrator the number below.";
    const REQUEST: &str = "Your browser or program sent something that this server does not take.";
    match kind {
        Kind::Malformed | Kind::ClientGone => (StatusCode::BAD_REQUEST, "Bad Request", REQUEST),
        Kind::Forbidden => (StatusCode::FORBIDDEN, "Forbidden", "This page is not for visitors."),
        Kind::NotFound => (
            StatusCode::NOT_FOUND,
            "Not Found",
            "There is no such page. Please check the address.",
        ),
        Kind::Method => (StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed", REQUEST),
        Kind::Slow => (
            StatusCode::REQUEST_TIMEOUT,
            "Request Timeout",
            "The request did not arrive in time. Please try again.",
        ),
        Kind::Length => (StatusCode::LENGTH_REQUIRED, "Length Required", REQUEST),
        Kind::TooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "Content Too Large",
            "The file is larger than this server takes.",
        ),
        Kind::TargetTooLong => (
            StatusCode::URI_TOO_LONG,
            "URI Too Long",
            "The address is longer than this server takes.",
        ),
        Kind::Range(_) => (StatusCode::RANGE_NOT_SATISFIABLE, "Range Not Satisfiable", REQUEST),
        Kind::Expectation => (StatusCode::EXPECTATION_FAILED, "Expectation Failed", REQUEST),
        Kind::Misdirected => (
            StatusCode::MISDIRECTED_REQUEST,
            "Misdirected Request",
            "This server does not answer for that name.",
        ),
        Kind::TooMany | Kind::Limited(_) => (StatusCode::TOO_MANY_REQUESTS, "Too Many Requests", AGAIN),
        Kind::HeaderTooLarge => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "Request Header Fields Too Large",
            "Deleting the cookies of this site may help.",
        ),
        Kind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error", REPORT),
        Kind::NotImplemented => (StatusCode::NOT_IMPLEMENTED, "Not Implemented", REQUEST),
        Kind::Upstream => (StatusCode::BAD_GATEWAY, "Bad Gateway", AGAIN),
        Kind::Unavailable | Kind::RestLimited(_) => (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable", AGAIN),
        Kind::UpstreamSlow => (StatusCode::GATEWAY_TIMEOUT, "Gateway Timeout", AGAIN),
        Kind::Version => (
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "HTTP Version Not Supported",
            REQUEST,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROWSER: Reader = Reader {
        takes_html: true,
        is_head: false,
    };

    async fn body(answer: Response<Body>) -> String {
        let bytes = answer.into_body().collect().await.expect("a body in memory").to_bytes();
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    #[tokio::test]
    async fn page_shows_the_id_and_hides_the_cause() {
        let error = Error::new(Kind::Upstream, "connect to /run/php.sock: refused");
        let answer = page(&error, BROWSER, "0123456789abcdef");
        assert_eq!(answer.status(), 502);
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let text = body(answer).await;
        assert!(text.contains("0123456789abcdef"));
        assert!(
            !["{status}", "{title}", "{text}", "{id}"]
                .iter()
                .any(|name| text.contains(name))
        );
        assert!(!text.contains("php.sock"));
    }

    #[tokio::test]
    async fn programs_get_plain_text_and_head_gets_none() {
        let error = Error::new(Kind::NotFound, "");
        let program = Reader {
            takes_html: false,
            is_head: false,
        };
        let answer = page(&error, program, "id");
        assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(body(answer).await, "404 Not Found\nid\n");
        let head = page(
            &error,
            Reader {
                is_head: true,
                ..program
            },
            "id",
        );
        assert_eq!(head.headers()["content-length"], "17");
        assert_eq!(body(head).await, "");
    }

    #[test]
    fn fields_that_a_status_needs_are_there() {
        let answer = |kind| page(&Error::new(kind, ""), BROWSER, "id");
        assert_eq!(answer(Kind::Range(7)).headers()["content-range"], "bytes */7");
        assert!(answer(Kind::Method).headers().contains_key("allow"));
        assert!(answer(Kind::Unavailable).headers().contains_key("retry-after"));
        assert_eq!(answer(Kind::Limited(7)).headers()["retry-after"], "7");
        let rest = answer(Kind::RestLimited(7));
        assert_eq!(rest.status(), 503);
        assert_eq!(rest.headers()["content-type"], "application/json");
        assert!(moved("/a?\n").is_err());
        let short = short(Kind::TooMany);
        assert!(
            short.starts_with("HTTP/1.1 429 ") && short.ends_with("\r\n\r\n429 Too Many Requests\n"),
            "{short}"
        );
    }
}
