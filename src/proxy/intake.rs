//! From a request head to an `Exchange`: one form of target, one `Host`, one `Cookie`, whatever the version was.

use std::sync::Arc;
use std::time::Instant;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Uri, Version};

use super::balance::hop;
use super::connection::Connection;
use super::error::{Error, Kind};
use super::exchange::{Exchange, Target};
use super::framing;
use super::host::Host;
use super::id::Id;
use super::origin::Origin;
use super::path::Path;

/// Reads a head that the guard or HTTP/2 let through. `is_ours`: whether a host (in lower case, without port; and whether that is an
/// address) is answered for here.
pub fn exchange(
    mut parts: Parts,
    id: Id,
    connection: &Arc<Connection>,
    origin: Origin,
    is_ours: impl Fn(&str, bool) -> bool,
) -> Result<Exchange, Error> {
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        return Err(Error::new(Kind::Method, "CONNECT and TRACE are not served"));
    }
    let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if !framing::is_plain(parts.method.as_str(), target) {
        return Err(Error::new(Kind::Malformed, "a method or target with unusual bytes"));
    }
    if !has_one_length(&parts.headers) {
        return Err(Error::new(
            Kind::Malformed,
            "more than one length, or one that is no number",
        ));
    }
    drop_lookalikes(&mut parts.headers);
    join_cookies(&mut parts.headers);
    let no_host = || Error::new(Kind::Malformed, "a host that is not one");
    let authority = authority(&parts)?;
    let (host, is_ours) = match &authority {
        Some(authority) => {
            let host = authority.to_str().ok().and_then(Host::parse).ok_or_else(no_host)?;
            let name = host.normal();
            let is_ours = is_ours(&name, host.is_address());
            (name, is_ours)
        }
        // HTTP/1.0 need not name a host: the address that it reached stands in.
        None => (bare(connection), true),
    };
    if !is_ours {
        return Err(Error::new(Kind::Misdirected, format!("a request for {host}")));
    }
    let stated = match authority {
        Some(authority) => authority,
        None => HeaderValue::from_str(&host).map_err(|_| no_host())?,
    };
    if parts.headers.get(header::HOST) != Some(&stated) {
        parts.headers.insert(header::HOST, stated);
    }
    let path = Path::parse(parts.uri.path()).map_err(|why| Error::new(Kind::Malformed, why))?;
    parts.uri = origin_form(&parts.uri);
    Ok(Exchange {
        request: parts,
        path,
        peer: origin.client,
        local: connection.local,
        tls: connection.tls,
        is_secure: origin.is_secure,
        is_hop: false,
        host,
        id,
        started: Instant::now(),
        target: Target::None,
    })
}

/// PHP and CGI turn `X_Forwarded_For` and `X-Forwarded-For` into the same variable, so the first could forge the second.
/// Like nginx, we drop what has a `_` in its name; and what only fronts say to each other.
fn drop_lookalikes(headers: &mut HeaderMap) {
    let alike: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().contains('_') || hop::is_internal(name))
        .cloned()
        .collect();
    for name in alike {
        headers.remove(name);
    }
}

/// RFC 9110 §8.6. The library of HTTP/2 compares the body with the first field alone, and passes all of them on.
fn has_one_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let is_number = |length: &HeaderValue| !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    lengths.next().is_none_or(is_number) && lengths.next().is_none()
}

/// RFC 9113 §8.2.3: HTTP/2 splits cookies, and who reads HTTP/1 wants one field.
fn join_cookies(headers: &mut HeaderMap) {
    let mut all = headers.get_all(header::COOKIE).iter();
    if all.nth(1).is_none() {
        return;
    }
    let fields: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let joined = HeaderValue::from_bytes(&fields.join(&b"; "[..])).expect("joined by bytes that are valid");
    headers.insert(header::COOKIE, joined);
}

/// The one host that the request names. RFC 9113 §8.3.1: `:authority` and `host` must not differ.
fn authority(parts: &Parts) -> Result<Option<HeaderValue>, Error> {
    let malformed = |why| Error::new(Kind::Malformed, why);
    let mut fields = parts.headers.get_all(header::HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(malformed("more than one Host"));
    }
    let target = parts.uri.authority().map(|authority| authority.as_str());
    match (target, field) {
        (Some(target), Some(field)) if !target.as_bytes().eq_ignore_ascii_case(field.as_bytes()) => {
            Err(malformed("a target and a Host that differ"))
        }
        (None, None) if parts.version >= Version::HTTP_11 => Err(malformed("no Host")),
        (None, field) => Ok(field.cloned()),
        (Some(target), _) => {
            let target = HeaderValue::from_str(target);
            target.map(Some).map_err(|_| malformed("a host that is not one"))
        }
    }
}

