//! Files that real PHP hands over to the front: its own, and objects of a store.

use std::fs;

use bitrix_node::net::tls::self_signed;

use crate::support::eventually::eventually;
use crate::support::front::{Front, statuses};
use crate::support::php::PhpFpm;

const SCRIPT: &str = "<?php
if (isset($_GET['src'])) header('X-Gen-Src: ' . $_GET['src']);
if (isset($_GET['type'])) header('Content-Type: ' . $_GET['type']);
if (isset($_GET['cd'])) header('Content-Disposition: ' . $_GET['cd']);
if (isset($_GET['make'])) file_put_contents($_SERVER['DOCUMENT_ROOT'] . $_GET['make'], 'made');
header('Set-Cookie: seen=1');
header('X-Accel-Redirect: ' . $_GET['to']);
echo 'nobody reads this';";

async fn front() -> (Front, PhpFpm) {
    let front = Front::start("").await;
    let root = front.folder.path().join("portal");
    fs::write(root.join("send.php"), SCRIPT).unwrap();
    fs::write(root.join("upload/a b.jpg"), "picture").unwrap();
    fs::create_dir_all(root.join("upload/support/not_image")).unwrap();
    fs::write(root.join("upload/support/not_image/x.pdf"), "paper").unwrap();
    fs::create_dir_all(root.join("upload/resize_cache")).unwrap();
    fs::create_dir_all(root.join("bitrix")).unwrap();
    fs::write(root.join("bitrix/.settings.php"), "<?php return 'secret';").unwrap();
    let php = front.start_php(2, "/send.php?to=/a.txt").await;
    (front, php)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_handed_over() {
    let (front, _php) = front().await;
    let answer = front
        .get("/send.php?to=/upload/a%2520b.jpg&type=image/png&cd=inline", "")
        .await;
    assert_eq!(statuses(&answer), [200], "{answer}");
    for part in [
        "content-type: image/png",
        "content-disposition: inline",
        "set-cookie: seen=1",
        "etag: ",
        "picture",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    assert!(!answer.contains("x-accel") && !answer.contains("nobody"), "{answer}");
    let part = front
        .get("/send.php?to=/upload/a%2520b.jpg", "Range: bytes=0-2\r\n")
        .await;
    assert!(statuses(&part) == [206] && part.ends_with("pic"), "{part}");
    let hidden = front.get("/upload/support/not_image/x.pdf", "").await;
    assert_eq!(statuses(&hidden), [403]);
    let shown = front.get("/send.php?to=/upload/support/not_image/x.pdf", "").await;
    assert!(statuses(&shown) == [200] && shown.ends_with("paper"), "{shown}");
    // What a visitor put there stays a download.
    let page = front
        .get("/send.php?to=/upload/page.html&type=text/html&cd=inline", "")
        .await;
    assert!(
        page.contains("content-disposition: attachment") && page.contains("content-type: text/plain"),
        "{page}"
    );
    for to in [
        "/bitrix/.settings.php",
        "/upload/../bitrix/.settings.php",
        "/../secret.txt",
        "//evil.example/",
        "/send.php",
    ] {
        let answer = front.get(&format!("/send.php?to={to}"), "").await;
        assert!(matches!(statuses(&answer)[..], [403] | [404]), "{to}: {answer}");
        assert!(!answer.contains("secret"), "{to}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_made_first() {
    let (front, _php) = front().await;
    let made = "send.php?to=/upload/resize_cache/small.jpg%26make=/upload/resize_cache/small.jpg";
    let asked = format!("/send.php?to=/upload/resize_cache/x/small.jpg&src={made}");
    let answer = front.get(&asked, "").await;
    assert!(statuses(&answer) == [200] && answer.ends_with("made"), "{answer}");
    fs::write(front.folder.path().join("portal/upload/resize_cache/small.jpg"), "kept").unwrap();
    eventually("then it is served as it is", async || {
        let answer = front.get(&asked, "").await;
        if answer.ends_with("kept") { Ok(()) } else { Err(answer) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_come_from_configured_stores_alone() {
    let (front, _php) = front().await;
    let store = front.upstream.address;
    let to = format!("/send.php?to=/upload/bx_cloud_upload/http.{store}/app/fields");
    assert_eq!(statuses(&front.get(&to, "").await), [403], "no store is configured");
    front.reconfigure(&format!("cloud_hosts = [\"{store}\"]"), "");
    let secrets = "Cookie: PHPSESSID=1\r\nAuthorization: Basic eA==\r\nIf-Range: \"x\"\r\n";
    let answer = front.get(&to, secrets).await;
    assert_eq!(statuses(&answer), [200], "{answer}");
    assert!(
        answer.contains(&format!("\"host\": \"{store}\"")) && answer.contains("if-range"),
        "{answer}"
    );
    assert!(
        !answer.contains("PHPSESSID") && !answer.contains("authorization"),
        "{answer}"
    );
    let direct = front
        .get(&format!("/upload/bx_cloud_upload/http.{store}/app/fields"), "")
        .await;
    assert!(
        !matches!(statuses(&direct)[..], [200]),
        "a client cannot ask for it: {direct}"
    );
    let other = front
        .get("/send.php?to=/upload/bx_cloud_upload/https.evil.example/x", "")
        .await;
    assert_eq!(statuses(&other), [403]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_shows_its_certificate() {
    let (front, _php) = front().await;
    let store = front.https;
    let tls = front.folder.path().join("tls");
    let (chain, key) = self_signed(vec!["127.0.0.1".into()]).unwrap();
    fs::write(tls.join("portal.crt"), chain).unwrap();
    fs::write(tls.join("portal.key"), key).unwrap();
    front.reconfigure(&format!("cloud_hosts = [\"{store}\"]"), "");
    let to = format!("/send.php?to=/upload/bx_cloud_upload/https.{store}/a.txt");
    let answer = front.get(&to, "").await;
    assert_eq!(statuses(&answer), [503], "nobody vouches for it: {answer}");
    let authority = tls.join("portal.crt");
    front.reconfigure(
        &format!("cloud_hosts = [\"{store}\"]\ncloud_authority = {authority:?}"),
        "",
    );
    let answer = front.get(&to, "").await;
    assert!(statuses(&answer) == [200] && answer.ends_with("text of a"), "{answer}");
}
