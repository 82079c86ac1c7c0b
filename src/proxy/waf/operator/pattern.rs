//! `@rx`: a regular expression over bytes, in the dialect that rules are written in.
//!
//! Nearly all run in time linear in the value. The few with look-around or back references (three in the Core Rule Set 3.3, none since 4)
//! backtrack, with a bound on their steps; a value beyond it does not match.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};

use regex::bytes::{Regex, RegexBuilder};

use super::Captures;
use crate::proxy::waf::macros::Text;

/// The largest automaton of one pattern; the Core Rule Set's largest needs a tenth.
const LARGEST: usize = 32 << 20;
/// Steps of one pattern that backtracks: some milliseconds.
const MOST_STEPS: usize = 100_000;
/// `TX:0` to `TX:9`.
const MOST_CAPTURES: usize = 10;

#[derive(Debug)]
pub enum Pattern {
    Linear(Regex),
    Backtracking(fancy_regex::Regex),
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Pattern, String> {
        let text = translate(text);
        let mut builder = RegexBuilder::new(&text);
        builder.unicode(false).dot_matches_new_line(true).size_limit(LARGEST);
        let error = match builder.build() {
            Ok(regex) => return Ok(Pattern::Linear(regex)),
            Err(error) => error,
        };
        let mut builder = fancy_regex::RegexBuilder::new(&text);
        builder.dot_matches_new_line(true).backtrack_limit(MOST_STEPS);
        let regex = builder.build().map_err(|_| format!("the pattern of @rx: {error}"))?;
        Ok(Pattern::Backtracking(regex))
    }

    pub fn holds(&self, value: &[u8], captures: Option<&mut Captures>) -> bool {
        match (self, captures) {
            (Pattern::Linear(regex), None) => regex.is_match(value),
            (Pattern::Linear(regex), Some(captures)) => {
                // Most values do not match, and a search without groups is far cheaper.
                let found = regex.is_match(value).then(|| regex.captures(value)).flatten();
                let is_found = found.is_some();
                if let Some(found) = found {
                    let groups = found.iter().take(MOST_CAPTURES);
                    let text = |group: Option<regex::bytes::Match>| group.map(|group| group.as_bytes().to_vec());
                    *captures = groups.map(|group| text(group).unwrap_or_default()).collect();
                }
                is_found
            }
            (Pattern::Backtracking(regex), None) => regex.is_match(&*widened(value)).unwrap_or(false),
            (Pattern::Backtracking(regex), Some(captures)) => {
                let text = widened(value);
                let Ok(Some(found)) = regex.captures(&*text) else {
                    return false;
                };
                let groups = found.iter().take(MOST_CAPTURES);
                let text = |group: Option<fancy_regex::Match>| group.map(|group| narrowed(group.as_str()));
                *captures = groups.map(|group| text(group).unwrap_or_default()).collect();
                true
            }
        }
    }

    /// As it is compiled, where it is compiled for a linear search.
    pub fn linear(&self) -> Option<&str> {
        match self {
            Pattern::Linear(regex) => Some(regex.as_str()),
            Pattern::Backtracking(_) => None,
        }
    }
}

/// A pattern that is known when it is needed. It seldom changes: the last one is kept.
#[derive(Debug)]
pub struct Made {
    text: Text,
    last: Mutex<Option<(Vec<u8>, Arc<Pattern>)>>,
}

impl Made {
    pub fn new(text: &str) -> Made {
        Made {
            text: Text::parse(text),
            last: Mutex::new(None),
        }
    }

    /// What makes no pattern holds for nothing.
    pub fn holds(&self, value: &[u8], expand: impl FnOnce(&Text) -> Vec<u8>, captures: Option<&mut Captures>) -> bool {
        let pattern = self.pattern(expand(&self.text));
        pattern.is_some_and(|pattern| pattern.holds(value, captures))
    }

    fn pattern(&self, text: Vec<u8>) -> Option<Arc<Pattern>> {
        let mut last = self.last.lock().expect("nothing panics under this lock");
        if let Some((_, pattern)) = last.as_ref().filter(|(own, _)| *own == text) {
            return Some(pattern.clone());
        }
        let pattern = Arc::new(Pattern::parse(&String::from_utf8_lossy(&text)).ok()?);
        *last = Some((text, pattern.clone()));
        Some(pattern)
    }
}

/// Each byte as the character of its number: the search knows characters only.
fn widened(value: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(value) {
        Ok(text) if text.is_ascii() => Cow::Borrowed(text),
        _ => Cow::Owned(value.iter().map(|byte| char::from(*byte)).collect()),
    }
}

fn narrowed(text: &str) -> Vec<u8> {
    text.chars().map(|char| char as u8).collect()
}

