//! Stored pages through the front. No PHP runs here: what is answered, the front answers.

use std::fs;
use std::path::PathBuf;

use crate::support::composite::{enable, store};
use crate::support::eventually::eventually;
use crate::support::front::{Front, statuses};

async fn front(extra: &str) -> (Front, PathBuf) {
    let front = Front::start(extra).await;
    let root = front.folder.path().join("portal");
    fs::create_dir_all(root.join("bitrix")).unwrap();
    fs::write(root.join("bitrix/urlrewrite.php"), "<?php").unwrap();
    (front, root.join("bitrix/html_pages"))
}

async fn get(front: &Front, target: &str, fields: &str) -> String {
    let head = format!("GET {target} HTTP/1.1\r\nHost: portal.example\r\nConnection: close\r\n{fields}\r\n");
    front.exchange(head.as_bytes()).await
}

const STORED: &str = "x-bitrix-composite: Nginx (file)";

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_page_needs_no_php() {
    let (front, pages) = front("").await;
    enable(&pages, "portal.example");
    store(&pages, "portal.example", "/news", "kept");
    let answer = get(&front, "/news/", "").await;
    assert_eq!(statuses(&answer), [200], "{answer}");
    for part in [
        STORED,
        "cache-control: no-cache",
        "expires: Thu, 01 Jan 1970",
        "text/html; charset=utf-8",
        "kept",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    let (_, tag) = answer.split_once("etag: ").unwrap();
    let tag = tag.lines().next().unwrap();
    let again = get(&front, "/news/index.php?yclid=1", &format!("If-None-Match: {tag}\r\n")).await;
    assert_eq!(statuses(&again), [304], "{again}");
    assert!(again.contains(STORED));
    let packed = get(&front, "/news/", "Accept-Encoding: gzip\r\n").await;
    assert!(
        packed.contains("content-encoding: gzip") && packed.contains(STORED),
        "{packed}"
    );
    for (target, fields) in [
        ("/news/?ncc=1", ""),
        ("/news/", "Cookie: BITRIX_SM_NCC=Y\r\n"),
        ("/news/", "BX-AJAX: true\r\n"),
        ("/other/", ""),
    ] {
        let answer = get(&front, target, fields).await;
        assert_eq!(statuses(&answer), [503], "{target} {fields}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_page_is_left_to_php() {
    let (front, pages) = front("").await;
    enable(&pages, "portal.example");
    store(&pages, "portal.example", "/news", "kept");
    fs::write(pages.join("portal.example/news/index@.html"), "kept".repeat(1000)).unwrap();
    assert_eq!(statuses(&get(&front, "/news/", "").await), [503]);
}

#[tokio::test(flavor = "multi_thread")]
async fn portal_and_operator_both_have_a_switch() {
    let (front, pages) = front("composite = [\"portal.example\"]").await;
    store(&pages, "portal.example", "/news", "kept");
    assert_eq!(
        statuses(&get(&front, "/news/", "").await),
        [503],
        "the portal has not said so"
    );
    enable(&pages, "portal.example");
    let becomes = async |status: u16| match statuses(&get(&front, "/news/", "").await) {
        found if found == [status] => Ok(()),
        found => Err(format!("{found:?}")),
    };
    eventually("the portal's switch is seen", async || becomes(200).await).await;
    let settings = pages.join(".config.php");
    fs::write(
        &settings,
        fs::read_to_string(&settings).unwrap().replace("files", "memcached"),
    )
    .unwrap();
    eventually("the portal's settings are read anew", async || becomes(503).await).await;
    enable(&pages, "portal.example");
    eventually("and again", async || becomes(200).await).await;
    fs::remove_file(pages.join(".enabled")).unwrap();
    eventually("the portal turned it off", async || becomes(503).await).await;
    enable(&pages, "portal.example");
    eventually("and on", async || becomes(200).await).await;
    front.reconfigure("composite = [\"shop.example\"]", "");
    assert_eq!(statuses(&get(&front, "/news/", "").await), [503]);
}
