//! The push server of a real node: browsers come through the front, PHP publishes by what the portal's settings say.

use std::fs;
use std::time::Duration;

use bitrix_node::host::command::{self, Program};
use data_encoding::HEXLOWER;
use nix::sys::signal::Signal;
use ring::hmac;

use crate::support::http;
use crate::support::node::Node;
use crate::support::ws::{Frame, WebSocket};

const PRIVATE: &str = "0123456789abcdef0123456789abcdef";
const PUBLIC: &str = "fedcba9876543210fedcba9876543210";

/// For all scenarios of the public client: some of them wait on purpose.
const PATIENCE: Duration = Duration::from_secs(180);

/// What the portal's own code does to tell browsers something: with the settings of bitrix-node, and PHP's own arithmetic.
const SCRIPT: &str = r#"<?php
$pull = (include $_SERVER['DOCUMENT_ROOT'] . '/bitrix/.settings.php')['pull']['value'];
$sign = fn ($data) => $data . '.' . hash_hmac($pull['signature_algo'], $data, $pull['signature_key']);
if (isset($_GET['sign'])) exit($sign($_GET['sign']));
$context = stream_context_create(['http' => ['method' => 'POST', 'content' => file_get_contents('php://input'),
    'header' => "Content-Type: text/plain\r\nMessage-Expiry: 60\r\n", 'ignore_errors' => true]]);
file_get_contents($pull['path_to_publish'] . '?CHANNEL_ID=' . $_GET['to'], false, $context);
echo $http_response_header[0];
"#;

struct Portal {
    node: Node,
}

impl Portal {
    async fn start() -> Self {
        let node = Node::start("").await;
        fs::write(node.config.portal_root().join("push.php"), SCRIPT).unwrap();
        Portal { node }
    }

    /// By PHP, through the front.
    fn publish(&self, body: &str) {
        let target = format!("/push.php?to={PRIVATE}");
        let said = http::request(self.node.http(), "POST", &target, "", body.as_bytes()).unwrap();
        assert_eq!(said.text(), "HTTP/1.1 200 OK");
    }

    /// A query of a client of generation 4 in text, signed by PHP.
    fn query(&self) -> String {
        let signed = http::get(self.node.http(), &format!("/push.php?sign={PRIVATE}:{PUBLIC}")).unwrap();
        format!("CHANNEL_ID={}", signed.text().replace(':', "%3A"))
    }

    fn listen(&self, query: &str) -> Result<WebSocket, String> {
        WebSocket::open(self.node.http(), &format!("/bitrix/subws/?{query}"))
    }
}

