//! What of the portal's document root nobody may fetch, whether or not it exists. Pure.
//! And what browsers may do with files that visitors put there. Names are compared
//! without case: a rule that is too wide costs nothing, one that is too narrow shows passwords.

use http::header::{CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, HeaderMap, HeaderValue};

use super::error::Kind;
use super::path::Path;

/// Folders of `/bitrix` that only PHP includes: 403.
const BITRIX_INTERNAL: [&str; 5] = [
    "modules",
    "local_cache",
    "stack_cache",
    "managed_cache",
    "php_interface",
];

/// Ends of names that editors and admins leave behind, often of files that hold passwords.
const LEFT_BEHIND: [&str; 6] = [".orig", ".bak", ".save", ".old", ".swp", "~"];

/// Folders that visitors fill: nothing in them is ever run.
const FILLED_BY_VISITORS: [&[&str]; 3] = [&["upload"], &["bitrix", "images"], &["bitrix", "tmp"]];

/// Why a path is not served; `None`: it may be.
pub fn deny(path: &Path) -> Option<Kind> {
    let lower = path.as_str().to_lowercase();
    let names: Vec<&str> = lower.split('/').filter(|name| !name.is_empty()).collect();
    if is_hidden(&names) || is_left_behind(&names) {
        return Some(Kind::NotFound);
    }
    if is_internal(&names) || is_unwanted_script(&names) || has_unusual_script(path) {
        return Some(Kind::Forbidden);
    }
    None
}

/// A visitor's file must not act in the portal's name: no script in an SVG image, no page from a visitor's hand.
pub fn disarm(path: &Path, headers: &mut HeaderMap) {
    if path.segments().next() != Some("upload") {
        return;
    }
    match path.extension().as_str() {
        "svg" | "svgz" => {
            let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; sandbox");
            headers.insert(CONTENT_SECURITY_POLICY, policy);
        }
        "html" | "htm" | "shtml" | "xhtml" | "xht" | "xml" | "cgi" | "pl" | "py" | "rb" | "asp" | "aspx" | "jsp"
        | "js" => {
            headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
        }
        _ => {}
    }
}

/// Dot files, version control, settings. `/.well-known/` is public by design (RFC 8615).
fn is_hidden(names: &[&str]) -> bool {
    let mut names = names.iter().enumerate();
    names.any(|(depth, name)| {
        let is_public = depth == 0 && *name == ".well-known";
        name.starts_with('.') && !is_public || *name == "thumbs.db"
    })
}

fn is_left_behind(names: &[&str]) -> bool {
    let last = names.last().copied().unwrap_or_default();
    LEFT_BEHIND.iter().any(|end| last.ends_with(end))
}

fn is_internal(names: &[&str]) -> bool {
    match names {
        ["bitrix", "cache", rest @ ..] => !is_cached_asset(rest),
        // Stored pages: the front itself serves them, as what they are pages of.
        ["bitrix", "html_pages", ..] => true,
        ["bitrix", folder, ..] => BITRIX_INTERNAL.contains(folder),
        ["upload", "support", "not_image", ..] => true,
        ["upload", folder, ..] => folder.starts_with("1c_"),
        _ => false,
    }
}

/// Joined style sheets and scripts are the one thing under `/bitrix/cache` that browsers load.
fn is_cached_asset(names: &[&str]) -> bool {
    match names {
        ["css", .., name] => name.ends_with(".css"),
        ["js", .., name] => name.ends_with(".js"),
        _ => false,
    }
}

fn is_unwanted_script(names: &[&str]) -> bool {
    FILLED_BY_VISITORS.iter().any(|folder| names.starts_with(folder)) && names.iter().any(|name| is_script(name))
}

/// A script in all but the name that is run: it would be served as a file, source and all.
fn has_unusual_script(path: &Path) -> bool {
    let mut names = path.segments();
    names.any(|name| !name.ends_with(".php") && is_script(&name.to_lowercase()))
}

fn is_script(name: &str) -> bool {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    match extension.strip_prefix("ph") {
        Some(rest) => matches!(rest, "p" | "tml" | "t" | "ar" | "ps") || rest.strip_prefix('p').is_some_and(is_digits),
        None => false,
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> Option<Kind> {
        deny(&Path::parse(path).expect("a valid path"))
    }

    #[test]
    fn secrets_do_not_exist() {
        for path in [
            "/.htaccess",
            "/.htpasswd",
            "/.git/config",
            "/a/.svn/entries",
            "/.hg/",
            "/.env",
            "/.DS_Store",
            "/a/Thumbs.db",
            "/bitrix/.settings.php",
            "/BITRIX/.Settings.php",
            "/bitrix/.settings_extra.php",
            "/bitrix/html_pages/.config.php",
            "/bitrix/html_pages/.enabled",
            "/.well-known/.git/config",
            "/a/.well-known/x",
            "/index.php.bak",
            "/index.php~",
            "/a.PHP.Old",
            "/dbconn.php.swp",
            "/x.save",
            "/x.orig",
            "/.settings.php/x",
        ] {
            assert_eq!(of(path), Some(Kind::NotFound), "{path}");
        }
    }

    #[test]
    fn internals_are_forbidden() {
        for path in [
            "/bitrix/modules",
            "/bitrix/modules/main/tools.php",
            "/bitrix/php_interface/dbconn.php",
            "/bitrix/managed_cache/x",
            "/bitrix/stack_cache/x",
            "/bitrix/local_cache/x",
            "/bitrix/cache/s1/x.php",
            "/bitrix/cache/css/a.php",
            "/bitrix/cache/js/a.css",
            "/bitrix/cache/",
            "/upload/1c_catalog/import.xml",
            "/upload/support/not_image/x.jpg",
            "/bitrix/html_pages/portal.example/index@.html",
        ] {
            assert_eq!(of(path), Some(Kind::Forbidden), "{path}");
        }
    }

    #[test]
    fn what_visitors_left_is_never_run() {
        for path in [
            "/upload/shell.php",
            "/upload/a/b/shell.PHP",
            "/upload/shell.php/x.jpg",
            "/upload/shell.phtml",
            "/upload/shell.phar",
            "/upload/shell.php7",
            "/bitrix/images/shell.php",
            "/bitrix/tmp/shell.php",
            "/index.PHP",
            "/a/b.phps",
            "/a/b.Phtml/x",
        ] {
            assert_eq!(of(path), Some(Kind::Forbidden), "{path}");
        }
    }

    #[test]
    fn pages_of_visitors_are_downloads() {
        let headers = |path: &str| {
            let mut headers = HeaderMap::new();
            disarm(&Path::parse(path).expect("a valid path"), &mut headers);
            headers
        };
        assert_eq!(headers("/upload/a/page.HTML")[CONTENT_DISPOSITION], "attachment");
        assert!(headers("/upload/x.svg").contains_key(CONTENT_SECURITY_POLICY));
        assert!(headers("/upload/x.jpg").is_empty());
        assert!(headers("/docs/page.html").is_empty());
    }

    #[test]
    fn the_portal_itself_is_served() {
        for path in [
            "/",
            "/index.php",
            "/bitrix/admin/index.php",
            "/bitrix/cache/css/s1/a/b.css",
            "/bitrix/cache/js/s1/a.js",
            "/.well-known/acme-challenge/x",
            "/upload/photo.jpg",
            "/upload/iblock/1c_like.jpg",
            "/bitrix/images/logo.svg",
            "/docs/phone.photo",
            "/a.photo",
            "/bitrix/tools/x.php/path/info",
            "/telephony.old.html",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
