//! The front of a real node: hostile input, large bodies, protocols, with real PHP behind it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

use bitrix_node::config::parse;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::composite;
use crate::support::daemon::free_port;
use crate::support::eventually::eventually;
use crate::support::hostile::{self, Probe};
use crate::support::http;
use crate::support::node::Node;

#[tokio::test(flavor = "multi_thread")]
async fn hostile_input_gets_its_answer_and_a_log_line() {
    let node = Node::start("").await;
    let mut probes = hostile::heads();
    probes.extend(hostile::bodies("/index.php"));
    probes.extend(hostile::paths());
    assert!(probes.len() > 100);
    let mut ids = Vec::new();
    for Probe { name, bytes, status } in probes {
        let answer = http::exchange(node.http(), &bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        assert!(!answer.text().contains("root:x:0"), "{name}");
        ids.push((
            name,
            answer
                .header("x-request-id")
                .unwrap_or_else(|| panic!("{name} has no id"))
                .to_string(),
        ));
    }
    let log = node.config.access_log().unwrap();
    eventually("each has its line", async || {
        let log = fs::read_to_string(&log).unwrap();
        let missing: Vec<_> = ids.iter().filter(|(_, id)| !log.contains(id.as_str())).collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("{missing:?}"))
        }
    })
    .await;
    assert_eq!(node.service("proxy")["restarts"], 0);
    node.be_green().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_of_a_gibibyte_does_not_grow_the_front() {
    const LENGTH: usize = 1 << 30;
    let node = Node::start("").await;
    let script =
        "<?php $in = fopen('php://input', 'r'); $n = 0; while (!feof($in)) $n += strlen(fread($in, 1 << 20)); echo $n;";
    fs::write(node.config.portal_root().join("count.php"), script).unwrap();
    let before = peak(node.pid("proxy").unwrap());
    let mut stream = http::connect(node.http()).unwrap();
    let head = format!("POST /count.php HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {LENGTH}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = vec![b'u'; 1 << 20];
    for _ in 0..LENGTH / chunk.len() {
        stream.write_all(&chunk).unwrap();
    }
    let answer = http::read_answer(&mut stream).unwrap();
    assert_eq!((answer.status, answer.text()), (200, LENGTH.to_string()));
    let growth = peak(node.pid("proxy").unwrap()) - before;
    println!("1 GiB uploaded, the front's peak grew by {growth} KiB");
    // A connection's buffers, and what the allocator keeps of them on each thread.
    assert!(growth < 32 << 10, "{growth} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_pages_spare_php() {
    let node = Node::start("").await;
    let pages = node.config.portal_root().join("bitrix/html_pages");
    composite::store(&pages, &node.http().to_string().replace(':', "-"), "/news", "kept");
    composite::enable(&pages, &node.http().to_string());
    let get = |target: &str, cookie: &str| {
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{cookie}\r\n",
            node.http()
        );
        http::exchange(node.http(), head.as_bytes()).unwrap()
    };
    // The settings are looked at once a second.
    let answer = eventually("the page comes from its file", async || {
        let answer = get("/news/?utm_source=mail", "");
        match answer.header("x-bitrix-composite") {
            Some("Nginx (file)") => Ok(answer),
            _ => Err(answer.head),
        }
    })
    .await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().starts_with("kept"));
    let known = get("/news/", "Cookie: BITRIX_SM_NCC=Y\r\n");
    assert_eq!(known.header("x-bitrix-composite"), None, "{}", known.head);
    assert!(!known.text().starts_with("kept"));
    let inside = get("/bitrix/html_pages/.config.php", "");
    assert_eq!(inside.status, 404);
    fs::remove_file(pages.join(".enabled")).unwrap();
    eventually("PHP answers again", async || {
        match get("/news/", "").header("x-bitrix-composite") {
            None => Ok(()),
            Some(source) => Err(source.to_string()),
        }
    })
    .await;
}

/// As the portal's PHP stores a page: compressed, with the flag that says so.
const STORE: &str = r#"<?php
$cache = new Memcached();
$cache->addServer('127.0.0.1', (int)$_GET['port']);
$cache->setOption(Memcached::OPT_COMPRESSION, false);
if (isset($_GET['remove'])) { echo (int)$cache->delete($_GET['key']); exit; }
$page = '<head><meta charset="windows-1251"></head>' . $_GET['text'] . str_repeat(' ', 3000);
$packed = isset($_GET['plain']) ? $page : gzencode($page, 4);
$cache->setOption(Memcached::OPT_USER_FLAGS, isset($_GET['plain']) ? 0 : 1);
echo (int)$cache->set($_GET['key'], $packed);
"#;

