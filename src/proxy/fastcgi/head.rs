//! The head of a CGI response (RFC 3875 §6), read as its bytes arrive.
//!
//! Stricter than the RFC where laxness would let a script's data become structure: no folded lines, no control bytes, bounded size and count.
//! A script's `Location` without `Status` makes 302, local paths included: the browser resolves them (RFC 9110 §10.2.2).
//! The internal redirect of RFC 3875 §6.2.2 is not done; PHP always sends a status with `Location`.

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LOCATION};

use crate::proxy::headers::strip_hop_by_hop;

/// Longest head. Portals set many cookies and policies; browsers refuse more than 256 KiB anyway.
const MAX_SIZE: usize = 64 * 1024;

/// Most fields of a head.
const MAX_FIELDS: usize = 256;

#[derive(Debug)]
pub struct Head {
    pub status: StatusCode,
    /// Without `Status` and the hop-by-hop fields; repeated fields kept in their order.
    pub headers: HeaderMap,
    /// `Content-Length`, checked; it stays among the fields too.
    pub length: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the script's header exceeds {MAX_SIZE} bytes")]
    TooLong,
    #[error("the script's header has more than {MAX_FIELDS} fields")]
    TooMany,
    #[error("the script's header has a malformed field")]
    Field,
    #[error("the script's status is malformed")]
    Status,
    #[error("the script's length is malformed")]
    Length,
}

/// Collects a head until its empty line.
#[derive(Debug, Default)]
pub struct Reader {
    text: BytesMut,
    /// Bytes already searched for the end.
    searched: usize,
}

impl Reader {
    /// Adds bytes of STDOUT. `Some`: the head, and the bytes after it, which are the body's.
    pub fn push(&mut self, bytes: Bytes) -> Result<Option<(Head, Bytes)>, Error> {
        if self.text.is_empty()
            && let Some(end) = end_of_head(&bytes, 0)
        {
            return parse(&bytes, end).map(Some);
        }
        self.text.extend_from_slice(&bytes);
        if let Some(end) = end_of_head(&self.text, self.searched) {
            let text = std::mem::take(&mut self.text).freeze();
            return parse(&text, end).map(Some);
        }
        // The end may straddle two pushes: it is at most LF CR LF long.
        self.searched = self.text.len().saturating_sub(2);
        if self.text.len() > MAX_SIZE {
            Err(Error::TooLong)
        } else {
            Ok(None)
        }
    }
}

/// Index behind the empty line: a line feed followed by a line feed, a carriage return between them allowed,
/// or an empty line at the very start (a head without fields).
fn end_of_head(text: &[u8], from: usize) -> Option<usize> {
    if text.starts_with(b"\n") || text.starts_with(b"\r\n") {
        return Some(if text.starts_with(b"\n") { 1 } else { 2 });
    }
    for found in memchr::memchr_iter(b'\n', text.get(from..)?) {
        let next = from + found + 1;
        match text.get(next..)? {
            [b'\n', ..] => return Some(next + 1),
            [b'\r', b'\n', ..] => return Some(next + 2),
            _ => {}
        }
    }
    None
}

/// Reads the head that ends at `end`; what follows is the body's.
fn parse(text: &Bytes, end: usize) -> Result<(Head, Bytes), Error> {
    let lines = text.get(..end).unwrap_or_default();
    if lines.len() > MAX_SIZE {
        return Err(Error::TooLong);
    }
    let mut headers = HeaderMap::with_capacity(16);
    let mut status = None;
    for (count, line) in lines.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        if count == MAX_FIELDS {
            return Err(Error::TooMany);
        }
        let (name, value) = field(line)?;
        if name.as_str() == "status" {
            status = Some(status_of(&value)?);
        } else {
            headers.append(name, value);
        }
    }
    strip_hop_by_hop(&mut headers);
    let length = length_of(&mut headers)?;
    let status = status.unwrap_or(if headers.contains_key(LOCATION) {
        StatusCode::FOUND
    } else {
        StatusCode::OK
    });
    let mut rest = text.clone();
    rest.advance(end);
    Ok((
        Head {
            status,
            headers,
            length,
        },
        rest,
    ))
}

/// One line. `HeaderName` and `HeaderValue` refuse NUL, CR, LF and every other control byte but the tab.
fn field(line: &[u8]) -> Result<(HeaderName, HeaderValue), Error> {
    let colon = memchr::memchr(b':', line).ok_or(Error::Field)?;
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    Ok((
        HeaderName::from_bytes(name).map_err(|_| Error::Field)?,
        HeaderValue::from_bytes(value).map_err(|_| Error::Field)?,
    ))
}

/// `Status: 404 Not Found`; the reason is for people and HTTP/2 has none.
fn status_of(value: &HeaderValue) -> Result<StatusCode, Error> {
    let bytes = value.as_bytes();
    let (digits, reason) = bytes.split_at_checked(3).ok_or(Error::Status)?;
    if !matches!(reason, [] | [b' ', ..]) {
        return Err(Error::Status);
    }
    let status = StatusCode::from_bytes(digits).map_err(|_| Error::Status)?;
    // An interim answer is the front's to give, and 101 would hand the client a raw pipe.
    if status.is_informational() {
        Err(Error::Status)
    } else {
        Ok(status)
    }
}

