//! `urlDecode`, `urlDecodeUni`, `htmlEntityDecode`, `utf8toUnicode`.

use memchr::{memchr, memchr2};

use super::{Reading, hex_number, push_code};

pub fn url(value: &[u8]) -> Option<Vec<u8>> {
    decode_url(value, |_, _| None)
}

/// Knows `%u0041` too.
pub fn url_uni(value: &[u8], reading: Reading) -> Option<Vec<u8>> {
    decode_url(value, |rest, out| {
        if !matches!(rest.get(1), Some(b'u' | b'U')) {
            return None;
        }
        push_code(out, hex_number(rest, 2, 4)?, reading);
        Some(6)
    })
}

/// `special` sees the value from a `%` on; what is no escape stays.
fn decode_url(value: &[u8], special: impl Fn(&[u8], &mut Vec<u8>) -> Option<usize>) -> Option<Vec<u8>> {
    let first = memchr2(b'%', b'+', value)?;
    let mut out = Vec::with_capacity(value.len());
    out.extend_from_slice(&value[..first]);
    let mut at = first;
    while let Some(byte) = value.get(at) {
        at += match byte {
            b'+' => {
                out.push(b' ');
                1
            }
            b'%' => match (special(&value[at..], &mut out), hex_number(value, at + 1, 2)) {
                (Some(used), _) => used,
                (None, Some(code)) => {
                    out.push(code as u8);
                    3
                }
                (None, None) => {
                    out.push(b'%');
                    1
                }
            },
            byte => {
                out.push(*byte);
                1
            }
        };
    }
    Some(out)
}

pub fn html(value: &[u8], reading: Reading) -> Option<Vec<u8>> {
    let mut at = memchr(b'&', value)?;
    let mut out = Vec::with_capacity(value.len());
    out.extend_from_slice(&value[..at]);
    while let Some(byte) = value.get(at) {
        let used = match byte {
            b'&' => entity(&value[at..], &mut out, reading),
            _ => None,
        };
        match used {
            Some(used) => at += used,
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    Some(out)
}

/// The semicolon at the end may be missing, as browsers have it.
fn entity(rest: &[u8], out: &mut Vec<u8>, reading: Reading) -> Option<usize> {
    let end = |size: usize| size + usize::from(rest.get(size) == Some(&b';'));
    if rest.get(1) == Some(&b'#') {
        let is_hex = matches!(rest.get(2), Some(b'x' | b'X'));
        let (start, radix) = if is_hex { (3, 16) } else { (2, 10) };
        let digits = rest[start.min(rest.len())..].iter();
        let count = digits.take_while(|byte| char::from(**byte).is_digit(radix)).count();
        if count == 0 {
            return None;
        }
        let digits = std::str::from_utf8(&rest[start..start + count]).ok()?;
        let code = u32::from_str_radix(digits, radix).unwrap_or(0xfffd);
        push_code(out, code, reading);
        return Some(end(start + count));
    }
    let count = rest[1..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let name = &rest[1..1 + count];
    let known: [(&[u8], &[u8]); 5] = [
        (b"quot", b"\""),
        (b"amp", b"&"),
        (b"lt", b"<"),
        (b"gt", b">"),
        // ModSecurity's is the byte 160.
        (
            b"nbsp",
            if reading == Reading::Strict {
                b"\xa0"
            } else {
                "\u{a0}".as_bytes()
            },
        ),
    ];
    let found = known.iter().find(|(known, _)| name.eq_ignore_ascii_case(known))?;
    out.extend_from_slice(found.1);
    Some(end(1 + count))
}

/// Characters beyond ASCII to `%u0434`, for `urlDecodeUni` to read. Where text stays text, only full-width forms.
pub fn utf8_to_unicode(value: &[u8], reading: Reading) -> Option<Vec<u8>> {
    let is_any = match reading {
        Reading::Strict => !value.is_ascii(),
        // All of them start so in UTF-8.
        Reading::Text => memchr(0xef, value).is_some(),
    };
    if !is_any {
        return None;
    }
    let mut out = Vec::with_capacity(value.len() * 2);
    for chunk in value.utf8_chunks() {
        for char in chunk.valid().chars() {
            match u32::from(char) {
                0..=0x7f => out.push(char as u8),
                code if reading == Reading::Strict || (0xff01..=0xff5e).contains(&code) => {
                    out.extend_from_slice(format!("%u{code:04x}").as_bytes());
                }
                _ => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        out.extend_from_slice(chunk.invalid());
    }
    Some(out)
}
