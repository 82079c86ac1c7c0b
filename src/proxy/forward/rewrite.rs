//! Heads as the other side shall see them. Pure.

use http::header::{CONNECTION, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::uri::Uri;
use http::{Request, Response};

use crate::proxy::exchange::{Body, Exchange};
use crate::proxy::headers::{Stated, is_fronts_own, strip_hop_by_hop};

/// The answer as the client shall see it.
pub fn response(answer: Response<Body>, is_upgrade: bool) -> Response<Body> {
    let (parts, body) = answer.into_parts();
    // Version and extensions belong to the other connection.
    let mut response = Response::new(body);
    *response.status_mut() = parts.status;
    *response.headers_mut() = parts.headers;
    strip_hop_by_hop(response.headers_mut());
    if is_upgrade {
        switch(response.headers_mut());
    }
    response
}

/// The request's head as the upstream shall see it.
pub fn head(exchange: &Exchange, is_upgrade: bool) -> Request<()> {
    let stated = Stated::of(exchange);
    let mut headers = exchange.request.headers.clone();
    strip_hop_by_hop(&mut headers);
    let dropped: Vec<HeaderName> = headers.keys().filter(|name| is_fronts_own(name)).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
    // The front itself has met the expectation.
    headers.remove(EXPECT);
    join_cookies(&mut headers);
    let address = stated.client.to_string();
    for (name, value) in [
        (HOST, stated.host.as_str()),
        (HeaderName::from_static("x-real-ip"), address.as_str()),
        (HeaderName::from_static("x-forwarded-for"), address.as_str()),
        (HeaderName::from_static("x-forwarded-proto"), stated.scheme),
        (HeaderName::from_static("x-forwarded-host"), stated.host.as_str()),
        (HeaderName::from_static("x-request-id"), exchange.id.as_str()),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    if is_upgrade {
        switch(&mut headers);
    }
    let mut request = Request::new(());
    *request.method_mut() = exchange.request.method.clone();
    let target = exchange.request.uri.path_and_query().cloned();
    *request.uri_mut() = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    *request.headers_mut() = headers;
    request
}

/// The two fields of RFC 6455 §4 that do not pass by themselves.
fn switch(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// HTTP/2 splits cookies; HTTP/1.1 wants them in one field (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}
