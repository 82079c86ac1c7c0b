//! Answers of real PHP and of an upstream before the firewall: held back, let out, and what is never held.

use std::fs;
use std::path::Path;

use bitrix_node::proxy::firewall::{Action, Entry};

use crate::support::eventually::eventually;
use crate::support::front::{Front, statuses};
use crate::support::fronts::Fronts;
use crate::support::php::PhpFpm;

const RULES: &str = "SecRule RESPONSE_BODY \"@rx (?i)you have an error in your sql syntax\" \"id:1,phase:4,deny,msg:'an error of MySQL'\"\n";

/// Says what it is told to say, as a stream where that is asked for.
const SCRIPT: &str = "<?php
header('Content-Type: ' . ($_GET['type'] ?? 'text/html'));
if (isset($_GET['cc'])) header('Cache-Control: ' . $_GET['cc']);
if (isset($_GET['to'])) header('X-Accel-Redirect: ' . $_GET['to']);
header('X-Codings: ' . ($_SERVER['HTTP_ACCEPT_ENCODING'] ?? 'none'));
$file = __DIR__ . '/count';
file_put_contents($file, (int) @file_get_contents($file) + 1);
if (isset($_GET['wait'])) {
    echo 'begun'; ob_flush(); flush();
    while (!file_exists(__DIR__ . '/go')) usleep(10000);
}
echo str_repeat('x', (int) ($_GET['fill'] ?? 0));
if (isset($_GET['leak'])) echo 'You have an error in your SQL syntax';
echo 'end';";

async fn front(waf: &str) -> (Front, PhpFpm) {
    let rules = tempfile::tempdir().unwrap();
    fs::write(rules.path().join("rules.conf"), RULES).unwrap();
    let path = rules.path().display();
    let extra = format!(
        "cache = \"16MiB\"\n[waf]\nrules = [\"{path}\"]\nportal = false\naudit_log = \"waf.log\"\nmax_answer = \"4KiB\"\n{waf}"
    );
    let front = Front::start(&extra).await;
    let root = front.folder.path().join("portal");
    fs::write(root.join("say.php"), SCRIPT).unwrap();
    fs::write(root.join("upload/leak.html"), "You have an error in your SQL syntax").unwrap();
    fs::write(root.join("leak.html"), "You have an error in your SQL syntax").unwrap();
    let php = front.start_php(4, "/say.php").await;
    (front, php)
}

