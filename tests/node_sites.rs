//! Several sites on one node: each host has its own document root, in files and in PHP.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::sys::signal::Signal;

use crate::support::composite;
use crate::support::eventually::eventually;
use crate::support::http::{self, Answer};
use crate::support::node::Node;

const WHO: &str = "<?php echo implode('|', [$_SERVER['DOCUMENT_ROOT'], $_SERVER['SCRIPT_FILENAME'], $_SERVER['SERVER_NAME'], __FILE__]);";

fn ask(node: &Node, host: &str, method: &str, target: &str, body: &[u8]) -> Answer {
    let length = body.len();
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    http::exchange(node.http(), &[head.as_bytes(), body].concat()).unwrap()
}

fn get(node: &Node, host: &str, target: &str) -> Answer {
    ask(node, host, "GET", target, b"")
}

/// A folder that PHP's user and the front's can read.
fn site(folder: &Path, name: &str, files: &[(&str, &str)]) {
    let root = folder.join(name);
    for (file, text) in files {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

async fn becomes(node: &Node, host: &str, target: &str, wanted: &str) {
    eventually(&format!("{host}{target} is {wanted}"), async || {
        match http::connect(node.http()).map(|_| get(node, host, target).text()) {
            Ok(text) if text == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// What the shop's site and the portal's have in common, and what each has of its own.
fn make(folder: &Path) {
    let maker = "<?php header('Cache-Control: public, max-age=600'); echo 'shop ', hrtime(true);";
    let hands = "<?php header('X-Accel-Redirect: /handed/over.txt');";
    site(
        folder,
        "shop",
        &[
            ("index.php", WHO),
            ("own.php", "<?php echo 'fallback of ', $_SERVER['SERVER_NAME'];"),
            ("a.txt", "shop's"),
            ("same.php", maker),
            ("hand.php", hands),
            ("handed/over.txt", "shop's file"),
            (".settings.php", "secret"),
        ],
    );
    site(folder, "other", &[("a.txt", "other's")]);
}

fn link(node: &Node, folder: &Path) {
    let root = node.config.portal_root();
    let shop = folder.join("shop");
    fs::write(root.join("a.txt"), "portal's").unwrap();
    let maker = fs::read_to_string(shop.join("same.php")).unwrap();
    fs::write(root.join("same.php"), maker.replace("shop", "portal")).unwrap();
    fs::copy(shop.join("hand.php"), root.join("hand.php")).unwrap();
    site(&root, "upload", &[("shared.txt", "shared")]);
    for name in ["bitrix", "upload"] {
        fs::create_dir_all(root.join(name)).unwrap();
        symlink(root.join(name), shop.join(name)).unwrap();
    }
    symlink(folder.join("other"), shop.join("elsewhere")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_has_its_own_site() {
    let outside = tempfile::tempdir_in("/tmp").unwrap();
    let folder = outside.path();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    make(folder);
    let sites = format!(
        "cache = \"16MiB\"\n[portal]\ndomain = \"portal.test\"\n[[proxy.sites]]\nhosts = [\"shop.test\", \"*.shop.test\"]\n\
         root = \"{0}/shop\"\nfallback = \"/own.php\"\nmax_body_size = \"1KiB\"\n",
        folder.display()
    );
    let node = Node::start(&sites).await;
    link(&node, folder);
    answers(&node, folder);
    keeps_apart(&node).await;
    changes(&node, folder).await;
}

/// Files and PHP.
fn answers(node: &Node, folder: &Path) {
    for host in ["portal.test", "127.0.0.1"] {
        assert_eq!(get(node, host, "/a.txt").text(), "portal's", "{host}");
    }
    for host in ["shop.test", "SHOP.test:8080", "en.shop.test"] {
        assert_eq!(get(node, host, "/a.txt").text(), "shop's", "{host}");
        let name = host.to_ascii_lowercase().replace(":8080", "");
        let shop = folder.join("shop").display().to_string();
        let script = format!("{shop}/index.php");
        let wanted = [&shop, &script, &name, &script].map(String::as_str).join("|");
        assert_eq!(get(node, host, "/").text(), wanted, "{host}");
        assert_eq!(get(node, host, "/no/such").text(), format!("fallback of {name}"));
    }
    assert_eq!(get(node, "unknown.test", "/a.txt").status, 421);
    assert_eq!(get(node, "shop.test.evil.test", "/a.txt").status, 421);

    // What sites share, what they do not, and what nobody gets.
    assert_eq!(get(node, "shop.test", "/upload/shared.txt").text(), "shared");
    assert_eq!(get(node, "shop.test", "/elsewhere/a.txt").status, 403);
    assert_eq!(get(node, "shop.test", "/.settings.php").status, 404);
    assert_eq!(get(node, "shop.test", "/hand.php").text(), "shop's file");
    assert_eq!(get(node, "portal.test", "/hand.php").status, 404);
    let long = vec![b'x'; 2000];
    assert_eq!(ask(node, "shop.test", "POST", "/", &long).status, 413);
    assert_ne!(ask(node, "portal.test", "POST", "/", &long).status, 413);
}

/// What is kept of one is not shown for another.
async fn keeps_apart(node: &Node) {
    let kept = get(node, "shop.test", "/same.php").text();
    assert_eq!(get(node, "shop.test", "/same.php").text(), kept);
    let portal = get(node, "portal.test", "/same.php").text();
    assert!(
        kept.starts_with("shop ") && portal.starts_with("portal "),
        "{kept} {portal}"
    );
    assert_ne!(get(node, "en.shop.test", "/same.php").text(), kept);

    // Stored pages lie in the folder that all share, by host.
    let pages = node.config.portal_root().join("bitrix/html_pages");
    composite::store(&pages, "shop.test", "/news", "kept for the shop");
    composite::enable(&pages, "shop.test");
    eventually("the page comes from its file", async || {
        let answer = get(node, "shop.test", "/news/");
        match answer.header("x-bitrix-composite") {
            Some("Nginx (file)") if answer.text().starts_with("kept for the shop") => Ok(()),
            _ => Err(answer.head),
        }
    })
    .await;
    for host in ["portal.test", "en.shop.test"] {
        assert_eq!(get(node, host, "/news/").header("x-bitrix-composite"), None, "{host}");
    }
}

/// A further site without a restart, a root that comes later, and a root that is replaced.
async fn changes(node: &Node, folder: &Path) {
    let text = fs::read_to_string(&node.file).unwrap();
    let more = |name: &str| {
        let root = folder.join(name);
        format!("[[proxy.sites]]\nhosts = [\"{name}.test\"]\nroot = {root:?}\n")
    };
    fs::write(&node.file, format!("{text}\n{}{}", more("other"), more("late"))).unwrap();
    node.signal_supervisor(Signal::SIGHUP);
    becomes(node, "other.test", "/a.txt", "other's").await;
    assert_eq!(get(node, "shop.test", "/a.txt").text(), "shop's");
    assert_eq!(get(node, "late.test", "/a.txt").status, 404);
    site(folder, "late", &[("a.txt", "late")]);
    becomes(node, "late.test", "/a.txt", "late").await;
    fs::rename(folder.join("other"), folder.join("old")).unwrap();
    site(folder, "other", &[("a.txt", "another's")]);
    becomes(node, "other.test", "/a.txt", "another's").await;

    // A mistake changes nothing and says what to do.
    fs::write(&node.file, format!("{text}\n{}{}", more("other"), more("other"))).unwrap();
    let checked = node.command(&["config", "check"]);
    assert!(
        checked.code != 0 && format!("{}{}", checked.out, checked.err).contains("named twice"),
        "{}{}",
        checked.out,
        checked.err
    );
    assert_eq!(get(node, "other.test", "/a.txt").text(), "another's");
}