fn mid(frame: &str) -> &str {
    frame
        .split("\"mid\":\"")
        .nth(1)
        .and_then(|rest| rest.get(..26))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn php_speaks_to_browsers_through_the_front() {
    let portal = Portal::start().await;
    let query = portal.query();
    let key = fs::read_to_string(portal.node.config.push_key()).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key.trim().as_bytes());
    let signature = hmac::sign(&key, format!("{PRIVATE}:{PUBLIC}").as_bytes());
    assert!(
        query.ends_with(&HEXLOWER.encode(signature.as_ref())),
        "the node and PHP have one key"
    );

    let mut browser = portal.listen(&query).unwrap();
    portal.publish(r#"{"module_id":"main","command":"hello"}"#);
    let first = browser.text();
    assert!(
        first.contains(r#""text":{"module_id":"main","command":"hello"}"#),
        "{first}"
    );
    drop(browser);
    portal.publish("2");
    let mut back = portal.listen(&format!("{query}&mid={}", mid(&first))).unwrap();
    let second = back.text();
    assert!(second.contains("\"text\":2}") && !second.contains("hello"), "{second}");

    let poll = format!("/bitrix/sub/?{query}&mid={}", mid(&first));
    let polled = http::get(portal.node.http(), &poll).unwrap();
    assert_eq!((polled.status, polled.text()), (200, second.clone()));
    assert_eq!(polled.header("access-control-allow-origin"), Some("*"));

    let mut forged = portal.listen(&format!("CHANNEL_ID={PRIVATE}")).unwrap();
    assert_eq!(forged.read().unwrap(), Frame::Close(4010));
    let mut wrong = portal.listen(&format!("{query}&binaryMode=true")).unwrap();
    wrong.send(2, b"\x0a\x00").unwrap();
    assert_eq!(wrong.read().unwrap(), Frame::Close(4022));
    let refused = http::request(
        portal.node.http(),
        "POST",
        &format!("/bitrix/rest/?{query}"),
        "",
        b"\x0a\x00",
    )
    .unwrap();
    assert_eq!(refused.text(), "4022: Empty request.");
    // The port that older portals name has the same, and nothing else.
    let legacy = portal.node.config.proxy.push_http[0];
    let mut old = WebSocket::open(legacy, &format!("/bitrix/subws/?{query}&mid={}", mid(&first))).unwrap();
    assert_eq!(old.text(), second);
    let listened = portal.node.command(&["push", "channels"]);
    assert_eq!(listened.code, 0, "{}", listened.err);
    let mut rows = listened
        .out
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert!(
        rows.any(|row| matches!(row[..], ["private:01234567…", "2" | "3"])),
        "{}",
        listened.out
    );
    assert!(!listened.out.contains(PRIVATE), "a private id is a secret");
    for path in ["/", "/push.php?sign=x", "/bitrix/pub/", "/style.css"] {
        assert_eq!(http::get(legacy, path).unwrap().status, 404, "{path}");
    }
    // What only PHP may reach does not exist for the front.
    for path in ["/bitrix/pub/", "/bitrix/api/", "/server-stat/"] {
        let said = http::request(
            portal.node.http(),
            "POST",
            &format!("{path}?CHANNEL_ID={PRIVATE}"),
            "",
            b"3",
        )
        .unwrap();
        assert_eq!(said.status, 404, "{path}");
    }
    assert_eq!(portal.node.service("push")["restarts"], 0);
}

/// `BITRIX_NODE_CLIENT`: a folder with the packages of the client and what it needs of a browser.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Node.js and packages: make test-push"]
async fn the_public_client_is_content_with_all_generations() {
    let node = Node::start("").await;
    let config = &node.config;
    let client = bitrix_node::config::var("BITRIX_NODE_CLIENT").expect("make test-push sets it");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/push/sdk.mjs");
    let (front, portal) = (node.http().to_string(), config.push.listen.to_string());
    let key = config.push_key().display().to_string();
    let program = command::find("node").expect("Node.js is installed");
    let ran = Program::new(program).args([script, &front, &portal, &key, &client]);
    println!("{}", ran.check(PATIENCE).await.unwrap());
}

/// Pictures of the pages are left in `target/push-pictures`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Node.js, packages and Chromium: make test-push"]
async fn two_browsers_chat_through_the_demo_portal() {
    let node = Node::start("").await;
    let client = bitrix_node::config::var("BITRIX_NODE_CLIENT").expect("make test-push sets it");
    let root = env!("CARGO_MANIFEST_DIR");
    let (script, pictures) = (
        format!("{root}/tests/push/chromium.mjs"),
        format!("{root}/target/push-pictures"),
    );
    fs::create_dir_all(&pictures).unwrap();
    let program = command::find("node").expect("Node.js is installed");
    let ran = Program::new(program).args([&script, &node.http().to_string(), &client, &pictures]);
    println!("{}", ran.check(PATIENCE).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_come_back_to_a_push_server_that_was_killed() {
    let mut portal = Portal::start().await;
    let query = portal.query();
    let mut browser = portal.listen(&query).unwrap();
    portal.publish("1");
    let last = mid(&browser.text()).to_owned();
    portal.node.kill("push");
    assert!(browser.read().is_err(), "cut, so that it comes back");
    // Whoever knocks meanwhile waits in the kernel's queue: the sockets are the supervisor's.
    let mut back = portal.listen(&format!("{query}&mid={last}")).unwrap();
    portal.publish("2");
    let told = back.text();
    assert!(told.contains("\"text\":2}") && mid(&told) > last.as_str(), "{told}");
    portal.node.be_healthy().await;
    portal.node.signal_supervisor(Signal::SIGTERM);
    while back.read().is_ok() {}
    assert_eq!(portal.node.wait_for_end(), Some(0));
}