fn bare(connection: &Connection) -> String {
    match connection.local.ip() {
        std::net::IpAddr::V4(address) => address.to_string(),
        std::net::IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// A target without scheme and host.
pub fn origin_form(uri: &Uri) -> Uri {
    uri.path_and_query()
        .cloned()
        .map_or_else(|| Uri::from_static("/"), Uri::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(build: http::request::Builder, domain: &str) -> Result<Exchange, Kind> {
        let (parts, ()) = build.body(()).expect("a request").into_parts();
        let address = "10.0.0.9:80".parse().expect("address");
        let connection = Arc::new(Connection::new(address, address, None));
        let origin = Origin {
            client: address,
            is_secure: false,
        };
        let is_ours = |host: &str, is_address: bool| domain.is_empty() || is_address || host == domain;
        exchange(
            parts,
            Id::parse("0123456789abcdef").expect("an id"),
            &connection,
            origin,
            is_ours,
        )
        .map_err(|error| error.kind)
    }

    fn get(target: &str) -> http::request::Builder {
        http::Request::get(target)
    }

    #[test]
    fn every_form_of_target_becomes_one() {
        for build in [
            get("/a?b").header("host", "Portal.Example.:80"),
            get("http://portal.example/a?b").header("host", "portal.example"),
            get("https://portal.example/a?b").version(Version::HTTP_2),
        ] {
            let exchange = read(build, "portal.example").expect("ours");
            assert_eq!(exchange.request.uri, "/a?b");
            assert_eq!(exchange.host, "portal.example");
            assert!(exchange.request.headers.contains_key("host"));
        }
    }

    #[test]
    fn a_request_has_one_length() {
        let kind = |build| read(build, "").map(drop);
        let host = || get("/").header("host", "a");
        assert_eq!(kind(host().header("content-length", "05")), Ok(()));
        for second in ["5", "6"] {
            let build = host().header("content-length", "5").header("content-length", second);
            assert_eq!(kind(build), Err(Kind::Malformed));
        }
        for length in ["", "+5", "5, 5", "0x5"] {
            assert_eq!(
                kind(host().header("content-length", length)),
                Err(Kind::Malformed),
                "{length}"
            );
        }
    }

    #[test]
    fn other_hosts_are_sent_away_and_addresses_are_not() {
        let kind = |host: &str| read(get("/").header("host", host), "portal.example").map(|_| ());
        assert_eq!(kind("evil.example"), Err(Kind::Misdirected));
        assert_eq!(kind("10.0.0.9"), Ok(()));
        assert_eq!(kind("[::1]:8080"), Ok(()));
        assert_eq!(read(get("/").header("host", "any.example"), "").map(|_| ()), Ok(()));
        let bare = read(get("/").version(Version::HTTP_10), "portal.example").expect("health by address");
        assert_eq!(bare.host, "10.0.0.9");
    }

    #[test]
    fn two_meanings_are_refused() {
        let h2 = |target| get(target).version(Version::HTTP_2);
        for build in [
            get("/"),
            get("/").header("host", "a").header("host", "a"),
            h2("https://a/").header("host", "b"),
            h2("https://u@a/"),
            h2("https://a/\u{444}"),
            h2("https://a/").method("get"),
            get("/..").header("host", "a"),
        ] {
            assert_eq!(read(build, "").map(|_| ()), Err(Kind::Malformed));
        }
        let connect = http::Request::connect("a:1").header("host", "a:1");
        assert_eq!(read(connect, "").map(|_| ()), Err(Kind::Method));
    }

    #[test]
    fn lookalikes_are_dropped_and_cookies_joined() {
        let build = get("/")
            .header("host", "a")
            .header("x_real_ip", "1")
            .header("bn-hop", "1 0123456789abcdef 10.0.0.1:1 10.0.0.2:2 - HTTP/1.1")
            .header("cookie", "a=1")
            .header("cookie", "b=2");
        let headers = read(build, "").expect("valid").request.headers;
        assert!(!headers.contains_key("x_real_ip") && !headers.contains_key("bn-hop"));
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }
}
