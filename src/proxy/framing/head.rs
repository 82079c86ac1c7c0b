//! A request head: request line and field lines (RFC 9112 §3, §5), and what they say of the body (§6).
//! Each line is looked at once, when its end has come.

use std::ops::Range;

use memchr::memchr;

use super::super::error::Kind;
use super::super::host::Host;
use super::field::{Field, is_method_byte, is_target};
use super::{Limits, Refusal, malformed};

/// Longest target that the `http` crate can hold; it keeps offsets in 16 bits.
const LONGEST_TARGET: usize = u16::MAX as usize - 1;

/// Largest body length: beyond it, sums of lengths could overflow. hyper's own bound is one bit above.
const LARGEST_BODY: u64 = i64::MAX as u64;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    None,
    Fixed(u64),
    Chunked,
}

/// A head that may be handed on.
pub(super) struct Head {
    pub len: usize,
    pub body: Body,
    pub is_upgrade: bool,
}

/// A head being read. Offsets count from its first byte.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Where the line begins whose end is looked for.
    line: usize,
    /// Up to where that end was looked for.
    searched: usize,
    request: Option<RequestLine>,
    fields: Fields,
}

#[derive(Debug)]
struct RequestLine {
    is_http_11: bool,
    /// Host of a target in absolute form.
    authority: Option<Range<usize>>,
}

#[derive(Debug, Default)]
struct Fields {
    count: usize,
    host: Option<Range<usize>>,
    length: Option<u64>,
    is_chunked: bool,
    has_upgrade: bool,
    wants_upgrade: bool,
}

impl Scan {
    /// Reads on; `head` begins with the head's first byte in every call. `None`: its end has not come.
    pub fn read(&mut self, head: &[u8], limits: &Limits) -> Result<Option<Head>, Refusal> {
        loop {
            self.check_first_byte(head)?;
            let unseen = head.get(self.searched..).unwrap_or_default();
            let Some(found) = memchr(b'\n', unseen) else {
                self.searched = head.len();
                self.check_size(head.len(), limits)?;
                return Ok(None);
            };
            let end = self.searched + found + 1;
            self.check_size(end, limits)?;
            let line = self.line..end - 1;
            self.line = end;
            self.searched = end;
            if let Some(head) = self.take_line(head, line, limits)? {
                return Ok(Some(head));
            }
        }
    }

    /// Tells what is not HTTP at all, such as a TLS greeting, without waiting for a line end that may never come.
    fn check_first_byte(&self, head: &[u8]) -> Result<(), Refusal> {
        let first = head.get(self.line).copied();
        let may_be_empty = self.line == 0;
        match first {
            Some(b'\r') if may_be_empty => Ok(()),
            Some(byte) if self.request.is_none() && !is_method_byte(byte) => Err(malformed("a method that is not one")),
            _ => Ok(()),
        }
    }

    fn check_size(&self, len: usize, limits: &Limits) -> Result<(), Refusal> {
        if len <= limits.size {
            return Ok(());
        }
        Err(match self.request {
            None => too_long("a request line beyond the limit"),
            Some(_) => Refusal {
                kind: Kind::HeaderTooLarge,
                why: "a header beyond the limit",
            },
        })
    }

    /// `range` spans the line with its CR, without its LF.
    fn take_line(&mut self, head: &[u8], range: Range<usize>, limits: &Limits) -> Result<Option<Head>, Refusal> {
        let start = range.start;
        let line = head.get(range.clone()).and_then(|line| line.strip_suffix(b"\r"));
        // RFC 9112 §2.2 lets a server take a bare LF; one that does differs from those that do not.
        let line = line.ok_or(malformed("a line that ends without CR"))?;
        if self.request.is_none() {
            // RFC 9112 §2.2: one empty line before the request line is forgiven; old clients send it after a body.
            if line.is_empty() && start == 0 {
                return Ok(None);
            }
            self.request = Some(RequestLine::parse(line, start)?);
            return Ok(None);
        }
        if line.is_empty() {
            return self.finish(head, range.end + 1).map(Some);
        }
        self.fields.count += 1;
        if self.fields.count > limits.fields {
            return Err(Refusal {
                kind: Kind::HeaderTooLarge,
                why: "more header fields than the limit",
            });
        }
        let is_http_11 = self.request.as_ref().is_some_and(|request| request.is_http_11);
        self.fields.take(Field::parse(line)?, start, line, is_http_11)?;
        Ok(None)
    }

    fn finish(&mut self, head: &[u8], len: usize) -> Result<Head, Refusal> {
        let request = self.request.as_ref().ok_or(malformed("no request line"))?;
        let fields = &self.fields;
        let text = |range: &Range<usize>| head.get(range.clone()).unwrap_or_default();
        match (&request.authority, &fields.host) {
            // RFC 9112 §3.2.
            (_, None) if request.is_http_11 => return Err(malformed("no Host")),
            (Some(authority), Some(host)) if !text(authority).eq_ignore_ascii_case(text(host)) => {
                return Err(malformed("a target and a Host that differ"));
            }
            _ => {}
        }
        let body = match (fields.length, fields.is_chunked) {
            // RFC 9112 §6.1: the mark of an attempt to smuggle.
            (Some(_), true) => return Err(malformed("both Content-Length and Transfer-Encoding")),
            (Some(0) | None, false) => Body::None,
            (Some(length), false) => Body::Fixed(length),
            (None, true) => Body::Chunked,
        };
        Ok(Head {
            len,
            body,
            is_upgrade: request.is_http_11 && fields.has_upgrade && fields.wants_upgrade,
        })
    }
}

