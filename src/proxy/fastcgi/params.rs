//! CGI variables of a request (RFC 3875 §4.1), and what PHP portals expect beyond them. Pure.
//!
//! A client's field becomes `HTTP_NAME` unless that would be a lie: `Proxy` (httpoxy, CVE-2016-5385), names with `_` (which would be
//! mistaken for names with `-`), hop-by-hop fields, and everything that only the front may state.

use std::net::{IpAddr, SocketAddr};

use http::Version;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderMap, HeaderName};

use super::Script;
use super::record::pair;
use crate::proxy::digits;
use crate::proxy::exchange::Exchange;
use crate::proxy::headers::{Stated, is_fronts_own, is_hop_by_hop, named_by_connection};

/// Name-value pairs for the PARAMS stream. `length`: bytes of the body, which PHP reads no further than.
pub fn encode(exchange: &Exchange, script: &Script, length: u64) -> Vec<u8> {
    let mut out = Pairs {
        out: Vec::with_capacity(2048),
        address: String::new(),
    };
    let stated = Stated::of(exchange);
    script_variables(&mut out, exchange, script);
    server_variables(&mut out, exchange, &stated);
    if length > 0 {
        out.number("CONTENT_LENGTH", length);
    }
    if let Some(kind) = exchange.request.headers.get(CONTENT_TYPE) {
        out.add("CONTENT_TYPE", kind.as_bytes());
    }
    client_fields(&mut out, &exchange.request.headers);
    stated_fields(&mut out, exchange, &stated);
    out.out
}

struct Pairs {
    out: Vec<u8>,
    /// Reused for values that are addresses.
    address: String,
}

impl Pairs {
    fn add(&mut self, name: &str, value: impl AsRef<[u8]>) {
        pair(name.as_bytes(), value.as_ref(), &mut self.out);
    }

    fn number(&mut self, name: &str, value: impl itoa::Integer) {
        self.add(name, itoa::Buffer::new().format(value));
    }

    fn address(&mut self, name: &str, value: IpAddr) {
        self.address.clear();
        digits::address(&mut self.address, value);
        pair(name.as_bytes(), self.address.as_bytes(), &mut self.out);
    }
}

fn script_variables(out: &mut Pairs, exchange: &Exchange, script: &Script) {
    let root = script.root.trim_end_matches('/');
    out.add("SCRIPT_FILENAME", [root.as_bytes(), script.name.as_bytes()].concat());
    out.add("SCRIPT_NAME", &script.name);
    if !script.path_info.is_empty() {
        out.add("PATH_INFO", &script.path_info);
    }
    out.add("DOCUMENT_ROOT", if root.is_empty() { "/" } else { root });
    let uri = &exchange.request.uri;
    // As the client wrote it: the portal's router compares it with its rules itself.
    out.add(
        "REQUEST_URI",
        uri.path_and_query().map_or("/", |target| target.as_str()),
    );
    out.add("DOCUMENT_URI", exchange.path.as_str());
    out.add("QUERY_STRING", uri.query().unwrap_or_default());
    out.add("REQUEST_METHOD", exchange.request.method.as_str());
}

fn server_variables(out: &mut Pairs, exchange: &Exchange, stated: &Stated) {
    out.add("GATEWAY_INTERFACE", "CGI/1.1");
    out.add("SERVER_SOFTWARE", "bitrix-node");
    out.add("SERVER_PROTOCOL", protocol(exchange.request.version));
    out.add("SERVER_NAME", &exchange.host);
    address(out, ["SERVER_ADDR", "SERVER_PORT"], exchange.local);
    address(out, ["REMOTE_ADDR", "REMOTE_PORT"], exchange.peer);
    out.add("REQUEST_SCHEME", stated.scheme);
    if exchange.is_secure {
        out.add("HTTPS", "on");
    }
    // php-cgi refuses to run without it when built with force-redirect; harmless elsewhere.
    out.add("REDIRECT_STATUS", "200");
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

fn address(out: &mut Pairs, [ip, port]: [&str; 2], address: SocketAddr) {
    out.address(ip, address.ip().to_canonical());
    out.number(port, address.port());
}

fn client_fields(out: &mut Pairs, headers: &HeaderMap) {
    let named = named_by_connection(headers);
    let mut variable = String::with_capacity(64);
    for name in headers.keys() {
        if !is_told(name, &named) {
            continue;
        }
        variable.clear();
        variable.push_str("HTTP_");
        variable.extend(name.as_str().chars().map(|letter| match letter {
            '-' => '_',
            letter => letter.to_ascii_uppercase(),
        }));
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(only), None) => out.add(&variable, only.as_bytes()),
            _ => out.add(&variable, joined(headers, name)),
        }
    }
}

fn is_told(name: &HeaderName, named: &[HeaderName]) -> bool {
    // `Host` is told by `stated_fields`, the two of the body have variables of their own; the front itself meets expectations.
    let told_elsewhere = [HOST, CONTENT_LENGTH, CONTENT_TYPE, EXPECT].contains(name);
    let lies = name.as_str() == "proxy" || name.as_str().contains('_') || is_fronts_own(name);
    !told_elsewhere && !lies && !is_hop_by_hop(name, named)
}

/// Repeated fields as one: a list (RFC 9110 §5.2), cookies in their own form (RFC 9113 §8.2.3).
fn joined(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    let separator: &[u8] = if name == COOKIE { b"; " } else { b", " };
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
    values.join(separator)
}

