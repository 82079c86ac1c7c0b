//! Stored pages as the portal writes them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

/// Switches them on for a host. `folder`: `bitrix/html_pages` of a document root.
pub fn enable(folder: &Path, host: &str) {
    fs::create_dir_all(folder).unwrap();
    let settings = format!(
        "<?\n$arHTMLPagesOptions = array(\n\t\"COMPOSITE\" => \"Y\",\n\t\"STORAGE\" => \"files\",\n\t\"~INCLUDE_MASK\" => array(\n\t\t0 => \"'^/.*?\\$'\",\n\t),\n\
         \t\"DOMAINS\" => array(\n\t\t\"{host}\" => \"{host}\",\n\t),\n\t\"FILE_QUOTA\" => \"100\",\n);\n?>"
    );
    fs::write(folder.join(".config.php"), settings).unwrap();
    fs::write(folder.join(".enabled"), "").unwrap();
}

/// The same, with pages in memcached.
pub fn enable_cached(folder: &Path, host: &str, cache: SocketAddr) {
    enable(folder, host);
    let file = folder.join(".config.php");
    let text = fs::read_to_string(&file).unwrap();
    let storage = format!(
        "\"STORAGE\" => \"memcached\",\n\t\"MEMCACHED_HOST\" => \"{}\",\n\t\"MEMCACHED_PORT\" => \"{}\"",
        cache.ip(),
        cache.port()
    );
    fs::write(file, text.replace("\"STORAGE\" => \"files\"", &storage)).unwrap();
}

/// A page that begins with `text`. `host`: with `-` before the port. `path`: without a slash at its end.
pub fn store(folder: &Path, host: &str, path: &str, text: &str) {
    let file = folder.join(format!("{host}{path}/index@.html"));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let page = format!("{text}{}<!--{}-->", " ".repeat(3000), "0123456789abcdef".repeat(2));
    fs::write(&file, page).unwrap();
}