impl RequestLine {
    /// RFC 9112 §3: method SP target SP version, with single spaces.
    fn parse(line: &[u8], start: usize) -> Result<Self, Refusal> {
        let mut words = line.splitn(3, |&byte| byte == b' ');
        let (method, target, version) = (words.next(), words.next(), words.next());
        let (method, target) = (method.unwrap_or_default(), target.unwrap_or_default());
        if method.is_empty() || !method.iter().all(|&byte| is_method_byte(byte)) {
            return Err(malformed("a method that is not one"));
        }
        if !is_target(target) {
            return Err(malformed("a target with bytes that must be escaped"));
        }
        let version = version.ok_or(malformed("a request line of fewer than three words"))?;
        let is_http_11 = is_http_11(version)?;
        if matches!(method, b"CONNECT" | b"TRACE") {
            return Err(Refusal {
                kind: Kind::Method,
                why: "CONNECT and TRACE are not served",
            });
        }
        if target.len() > LONGEST_TARGET {
            return Err(too_long("a target beyond the limit"));
        }
        let authority = authority(method, target)?;
        let offset = start + method.len() + 1;
        Ok(RequestLine {
            is_http_11,
            authority: authority.map(|range| range.start + offset..range.end + offset),
        })
    }
}

impl Fields {
    fn take(&mut self, field: Field<'_>, start: usize, line: &[u8], is_http_11: bool) -> Result<(), Refusal> {
        // Lengths first: few fields need more than that.
        match field.name.len() {
            4 if field.is("host") => self.take_host(&field, start, line),
            6 if field.is("expect") => expectation(&field),
            7 if field.is("upgrade") => {
                self.has_upgrade = true;
                Ok(())
            }
            10 if field.is("connection") => {
                let mut options = field.value.split(|&byte| byte == b',');
                self.wants_upgrade |= options.any(|option| super::field::trim(option).eq_ignore_ascii_case(b"upgrade"));
                Ok(())
            }
            14 if field.is("content-length") => self.take_length(&field),
            17 if field.is("transfer-encoding") => self.take_coding(&field, is_http_11),
            _ => Ok(()),
        }
    }

    fn take_host(&mut self, field: &Field<'_>, start: usize, line: &[u8]) -> Result<(), Refusal> {
        if self.host.is_some() {
            return Err(malformed("more than one Host"));
        }
        std::str::from_utf8(field.value)
            .ok()
            .and_then(Host::parse)
            .ok_or(malformed("a Host that is not one"))?;
        // The value holds no white space, so the line ends with it, but for white space.
        let end = start + line.trim_ascii_end().len();
        self.host = Some(end - field.value.len()..end);
        Ok(())
    }

    /// RFC 9112 §6.2: 1*DIGIT; a list of equal lengths, which §6.3 would let us merge, is refused too.
    fn take_length(&mut self, field: &Field<'_>) -> Result<(), Refusal> {
        if self.length.is_some() {
            return Err(malformed("more than one Content-Length"));
        }
        let digits = std::str::from_utf8(field.value).unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(malformed("a Content-Length that is not a number"));
        }
        let length = digits.parse().ok().filter(|length| *length <= LARGEST_BODY);
        self.length = Some(length.ok_or(malformed("a Content-Length beyond counting"))?);
        Ok(())
    }

    /// RFC 9112 §6.1: `chunked` is the one coding that we and everything behind us know.
    fn take_coding(&mut self, field: &Field<'_>, is_http_11: bool) -> Result<(), Refusal> {
        if !is_http_11 {
            return Err(malformed("Transfer-Encoding in HTTP/1.0"));
        }
        if self.is_chunked {
            return Err(malformed("more than one Transfer-Encoding"));
        }
        if !field.value.eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal {
                kind: Kind::NotImplemented,
                why: "a transfer coding other than chunked",
            });
        }
        self.is_chunked = true;
        Ok(())
    }
}

/// RFC 9110 §10.1.1.
fn expectation(field: &Field<'_>) -> Result<(), Refusal> {
    if field.value.eq_ignore_ascii_case(b"100-continue") {
        return Ok(());
    }
    Err(Refusal {
        kind: Kind::Expectation,
        why: "an expectation other than 100-continue",
    })
}

/// RFC 9112 §2.3.
fn is_http_11(version: &[u8]) -> Result<bool, Refusal> {
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(Refusal {
                kind: Kind::Version,
                why: "a version that we do not speak",
            })
        }
        _ => Err(malformed("a request line that does not end in a version")),
    }
}

/// The authority's place in a target of absolute form; `None` for the origin form and `*`. RFC 9112 §3.2.
fn authority(method: &[u8], target: &[u8]) -> Result<Option<Range<usize>>, Refusal> {
    if target.starts_with(b"/") || (target == b"*" && method == b"OPTIONS") {
        return Ok(None);
    }
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| {
            target
                .get(..scheme.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        })
        .ok_or(malformed("a target that is neither a path nor a URL"))?;
    let rest = target.get(scheme.len()..).unwrap_or_default();
    let len = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    std::str::from_utf8(rest.get(..len).unwrap_or_default())
        .ok()
        .and_then(Host::parse)
        .ok_or(malformed("a target whose host is not one"))?;
    Ok(Some(scheme.len()..scheme.len() + len))
}

const fn too_long(why: &'static str) -> Refusal {
    Refusal {
        kind: Kind::TargetTooLong,
        why,
    }
}
