//! Answers that the front keeps, made by real PHP: what it may keep, for whom, and how they go.

use std::fs;
use std::io::Write;
use std::time::Duration;

use bitrix_node::base::clock;

use crate::support::eventually::eventually;
use crate::support::front::{Front, statuses};
use crate::support::php::PhpFpm;

/// Counts how often it runs, and says what it is told to say.
const SCRIPT: &str = "<?php
$file = __DIR__ . '/count';
$count = (int) @file_get_contents($file) + 1;
file_put_contents($file, $count);
if (isset($_GET['wait']) && $_SERVER['REQUEST_METHOD'] === 'GET') {
    touch(__DIR__ . '/arrived');
    while (!file_exists(__DIR__ . '/go')) usleep(10000);
}
if (isset($_GET['sleep'])) usleep((int) $_GET['sleep'] * 1000);
if (file_exists(__DIR__ . '/broken')) { http_response_code(500); exit('broken'); }
foreach (['cc' => 'Cache-Control', 'tag' => 'Cache-Tag', 'vary' => 'Vary', 'etag' => 'ETag', 'cookie' => 'Set-Cookie'] as $key => $name)
    if (isset($_GET[$key])) header(\"$name: {$_GET[$key]}\");
if (isset($_GET['etag']) && ($_SERVER['HTTP_IF_NONE_MATCH'] ?? '') === $_GET['etag']) { http_response_code(304); exit; }
echo \"run $count\";";

async fn front() -> (Front, PhpFpm) {
    let front = Front::start("cache = \"16MiB\"").await;
    fs::write(front.folder.path().join("portal/count.php"), SCRIPT).unwrap();
    let php = front.start_php(4, "/count.php").await;
    (front, php)
}

async fn ask(front: &Front, method: &str, target: &str, fields: &str) -> String {
    let head = format!("{method} {target} HTTP/1.1\r\nHost: portal.example\r\nConnection: close\r\n{fields}\r\n");
    front.exchange(head.as_bytes()).await
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_all_is_made_once() {
    let (front, _php) = front().await;
    let target = "/count.php?cc=public,max-age=60&etag=%22a%22";
    let first = front.get(target, "").await;
    assert!(
        first.contains("cache-status: bitrix-node; fwd=uri-miss; stored"),
        "{first}"
    );
    let second = front.get(target, "Cookie: PHPSESSID=1\r\n").await;
    assert_eq!(body(&first), body(&second));
    assert!(
        second.contains("cache-status: bitrix-node; hit") && second.contains("age: "),
        "{second}"
    );
    let known = front.get(target, "If-None-Match: \"a\"\r\n").await;
    assert_eq!(statuses(&known), [304], "{known}");
    let part = front.get(target, "Range: bytes=0-2\r\n").await;
    assert!(statuses(&part) == [206] && body(&part) == "run", "{part}");
    let head = ask(&front, "HEAD", target, "").await;
    assert!(
        head.contains("cache-status: bitrix-node; hit") && body(&head).is_empty(),
        "{head}"
    );
    assert_ne!(
        body(&front.get("/count.php?cc=public,max-age=60&other", "").await),
        body(&first)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_page_is_made_for_each() {
    let (front, _php) = front().await;
    for (target, fields) in [
        ("/count.php", ""),
        ("/count.php?cc=private,max-age=60", ""),
        ("/count.php?cc=no-store", ""),
        ("/count.php?cc=public,max-age=60&cookie=a", ""),
        ("/count.php?cc=public,max-age=60&vary=*", ""),
        ("/count.php?cc=max-age=60", "Cookie: PHPSESSID=1\r\n"),
        ("/count.php?cc=max-age=60", "Authorization: Basic eA==\r\n"),
    ] {
        let first = front.get(target, fields).await;
        let second = front.get(target, fields).await;
        assert_ne!(body(&first), body(&second), "{target} {fields}");
    }
    // Kept for visitors, and not shown to a user.
    let visitor = front.get("/count.php?cc=max-age=60", "").await;
    assert_eq!(body(&visitor), body(&front.get("/count.php?cc=max-age=60", "").await));
    let user = front.get("/count.php?cc=max-age=60", "Cookie: PHPSESSID=1\r\n").await;
    assert_ne!(body(&visitor), body(&user));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_wait_for_one() {
    let (front, _php) = front().await;
    let target = "/count.php?cc=public,max-age=60&sleep=300";
    let asked = (0..8).map(|_| front.get(target, ""));
    let answers = futures_util::future::join_all(asked).await;
    let first = body(&answers[0]);
    assert!(answers.iter().all(|answer| body(answer) == first), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_target_is_stood_in_for() {
    let (front, php) = front().await;
    let root = front.folder.path().join("portal");
    let target = "/count.php?cc=public,max-age=0,stale-if-error=600";
    let first = front.get(target, "").await;
    assert_ne!(
        body(&first),
        body(&front.get(target, "").await),
        "it is asked while it works"
    );
    let last = front.get(target, "").await;
    fs::write(root.join("broken"), "").unwrap();
    let stale = front.get(target, "").await;
    assert_eq!((statuses(&stale), body(&stale)), (vec![200], body(&last)), "{stale}");
    drop(php);
    let gone = front.get(target, "").await;
    assert_eq!((statuses(&gone), body(&gone)), (vec![200], body(&last)), "{gone}");
    assert_eq!(statuses(&front.get("/count.php?never", "").await), [503]);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_answers_are_checked_or_refreshed_behind() {
    let (front, _php) = front().await;
    let checked = "/count.php?cc=public,no-cache&etag=%22a%22";
    let first = front.get(checked, "").await;
    let second = front.get(checked, "").await;
    assert!(
        second.contains("fwd-status=304") && body(&first) == body(&second),
        "{second}"
    );
    let behind = "/count.php?cc=public,max-age=0,stale-while-revalidate=600";
    let first = front.get(behind, "").await;
    let second = front.get(behind, "").await;
    assert_eq!(body(&first), body(&second), "{second}");
    eventually("a new one is fetched", async || {
        let answer = front.get(behind, "").await;
        if body(&answer) == body(&first) {
            Err(answer)
        } else {
            Ok(())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_says_nothing_of_what_was_made_at_its_address() {
    let (front, _php) = front().await;
    let root = front.folder.path().join("portal");
    fs::create_dir_all(root.join("bitrix")).unwrap();
    fs::write(
        root.join("bitrix/urlrewrite.php"),
        "<?php
        http_response_code(200);
        header('Cache-Control: public, max-age=0');
        header('Last-Modified: ' . gmdate('D, d M Y H:i:s', time() - 3600) . ' GMT');
        echo 'made';",
    )
    .unwrap();
    let made = async || {
        let answer = front.get("/late.txt", "").await;
        if body(&answer) == "made" { Ok(()) } else { Err(answer) }
    };
    eventually("the fallback answers", made).await;
    let file = fs::File::create(root.join("late.txt")).unwrap();
    (&file).write_all(b"file").unwrap();
    file.set_modified(clock::wall() - Duration::from_secs(7200)).unwrap();
    eventually("the file does", async || {
        let answer = front.get("/late.txt", "").await;
        if body(&answer) == "file" { Ok(()) } else { Err(answer) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_older_than_a_change_is_not_kept() {
    let (front, _php) = front().await;
    let root = front.folder.path().join("portal");
    let target = "/count.php?cc=public,max-age=60&wait=1";
    let (first, ()) = tokio::join!(front.get(target, ""), async {
        eventually("PHP works on it", async || {
            if root.join("arrived").exists() {
                Ok(())
            } else {
                Err("not yet")
            }
        })
        .await;
        let change = ask(&front, "POST", target, "Content-Length: 0\r\n").await;
        assert_eq!(statuses(&change), [200], "{change}");
        fs::write(root.join("go"), "").unwrap();
    });
    assert_eq!(statuses(&first), [200], "{first}");
    let second = front.get(target, "").await;
    assert_ne!(body(&first), body(&second), "{second}");
    assert_eq!(body(&second), body(&front.get(target, "").await), "that one is");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_goes_out_as_it_came() {
    let (front, _php) = front().await;
    for (target, is_framed) in [("/app/kept", false), ("/count.php?cc=public,max-age=60", true)] {
        for note in ["stored", "hit"] {
            let answer = front.get(target, "").await;
            assert!(answer.contains(&format!("; {note}\r\n")), "{answer}");
            assert_eq!(answer.contains("x-frame-options: "), is_framed, "{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_and_purges_remove() {
    let (front, _php) = front().await;
    let target = "/count.php?cc=public,max-age=60&tag=news";
    let first = front.get(target, "").await;
    assert!(!first.contains("cache-tag"), "{first}");
    assert_eq!(body(&first), body(&front.get(target, "").await));
    ask(&front, "POST", target, "Content-Length: 0\r\n").await;
    let second = front.get(target, "").await;
    assert_ne!(body(&first), body(&second));
    front.reconfigure("cache = \"32MiB\"", "");
    assert_ne!(
        body(&second),
        body(&front.get(target, "").await),
        "another size is another cache"
    );
}