#[tokio::test(flavor = "multi_thread")]
async fn stored_pages_come_out_of_the_cache() {
    let port = free_port();
    let mut node = Node::prepare("");
    let text = fs::read_to_string(&node.file).unwrap();
    let text = text.replace("[cache]\n", &format!("[cache]\ncomposite = [\"127.0.0.1:{port}\"]\n"));
    fs::write(&node.file, &text).unwrap();
    node.config = parse(&text, std::iter::empty()).unwrap().config;
    node.run();
    node.be_healthy().await;
    let host = node.http().to_string();
    let key = format!("/{}/page.php/index@.html", host.replace(':', "-"));
    // Without a session, which would be in the cache, too.
    fs::write(node.config.portal_root().join("page.php"), "<?php echo 'made';").unwrap();
    fs::write(node.config.portal_root().join("store.php"), STORE).unwrap();
    let store = |more: &str| {
        http::get(node.http(), &format!("/store.php?port={port}&key={key}{more}"))
            .unwrap()
            .text()
    };
    assert_eq!(store("&text=kept"), "1");
    let pages = node.config.portal_root().join("bitrix/html_pages");
    composite::enable_cached(&pages, &host, node.config.cache.composite[0]);
    let get = |fields: &str| http::request(node.http(), "GET", "/page.php?utm_source=mail", fields, b"").unwrap();
    let becomes = async |source: Option<&str>| {
        eventually(&format!("the page is of {source:?}"), async || {
            let answer = get("");
            match answer.header("x-bitrix-composite") == source {
                true => Ok(answer),
                false => Err(answer.head),
            }
        })
        .await
    };
    let plain = becomes(Some("Nginx (memcached)")).await;
    assert_eq!(plain.status, 200);
    assert!(plain.text().contains("</head>kept"), "{}", plain.text());
    assert_eq!(plain.header("content-type"), Some("text/html; charset=windows-1251"));
    assert_eq!(plain.header("cache-control"), Some("no-cache"));
    let packed = get("Accept-Encoding: gzip\r\n");
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert!(packed.body.len() < 1000 && packed.body.starts_with(&[0x1f, 0x8b]));
    let again = get(&format!("If-None-Match: {}\r\n", plain.header("etag").unwrap()));
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(get("Cookie: BITRIX_SM_NCC=Y\r\n").header("x-bitrix-composite"), None);
    // A change shows at once, in either form.
    assert_eq!(store("&text=changed&plain=1"), "1");
    assert!(get("").text().contains("</head>changed"));
    assert_eq!(store("&remove=1"), "1");
    assert_eq!(get("").header("x-bitrix-composite"), None);
    assert_eq!(store("&text=back"), "1");
    assert!(get("").text().contains("</head>back"));

    // A cache that hangs or is gone is one without the page, and no client waits for it.
    let cache = node.pid("cache").unwrap();
    kill(Pid::from_raw(cache), Signal::SIGSTOP).unwrap();
    // Its threads stop one after another.
    becomes(None).await;
    kill(Pid::from_raw(cache), Signal::SIGCONT).unwrap();
    becomes(Some("Nginx (memcached)")).await;
    node.kill("cache");
    becomes(None).await;

    // Another memcached is none of the front's.
    eventually("the cache is back", async || match store("&text=anew").as_str() {
        "1" => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    becomes(Some("Nginx (memcached)")).await;
    composite::enable_cached(&pages, &host, node.config.cache.listen);
    becomes(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_shown_and_purged() {
    let node = Node::start("cache = \"16MiB\"").await;
    let script = "<?php header('Cache-Control: public, max-age=600'); header('Cache-Tag: news'); echo hrtime(true);";
    fs::write(node.config.portal_root().join("kept.php"), script).unwrap();
    let get = || http::get(node.http(), "/kept.php").unwrap().text();
    let first = get();
    assert_eq!(get(), first);
    let shown = node.command(&["cdn", "status", "--output", "json"]);
    assert!(shown.out.contains("\"addresses\": 1"), "{}{}", shown.out, shown.err);
    let other = node.command(&["cdn", "purge", "--prefix", "/other/"]);
    assert!(
        other.code == 0 && other.out.contains("  0\n"),
        "{}{}",
        other.out,
        other.err
    );
    assert_eq!(get(), first);
    let purged = node.command(&["cdn", "purge", "--tag", "news"]);
    assert!(
        purged.code == 0 && purged.out.contains("  1\n"),
        "{}{}",
        purged.out,
        purged.err
    );
    assert_ne!(get(), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_front_opens_its_own_files_and_no_others() {
    let node = Node::start("follow_symlinks = true\n").await;
    let outside = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (shared, root) = (outside.path().join("shared.txt"), node.config.portal_root());
    fs::write(&shared, "shared").unwrap();
    symlink(&shared, root.join("link.txt")).unwrap();
    let status = || http::get(node.http(), "/link.txt").map_or(0, |answer| answer.status);
    let is_confined = !node.service("proxy")["detail"]
        .as_str()
        .unwrap()
        .contains("not locked in");
    assert_eq!(status(), if is_confined { 403 } else { 200 });
    let first = node.pid("proxy").unwrap();
    let held = fs::read_to_string(format!("/proc/{first}/status")).unwrap();
    assert!(
        held.contains("NoNewPrivs:\t1\n") && held.contains("CapEff:\t0000000000000000\n"),
        "{held}"
    );
    assert!(!held.contains("THP_enabled:\t1\n"), "{held}");

    // Where the configuration names it, a successor may open it.
    let text = fs::read_to_string(&node.file).unwrap();
    let named = format!("follow_symlinks = true\nsymlink_folders = [{:?}]\n", outside.path());
    fs::write(&node.file, text.replace("follow_symlinks = true\n", &named)).unwrap();
    node.signal_supervisor(Signal::SIGHUP);
    let found = async || match status() {
        200 => Ok(()),
        other => Err(other),
    };
    eventually("what is named is served", found).await;
    let second = node.pid("proxy").unwrap();
    assert_eq!(second != first, is_confined);

    // Another document root in the place of the old one is served, too.
    fs::rename(&root, root.with_extension("old")).unwrap();
    fs::create_dir(&root).unwrap();
    fs::write(root.join("new.txt"), "new").unwrap();
    let found = async || match http::get(node.http(), "/new.txt").map_or(0, |answer| answer.status) {
        200 => Ok(()),
        other => Err(other),
    };
    eventually("another root is served", found).await;
}

/// Largest resident set of a process so far, in KiB.
fn peak(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
