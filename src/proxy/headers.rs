//! Header fields between client, front and targets: which stop here, and which only the front may set.

use std::net::IpAddr;

use http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};

use super::exchange::Exchange;

/// Fields that concern one connection only (RFC 9110 §7.6.1), and those by which a proxy and its client know each other (§11.7).
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Removes what must not pass a proxy: the hop-by-hop fields and every field that `Connection` names (RFC 9110 §7.6.1).
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named = named_by_connection(headers);
    // Mostly there is none: to look at the names costs less than to look each one up.
    let stopped: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_hop_by_hop(name, &named))
        .cloned()
        .collect();
    for name in stopped {
        headers.remove(name);
    }
}

/// Whether a request's field stops at the front, given what its `Connection` names.
pub fn is_hop_by_hop(name: &HeaderName, named: &[HeaderName]) -> bool {
    let is_one = match name.as_str().len() {
        // Lengths first: few names need more than that.
        2 | 7 | 10 | 16..=19 => HOP_BY_HOP.contains(name),
        _ => false,
    };
    is_one || named.contains(name)
}

/// Fields that `Connection` names. `Host` and the framing are never among them: a client must not make us drop those.
pub fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        // The usual one stops here anyway.
        .filter(|name| !name.eq_ignore_ascii_case("keep-alive"))
        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        .filter(|name| *name != HOST && *name != http::header::CONTENT_LENGTH)
        .collect()
}

/// Whether the field states something that only the front knows: who the client is, how it came, the request's id.
/// Such a field of a client is dropped, because a target would believe it.
pub fn is_fronts_own(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "x-real-ip" | "x-request-id" | "x-client-ip")
}

/// What the front says to its targets of one request.
pub struct Stated {
    /// The client's address; an IPv4 client of an IPv6 socket in IPv4 form.
    pub client: IpAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// `Host` as the client gave it: HTTP/2's `:authority` and an absolute target win (RFC 9112 §3.2.2, RFC 9113 §8.3.1).
    pub host: String,
}

impl Stated {
    pub fn of(exchange: &Exchange) -> Self {
        Stated {
            client: exchange.peer.ip().to_canonical(),
            scheme: if exchange.is_secure { "https" } else { "http" },
            host: host(exchange),
        }
    }
}

fn host(exchange: &Exchange) -> String {
    if let Some(authority) = exchange.request.uri.authority() {
        return match authority.port_u16() {
            Some(port) => format!("{}:{port}", authority.host()),
            None => authority.host().to_string(),
        };
    }
    match exchange.request.headers.get(HOST).map(|host| host.to_str()) {
        Some(Ok(host)) => host.to_string(),
        _ => exchange.host.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use http::HeaderValue;

    #[test]
    fn hop_by_hop_and_named_fields_are_stripped() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret"),
            ("connection", "te, , host, content-length"),
            ("keep-alive", "timeout=5"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("host", "a.example"),
            ("content-length", "3"),
            ("accept", "*/*"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length", "host"]);
    }

    #[test]
    fn client_cannot_state_what_the_front_knows() {
        for name in [
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-anything",
            "x-real-ip",
            "x-request-id",
        ] {
            assert!(is_fronts_own(&HeaderName::from_static(name)), "{name}");
        }
        for name in ["x-forward", "accept", "x-requested-with"] {
            assert!(!is_fronts_own(&HeaderName::from_static(name)), "{name}");
        }
    }
}