fn log(folder: &Path) -> Vec<Entry> {
    let text = fs::read_to_string(folder.join("waf.log")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The log, once it has as many lines.
async fn lines(front: &Front, count: usize) -> Vec<Entry> {
    eventually("the firewall's log", async || {
        let log = log(front.folder.path());
        if log.len() == count {
            Ok(log)
        } else {
            Err(format!("{log:?}"))
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leak_of_php_becomes_a_page_and_a_line() {
    let (front, _php) = front("mode = \"block\"\nanswers = \"block\"\n").await;
    let held = front.get("/say.php?leak=1", "Accept: text/html\r\n").await;
    assert!(statuses(&held) == [403] && !held.contains("SQL syntax"), "{held}");
    // The client's codings do not hide it, and its own answer is compressed all the same.
    let packed = front.get("/say.php?leak=1", "Accept-Encoding: gzip\r\n").await;
    assert_eq!(statuses(&packed), [403]);
    let clean = front.get("/say.php?fill=3000", "Accept-Encoding: gzip\r\n").await;
    assert!(
        clean.contains("content-encoding: gzip") && clean.contains("x-codings: none"),
        "{clean}"
    );
    // Behind the bound, in a type that is not listed, and in files: unseen.
    for target in [
        "/say.php?leak=1&fill=5000",
        "/say.php?leak=1&type=application/json",
        "/leak.html",
        "/say.php?to=/upload/leak.html",
    ] {
        let answer = front.get(target, "").await;
        assert!(
            statuses(&answer) == [200] && answer.contains("SQL syntax"),
            "{target}: {answer}"
        );
    }
    let log = lines(&front, 2).await;
    let answer = log[0].answer.as_ref().expect("of an answer");
    assert_eq!((log[0].action, log[0].rule), (Action::Blocked, Some(1)));
    assert_eq!(
        (answer.status, answer.kind.as_str(), answer.is_whole),
        (200, "text/html", true)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn detection_lets_out_and_writes_down() {
    let (front, _php) = front("mode = \"block\"\nanswers = \"detect\"\n").await;
    let leak = front.get("/say.php?leak=1", "").await;
    assert!(statuses(&leak) == [200] && leak.ends_with("SQL syntaxend"), "{leak}");
    let log = lines(&front, 1).await;
    assert_eq!(log[0].action, Action::Detected);
    assert!(log[0].answer.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_never_held_and_what_is_held_is_held_to_its_bound() {
    let (front, _php) =
        front("mode = \"block\"\nanswers = \"block\"\nanswer_types = [\"text/html\", \"text/event-stream\"]\n").await;
    let head = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: portal.example\r\nConnection: close\r\n\r\n");
    let mut events = front.connect().await;
    events.send(head("/say.php?wait=1&type=text/event-stream")).await;
    events.read_until("begun").await;
    // As much as is looked at has come, so the beginning goes out while the rest is still made.
    let mut large = front.connect().await;
    let wait = front.folder.path().join("portal/stream.php");
    let script = "<?php echo str_repeat('y', 70000); ob_flush(); flush(); while (!file_exists(__DIR__ . '/go')) usleep(10000); echo 'done';";
    fs::write(wait, script).unwrap();
    large.send(head("/stream.php")).await;
    large.read_until("yyyy").await;
    fs::write(front.folder.path().join("portal/go"), "").unwrap();
    assert!(events.read_to_end().await.contains("end"));
    assert!(large.read_to_end().await.contains("done"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cache_keeps_was_looked_at() {
    let (front, _php) = front("mode = \"block\"\nanswers = \"block\"\n").await;
    let kept = "/say.php?cc=public,max-age=600";
    for note in ["stored", "hit"] {
        let answer = front.get(kept, "").await;
        assert!(statuses(&answer) == [200] && answer.contains(note), "{answer}");
    }
    let leak = "/say.php?leak=1&cc=public,max-age=600";
    for _ in 0..2 {
        assert_eq!(statuses(&front.get(leak, "").await), [403], "never kept");
    }
    let log = lines(&front, 2).await;
    assert!(log.iter().all(|entry| entry.action == Action::Blocked));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_front_that_was_reached_judges_what_another_nodes_php_says() {
    let rules = tempfile::tempdir().unwrap();
    let rule = "SecRule RESPONSE_BODY \"@rx served by n2|text of a\" \"id:1,phase:4,deny\"\n";
    fs::write(rules.path().join("rules.conf"), rule).unwrap();
    let waf = format!(
        "[waf]\nmode = \"block\"\nanswers = \"block\"\nrules = [{:?}]\nportal = false\naudit_log = \"waf.log\"",
        rules.path()
    );
    let fronts = Fronts::start(2, &waf).await;
    let _php = fronts.nodes[1].php();
    let [reached, other] = &fronts.nodes[..] else {
        panic!("two fronts")
    };
    eventually("n2 answers, and is held back", async || {
        let answer = reached
            .ask_with("GET", "/vars.php", "Accept-Encoding: gzip\r\n", b"")
            .await;
        match answer.status {
            403 => Ok(()),
            _ => Err(answer.text()),
        }
    })
    .await;
    let held = eventually("the log of n1", async || {
        log(reached.folder.path()).pop().ok_or("has no line")
    })
    .await;
    assert!(held.action == Action::Blocked && held.answer.is_some(), "{held:?}");
    assert!(log(other.folder.path()).is_empty(), "it was judged once");
    // Here as there.
    let file = reached.ask("GET", "/hand.php", b"").await;
    assert_eq!((file.status, file.text().as_str()), (200, "text of a"), "{file:?}");
}
