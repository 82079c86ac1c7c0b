//! Blanks, comments and paths: `cmdLine`, `compressWhitespace`, `replaceComments`, `normalizePath` and their relatives.

use memchr::memmem;

use super::Reading;

/// The byte 160 is a blank in Latin-1, and a part of letters in UTF-8.
pub fn is_space(byte: u8, reading: Reading) -> bool {
    byte.is_ascii_whitespace() || byte == 11 || (byte == 160 && reading == Reading::Strict)
}

pub fn compress(value: &[u8], reading: Reading) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len());
    let mut is_within = false;
    for byte in value {
        let is_space = is_space(*byte, reading);
        if !is_space {
            out.push(*byte);
        } else if !is_within {
            out.push(b' ');
        }
        is_within = is_space;
    }
    (out != value).then_some(out)
}

/// A command line without what shells ignore: quotes and escapes go, separators are one blank, none before `/` and `(`, lower case.
pub fn cmd_line(value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len());
    for byte in value {
        match byte {
            b'"' | b'\'' | b'\\' | b'^' => {}
            b' ' | b',' | b';' | b'\t' | b'\r' | b'\n' => {
                if out.last() != Some(&b' ') {
                    out.push(b' ');
                }
            }
            b'/' | b'(' => {
                if out.last() == Some(&b' ') {
                    out.pop();
                }
                out.push(*byte);
            }
            _ => out.push(byte.to_ascii_lowercase()),
        }
    }
    (out != value).then_some(out)
}

/// Each `/* … */` is one blank; one without end reaches to the end.
pub fn replace_comments(value: &[u8]) -> Option<Vec<u8>> {
    memmem::find(value, b"/*")?;
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(start) = memmem::find(rest, b"/*") {
        out.extend_from_slice(&rest[..start]);
        out.push(b' ');
        let inner = &rest[start + 2..];
        rest = memmem::find(inner, b"*/").map_or(b"", |end| &inner[end + 2..]);
    }
    out.extend_from_slice(rest);
    Some(out)
}

/// Comments of C, HTML, SQL and shells, with what is in them.
pub fn without_comments(value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(byte) = rest.first() {
        let close: Option<(&[u8], &[u8])> = match rest {
            [b'/', b'*', inner @ ..] => Some((inner, b"*/")),
            [b'<', b'!', b'-', b'-', inner @ ..] => Some((inner, b"-->")),
            [b'-', b'-', ..] | [b'#', ..] => Some((b"", b"")),
            _ => None,
        };
        rest = match close {
            Some((inner, mark)) => memmem::find(inner, mark).map_or(b"", |end| &inner[end + mark.len()..]),
            None => {
                out.push(*byte);
                &rest[1..]
            }
        };
    }
    (out.len() < value.len()).then_some(out)
}

pub fn without_comment_marks(value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(byte) = rest.first() {
        let used = match rest {
            [b'<', b'!', b'-', b'-', ..] => 4,
            [b'-', b'-', b'>', ..] => 3,
            [b'/', b'*', ..] | [b'*', b'/', ..] | [b'-', b'-', ..] => 2,
            [b'#', ..] => 1,
            _ => {
                out.push(*byte);
                rest = &rest[1..];
                continue;
            }
        };
        rest = &rest[used..];
    }
    (out.len() < value.len()).then_some(out)
}

/// Without empty parts, `.`, and `..` with the part before it.
pub fn path(value: &[u8], is_windows: bool) -> Option<Vec<u8>> {
    let mut own = value.to_vec();
    if is_windows {
        own.iter_mut()
            .filter(|byte| **byte == b'\\')
            .for_each(|byte| *byte = b'/');
    }
    let is_absolute = own.first() == Some(&b'/');
    let ends = own.last() == Some(&b'/');
    let mut kept: Vec<&[u8]> = Vec::new();
    for part in own.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match kept.last() {
                Some(&last) if last != b".." => _ = kept.pop(),
                // Above the root there is nothing.
                None if is_absolute => {}
                _ => kept.push(part),
            },
            _ => kept.push(part),
        }
    }
    let mut out = Vec::with_capacity(own.len());
    if is_absolute {
        out.push(b'/');
    }
    out.extend_from_slice(&kept.join(&b'/'));
    if ends && !kept.is_empty() {
        out.push(b'/');
    }
    (out != value).then_some(out)
}
