//! Field lines of headers and trailers, and the byte classes of HTTP/1.
//! RFC 9110 §5.1 (names), §5.5 (values), §5.6.2 (tokens); RFC 9112 §5 (lines).

use super::{Refusal, malformed};

/// A field line, taken apart.
pub(super) struct Field<'a> {
    pub name: &'a [u8],
    /// Without white space around it.
    pub value: &'a [u8],
}

impl<'a> Field<'a> {
    /// Reads one line without its CRLF.
    pub fn parse(line: &'a [u8]) -> Result<Self, Refusal> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            // RFC 9112 §5.2: obsolete line folding.
            return Err(malformed("a folded header line"));
        }
        let colon = memchr::memchr(b':', line).ok_or(malformed("a header line without a colon"))?;
        let (name, rest) = line.split_at(colon);
        if matches!(name.last(), Some(b' ' | b'\t')) {
            // RFC 9112 §5.1: the classical way to hide a field from one of two parsers.
            return Err(malformed("white space before the colon of a header"));
        }
        if !is_token(name) {
            return Err(malformed("a header name that is not a token"));
        }
        let value = rest.get(1..).unwrap_or_default();
        if !value.iter().all(|&byte| has(byte, VALUE)) {
            return Err(malformed("a control byte in a header value"));
        }
        Ok(Field {
            name,
            value: trim(value),
        })
    }

    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// Bytes of a token.
const TOKEN: u8 = 1;
/// Bytes of a field value: visible ASCII, space, tab, and obs-text, which passes unchanged.
const VALUE: u8 = 2;
/// Bytes of a request target that every parser reads alike. Browsers escape the ones left out: `"`, `#`, `<`, `>` and the backquote.
const TARGET: u8 = 4;
/// Bytes of a method. Lower case is left out, as in nginx: PHP code that folds case would see another method than we routed.
const METHOD: u8 = 8;

static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let byte = index as u8;
        let mark = matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        );
        if byte.is_ascii_alphanumeric() || mark {
            table[index] |= TOKEN;
        }
        if byte >= 0x20 && byte != 0x7f || byte == b'\t' {
            table[index] |= VALUE;
        }
        if byte > 0x20 && byte < 0x7f && !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'`') {
            table[index] |= TARGET;
        }
        if byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_') {
            table[index] |= METHOD;
        }
        index += 1;
    }
    table
}

fn has(byte: u8, class: u8) -> bool {
    CLASS[usize::from(byte)] & class != 0
}

pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| has(byte, TOKEN))
}

pub(super) fn is_method_byte(byte: u8) -> bool {
    has(byte, METHOD)
}

pub(super) fn is_target(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| has(byte, TARGET))
}

/// Without the optional white space of RFC 9110 §5.6.3 around it.
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}
