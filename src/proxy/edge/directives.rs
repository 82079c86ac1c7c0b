//! `Cache-Control` and its like (RFC 9111 §5.2, RFC 9213). No I/O.

use http::header::{HeaderMap, HeaderName};

/// RFC 9111 §1.2.2: what does not fit counts as this.
const MAX: u64 = 1 << 31;

/// The directives of all fields of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// Names in lower case, each with its argument, without quotes.
    all: Vec<(String, Option<String>)>,
}

impl Directives {
    pub fn read(headers: &HeaderMap, name: &HeaderName) -> Self {
        let mut all = Vec::new();
        for value in headers.get_all(name) {
            // Bytes that are no text make up a directive that nobody knows.
            split(&String::from_utf8_lossy(value.as_bytes()), &mut all);
        }
        Directives { all }
    }

    pub fn has(&self, name: &str) -> bool {
        self.all.iter().any(|(known, _)| known == name)
    }

    /// Without an argument.
    pub fn is_bare(&self, name: &str) -> bool {
        self.all.iter().any(|(known, value)| known == name && value.is_none())
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Seconds. Said twice, the shortest counts; what is no number counts as none at all: 0.
    pub fn seconds(&self, name: &str) -> Option<u64> {
        let values = self.all.iter().filter(|(known, _)| known == name);
        values.map(|(_, value)| value.as_deref().map_or(0, seconds)).min()
    }
}

/// `delta-seconds`.
pub fn seconds(text: &str) -> u64 {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match is_number {
        true => text.parse().unwrap_or(MAX).min(MAX),
        false => 0,
    }
}

/// `name[=token|"text"]`, separated by commas that are not in quotes.
fn split(text: &str, all: &mut Vec<(String, Option<String>)>) {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return;
        }
        let end = rest.find(['=', ',']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let Some(value) = after.strip_prefix('=') else {
            all.push((name.trim().to_ascii_lowercase(), None));
            rest = after;
            continue;
        };
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = value.find(',').unwrap_or(value.len());
                let (value, after) = value.split_at(end);
                // Only the end: a space before the value makes it none (RFC 9111 §1.2.1, RFC 9110 §5.6.2).
                (value.trim_end().to_string(), after)
            }
        };
        all.push((name.to_ascii_lowercase(), Some(value)));
        rest = after.find(',').map_or("", |comma| &after[comma..]);
    }
}

/// The text up to the quote, and what follows it.
fn unquote(quoted: &str) -> (String, &str) {
    let mut text = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (text, &quoted[at + 1..]),
            '\\' => text.extend(letters.next().map(|(_, letter)| letter)),
            letter => text.push(letter),
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    use http::header::{CACHE_CONTROL, HeaderValue};
    use proptest::prelude::*;

    fn read(fields: &[&str]) -> Directives {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(CACHE_CONTROL, HeaderValue::from_str(field).expect("a value"));
        }
        Directives::read(&headers, &CACHE_CONTROL)
    }

    #[test]
    fn directives_are_told_apart() {
        let read = read(&[
            "Max-Age=60, private=\"a, b\" , ,no-store",
            "s-maxage=\"7\", x=\"a\\\"b\", public",
        ]);
        assert_eq!((read.seconds("max-age"), read.seconds("s-maxage")), (Some(60), Some(7)));
        for name in ["private", "no-store", "public", "x"] {
            assert!(read.has(name), "{name}");
        }
        assert!(!read.has("b") && !read.has("b\""));
        assert_eq!(read.seconds("x"), Some(0));
    }

    #[test]
    fn numbers_are_numbers_or_nothing() {
        for (field, expected) in [
            ("max-age=3600", Some(3600)),
            ("max-age=0003600", Some(3600)),
            ("max-age=99999999999999999999", Some(MAX)),
            ("max-age=-1", Some(0)),
            ("max-age=3600.5", Some(0)),
            ("max-age= 3600", Some(0)),
            ("max-age =3600", None),
            ("max-age", Some(0)),
            ("max-age=a3600", Some(0)),
            ("max-age=1, max-age=3600", Some(1)),
            ("no-max-age=1", None),
        ] {
            assert_eq!(read(&[field]).seconds("max-age"), expected, "{field}");
        }
    }

    proptest! {
        #[test]
        fn no_field_makes_it_panic(field in "[a-z=,\"\\\\ é0-9]{0,40}") {
            if let Ok(value) = HeaderValue::from_bytes(field.as_bytes()) {
                let mut headers = HeaderMap::new();
                headers.insert(CACHE_CONTROL, value);
                let _ = Directives::read(&headers, &CACHE_CONTROL).seconds("a");
            }
        }
    }
}
