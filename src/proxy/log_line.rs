//! A line of the access log: the combined format, then `seconds id target tls coding "detail"`. Pure.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, Uri, Version};

use super::digits::{address, number};
use super::exchange::Target;
use super::id::Id;
use super::metrics::target_name;
use crate::base::clock;

/// Longest text from a request within a line.
const LONGEST: usize = 4 << 10;

/// What the request asked for.
#[derive(Clone, Debug)]
pub enum Asked {
    Request(Method, Uri, Version),
    /// A first line that is no request line.
    Raw(String),
}

/// One request's story.
#[derive(Clone, Debug)]
pub struct Line {
    pub peer: IpAddr,
    /// When its header had come.
    pub at: SystemTime,
    pub asked: Asked,
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: u64,
    pub referer: Option<HeaderValue>,
    pub agent: Option<HeaderValue>,
    pub duration: Duration,
    /// `None`: nothing was asked.
    pub id: Option<Id>,
    pub target: Target,
    pub tls: Option<&'static str>,
    /// Content coding of the answer.
    pub coding: Option<&'static str>,
    /// What went wrong; empty: nothing.
    pub detail: String,
}

impl Line {
    /// A connection that was one too many; nothing was read from it.
    pub fn turned_away(peer: IpAddr, status: u16) -> Self {
        Line {
            peer,
            at: clock::wall(),
            asked: Asked::Raw("-".into()),
            status,
            bytes: 0,
            referer: None,
            agent: None,
            duration: Duration::ZERO,
            id: None,
            target: Target::None,
            tls: None,
            coding: None,
            detail: "too many connections".into(),
        }
    }
}

/// Writes lines, one after the other, into one buffer. Without `fmt` where it is the usual line: every request pays for it.
#[derive(Debug, Default)]
pub struct Pen {
    text: String,
    /// `22/Nov/2026:06:15:04 +0000`, as it was for the last line, and its second.
    stamp: String,
    second: u64,
}

impl Pen {
    /// The text of a line, with its line feed.
    pub fn render(&mut self, line: &Line) -> &str {
        self.text.clear();
        self.date(line.at);
        let out = &mut self.text;
        address(out, line.peer);
        out.push_str(" - - [");
        out.push_str(&self.stamp);
        out.push_str("] \"");
        match &line.asked {
            Asked::Request(method, uri, version) => {
                escape(out, method.as_str().as_bytes());
                out.push(' ');
                target(out, uri);
                out.push(' ');
                out.push_str(protocol(*version));
            }
            // One character per byte is what the guard made of it.
            Asked::Raw(line) => line.chars().take(LONGEST).for_each(|character| spell(out, character)),
        }
        out.push_str("\" ");
        number(out, line.status);
        out.push(' ');
        number(out, line.bytes);
        out.push_str(" \"");
        header(out, line.referer.as_ref());
        out.push_str("\" \"");
        header(out, line.agent.as_ref());
        out.push_str("\" ");
        seconds(out, line.duration);
        let words = [
            line.id.as_ref().map_or("-", Id::as_str),
            target_name(line.target),
            line.tls.unwrap_or("-"),
            line.coding.unwrap_or("-"),
        ];
        for word in words {
            out.push(' ');
            out.push_str(word);
        }
        out.push_str(" \"");
        if line.detail.is_empty() {
            out.push('-');
        }
        line.detail
            .chars()
            .take(LONGEST)
            .for_each(|character| spell(out, character));
        out.push_str("\"\n");
        out
    }

    fn date(&mut self, at: SystemTime) {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if self.second == since.as_secs() && !self.stamp.is_empty() {
            return;
        }
        self.second = since.as_secs();
        // `Sun, 22 Nov 2026 06:15:04 GMT`
        let date = httpdate::fmt_http_date(at);
        let mut words = date.split(' ').skip(1);
        let mut word = || words.next().unwrap_or_default();
        let (day, month, year, time) = (word(), word(), word(), word());
        self.stamp = format!("{day}/{month}/{year}:{time} +0000");
    }
}

/// With three decimals, the last one rounded.
fn seconds(out: &mut String, duration: Duration) {
    let millis = (duration.as_micros() + 500) / 1000;
    number(out, millis / 1000);
    let digits = [100, 10, 1].map(|place| b'0' + (millis / place % 10) as u8);
    out.push('.');
    out.extend(digits.map(char::from));
}

