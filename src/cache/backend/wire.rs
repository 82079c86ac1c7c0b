//! What is said to a server and heard from it: memcached's meta commands (protocol.txt, "Meta Commands"). No I/O.
//!
//! Only what keeps bytes under a name is asked of it: `mg`, `ms` and `md`. What a client's command does to an item is this node's
//! to say, because a server of version 1.6.18 can neither be given a unique nor tell a whole state after a change.

use std::io::Write;

use bytes::{Bytes, BytesMut};

use super::name::{Name, Tag};
use crate::cache::number;

/// Longest line of an answer: some flags, or a row of `stats`.
const LINE_MAX: usize = 2048;
/// Longest value that a server may send, whatever its own limit is.
const VALUE_MAX: u64 = 1 << 30;
const STATS_MAX: usize = 64 << 10;
/// A server frees what has ended by itself: never before this node takes it for over, though its clock ticks in seconds.
const SLACK: u64 = 2;
/// Beyond this an expiry is a unix time (protocol.txt, "Expiration times"): such items stay until they are pushed out.
const EXPIRY_MAX: u64 = 60 * 60 * 24 * 30;

/// What is waited for. The number is repeated by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    pub kind: Kind,
    pub opaque: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Get,
    Set,
    Delete,
    Stats,
    Flush,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Found(Found),
    Nothing,
    Stored,
    TooLarge,
    /// No memory could be freed for it.
    Full,
    /// It is not there now.
    Gone,
    Stats(Vec<(String, String)>),
    Flushed,
}

/// A value, and what the server alone knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub value: Bytes,
    pub was_fetched: bool,
    /// Seconds since it was asked for.
    pub idle: u32,
}

/// Not the protocol: nothing after it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// Asks for a value under a name as it is spelled. `is_read`: a client wants it, so that the server keeps it rather.
pub fn get(spelled: &str, is_read: bool, opaque: u32) -> Vec<u8> {
    let bump = if is_read { "" } else { " u" };
    format!("mg {spelled} b v h l O{opaque}{bump}\r\n").into_bytes()
}

/// Stores a value of `size` bytes, which `fill` adds. `left`: milliseconds of its life.
pub fn set(spelled: &str, size: usize, left: Option<u64>, opaque: u32, fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let seconds = left.map_or(0, |left| left.div_ceil(1000).saturating_add(SLACK));
    let seconds = if seconds > EXPIRY_MAX { 0 } else { seconds };
    let mut out = Vec::with_capacity(300 + size);
    write!(out, "ms {spelled} {size} b T{seconds} O{opaque}\r\n").expect("memory takes everything");
    fill(&mut out);
    out.extend_from_slice(b"\r\n");
    out
}

pub fn delete(spelled: &str, opaque: u32) -> Vec<u8> {
    format!("md {spelled} b O{opaque}\r\n").into_bytes()
}

/// Takes the answer at the front of the input. `None`: more bytes are needed.
pub fn decode(expected: Expected, input: &mut BytesMut) -> Result<Option<Answer>, Broken> {
    if expected.kind == Kind::Stats {
        return stats(input);
    }
    let Some(end) = memchr::memchr(b'\n', input) else {
        return if input.len() > LINE_MAX { Err(Broken) } else { Ok(None) };
    };
    let line = input.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").ok_or(Broken)?;
    let mut words = line.split(|byte| *byte == b' ');
    let status = words.next().unwrap_or_default();
    if status != b"VA" {
        let answer = without_value(expected, status, line, words)?;
        drop(input.split_to(end + 1));
        return Ok(Some(answer));
    }
    if expected.kind != Kind::Get {
        return Err(Broken);
    }
    let length = words.next().and_then(number::parse);
    let length = length.filter(|length| *length <= VALUE_MAX).ok_or(Broken)?;
    let length = usize::try_from(length).map_err(|_| Broken)?;
    let (was_fetched, idle) = flags(expected, words)?;
    let start = end + 1;
    match input.get(start + length..) {
        Some([b'\r', b'\n', ..]) => {}
        None | Some([] | [b'\r']) => return Ok(None),
        Some(_) => return Err(Broken),
    }
    let whole = input.split_to(start + length + 2).freeze();
    Ok(Some(Answer::Found(Found {
        value: whole.slice(start..start + length),
        was_fetched,
        idle,
    })))
}