/// What PCRE reads otherwise than this engine: `\x{ff}` and letters beyond ASCII are bytes, and in a class `[`, `&` and `~` are themselves,
/// and so is a brace that begins no count.
fn translate(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut is_class = false;
    while let Some(char) = rest.chars().next() {
        let tail = &rest[char.len_utf8()..];
        if !is_class && char == '[' {
            // A bracket that comes first does not close.
            let lead = ["^]", "]", "^"]
                .into_iter()
                .find(|lead| tail.starts_with(lead))
                .unwrap_or("");
            out.push('[');
            out.push_str(&lead.replace(']', "\\]"));
            rest = &tail[lead.len()..];
            is_class = true;
            continue;
        }
        if is_class
            && char == '['
            && tail.starts_with(':')
            && let Some(end) = tail.find(":]")
        {
            out.push('[');
            out.push_str(&tail[..end + 2]);
            rest = &tail[end + 2..];
            continue;
        }
        if !is_class && char == '{' && !is_count(tail) {
            out.push_str("\\{");
            rest = tail;
            continue;
        }
        if is_class && matches!(char, '[' | '&' | '~') {
            out.extend(['\\', char]);
            rest = tail;
            continue;
        }
        is_class &= char != ']';
        if char == '\\' {
            if let Some(hex) = tail.strip_prefix("x{").and_then(|tail| tail.split_once('}'))
                && let (Ok(byte), after) = (u8::from_str_radix(hex.0, 16), hex.1)
            {
                out.push_str(&format!("\\x{byte:02x}"));
                rest = after;
                continue;
            }
            let Some(next) = tail.chars().next() else {
                out.push(char);
                break;
            };
            // `\p{...}` and its like are one.
            if next.is_ascii_alphabetic()
                && tail[1..].starts_with('{')
                && let Some(end) = tail.find('}')
            {
                out.push(char);
                out.push_str(&tail[..=end]);
                rest = &tail[end + 1..];
                continue;
            }
            // A mark that needs no escape may have one in PCRE; letters have a meaning, and stay.
            match next {
                _ if next.is_ascii_alphanumeric() || is_meta(next) => out.extend([char, next]),
                _ => push(&mut out, next),
            }
            rest = &tail[next.len_utf8()..];
            continue;
        }
        push(&mut out, char);
        rest = tail;
    }
    out
}

/// What follows a brace says how often; else PCRE takes the brace for itself.
fn is_count(tail: &str) -> bool {
    let Some((count, _)) = tail.split_once('}') else {
        return false;
    };
    let (least, most) = count.split_once(',').unwrap_or((count, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !least.is_empty() && is_number(least) && is_number(most)
}

fn is_meta(char: char) -> bool {
    regex_syntax::is_escapeable_character(char)
}

fn push(out: &mut String, char: char) {
    if char.is_ascii() {
        return out.push(char);
    }
    let mut buffer = [0; 4];
    for byte in char.encode_utf8(&mut buffer).bytes() {
        out.push_str(&format!("\\x{byte:02x}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_read_as_pcre_reads_them() {
        let pattern = Pattern::parse(r"^[^][\x5c&&~~[:digit:]]+$").unwrap();
        assert!(pattern.holds(b"ab^", None));
        for byte in [b"]", b"[", b"\\", b"&", b"~", b"7"] {
            assert!(!pattern.holds(byte, None), "{byte:?}");
        }
    }

    #[test]
    fn braces_that_count_nothing_are_braces() {
        for (pattern, value, other) in [
            (r"^\(\s*\)\s+{", "() {", "() x"),
            (r"(?:{|a{2}|b{1,}|c{,2})\d", "c{,2}7", "a7"),
            (r"o:\d{1,3}:{.*}", "o:12:{x}", "o::{x}"),
        ] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert!(
                pattern.linear().is_some()
                    && pattern.holds(value.as_bytes(), None)
                    && !pattern.holds(other.as_bytes(), None)
            );
        }
    }

    #[test]
    fn bytes_beyond_ascii_are_bytes() {
        let pattern = Pattern::parse(r"[\x{80}-\x{ff}]").unwrap();
        assert!(pattern.holds(b"a\xd0", None));
        assert!(!pattern.holds(b"ab", None));
        assert!(Pattern::parse("[é]").unwrap().holds("é".as_bytes(), None));
        assert!(Pattern::parse("\\\"x\\'").unwrap().holds(b"\"x'", None));
    }

    #[test]
    fn look_around_and_back_references_are_understood() {
        let pattern = Pattern::parse(r#"(?<!&(?:amp)|&(?:[aA]uml));|['"=]"#).unwrap();
        assert!(pattern.holds(b"a;b", None) && pattern.holds("я;".as_bytes(), None));
        assert!(!pattern.holds(b"a&amp;b&auml;", None));
        let mut captures = Vec::new();
        assert!(
            Pattern::parse(r"(\w+)=\1\b")
                .unwrap()
                .holds(b"\xff 12=12", Some(&mut captures))
        );
        assert_eq!(captures[1], b"12");
        let endless = Pattern::parse(r"^(?=(a+)+$)(a+)+\1b").unwrap();
        assert!(!endless.holds(&[b'a'; 5000], None), "the bound on steps ends it");
    }

    #[test]
    fn groups_that_took_no_part_are_empty() {
        let mut captures = Vec::new();
        let pattern = Pattern::parse("(a)|(b)").unwrap();
        assert!(pattern.holds(b"xb", Some(&mut captures)));
        assert_eq!(captures, [b"b".to_vec(), b"".to_vec(), b"b".to_vec()]);
    }
}
