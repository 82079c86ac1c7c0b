//! Transformations: a value as a target would read it. Each is a pure function of bytes that says when it changes nothing.
//!
//! Where a transformation meets a character beyond one byte, ModSecurity keeps its low byte: Cyrillic text turns into punctuation
//! ("договор" into `4>3>2>@`) and looks like an attack. Here such characters stay what they are, except full-width forms, which
//! stand for ASCII; `Reading::Strict` does as ModSecurity does.

mod decode;
mod encode;
mod escape;
mod name;
mod space;
mod trigger;

/// How characters beyond one byte are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    Text,
    Strict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transform {
    Base64Decode,
    Base64DecodeExt,
    Base64Encode,
    CmdLine,
    CompressWhitespace,
    CssDecode,
    EscapeSeqDecode,
    HexDecode,
    HexEncode,
    HtmlEntityDecode,
    JsDecode,
    Length,
    Lowercase,
    NormalizePath,
    NormalizePathWin,
    RemoveComments,
    RemoveCommentsChar,
    RemoveNulls,
    RemoveWhitespace,
    ReplaceComments,
    ReplaceNulls,
    Sha1,
    SqlHexDecode,
    Trim,
    TrimLeft,
    TrimRight,
    Uppercase,
    UrlDecode,
    UrlDecodeUni,
    UrlEncode,
    Utf8ToUnicode,
}

impl Transform {
    /// `None`: the value stays as it is.
    pub fn apply(self, value: &[u8], reading: Reading) -> Option<Vec<u8>> {
        match self {
            Transform::Base64Decode => Some(encode::base64_decode(value, false)),
            Transform::Base64DecodeExt => Some(encode::base64_decode(value, true)),
            Transform::Base64Encode => Some(encode::base64(value)),
            Transform::CmdLine => space::cmd_line(value),
            Transform::CompressWhitespace => space::compress(value, reading),
            Transform::CssDecode => escape::css(value, reading),
            Transform::EscapeSeqDecode => escape::ansi(value),
            Transform::HexDecode => encode::hex_decode(value),
            Transform::HexEncode => Some(encode::hex(value)),
            Transform::HtmlEntityDecode => decode::html(value, reading),
            Transform::JsDecode => escape::js(value, reading),
            Transform::Length => Some(value.len().to_string().into_bytes()),
            Transform::Lowercase => changed(value, u8::is_ascii_uppercase, <[u8]>::to_ascii_lowercase),
            Transform::NormalizePath => space::path(value, false),
            Transform::NormalizePathWin => space::path(value, true),
            Transform::RemoveComments => space::without_comments(value),
            Transform::RemoveCommentsChar => space::without_comment_marks(value),
            Transform::RemoveNulls => without(value, |byte| byte == 0),
            Transform::RemoveWhitespace => without(value, |byte| space::is_space(byte, reading)),
            Transform::ReplaceComments => space::replace_comments(value),
            Transform::ReplaceNulls => changed(value, |byte| *byte == 0, replace_nulls),
            Transform::Sha1 => Some(encode::sha1(value)),
            Transform::SqlHexDecode => encode::sql_hex_decode(value),
            Transform::Trim => trimmed(value, value.trim_ascii()),
            Transform::TrimLeft => trimmed(value, value.trim_ascii_start()),
            Transform::TrimRight => trimmed(value, value.trim_ascii_end()),
            Transform::Uppercase => changed(value, u8::is_ascii_lowercase, <[u8]>::to_ascii_uppercase),
            Transform::UrlDecode => decode::url(value),
            Transform::UrlDecodeUni => decode::url_uni(value, reading),
            Transform::UrlEncode => Some(encode::url(value)),
            Transform::Utf8ToUnicode => decode::utf8_to_unicode(value, reading),
        }
    }
}

fn changed(value: &[u8], is_meant: fn(&u8) -> bool, all: fn(&[u8]) -> Vec<u8>) -> Option<Vec<u8>> {
    value.iter().any(is_meant).then(|| all(value))
}

fn without(value: &[u8], is_dropped: impl Fn(u8) -> bool) -> Option<Vec<u8>> {
    let is_any = value.iter().any(|byte| is_dropped(*byte));
    is_any.then(|| value.iter().copied().filter(|byte| !is_dropped(*byte)).collect())
}

fn replace_nulls(value: &[u8]) -> Vec<u8> {
    value.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect()
}

fn trimmed(value: &[u8], inner: &[u8]) -> Option<Vec<u8>> {
    (inner.len() < value.len()).then(|| inner.to_vec())
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// The number that the digits at `at` make; `None` unless there are `count`.
fn hex_number(value: &[u8], at: usize, count: usize) -> Option<u32> {
    let digits = value.get(at..at + count)?;
    let mut number = 0;
    for digit in digits {
        number = number << 4 | u32::from(hex_digit(*digit)?);
    }
    Some(number)
}

/// Appends a character that was written by its number.
fn push_code(out: &mut Vec<u8>, code: u32, reading: Reading) {
    let low = (code & 0xff) as u8;
    match (code, reading) {
        // Full-width forms stand for ASCII.
        (0xff01..=0xff5e, _) => out.push(low.wrapping_add(0x20)),
        (0..=0xff, _) | (_, Reading::Strict) => out.push(low),
        _ => match char::from_u32(code) {
            Some(char) => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            // Half of a pair.
            None => out.extend_from_slice("\u{fffd}".as_bytes()),
        },
    }
}

#[cfg(test)]
mod tests;
