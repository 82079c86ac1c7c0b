//! `@detectSQLi` and `@detectXSS`: the seam to libinjection. Values that cannot be an attack never reach it.

use super::Captures;

/// Without one of these nothing but a number or a word is left, which no fingerprint of libinjection names.
fn is_plain(value: &[u8]) -> bool {
    value
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
}

pub fn is_sqli(value: &[u8], captures: Option<&mut Captures>) -> bool {
    if is_plain(value) {
        return false;
    }
    let found = libinjectionrs::detect_sqli(value);
    if !found.is_injection() {
        return false;
    }
    if let (Some(captures), Some(fingerprint)) = (captures, found.fingerprint) {
        *captures = vec![fingerprint.as_str().as_bytes().to_vec()];
    }
    true
}

pub fn is_xss(value: &[u8], captures: Option<&mut Captures>) -> bool {
    if memchr::memchr2(b'<', b'=', value).is_none() {
        return false;
    }
    let is_found = libinjectionrs::detect_xss(value).is_injection();
    if let (true, Some(captures)) = (is_found, captures) {
        *captures = vec![value.to_vec()];
    }
    is_found
}
