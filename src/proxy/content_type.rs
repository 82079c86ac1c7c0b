//! Media types by extension, for files and for what browsers must not run. Pure.

/// Types that the table of `mime_guess` lacks or gives differently from what browsers expect today.
const CORRECTIONS: [(&str, &str); 14] = [
    // RFC 9239 §6: the one type of scripts, modules included.
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("map", "application/json"),
    ("json", "application/json"),
    ("wasm", "application/wasm"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("ttf", "font/ttf"),
    ("otf", "font/otf"),
    ("svg", "image/svg+xml"),
    ("avif", "image/avif"),
    ("ico", "image/x-icon"),
    ("xml", "text/xml; charset=utf-8"),
    ("webmanifest", "application/manifest+json"),
];

/// The `Content-Type` of a file with this extension (lower case, without dot).
pub fn content_type(extension: &str) -> String {
    if let Some((_, kind)) = CORRECTIONS.iter().find(|(name, _)| *name == extension) {
        return (*kind).to_string();
    }
    match mime_guess::from_ext(extension).first_raw() {
        Some(kind) if kind.starts_with("text/") => format!("{kind}; charset=utf-8"),
        Some(kind) => kind.to_string(),
        None => "application/octet-stream".to_string(),
    }
}

/// Whether a precompressed copy beside such a file is worth looking for.
pub fn is_compressible(extension: &str) -> bool {
    let kind = content_type(extension);
    kind.starts_with("text/")
        || kind.ends_with("json")
        || kind.ends_with("xml")
        || matches!(extension, "wasm" | "ico" | "ttf" | "otf" | "eot")
}

/// Whether a browser may keep it for a month: what portals publish under names that change with the content.
pub fn is_long_lived(extension: &str) -> bool {
    matches!(
        extension,
        "css" | "js" | "mjs" | "map" | "gif" | "png" | "jpg" | "jpeg" | "webp" | "avif" | "ico" | "svg" | "ogg" | "mp3"
    ) || matches!(
        extension,
        "ttf" | "woff" | "woff2" | "eot" | "otf" | "mp4" | "webm" | "avi" | "flv" | "wav"
    ) || matches!(extension, "tar" | "gz" | "zip" | "rar" | "7z" | "wasm")
}

/// Whether a user's upload of this kind could run in a browser or on a server: it is only ever handed out as a download.
pub fn is_active(extension: &str) -> bool {
    is_php(extension)
        || matches!(
            extension,
            "html" | "htm" | "shtml" | "shtm" | "xhtml" | "xht" | "mht" | "mhtml" | "xml" | "xsl" | "xslt" | "hta"
        )
        || matches!(
            extension,
            "js" | "mjs" | "cgi" | "fcgi" | "fcg" | "fpl" | "pl" | "pm" | "py" | "psp" | "rb" | "sh" | "asp" | "aspx"
        )
        || matches!(extension, "asmx" | "jsp" | "jsf" | "dll" | "exe" | "swf" | "htc")
}

/// Whether PHP would run it. Its source is never served from where the portal's own scripts lie.
pub fn is_php(extension: &str) -> bool {
    matches!(extension, "php" | "phtml" | "pht" | "phps" | "phar" | "inc")
        || extension
            .strip_prefix("php")
            .is_some_and(|version| version.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_the_types_they_expect() {
        for (extension, kind) in [
            ("html", "text/html; charset=utf-8"),
            ("css", "text/css; charset=utf-8"),
            ("js", "text/javascript; charset=utf-8"),
            ("mjs", "text/javascript; charset=utf-8"),
            ("txt", "text/plain; charset=utf-8"),
            ("json", "application/json"),
            ("map", "application/json"),
            ("wasm", "application/wasm"),
            ("woff2", "font/woff2"),
            ("svg", "image/svg+xml"),
            ("avif", "image/avif"),
            ("webp", "image/webp"),
            ("png", "image/png"),
            ("pdf", "application/pdf"),
            ("webmanifest", "application/manifest+json"),
            ("mp4", "video/mp4"),
            ("", "application/octet-stream"),
            ("no-such", "application/octet-stream"),
        ] {
            assert_eq!(content_type(extension), kind, "{extension}");
        }
    }

    #[test]
    fn only_text_is_compressible() {
        for extension in ["css", "js", "svg", "json", "map", "wasm", "webmanifest"] {
            assert!(is_compressible(extension), "{extension}");
        }
        for extension in ["png", "woff2", "mp4", "zip", "", "php"] {
            assert!(!is_compressible(extension), "{extension}");
        }
    }

    #[test]
    fn every_php_is_php() {
        for extension in ["php", "php5", "php83", "phtml", "phar"] {
            assert!(is_php(extension) && is_active(extension), "{extension}");
        }
        assert!(!is_php("phpx") && !is_php("txt"));
    }
}
