//! X-Forwarded-For and X-Forwarded-Proto of a request that a trusted proxy sent. Pure.

use std::net::{IpAddr, SocketAddr};

use http::header::{HeaderMap, HeaderName};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The nearest address that is not a trusted proxy's. Each proxy adds to the right, so what is left of that one may be anybody's
/// invention. Where all are trusted, or one cannot be read, the last one that could. `None`: there is none.
pub fn client(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Option<SocketAddr> {
    let mut client = None;
    for address in from_the_right(headers, &FOR).map_while(address) {
        client = Some(address);
        if !is_trusted(address.ip()) {
            break;
        }
    }
    client
}

/// What the nearest proxy says of its client's connection.
pub fn is_secure(headers: &HeaderMap) -> Option<bool> {
    let scheme = from_the_right(headers, &PROTO).next()?;
    if scheme.eq_ignore_ascii_case("https") {
        Some(true)
    } else {
        scheme.eq_ignore_ascii_case("http").then_some(false)
    }
}

/// The words of a list, in however many fields it comes, the last one first. What is no text is an empty word.
fn from_the_right<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let fields: Vec<&str> = headers
        .get_all(name)
        .iter()
        .map(|field| field.to_str().unwrap_or_default())
        .collect();
    fields
        .into_iter()
        .rev()
        .flat_map(|field| field.rsplit(',').map(str::trim))
}

/// With or without port, an IPv6 address with or without brackets.
fn address(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(SocketAddr::new(address.ip().to_canonical(), address.port()));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let ip: IpAddr = bare.unwrap_or(text).parse().ok()?;
    Some(SocketAddr::new(ip.to_canonical(), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    use http::HeaderValue;

    fn headers(name: HeaderName, values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn nearest_address_that_is_no_proxys_is_the_client() {
        let ours: IpAddr = "10.0.0.1".parse().expect("an address");
        for (fields, wanted) in [
            (&["192.0.2.1"][..], Some("192.0.2.1:0")),
            (&["203.0.113.9, 192.0.2.1"], Some("192.0.2.1:0")),
            (&["203.0.113.9, 192.0.2.1 ,10.0.0.1"], Some("192.0.2.1:0")),
            (&["203.0.113.9", "192.0.2.1", "10.0.0.1, 10.0.0.1"], Some("192.0.2.1:0")),
            (&["10.0.0.1"], Some("10.0.0.1:0")),
            (&["192.0.2.1:4711"], Some("192.0.2.1:4711")),
            (&["2001:db8::1"], Some("[2001:db8::1]:0")),
            (&["[2001:db8::1]"], Some("[2001:db8::1]:0")),
            (&["[2001:db8::1]:7"], Some("[2001:db8::1]:7")),
            (&["::ffff:192.0.2.1"], Some("192.0.2.1:0")),
            (&["192.0.2.1, unknown"], None),
            (&["192.0.2.1, unknown, 10.0.0.1"], Some("10.0.0.1:0")),
            (&["192.0.2.1,"], None),
            (&["127.0.0.1; DROP"], None),
            (&[], None),
        ] {
            let found = client(&headers(FOR, fields), |address| address == ours);
            assert_eq!(
                found.map(|address| address.to_string()).as_deref(),
                wanted,
                "{fields:?}"
            );
        }
    }

    #[test]
    fn scheme_is_the_nearest_proxys_word() {
        for (fields, wanted) in [
            (&["https"][..], Some(true)),
            (&["HTTP"], Some(false)),
            (&["https, http"], Some(false)),
            (&["http", "https"], Some(true)),
            (&["wss"], None),
            (&[], None),
        ] {
            assert_eq!(is_secure(&headers(PROTO, fields)), wanted, "{fields:?}");
        }
    }
}
