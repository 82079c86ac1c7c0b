//! The handshake of a WebSocket (RFC 6455 §4.2): what is asked, and what is answered. Pure.

use data_encoding::BASE64;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use ring::digest;

/// RFC 6455 §1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The one version there is.
const VERSION: &str = "13";

/// Whether a request wants to become a WebSocket.
pub fn is_asked<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET
        && names(request.headers(), header::CONNECTION, "upgrade")
        && names(request.headers(), header::UPGRADE, "websocket")
}

/// The answer that agrees. `Err`: one that does not.
pub fn agree(headers: &HeaderMap) -> Result<Response<()>, StatusCode> {
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != VERSION)
    {
        return Err(StatusCode::UPGRADE_REQUIRED);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or(StatusCode::BAD_REQUEST)?;
    let is_nonce = BASE64.decode(key.as_bytes()).is_ok_and(|nonce| nonce.len() == 16);
    if !is_nonce {
        return Err(StatusCode::BAD_REQUEST);
    }
    let accept = HeaderValue::from_str(&accept(key.as_bytes())).expect("base64");
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in [
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ] {
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

fn accept(key: &[u8]) -> String {
    let mut sha1 = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    sha1.update(key);
    sha1.update(GUID.as_bytes());
    BASE64.encode(sha1.finish().as_ref())
}

/// Whether a field's list holds the word.
fn names(headers: &HeaderMap, field: HeaderName, word: &str) -> bool {
    let values = headers.get_all(field);
    let mut words = values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    words.any(|listed| listed.trim().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&str, &str)]) -> Request<()> {
        let fields = fields.iter().fold(Request::get("/"), |request, (name, value)| {
            request.header(*name, *value)
        });
        fields.body(()).expect("a request")
    }

    #[test]
    fn the_example_of_the_standard_is_answered() {
        let asked = request(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
        ]);
        assert!(is_asked(&asked));
        let answer = agree(asked.headers()).expect("agreed");
        assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(answer.status(), 101);
    }

    #[test]
    fn everything_else_is_not_agreed_to() {
        assert!(!is_asked(&request(&[("upgrade", "websocket")])));
        assert!(!is_asked(&request(&[("connection", "upgrade"), ("upgrade", "h2c")])));
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        for (fields, status) in [
            (&[key][..], StatusCode::UPGRADE_REQUIRED),
            (&[key, ("sec-websocket-version", "8")], StatusCode::UPGRADE_REQUIRED),
            (&[("sec-websocket-version", "13")], StatusCode::BAD_REQUEST),
            (
                &[("sec-websocket-version", "13"), ("sec-websocket-key", "c2hvcnQ=")],
                StatusCode::BAD_REQUEST,
            ),
        ] {
            assert_eq!(agree(request(fields).headers()).err(), Some(status), "{fields:?}");
        }
    }
}
