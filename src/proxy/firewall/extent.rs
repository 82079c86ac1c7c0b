//! How much of an answer the firewall looks at. Pure.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

/// Never at its end while somebody listens, so it is never held, whatever is configured.
const ENDLESS: &str = "text/event-stream";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// It says nothing of its own: a change of the protocol, or that what is kept still holds.
    Nothing,
    Head,
    Body,
}

/// `types`: whose content is looked at.
pub fn extent(types: &[String], method: &Method, status: StatusCode, headers: &HeaderMap) -> Extent {
    if status.is_informational() || status == StatusCode::NOT_MODIFIED {
        return Extent::Nothing;
    }
    let has_content = *method != Method::HEAD && status != StatusCode::NO_CONTENT;
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let is_plain = codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    let kind = kind(headers);
    match has_content && is_plain && kind != ENDLESS && types.contains(&kind) {
        true => Extent::Body,
        false => Extent::Head,
    }
}

/// The type of an answer, without parameters.
pub fn kind(headers: &HeaderMap) -> String {
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let kind = String::from_utf8_lossy(kind);
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::fixture::headers;

    #[test]
    fn the_body_is_looked_at_where_it_is_text_that_can_be_read() {
        let types = ["text/html".to_string(), ENDLESS.to_string()];
        let html = ("content-type", "Text/HTML; charset=UTF-8");
        for (method, status, fields, expected) in [
            (Method::GET, 200, vec![html], Extent::Body),
            (
                Method::POST,
                500,
                vec![html, ("content-encoding", "identity")],
                Extent::Body,
            ),
            (Method::GET, 206, vec![html], Extent::Body),
            (Method::GET, 200, vec![html, ("content-encoding", "gzip")], Extent::Head),
            (Method::HEAD, 200, vec![html], Extent::Head),
            (Method::GET, 204, vec![html], Extent::Head),
            (
                Method::GET,
                200,
                vec![("content-type", "text/event-stream")],
                Extent::Head,
            ),
            (Method::GET, 200, vec![("content-type", "text/htmlx")], Extent::Head),
            (Method::GET, 200, vec![], Extent::Head),
            (Method::GET, 304, vec![html], Extent::Nothing),
            (Method::GET, 101, vec![], Extent::Nothing),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let found = extent(&types, &method, status, &headers(&fields));
            assert_eq!(found, expected, "{method} {status} {fields:?}");
        }
    }
}