fn without_value<'a>(
    expected: Expected,
    status: &[u8],
    line: &[u8],
    words: impl Iterator<Item = &'a [u8]>,
) -> Result<Answer, Broken> {
    match (status, expected.kind) {
        (b"EN", Kind::Get) => Ok(Answer::Nothing),
        (b"HD", Kind::Set) => flags(expected, words).map(|_| Answer::Stored),
        (b"HD" | b"NF", Kind::Delete) => flags(expected, words).map(|_| Answer::Gone),
        (b"OK", Kind::Flush) => Ok(Answer::Flushed),
        (b"SERVER_ERROR", Kind::Set) if line.ends_with(b"object too large for cache") => Ok(Answer::TooLarge),
        (b"SERVER_ERROR", Kind::Set) if line.ends_with(b"out of memory storing object") => Ok(Answer::Full),
        _ => Err(Broken),
    }
}

/// Fetched before, and idle for how long; the number must be the one that was sent.
fn flags<'a>(expected: Expected, words: impl Iterator<Item = &'a [u8]>) -> Result<(bool, u32), Broken> {
    let (mut was_fetched, mut idle, mut opaque) = (false, 0, None);
    for word in words {
        match word.split_first() {
            Some((b'h', token)) => was_fetched = token == b"1",
            Some((b'l', token)) => idle = number::parse_u32(token).ok_or(Broken)?,
            Some((b'O', token)) => opaque = number::parse_u32(token),
            _ => {}
        }
    }
    match opaque == Some(expected.opaque) {
        true => Ok((was_fetched, idle)),
        false => Err(Broken),
    }
}

/// Rows up to the line `END`.
fn stats(input: &mut BytesMut) -> Result<Option<Answer>, Broken> {
    let end = match memchr::memmem::find(input, b"END\r\n") {
        Some(end) => end,
        None if input.len() > STATS_MAX => return Err(Broken),
        None => return Ok(None),
    };
    let whole = input.split_to(end + b"END\r\n".len());
    let text = String::from_utf8_lossy(whole.get(..end).unwrap_or_default());
    let row = |line: &str| {
        let (name, value) = line.strip_prefix("STAT ")?.split_once(' ')?;
        Some((name.to_string(), value.to_string()))
    };
    let rows: Option<Vec<(String, String)>> = text.lines().map(row).collect();
    rows.map(|rows| Some(Answer::Stats(rows))).ok_or(Broken)
}