fn target(out: &mut String, uri: &Uri) {
    match uri.path_and_query() {
        Some(target) if uri.authority().is_none() && target.as_str().starts_with('/') => {
            escape(out, target.as_str().as_bytes());
        }
        _ => escape(out, uri.to_string().as_bytes()),
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

fn header(out: &mut String, value: Option<&HeaderValue>) {
    match value {
        Some(value) => escape(out, value.as_bytes()),
        None => out.push('-'),
    }
}

/// Nothing from a request may end a line, close a quote or drive a terminal. A byte is a character.
fn escape(out: &mut String, bytes: &[u8]) {
    let bytes = bytes.get(..LONGEST).unwrap_or(bytes);
    let is_plain = bytes
        .iter()
        .all(|byte| matches!(byte, b' '..=b'~' if !matches!(byte, b'"' | b'\\')));
    match std::str::from_utf8(bytes) {
        Ok(text) if is_plain => out.push_str(text),
        _ => bytes.iter().for_each(|byte| spell(out, char::from(*byte))),
    }
}

fn spell(out: &mut String, character: char) {
    match character {
        '"' | '\\' => {
            out.push('\\');
            out.push(character);
        }
        ' '..='~' => out.push(character),
        other => {
            let _ = write!(out, "\\x{:02x}", u32::from(other));
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn line() -> Line {
        Line {
            peer: "10.0.0.1".parse().expect("address"),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_328_104),
            asked: Asked::Request(Method::GET, Uri::from_static("/a?b"), Version::HTTP_2),
            status: 200,
            bytes: 17,
            referer: None,
            agent: Some(HeaderValue::from_bytes(b"evil\" \t\xff").expect("value")),
            duration: Duration::from_micros(12_345),
            id: Id::parse("0123456789abcdef"),
            target: Target::Php,
            tls: Some("TLSv1.3"),
            coding: Some("br"),
            detail: String::new(),
        }
    }

    #[test]
    fn line_is_combined_format_and_more() {
        let mut pen = Pen::default();
        let wanted = "10.0.0.1 - - [22/Nov/2026:06:15:04 +0000] \"GET /a?b HTTP/2.0\" 200 17 \"-\" \"evil\\\" \\x09\\xff\" \
                      0.012 0123456789abcdef php TLSv1.3 br \"-\"\n";
        assert_eq!(pen.render(&line()), wanted);
        assert_eq!(pen.render(&line()), wanted, "nothing of the last line is left");
    }

    #[test]
    fn a_pen_tells_the_second_of_its_line() {
        let (mut pen, mut later) = (Pen::default(), line());
        pen.render(&line());
        later.at += Duration::from_secs(57);
        later.asked = Asked::Request(Method::OPTIONS, Uri::from_static("*"), Version::HTTP_11);
        later.peer = "2001:db8::1".parse().expect("address");
        for (duration, shown) in [(0, "0.000"), (499, "0.000"), (500, "0.001"), (61_009_999, "61.010")] {
            later.duration = Duration::from_micros(duration);
            let text = pen.render(&later);
            let begin = "2001:db8::1 - - [22/Nov/2026:06:16:01 +0000] \"OPTIONS * HTTP/1.1\" 200 17 \"-\"";
            assert!(text.starts_with(begin), "{text}");
            assert!(text.contains(&format!("\" {shown} 0123")), "{text}");
        }
    }

    #[test]
    fn nothing_in_a_request_forges_a_line() {
        let mut forged = line();
        forged.asked = Asked::Raw("GET /\r\n10.0.0.2 - \u{1b}[2J\" \\".into());
        forged.detail = "a\nb".into();
        let mut pen = Pen::default();
        let out = pen.render(&forged);
        assert_eq!(out.matches('\n').count(), 1);
        assert!(out.contains("GET /\\x0d\\x0a10.0.0.2 - \\x1b[2J\\\" \\\\"), "{out}");
        assert!(out.ends_with("\"a\\x0ab\"\n"), "{out}");
    }

    #[test]
    fn a_long_text_is_cut() {
        let mut long = line();
        long.agent = Some(HeaderValue::from_bytes(&[b'x'; LONGEST + 1]).expect("value"));
        long.referer = Some(HeaderValue::from_bytes(&[b'"'; LONGEST + 1]).expect("value"));
        let mut pen = Pen::default();
        let out = pen.render(&long);
        assert_eq!(out.matches('x').count(), LONGEST);
        assert_eq!(out.matches("\\\"").count(), LONGEST);
    }
}
