//! Heads as the other side shall see them. Pure.

use http::header::{CONNECTION, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::uri::Uri;
use http::{Request, Response};

use crate::proxy::digits::address;
use crate::proxy::exchange::{Body, Exchange};
use crate::proxy::headers::{Stated, is_fronts_own, is_hop_by_hop, named_by_connection, strip_hop_by_hop};

const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Fields that are added at most.
const ADDED: usize = 8;
/// Letters of an IPv4 address at most.
const ADDRESS: usize = 15;

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

/// The request's head as the upstream shall see it. `is_told`: who asks, and how.
pub fn head(exchange: &Exchange, is_upgrade: bool, is_told: bool) -> Request<()> {
    let stated = Stated::of(exchange);
    let fields = &exchange.request.headers;
    let named = named_by_connection(fields);
    // What passes is taken over, once: a copy from which fields are removed one by one costs several times as much.
    let mut headers = HeaderMap::with_capacity(fields.keys_len() + ADDED);
    for (name, value) in fields {
        // The front itself has met an expectation.
        if !(*name == HOST || *name == EXPECT || is_hop_by_hop(name, &named) || is_fronts_own(name)) {
            headers.append(name, value.clone());
        }
    }
    join_cookies(&mut headers);
    headers.insert(HOST, stated.host.clone());
    if is_told {
        tell(&mut headers, exchange, stated);
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

/// What only the front knows.
fn tell(headers: &mut HeaderMap, exchange: &Exchange, stated: Stated) {
    headers.insert(FORWARDED_HOST, stated.host);
    let mut client = String::with_capacity(ADDRESS);
    address(&mut client, stated.client);
    let client = HeaderValue::try_from(client).expect("an address has no byte that a field must not have");
    headers.insert(REAL_IP, client.clone());
    headers.insert(FORWARDED_FOR, client);
    headers.insert(REQUEST_ID, exchange.id.value());
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(stated.scheme));
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
