//! `base64*`, `hex*`, `sha1`, `urlEncode`, `sqlHexDecode`.

use data_encoding::{BASE64, HEXLOWER};

use super::hex_digit;

/// Decodes as far as it goes: up to the first byte that is not of the alphabet, or, where those are skipped, all.
pub fn base64_decode(value: &[u8], skips: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in value {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ if skips => continue,
            _ => break,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}

pub fn base64(value: &[u8]) -> Vec<u8> {
    BASE64.encode(value).into_bytes()
}

pub fn hex(value: &[u8]) -> Vec<u8> {
    HEXLOWER.encode(value).into_bytes()
}

/// Pairs of digits to bytes. What is not all digits stays.
pub fn hex_decode(value: &[u8]) -> Option<Vec<u8>> {
    let pairs = value.chunks_exact(2);
    pairs
        .map(|pair| Some(hex_digit(pair[0])? << 4 | hex_digit(pair[1])?))
        .collect()
}

/// `0x414243` to `ABC`, wherever it stands.
pub fn sql_hex_decode(value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(byte) = rest.first() {
        let digits = match rest {
            [b'0', b'x' | b'X', digits @ ..] => digits.iter().take_while(|byte| byte.is_ascii_hexdigit()).count() & !1,
            _ => 0,
        };
        if digits == 0 {
            out.push(*byte);
            rest = &rest[1..];
            continue;
        }
        out.extend(hex_decode(&rest[2..2 + digits]).unwrap_or_default());
        rest = &rest[2 + digits..];
    }
    (out.len() < value.len()).then_some(out)
}

pub fn sha1(value: &[u8]) -> Vec<u8> {
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, value);
    digest.as_ref().to_vec()
}

pub fn url(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for byte in value {
        match byte {
            b' ' => out.push(b'+'),
            b'*' => out.push(b'*'),
            byte if byte.is_ascii_alphanumeric() => out.push(*byte),
            byte => out.extend_from_slice(format!("%{byte:02x}").as_bytes()),
        }
    }
    out
}
