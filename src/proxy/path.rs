//! A request's path, decoded and normalised, so that no later phase looks at bytes that mean something else.
//!
//! Refused with 400: a target that is not in origin form, a broken `%` escape, NUL, a control byte, an encoded slash or backslash,
//! `..` that leaves the root. RFC 3986 §5.2.4 (dot segments), §2.1 (escapes). Repeated slashes become one.

/// An absolute path with no empty, `.` or `..` segment, percent-decoded, UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    decoded: String,
}

impl Path {
    /// Reads the path part of a request target, without its query.
    pub fn parse(raw: &str) -> Result<Self, &'static str> {
        if !raw.starts_with('/') {
            return Err("the target is not an absolute path");
        }
        if is_normal(raw.as_bytes()) {
            return Ok(Path {
                decoded: raw.to_string(),
            });
        }
        let decoded = decode(raw)?;
        let mut segments: Vec<&str> = Vec::new();
        let mut ends_open = false;
        for segment in decoded.split('/').skip(1) {
            ends_open = matches!(segment, "" | "." | "..");
            match segment {
                "" | "." => {}
                ".." => {
                    segments.pop().ok_or("the path leaves the root")?;
                }
                segment => segments.push(segment),
            }
        }
        let mut path = String::with_capacity(decoded.len());
        for segment in &segments {
            path.push('/');
            path.push_str(segment);
        }
        if ends_open || segments.is_empty() {
            path.push('/');
        }
        Ok(Path { decoded: path })
    }

    /// Starts with `/`; ends with `/` when the request named a folder.
    pub fn as_str(&self) -> &str {
        &self.decoded
    }

    /// A file in this folder; `name` is a plain name.
    pub fn child(&self, name: &str) -> Self {
        let slash = if self.is_folder() { "" } else { "/" };
        Path {
            decoded: format!("{}{slash}{name}", self.decoded),
        }
    }

    /// The path up to and without the byte at `end`, which must lie behind a whole name.
    pub fn up_to(&self, end: usize) -> Self {
        Path {
            decoded: self.decoded.get(..end).unwrap_or(&self.decoded).to_string(),
        }
    }

    /// Escaped again, for a `Location`: one leading slash, no byte that means something else in a URL.
    pub fn escaped(&self) -> String {
        let mut text = String::with_capacity(self.decoded.len());
        for &byte in self.decoded.as_bytes() {
            // RFC 3986 §3.3: unreserved, sub-delims, `:`, `@`; and the slash between segments.
            if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte) {
                text.push(char::from(byte));
            } else {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
        text
    }

    /// Names between the slashes.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.decoded.split('/').filter(|segment| !segment.is_empty())
    }

    pub fn is_folder(&self) -> bool {
        self.decoded.ends_with('/')
    }

    /// Extension of the last segment, in lower case; empty when it has none.
    pub fn extension(&self) -> String {
        let last = self.decoded.rsplit('/').next().unwrap_or_default();
        match last.rsplit_once('.') {
            Some((stem, extension)) if !stem.is_empty() => extension.to_ascii_lowercase(),
            _ => String::new(),
        }
    }
}

/// The usual one: nothing to decode, no segment that is empty or begins with a dot. Every request pays for the way of the others.
fn is_normal(raw: &[u8]) -> bool {
    let is_plain = |byte: &u8| (0x21..0x7f).contains(byte) && !matches!(byte, b'%' | b'\\');
    let is_break = |pair: &[u8]| matches!(pair, [b'/', b'/' | b'.']);
    raw.iter().all(is_plain) && !raw.windows(2).any(is_break)
}

fn decode(raw: &str) -> Result<String, &'static str> {
    let bytes = raw.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(&byte) = bytes.get(index) {
        let (byte, step) = match byte {
            b'%' => (escaped(bytes.get(index + 1..index + 3))?, 3),
            b'\\' => return Err("the path holds a backslash"),
            byte => (byte, 1),
        };
        if byte < 0x20 || byte == 0x7f {
            return Err("the path holds a control byte");
        }
        decoded.push(byte);
        index += step;
    }
    String::from_utf8(decoded).map_err(|_| "the path is not UTF-8")
}

fn escaped(digits: Option<&[u8]>) -> Result<u8, &'static str> {
    let broken = "the path holds a broken escape";
    let [high, low] = digits.ok_or(broken)? else {
        return Err(broken);
    };
    let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(broken);
    let byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).map_err(|_| broken)?;
    match byte {
        b'/' | b'\\' => Err("the path holds an encoded slash"),
        byte => Ok(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised() {
        for (raw, path) in [
            ("/", "/"),
            ("//", "/"),
            ("/a/./b//c", "/a/b/c"),
            ("/a/b/..", "/a/"),
            ("/a/../b/", "/b/"),
            ("/%61%20%D1%84", "/a ф"),
            ("/a%2e%2e/b", "/a../b"),
            ("/a/%2e%2e/b", "/b"),
        ] {
            assert_eq!(Path::parse(raw).map(|p| p.decoded), Ok(path.to_string()), "{raw}");
        }
    }

    #[test]
    fn tricks_are_refused() {
        for raw in [
            "",
            "*",
            "a",
            "/..",
            "/a/../..",
            "/..%2f",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/a%2fb",
            "/a%5cb",
            "/a\\b",
            "/%",
            "/%4",
            "/%zz",
            "/a%00",
            "/a%0d",
            "/%ff",
            "/%c0%ae",
        ] {
            assert!(Path::parse(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn escaped_path_reads_back_as_itself() {
        for raw in ["/", "/a%20b/%D1%84%25", "//evil.example/x", "/a?b"] {
            let path = Path::parse(raw).expect("valid");
            assert_eq!(Path::parse(&path.escaped()), Ok(path.clone()), "{raw}");
            assert!(!path.escaped().starts_with("//"), "{raw}");
        }
    }

    #[test]
    fn extension_is_of_the_last_segment() {
        for (raw, extension) in [
            ("/a.PHP", "php"),
            ("/a.b/c", ""),
            ("/.htaccess", ""),
            ("/a.tar.gz", "gz"),
            ("/a.", ""),
        ] {
            assert_eq!(Path::parse(raw).expect("valid").extension(), extension, "{raw}");
        }
    }
}
