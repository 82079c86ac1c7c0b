//! Header fields between client, front and targets: which stop here, and which only the front may set.

use std::net::IpAddr;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue};

use super::exchange::Exchange;

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
    concerns_one_connection(name.as_str()) || named.contains(name)
}

/// By RFC 9110 §7.6.1, and those by which a proxy and its client know each other (§11.7).
fn concerns_one_connection(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
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
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
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
    pub host: HeaderValue,
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

fn host(exchange: &Exchange) -> HeaderValue {
    let stated = match (exchange.request.uri.authority(), exchange.request.headers.get(HOST)) {
        (None, Some(host)) if host.to_str().is_ok() => return host.clone(),
        (None, _) => exchange.host.clone(),
        (Some(authority), _) => match authority.port_u16() {
            Some(port) => format!("{}:{port}", authority.host()),
            None => authority.host().to_string(),
        },
    };
    HeaderValue::try_from(stated).expect("a host has no byte that a field must not have")
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("trailer", "expires"),
            ("proxy-connection", "close"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authorization", "Basic"),
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
