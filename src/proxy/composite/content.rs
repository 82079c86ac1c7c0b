//! What a stored page says of itself. Pure.

/// A page that is shorter is none.
const SHORTEST: usize = 2500;

/// The portal ends each page with a comment that holds the MD5 of what goes before: one without it is being written.
pub fn is_whole(page: &[u8]) -> bool {
    let Some(start) = page.len().checked_sub(35) else {
        return false;
    };
    let sum = page.get(start..start + 32).unwrap_or_default();
    page.len() >= SHORTEST && sum.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The character set that the page's head names.
pub fn charset(page: &[u8]) -> Option<&str> {
    let head = page.get(..memchr::memmem::find(page, b"</head>")?)?;
    memchr::memmem::find_iter(head, b"charset").find_map(|at| {
        let rest = head
            .get(at + 7..)?
            .trim_ascii_start()
            .strip_prefix(b"=")?
            .trim_ascii_start();
        let rest = rest
            .strip_prefix(b"\"")
            .or_else(|| rest.strip_prefix(b"'"))
            .unwrap_or(rest);
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let end = rest.iter().position(|byte| !is_name(byte))?;
        let name = std::str::from_utf8(rest.get(..end)?).ok()?;
        (1..=32).contains(&name.len()).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_page_is_none() {
        let body = "x".repeat(3000);
        let sum = "0123456789abcdef0123456789abcdef";
        assert!(is_whole(format!("{body}<!--{sum}-->").as_bytes()));
        for page in [
            String::new(),
            body.clone(),
            format!("<!--{sum}-->"),
            format!("{body}<!--{sum}--"),
            format!("{body}<!--{}-->", sum.to_uppercase()),
        ] {
            assert!(!is_whole(page.as_bytes()), "{}", page.len());
        }
    }

    #[test]
    fn the_head_names_the_character_set() {
        for (page, name) in [
            ("<head><meta charset=\"windows-1251\"></head>", Some("windows-1251")),
            (
                "<head><meta http-equiv='Content-Type' content='text/html; charset = UTF-8'></head>",
                Some("UTF-8"),
            ),
            ("<head></head><p charset=x>", None),
            ("<head><meta charset=\"\r\nx: y\"></head>", None),
            ("charset", None),
        ] {
            assert_eq!(charset(page.as_bytes()), name, "{page}");
        }
    }
}
