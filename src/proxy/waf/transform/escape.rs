//! `jsDecode`, `cssDecode`, `escapeSeqDecode`: what a backslash introduces.

use memchr::memchr;

use super::{Reading, hex_digit, hex_number, push_code};

/// Decodes from each backslash on with `one`, which says how many bytes it took.
fn decode(value: &[u8], one: impl Fn(&[u8], &mut Vec<u8>) -> usize) -> Option<Vec<u8>> {
    let mut at = memchr(b'\\', value)?;
    let mut out = Vec::with_capacity(value.len());
    out.extend_from_slice(&value[..at]);
    while at < value.len() {
        at += one(&value[at..], &mut out).max(1);
        let next = memchr(b'\\', value.get(at..).unwrap_or(b"")).map_or(value.len(), |next| at + next);
        out.extend_from_slice(value.get(at..next).unwrap_or(b""));
        at = next;
    }
    Some(out)
}

fn control(byte: u8) -> Option<u8> {
    Some(match byte {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => 10,
        b'r' => 13,
        b't' => 9,
        b'v' => 11,
        _ => return None,
    })
}

/// Up to three octal digits of one byte, and how many they are.
fn octal(digits: &[u8]) -> Option<(u8, usize)> {
    let mut count = digits
        .iter()
        .take(3)
        .take_while(|byte| matches!(byte, b'0'..=b'7'))
        .count();
    if count == 3 && digits[0] > b'3' {
        count = 2;
    }
    let number = digits[..count]
        .iter()
        .fold(0u8, |number, digit| number << 3 | (digit - b'0'));
    (count > 0).then_some((number, count))
}

pub fn js(value: &[u8], reading: Reading) -> Option<Vec<u8>> {
    decode(value, |rest, out| {
        let Some(next) = rest.get(1).copied() else {
            out.push(b'\\');
            return 1;
        };
        match next {
            b'u' if let Some(code) = hex_number(rest, 2, 4) => {
                push_code(out, code, reading);
                6
            }
            b'x' if let Some(code) = hex_number(rest, 2, 2) => {
                out.push(code as u8);
                4
            }
            b'0'..=b'7' if let Some((byte, count)) = octal(&rest[1..]) => {
                out.push(byte);
                1 + count
            }
            _ => {
                out.push(control(next).unwrap_or(next));
                2
            }
        }
    })
}

pub fn css(value: &[u8], reading: Reading) -> Option<Vec<u8>> {
    decode(value, |rest, out| {
        let digits = rest[1..]
            .iter()
            .take(6)
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        if digits > 0 {
            let code = hex_number(rest, 1, digits).unwrap_or_default();
            push_code(out, code, reading);
            // One blank after the number belongs to it.
            let blank = rest
                .get(1 + digits)
                .is_some_and(|byte| byte.is_ascii_whitespace() || *byte == 11);
            return 1 + digits + usize::from(blank);
        }
        match rest.get(1) {
            // A continued line.
            Some(b'\n') => 2,
            Some(next) => {
                out.push(*next);
                2
            }
            None => 1,
        }
    })
}

/// As `$'…'` of a shell reads it; what is no escape stays, with its backslash.
pub fn ansi(value: &[u8]) -> Option<Vec<u8>> {
    decode(value, |rest, out| {
        let next = rest.get(1).copied().unwrap_or(0);
        let (byte, used) = match next {
            b'\\' | b'?' | b'\'' | b'"' => (next, 2),
            b'x' | b'X' if let Some(code) = hex_number(rest, 2, 2) => (code as u8, 4),
            b'x' | b'X' if let Some(digit) = rest.get(2).and_then(|digit| hex_digit(*digit)) => (digit, 3),
            b'0'..=b'7' if let Some((byte, count)) = octal(&rest[1..]) => (byte, 1 + count),
            _ => match control(next) {
                Some(byte) => (byte, 2),
                None => (b'\\', 1),
            },
        };
        out.push(byte);
        used
    })
}
