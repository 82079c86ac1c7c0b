//! `Host`, `:authority` and the authority of a target: what is accepted, and what the two parts are.
//! Stricter than RFC 3986 §3.2.2: a DNS name with `_`, an IPv4 address or a bracketed IPv6 address, then perhaps a port.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A host and its port, as the client wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host<'a> {
    /// Without port; an IPv6 address keeps its brackets.
    pub name: &'a str,
    pub port: Option<u16>,
}

impl<'a> Host<'a> {
    /// `None`: userinfo, a slash, a space, an empty name or port, or anything else that is not a host.
    pub fn parse(text: &'a str) -> Option<Self> {
        let bracket = if text.starts_with('[') { text.find(']')? + 1 } else { 0 };
        let (name, port) = match text.get(bracket..)?.find(':') {
            Some(colon) => {
                let (name, port) = text.split_at(bracket + colon);
                (name, Some(parse_port(port.get(1..)?)?))
            }
            None => (text, None),
        };
        let valid = match name.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().is_ok(),
            None => !name.is_empty() && name.bytes().all(is_name_byte),
        };
        valid.then_some(Host { name, port })
    }

    /// The name in lower case, without the dot that ends a fully qualified one.
    pub fn normal(&self) -> String {
        self.name.strip_suffix('.').unwrap_or(self.name).to_ascii_lowercase()
    }

    /// An address instead of a name.
    pub fn is_address(&self) -> bool {
        self.name.starts_with('[') || self.name.parse::<Ipv4Addr>().is_ok()
    }
}

fn parse_port(digits: &str) -> Option<u16> {
    let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if all { digits.parse().ok() } else { None }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_taken_apart() {
        for (text, name, port) in [
            ("portal.example", "portal.example", None),
            ("portal.example:8080", "portal.example", Some(8080)),
            ("10.0.0.1:80", "10.0.0.1", Some(80)),
            ("[::1]", "[::1]", None),
            ("[fe80::1]:443", "[fe80::1]", Some(443)),
            ("a_b", "a_b", None),
        ] {
            assert_eq!(Host::parse(text), Some(Host { name, port }), "{text}");
        }
    }

    #[test]
    fn other_things_are_refused() {
        for text in [
            "", ":80", "a:", "a:b", "a:+1", "a:99999", "u@a", "a/b", "a b", "a,b", "a:1:2", "[::1", "[::1]x", "[x]",
            "::1", "a\\b", "a?b", "a#b", "a%00", "ф",
        ] {
            assert_eq!(Host::parse(text), None, "{text}");
        }
    }

    #[test]
    fn names_are_compared_in_their_normal_form() {
        assert_eq!(
            Host::parse("Portal.Example.:80").expect("valid").normal(),
            "portal.example"
        );
        assert!(Host::parse("[::1]:80").expect("valid").is_address());
        assert!(!Host::parse("1.2.3.four").expect("valid").is_address());
    }
}