fn stated_fields(out: &mut Pairs, exchange: &Exchange, stated: &Stated) {
    out.add("HTTP_HOST", &stated.host);
    out.address("HTTP_X_REAL_IP", stated.client);
    out.address("HTTP_X_FORWARDED_FOR", stated.client);
    out.add("HTTP_X_FORWARDED_PROTO", stated.scheme);
    out.add("HTTP_X_FORWARDED_SCHEME", stated.scheme);
    out.add("HTTP_X_FORWARDED_HOST", &stated.host);
    out.add("HTTP_X_REQUEST_ID", exchange.id.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::proxy::fixture::exchange;

    /// The variables, read back from the wire form.
    fn variables(exchange: &Exchange, script: &Script, length: u64) -> Vec<(String, String)> {
        let bytes = encode(exchange, script, length);
        let mut rest = &bytes[..];
        let mut found = Vec::new();
        while !rest.is_empty() {
            let mut lengths = [0; 2];
            for length in &mut lengths {
                let size = if rest[0] < 0x80 { 1 } else { 4 };
                *length = rest[..size].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)) & 0x7fff_ffff;
                rest = &rest[size..];
            }
            let (name, tail) = rest.split_at(lengths[0]);
            let (value, tail) = tail.split_at(lengths[1]);
            rest = tail;
            found.push((
                String::from_utf8_lossy(name).into(),
                String::from_utf8_lossy(value).into(),
            ));
        }
        found
    }

    fn script() -> Script {
        Script {
            root: "/srv/portal/".into(),
            name: "/a/index.php".into(),
            path_info: String::new(),
        }
    }

    fn get<'a>(variables: &'a [(String, String)], name: &str) -> Option<&'a str> {
        let mut found = variables.iter().filter(|(key, _)| key == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} comes twice");
        value
    }

    #[test]
    fn script_and_request_are_described() {
        let exchange = exchange(
            "POST",
            "/a/in%64ex.php/x%20y?q=1&r=%32",
            &[("content-type", "text/plain")],
        );
        let script = Script {
            path_info: "/x y".into(),
            ..script()
        };
        let variables = variables(&exchange, &script, 12);
        for (name, value) in [
            ("SCRIPT_FILENAME", "/srv/portal/a/index.php"),
            ("SCRIPT_NAME", "/a/index.php"),
            ("PATH_INFO", "/x y"),
            ("DOCUMENT_ROOT", "/srv/portal"),
            ("REQUEST_URI", "/a/in%64ex.php/x%20y?q=1&r=%32"),
            ("DOCUMENT_URI", "/a/index.php/x y"),
            ("QUERY_STRING", "q=1&r=%32"),
            ("REQUEST_METHOD", "POST"),
            ("CONTENT_LENGTH", "12"),
            ("CONTENT_TYPE", "text/plain"),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("SERVER_NAME", "portal.example"),
            ("SERVER_ADDR", "192.0.2.1"),
            ("SERVER_PORT", "443"),
            ("REMOTE_ADDR", "198.51.100.7"),
            ("REMOTE_PORT", "50000"),
            ("HTTPS", "on"),
            ("REQUEST_SCHEME", "https"),
            ("REDIRECT_STATUS", "200"),
            ("HTTP_HOST", "Portal.example:443"),
        ] {
            assert_eq!(get(&variables, name), Some(value), "{name}");
        }
        assert_eq!(get(&variables, "HTTP_CONTENT_TYPE"), None);
    }

    #[test]
    fn clients_word_is_not_taken_for_the_fronts() {
        let exchange = exchange(
            "GET",
            "/",
            &[
                ("proxy", "http://evil/"),
                ("x_real_ip", "127.0.0.1"),
                ("x-forwarded_for", "127.0.0.1"),
                ("x-real-ip", "127.0.0.1"),
                ("x-forwarded-for", "127.0.0.1"),
                ("x-forwarded-port", "1"),
                ("forwarded", "for=127.0.0.1"),
                ("x-request-id", "forged"),
                ("connection", "x-hop"),
                ("x-hop", "1"),
                ("te", "trailers"),
            ],
        );
        let variables = variables(&exchange, &script(), 0);
        assert_eq!(get(&variables, "HTTP_X_REAL_IP"), Some("198.51.100.7"));
        assert_eq!(get(&variables, "HTTP_X_FORWARDED_FOR"), Some("198.51.100.7"));
        assert_eq!(get(&variables, "HTTP_X_FORWARDED_PROTO"), Some("https"));
        assert_eq!(get(&variables, "HTTP_X_REQUEST_ID"), Some("0123456789abcdef"));
        for name in ["PROXY", "FORWARDED", "X_FORWARDED_PORT", "X_HOP", "TE", "CONNECTION"] {
            assert_eq!(get(&variables, &format!("HTTP_{name}")), None, "{name}");
        }
        assert_eq!(get(&variables, "CONTENT_LENGTH"), None);
    }

    #[test]
    fn repeated_fields_are_joined() {
        let exchange = exchange(
            "GET",
            "/",
            &[
                ("accept", "a/b"),
                ("cookie", "a=1"),
                ("cookie", "b=2"),
                ("accept", "c/d"),
            ],
        );
        let variables = variables(&exchange, &script(), 0);
        assert_eq!(get(&variables, "HTTP_ACCEPT"), Some("a/b, c/d"));
        assert_eq!(get(&variables, "HTTP_COOKIE"), Some("a=1; b=2"));
    }

    #[test]
    fn authority_of_http2_is_the_host() {
        let mut exchange = exchange("GET", "https://portal.example:8443/x", &[]);
        exchange.request.headers.remove(HOST);
        let variables = variables(&exchange, &script(), 0);
        assert_eq!(get(&variables, "HTTP_HOST"), Some("portal.example:8443"));
        assert_eq!(get(&variables, "REQUEST_URI"), Some("/x"));
    }
}
