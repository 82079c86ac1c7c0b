//! A content delivery network before the files of a node: pages lead to it, and signed addresses open what is not for everybody.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use crate::support::composite;
use crate::support::eventually::eventually;
use crate::support::http::{self, Answer};
use crate::support::node::Node;

const PAGE: &str = "<?php echo '<!doctype html><link rel=stylesheet href=\"/bitrix/a.css\"><a href=\"/upload/a.png\">x</a>\
                    <img src=\"/upload/private/a%20b.png?v=1\"><script src=\"/local/x.php\"></script>';";

fn get(node: &Node, host: &str, target: &str, fields: &str) -> Answer {
    let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n");
    http::exchange(node.http(), head.as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_lead_to_the_network_and_signed_addresses_open_files() {
    let outside = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let key = outside.path().join("cdn.key");
    fs::write(&key, format!("{}\n", "5a".repeat(32))).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let settings = format!(
        "cdn_host = \"cdn.test:8443\"\ncdn_signed = [\"/upload/private/\"]\ncdn_key = {key:?}\n[portal]\ndomain = \"portal.test\"\n"
    );
    let node = Node::start(&settings).await;
    let root = node.config.portal_root();
    fs::create_dir_all(root.join("upload/private")).unwrap();
    fs::create_dir_all(root.join("bitrix")).unwrap();
    for (name, text) in [
        ("page.php", PAGE),
        ("upload/private/a b.png", "private"),
        ("bitrix/a.css", "a{}"),
        ("static.html", "<img src=\"/upload/a.png\">"),
        (
            "hand.php",
            "<?php header('X-Accel-Redirect: /upload/private/a%20b.png');",
        ),
        (
            "packed.php",
            "<?php header('Content-Encoding: gzip'); echo gzencode('<img src=\"/upload/a.png\">');",
        ),
        (
            "plain.php",
            "<?php header('Content-Type: text/plain'); echo '<img src=\"/upload/a.png\">';",
        ),
    ] {
        fs::write(root.join(name), text).unwrap();
    }

    let page = leads(&node);
    stored_leads(&node).await;
    opens(&node, &page);

    // Under the network's name there are files, and nothing that PHP makes.
    assert_eq!(get(&node, "cdn.test", "/bitrix/a.css", "").text(), "a{}");
    for target in ["/page.php", "/", "/no/such", "/bitrix/sub/", "/bitrix/.settings.php"] {
        assert_eq!(get(&node, "cdn.test", target, "").status, 404, "{target}");
    }
}

/// A page of PHP as a browser gets it.
fn leads(node: &Node) -> String {
    let page = get(node, "portal.test", "/page.php", "").text();
    for part in [
        "href=\"//cdn.test:8443/bitrix/a.css\"",
        "<a href=\"/upload/a.png\">",
        "src=\"//cdn.test:8443/upload/private/a%20b.png?v=1&amp;bn-until=",
        "src=\"/local/x.php\"",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    // It is led there before it is compressed.
    let packed = get(node, "portal.test", "/page.php", "Accept-Encoding: gzip\r\n");
    assert!(packed.status == 200 && !packed.text().contains("<link"));
    for (target, text) in [
        ("/static.html", "src=\"/upload/a.png\""),
        ("/plain.php", "src=\"/upload/a.png\""),
    ] {
        assert!(get(node, "portal.test", target, "").text().contains(text), "{target}");
    }
    assert_eq!(
        get(node, "portal.test", "/packed.php", "").header("content-encoding"),
        Some("gzip")
    );
    page
}

/// So does a page that the portal stored, for whoever takes it compressed, too.
async fn stored_leads(node: &Node) {
    let pages = node.config.portal_root().join("bitrix/html_pages");
    composite::store(&pages, "portal.test", "/page.php", "<img src=\"/upload/a.png\">");
    composite::enable(&pages, "portal.test");
    for fields in ["", "Accept-Encoding: gzip\r\n"] {
        eventually("a stored page leads there", async || {
            let answer = get(node, "portal.test", "/page.php", fields);
            let is_stored = answer.header("x-bitrix-composite").is_some();
            let is_led = answer.text().starts_with("<img src=\"//cdn.test:8443/upload/a.png\">");
            let is_packed = answer.header("content-encoding") == Some("gzip");
            match is_stored && (is_led != is_packed) && is_packed != fields.is_empty() {
                true => Ok(()),
                false => Err(answer.head),
            }
        })
        .await;
    }
    let packed = get(node, "portal.test", "/page.php", "Accept-Encoding: gzip\r\n");
    let mut plain = String::new();
    flate2::read::GzDecoder::new(&*packed.body)
        .read_to_string(&mut plain)
        .unwrap();
    assert!(
        plain.starts_with("<img src=\"//cdn.test:8443/upload/a.png\">"),
        "{plain}"
    );
}

/// The address in the page opens the file at the portal's own name and at the network's.
fn opens(node: &Node, page: &str) {
    let (_, signed) = page.split_once("//cdn.test:8443/upload/private/").unwrap();
    let (signed, _) = signed.split_once('"').unwrap();
    let signed = format!("/upload/private/{}", signed.replace("&amp;", "&"));
    for host in ["portal.test", "cdn.test:8443"] {
        let answer = get(node, host, &signed, "");
        assert_eq!((answer.status, answer.text()), (200, "private".to_string()), "{host}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        for wrong in [
            "/upload/private/a%20b.png".to_string(),
            signed.replace("bn-sig=", "bn-sig=A"),
            signed.replace("bn-until=", "bn-until=9"),
            signed
                .replace("/upload/private/", "/upload/./private/")
                .replace("bn-sig", "bn-sag"),
        ] {
            assert_eq!(get(node, host, &wrong, "").status, 403, "{host} {wrong}");
        }
    }
    assert_eq!(
        get(node, "portal.test", "/hand.php", "").text(),
        "private",
        "PHP opens it"
    );
    let told = node.command(&["cdn", "sign", "/upload/private/a%20b.png", "--for", "5m"]);
    let address = told
        .out
        .trim()
        .strip_prefix("//cdn.test:8443")
        .unwrap_or_else(|| panic!("{}{}", told.out, told.err));
    assert_eq!(get(node, "portal.test", address, "").text(), "private");
    let refused = node.command(&["cdn", "sign", "/upload/a.png"]);
    assert!(
        refused.code != 0 && refused.err.contains("needs no signature"),
        "{}",
        refused.err
    );
}
