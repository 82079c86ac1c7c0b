//! What fronts tell each other beside the request and the answer: header fields, which no client can set and none sees. No I/O.
//!
//! ```text
//! bn-hop: 1 ID CLIENT REACHED TLS VERSION     on a request: its id, the client, the address that it reached, how it came; then
//!     [http|https]                            how the client came to a trusted proxy before that front, where it is not the same
//! bn-load: 1 IN-FLIGHT CAPACITY ready|away    on each answer: how the PHP of the answering node does
//! bn-fault: 1 KIND sent|unsent                on an answer without a page: that PHP failed
//! bn-file: 1                                  on an answer that no program made: a file's content
//! ```
//!
//! The number in front is the format's. A later one only adds words at the end, so every reader takes the words that it knows.
//! A request that has `bn-pulse` instead of `bn-hop` asks for the load alone.

use std::net::SocketAddr;

use http::Version;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::proxy::error::{Error, Kind};
use crate::proxy::id::Id;

pub const HOP: HeaderName = HeaderName::from_static("bn-hop");
pub const PULSE: HeaderName = HeaderName::from_static("bn-pulse");
const LOAD: HeaderName = HeaderName::from_static("bn-load");
const FAULT: HeaderName = HeaderName::from_static("bn-fault");
const FILE: HeaderName = HeaderName::from_static("bn-file");

/// What all of them begin with.
const PREFIX: &str = "bn-";

const FORMAT: u32 = 1;

const TLS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];
const VERSIONS: [(Version, &str); 4] = [
    (Version::HTTP_10, "HTTP/1.0"),
    (Version::HTTP_11, "HTTP/1.1"),
    (Version::HTTP_2, "HTTP/2.0"),
    (Version::HTTP_3, "HTTP/3.0"),
];
const FAULTS: [(Kind, &str); 3] = [
    (Kind::Upstream, "broken"),
    (Kind::Unavailable, "unavailable"),
    (Kind::UpstreamSlow, "slow"),
];

/// How a request came to the first front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    pub id: Id,
    pub client: SocketAddr,
    /// The address that the client reached.
    pub reached: SocketAddr,
    /// `None`: plain.
    pub tls: Option<&'static str>,
    /// The client's own connection is by TLS, perhaps at a proxy before the first front.
    pub is_secure: bool,
    pub version: Version,
}

/// How PHP of a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Requests that it works on, whoever sent them.
    pub in_flight: usize,
    pub capacity: usize,
    pub is_ready: bool,
}

/// Whether a field is one of these. A client's is dropped.
pub fn is_internal(name: &HeaderName) -> bool {
    name.as_str().starts_with(PREFIX)
}

pub fn strip(headers: &mut HeaderMap) {
    let internal: Vec<HeaderName> = headers.keys().filter(|name| is_internal(name)).cloned().collect();
    for name in internal {
        headers.remove(name);
    }
}

impl Hop {
    pub fn write(&self, headers: &mut HeaderMap) {
        let version = VERSIONS.iter().find(|(known, _)| *known == self.version);
        let version = version.map_or("HTTP/1.1", |(_, name)| name);
        let (id, client, reached, tls) = (&self.id, self.client, self.reached, self.tls.unwrap_or("-"));
        let scheme = match (self.is_secure, self.tls.is_some()) {
            (true, false) => " https",
            (false, true) => " http",
            _ => "",
        };
        set(
            headers,
            HOP,
            format!("{FORMAT} {id} {client} {reached} {tls} {version}{scheme}"),
        );
    }

    /// `None`: the field is not there once, or cannot be read.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut words = words(headers, &HOP)?;
        let id = Id::parse(words.next()?)?;
        let (client, reached, tls, version) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let tls = match tls {
            "-" => None,
            tls => Some(TLS.into_iter().find(|known| *known == tls)?),
        };
        Some(Hop {
            id,
            client: client.parse().ok()?,
            reached: reached.parse().ok()?,
            tls,
            is_secure: match words.next() {
                Some("https") => true,
                Some("http") => false,
                _ => tls.is_some(),
            },
            version: VERSIONS.iter().find(|(_, name)| *name == version)?.0,
        })
    }
}

impl Load {
    pub fn write(&self, headers: &mut HeaderMap) {
        let state = if self.is_ready { "ready" } else { "away" };
        let (in_flight, capacity) = (self.in_flight, self.capacity);
        set(headers, LOAD, format!("{FORMAT} {in_flight} {capacity} {state}"));
    }

    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut words = words(headers, &LOAD)?;
        Some(Load {
            in_flight: words.next()?.parse().ok()?,
            capacity: words.next()?.parse().ok()?,
            is_ready: words.next()? == "ready",
        })
    }
}

/// Tells of a failure of PHP. Other failures are pages, like any answer.
pub fn write_fault(error: &Error, headers: &mut HeaderMap) {
    let kind = FAULTS.iter().find(|(known, _)| *known == error.kind);
    let kind = kind.map_or("broken", |(_, name)| name);
    let sent = if error.is_unsent { "unsent" } else { "sent" };
    set(headers, FAULT, format!("{FORMAT} {kind} {sent}"));
}

/// The failure that an answer tells of. `Some(Err)`: it cannot be read.
pub fn read_fault(headers: &HeaderMap, node: &str) -> Option<Error> {
    headers.contains_key(FAULT).then(|| {
        let read = words(headers, &FAULT).and_then(|mut words| {
            let (kind, sent) = (words.next()?, words.next()?);
            let (kind, _) = FAULTS.iter().find(|(_, name)| *name == kind)?;
            Some((*kind, sent == "unsent"))
        });
        let (kind, is_unsent) = read.unwrap_or((Kind::Upstream, false));
        let mut error = Error::new(kind, format!("PHP of {node} failed"));
        error.is_unsent = is_unsent;
        error
    })
}