/// The one length of all `Content-Length` fields; equal repetitions become one (RFC 9110 §8.6).
fn length_of(headers: &mut HeaderMap) -> Result<Option<u64>, Error> {
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let text = value.to_str().map_err(|_| Error::Length)?;
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Error::Length);
        }
        let found: u64 = text.parse().map_err(|_| Error::Length)?;
        if length.is_some_and(|length| length != found) {
            return Err(Error::Length);
        }
        length = Some(found);
    }
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(length)
}

/// Whether an answer of this status has no body (RFC 9110 §6.4.1).
pub fn is_bodiless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn read(text: &[u8]) -> Result<(Head, Bytes), Error> {
        Reader::default()
            .push(Bytes::copy_from_slice(text))
            .map(|done| done.expect("complete"))
    }

    #[test]
    fn head_cut_anywhere_reads_the_same() {
        for text in [
            &b"Status: 404 Not Found\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-type: text/html\r\n\r\nbody"[..],
            b"Status: 404\nSet-Cookie:a=1\nSet-Cookie: b=2 \nContent-Type: text/html\n\nbody",
        ] {
            for cut in 0..text.len() {
                let mut reader = Reader::default();
                let mut push = |bytes| reader.push(Bytes::copy_from_slice(bytes)).expect("valid");
                let (first, second) = text.split_at(cut);
                let (head, body) = match push(first) {
                    Some((head, rest)) => (head, [&rest, second].concat()),
                    None => push(second)
                        .map(|(head, rest)| (head, rest.to_vec()))
                        .expect("complete"),
                };
                assert_eq!(head.status, 404, "cut at {cut}");
                let cookies: Vec<_> = head.headers.get_all("set-cookie").iter().collect();
                assert_eq!(cookies, ["a=1", "b=2"]);
                assert_eq!(head.headers["content-type"], "text/html");
                assert!(!head.headers.contains_key("status"));
                assert_eq!(body, b"body");
            }
        }
    }

    #[test]
    fn location_without_status_is_a_redirect() {
        for target in ["/local", "https://other.example/"] {
            let (head, _) = read(format!("Location: {target}\n\n").as_bytes()).expect("valid");
            assert_eq!(head.status, 302);
            assert_eq!(head.headers[LOCATION], target);
        }
        let (head, _) = read(b"Status: 201\nLocation: /new\n\n").expect("valid");
        assert_eq!(head.status, 201);
    }

    #[test]
    fn structure_cannot_be_injected() {
        for text in [
            &b"A: b\0c\n\n"[..],
            b"A: b\rX: y\n\n",
            b"A\0: b\n\n",
            b"A : b\n\n",
            b"A: b\n folded\n\n",
            b"no colon\n\n",
            b": nameless\n\n",
            b"A: \x7f\n\n",
        ] {
            assert_eq!(read(text).expect_err("refused"), Error::Field, "{text:?}");
        }
        for text in [
            &b"Status: 20\n\n"[..],
            b"Status: abc\n\n",
            b"Status: 101 Switching\n\n",
            b"Status: 2000\n\n",
        ] {
            assert_eq!(read(text).expect_err("refused"), Error::Status, "{text:?}");
        }
    }

    #[test]
    fn framing_is_ours() {
        let (head, _) = read(b"Transfer-Encoding: chunked\nConnection: x-a\nX-A: 1\nX-B: 2\n\n").expect("valid");
        assert_eq!(head.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-b"]);
        let (head, _) = read(b"Content-Length: 5\nContent-Length: 05\n\n").expect("valid");
        assert_eq!(
            (head.length, head.headers.get_all(CONTENT_LENGTH).iter().count()),
            (Some(5), 1)
        );
        for length in ["-1", "+1", "1, 1", "", "99999999999999999999", "0x1"] {
            let text = format!("Content-Length: {length}\n\n");
            assert_eq!(read(text.as_bytes()).expect_err("refused"), Error::Length, "{length}");
        }
        assert_eq!(
            read(b"Content-Length: 1\nContent-Length: 2\n\n").expect_err("refused"),
            Error::Length
        );
    }

    #[test]
    fn size_and_count_are_bounded() {
        let fields = |count: usize| format!("{}\n", "A: b\n".repeat(count));
        assert!(read(fields(MAX_FIELDS).as_bytes()).is_ok());
        assert_eq!(
            read(fields(MAX_FIELDS + 1).as_bytes()).expect_err("refused"),
            Error::TooMany
        );
        let mut reader = Reader::default();
        let endless = std::iter::repeat_with(|| reader.push(Bytes::from_static(&[b'a'; 1000]))).take(70);
        assert!(endless.into_iter().any(|pushed| matches!(pushed, Err(Error::TooLong))));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(parts in proptest::collection::vec(proptest::collection::vec(proptest::sample::select(b"a:\r\n \0S".to_vec()), 0..20), 0..10)) {
            let mut reader = Reader::default();
            for part in parts {
                if !matches!(reader.push(Bytes::from(part)), Ok(None)) {
                    break;
                }
            }
        }
    }
}