/// A line of `lru_crawler metadump`: the name of an item, if it is of that session.
pub fn listed(line: &[u8], tag: Tag) -> Option<Name> {
    let rest = line.strip_prefix(b"key=")?;
    Name::listed(rest.split(|byte| *byte == b' ').next()?, tag)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expected(kind: Kind) -> Expected {
        Expected { kind, opaque: 7 }
    }

    fn all(kind: Kind, bytes: &[u8]) -> Result<Option<Answer>, Broken> {
        for cut in 0..bytes.len() {
            let mut part = BytesMut::from(&bytes[..cut]);
            assert_eq!(
                (decode(expected(kind), &mut part), part.len()),
                (Ok(None), cut),
                "cut at {cut}"
            );
        }
        let mut whole = BytesMut::from(&[bytes, b"more"].concat()[..]);
        let answer = decode(expected(kind), &mut whole);
        assert!(answer.is_err() || &whole[..] == b"more");
        answer
    }

    #[test]
    fn requests_are_these() {
        assert_eq!(get("ayAK", true, 5), b"mg ayAK b v h l O5\r\n");
        assert_eq!(get("ayAK", false, 5), b"mg ayAK b v h l O5 u\r\n");
        assert_eq!(delete("ayAK", 6), b"md ayAK b O6\r\n");
        let filled = |left| set("ayAK", 2, left, 8, |out| out.extend_from_slice(b"ab"));
        assert_eq!(filled(None), b"ms ayAK 2 b T0 O8\r\nab\r\n");
        assert_eq!(filled(Some(1_001)), b"ms ayAK 2 b T4 O8\r\nab\r\n");
        assert_eq!(filled(Some(EXPIRY_MAX * 1000)), b"ms ayAK 2 b T0 O8\r\nab\r\n");
    }

    #[test]
    fn answers_are_understood() {
        let found = Found {
            value: Bytes::from_static(b"a\r\nb"),
            was_fetched: true,
            idle: 12,
        };
        for (kind, bytes, answer) in [
            (Kind::Get, &b"VA 4 h1 l12 O7 b\r\na\r\nb\r\n"[..], Answer::Found(found)),
            (Kind::Get, b"EN\r\n", Answer::Nothing),
            (Kind::Set, b"HD O7 b\r\n", Answer::Stored),
            (
                Kind::Set,
                b"SERVER_ERROR object too large for cache\r\n",
                Answer::TooLarge,
            ),
            (
                Kind::Set,
                b"SERVER_ERROR out of memory storing object\r\n",
                Answer::Full,
            ),
            (Kind::Delete, b"HD O7\r\n", Answer::Gone),
            (Kind::Delete, b"NF O7\r\n", Answer::Gone),
            (Kind::Flush, b"OK\r\n", Answer::Flushed),
            (
                Kind::Stats,
                b"STAT uptime 4\r\nSTAT version 1.6.18\r\nEND\r\n",
                Answer::Stats(vec![("uptime".into(), "4".into()), ("version".into(), "1.6.18".into())]),
            ),
        ] {
            assert_eq!(
                all(kind, bytes),
                Ok(Some(answer)),
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn what_does_not_belong_to_the_question_is_broken() {
        for (kind, bytes) in [
            (Kind::Get, &b"VA 1 h0 l0 O8\r\na\r\n"[..]),
            (Kind::Get, b"VA 1 h0 l0\r\na\r\n"),
            (Kind::Get, b"VA 1 h0 l0 O7\r\nabc\r\n"),
            (Kind::Get, b"VA 99999999999 O7\r\n"),
            (Kind::Get, b"HD O7\r\n"),
            (Kind::Set, b"EN\r\n"),
            (Kind::Set, b"NS O7\r\n"),
            (Kind::Set, b"HD O6\r\n"),
            (Kind::Delete, b"CLIENT_ERROR bad command line format\r\n"),
            (Kind::Flush, b"ERROR\n"),
        ] {
            let mut input = BytesMut::from(bytes);
            assert_eq!(
                decode(expected(kind), &mut input),
                Err(Broken),
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
        let mut endless = BytesMut::from(&vec![b'V'; LINE_MAX + 1][..]);
        assert_eq!(decode(expected(Kind::Get), &mut endless), Err(Broken));
    }

    #[test]
    fn lines_of_a_list_name_items() {
        let tag = Tag(*b"tag1");
        let line = b"key=tag1a%20b exp=-1 la=1795724890 cas=1 fetch=yes cls=6 size=241";
        assert_eq!(listed(line, tag), Some(Name::of(b"a b")));
        assert_eq!((listed(line, Tag(*b"tag2")), listed(b"BUSY", tag)), (None, None));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b' '), Just(b'\r'), Just(b'\n'), Just(b'V'), Just(b'A'), Just(b'9'), any::<u8>()], 0..60),
            has_head in any::<bool>(),
        ) {
            let head: &[u8] = if has_head { b"VA " } else { b"" };
            for kind in [Kind::Get, Kind::Set, Kind::Delete, Kind::Stats, Kind::Flush] {
                let mut input = BytesMut::from(&[head, &bytes].concat()[..]);
                let _ = decode(expected(kind), &mut input);
            }
            listed(&bytes, Tag([b' '; 4]));
        }
    }
}