/// Tells that the answer is a file's content.
pub fn write_file(headers: &mut HeaderMap) {
    set(headers, FILE, FORMAT.to_string());
}

pub fn is_file(headers: &HeaderMap) -> bool {
    words(headers, &FILE).is_some()
}

/// The words of a field after the format's number.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<std::str::Split<'a, char>> {
    let mut fields = headers.get_all(name).iter();
    let (field, None) = (fields.next()?, fields.next()) else {
        return None;
    };
    let mut words = field.to_str().ok()?.split(' ');
    let format: u32 = words.next()?.parse().ok()?;
    (format >= FORMAT).then_some(words)
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: String) {
    let value = HeaderValue::try_from(value).expect("printable ASCII");
    headers.insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop() -> Hop {
        Hop {
            id: Id::parse("0123456789abcdef").expect("an id"),
            client: "[2001:db8::7]:50000".parse().expect("address"),
            reached: "192.0.2.1:443".parse().expect("address"),
            tls: Some("TLSv1.3"),
            is_secure: true,
            version: Version::HTTP_2,
        }
    }

    fn of(name: HeaderName, value: &str) -> HeaderMap {
        [(name, HeaderValue::from_str(value).expect("a value"))]
            .into_iter()
            .collect()
    }

    #[test]
    fn fields_are_read_as_they_are_written() {
        for (tls, is_secure, version) in [
            (None, false, Version::HTTP_10),
            (None, true, Version::HTTP_11),
            (Some("TLSv1.2"), true, Version::HTTP_11),
            (Some("TLSv1.3"), false, Version::HTTP_2),
        ] {
            let hop = Hop {
                tls,
                is_secure,
                version,
                ..hop()
            };
            let mut headers = HeaderMap::new();
            hop.write(&mut headers);
            assert_eq!(Hop::read(&headers), Some(hop));
        }
        for is_ready in [true, false] {
            let load = Load {
                in_flight: 7,
                capacity: 20,
                is_ready,
            };
            let mut headers = HeaderMap::new();
            load.write(&mut headers);
            assert_eq!(Load::read(&headers), Some(load));
        }
        for (kind, is_unsent) in [
            (Kind::Unavailable, true),
            (Kind::Upstream, false),
            (Kind::UpstreamSlow, false),
        ] {
            let mut error = Error::new(kind, "");
            error.is_unsent = is_unsent;
            let mut headers = HeaderMap::new();
            write_fault(&error, &mut headers);
            let read = read_fault(&headers, "n2").expect("one");
            assert_eq!((read.kind, read.is_unsent), (kind, is_unsent));
        }
        assert!(read_fault(&HeaderMap::new(), "n2").is_none());
        let mut headers = HeaderMap::new();
        assert!(!is_file(&headers));
        write_file(&mut headers);
        assert!(is_file(&headers));
    }

    #[test]
    fn format_of_today_is_read_for_ever() {
        let text = "1 0123456789abcdef [2001:db8::7]:50000 192.0.2.1:443 TLSv1.3 HTTP/2.0";
        let mut headers = HeaderMap::new();
        hop().write(&mut headers);
        assert_eq!(headers.get(HOP).map(HeaderValue::as_bytes), Some(text.as_bytes()));
        assert_eq!(
            Hop::read(&of(HOP, &format!("{} and more", text.replacen('1', "2", 1)))),
            Some(hop())
        );
        assert!(Load::read(&of(LOAD, "2 0 5 ready or not")).is_some_and(|load| load.is_ready));
        assert!(is_file(&of(FILE, "1")) && is_file(&of(FILE, "2 of a kind")));
    }

    #[test]
    fn what_is_not_whole_is_not_believed() {
        let whole = "1 0123456789abcdef 10.0.0.1:1 10.0.0.2:2 - HTTP/1.1";
        assert!(Hop::read(&of(HOP, whole)).is_some());
        for (end, _) in whole.char_indices() {
            assert_eq!(Hop::read(&of(HOP, &whole[..end])), None, "{}", &whole[..end]);
        }
        for (from, to) in [
            ("1 ", "0 "),
            ("0123456789abcdef", "0123456789abcdeg"),
            ("10.0.0.1:1", "10.0.0.1"),
            (" - ", " SSLv3 "),
            ("HTTP/1.1", "HTTP/9"),
        ] {
            let text = whole.replacen(from, to, 1);
            assert_eq!(Hop::read(&of(HOP, &text)), None, "{text}");
        }
        let mut twice = of(HOP, whole);
        twice.append(HOP, HeaderValue::from_static("1"));
        assert_eq!(Hop::read(&twice), None);
        let garbled = read_fault(&of(FAULT, "1 strange unsent"), "n2").expect("one");
        assert_eq!((garbled.kind, garbled.is_unsent), (Kind::Upstream, false));
    }

    #[test]
    fn all_are_internal_and_stripped() {
        let mut headers = of(HeaderName::from_static("accept"), "*/*");
        for name in [HOP, PULSE, LOAD, FAULT, FILE] {
            assert!(is_internal(&name));
            headers.insert(name, HeaderValue::from_static("1"));
        }
        strip(&mut headers);
        assert_eq!(headers.len(), 1);
    }
}
