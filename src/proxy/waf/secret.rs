//! Which values of a request may be written down: nobody's password belongs into a log. What is not known to be harmless is secret.

/// Variables whose values are shown where their key says nothing of a secret.
const SHOWN: [&str; 22] = [
    "ARGS",
    "ARGS_NAMES",
    "ARGS_COMBINED_SIZE",
    "FILES",
    "FILES_NAMES",
    "FILES_SIZES",
    "FILES_COMBINED_SIZE",
    "MULTIPART_FILENAME",
    "MULTIPART_NAME",
    "MULTIPART_PART_HEADERS",
    "MULTIPART_STRICT_ERROR",
    "REMOTE_ADDR",
    "REQBODY_ERROR",
    "REQBODY_PROCESSOR",
    "REQUEST_BODY_LENGTH",
    "REQUEST_COOKIES_NAMES",
    "REQUEST_HEADERS",
    "REQUEST_HEADERS_NAMES",
    "REQUEST_METHOD",
    "REQUEST_PROTOCOL",
    "RESPONSE_STATUS",
    "XML",
];

/// Parts of the names of secrets.
const WORDS: [&[u8]; 21] = [
    b"pass",
    b"pwd",
    b"secret",
    b"token",
    b"auth",
    b"sess",
    b"cookie",
    b"key",
    b"otp",
    b"pin",
    b"cvv",
    b"cvc",
    b"card",
    b"hash",
    b"sign",
    b"code",
    b"csrf",
    b"credential",
    b"login",
    b"referer",
    b"jwt",
];

/// `name`: like `ARGS:q`.
pub fn is_shown(name: &[u8]) -> bool {
    let name = name.strip_prefix(b"&").unwrap_or(name);
    let mut parts = name.splitn(2, |byte| *byte == b':');
    let (variable, key) = (parts.next().unwrap_or(b""), parts.next().unwrap_or(b""));
    SHOWN.iter().any(|shown| shown.as_bytes() == variable) && !speaks_of_secrets(key)
}

/// A text that names a secret may hold it, too.
pub fn speaks_of_secrets(text: &[u8]) -> bool {
    let text = text.to_ascii_lowercase();
    WORDS.iter().any(|word| memchr::memmem::find(&text, word).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_be_harmless_is_shown() {
        for name in [
            "ARGS:q",
            "&ARGS",
            "REQUEST_HEADERS:User-Agent",
            "FILES:doc",
            "REQUEST_METHOD",
        ] {
            assert!(is_shown(name.as_bytes()), "{name}");
        }
        let secret = [
            "ARGS:USER_PASSWORD",
            "ARGS:sessid",
            "ARGS:json.auth.access_token",
            "REQUEST_COOKIES:a",
            "REQUEST_HEADERS:Cookie",
            "REQUEST_HEADERS:Authorization",
            "REQUEST_HEADERS:Referer",
            "REQUEST_BODY",
            "REQUEST_URI",
            "REQUEST_FILENAME",
            "TX:1",
        ];
        for name in secret {
            assert!(!is_shown(name.as_bytes()), "{name}");
        }
    }
}
