//! A real node and its clients: codings of real PHP's answers, proxies before it, limits.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::support::eventually::eventually;
use crate::support::http::{self, Answer};
use crate::support::node::Node;

/// What a client makes of an answer's body, as far as that has come.
fn decoded(coding: Option<&str>, bytes: &[u8]) -> Vec<u8> {
    let mut reader: Box<dyn Read + '_> = match coding {
        Some("gzip") => Box::new(flate2::read::GzDecoder::new(bytes)),
        Some("br") => Box::new(brotli::Decompressor::new(bytes, 4096)),
        Some("zstd") => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
        None => Box::new(bytes),
        other => panic!("{other:?}"),
    };
    // One by one: an error at the end must not take what was read before it.
    let (mut content, mut chunk) = (Vec::new(), [0; 1]);
    while let Ok(count @ 1..) = reader.read(&mut chunk) {
        content.extend_from_slice(&chunk[..count]);
    }
    content
}

/// A connection from an address of this machine.
fn connect_from(source: &str, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let source: SocketAddr = format!("{source}:0").parse().unwrap();
    socket.bind(&source.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream: TcpStream = socket.into();
    stream
        .set_read_timeout(Some(std::time::Duration::from_secs(30)))
        .unwrap();
    stream
}

fn ask_from(source: &str, node: &Node, preface: &[u8], target: &str, fields: &str) -> io::Result<Answer> {
    let mut stream = connect_from(source, node.http());
    let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(&[preface, head.as_bytes()].concat())?;
    http::read_answer(&mut stream)
}

/// Waits for a line of the access log, which is written a moment after the answer.
async fn logged(node: &Node, is_it: impl Fn(&str) -> bool) {
    let path = node.config.access_log().unwrap();
    eventually("the access log has the line", async || {
        let log = fs::read_to_string(&path).unwrap();
        if log.lines().any(&is_it) { Ok(()) } else { Err(log) }
    })
    .await;
}

fn script(node: &Node, name: &str, text: &str) {
    fs::write(node.config.portal_root().join(name), format!("<?php {text}")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compressed_as_the_client_takes_them() {
    let node = Node::start("").await;
    let page = "echo str_repeat('<li class=\"task\">Задача</li>', 900);";
    script(&node, "page.php", page);
    script(&node, "tagged.php", &format!("header('ETag: \"a\"'); {page}"));
    script(
        &node,
        "still.php",
        &format!("header('Cache-Control: no-transform'); {page}"),
    );
    script(
        &node,
        "done.php",
        "header('Content-Encoding: gzip'); echo gzencode(str_repeat('x', 5000));",
    );
    script(&node, "short.php", "echo 'short';");
    fs::write(
        node.config.portal_root().join("big.css"),
        "a{color:red}\n".repeat(60_000),
    )
    .unwrap();
    each_coding_carries_the_whole_answer(&node);
    only_what_may_change_is_changed(&node);
    stream_goes_out_as_it_comes(&node);
    logged(&node, |line| {
        line.contains("/page.php") && line.ends_with(" php - zstd \"-\"")
    })
    .await;
}

fn ask(node: &Node, method: &str, target: &str, fields: &str) -> Answer {
    http::request(node.http(), method, target, fields, b"").unwrap_or_else(|error| panic!("{target}: {error}"))
}

fn each_coding_carries_the_whole_answer(node: &Node) {
    for coding in ["gzip", "br", "zstd"] {
        let accept = format!("Accept-Encoding: {coding}\r\n");
        for target in ["/page.php", "/big.css"] {
            let wanted = ask(node, "GET", target, "").body;
            let answer = ask(node, "GET", target, &accept);
            assert_eq!(
                answer.header("content-encoding"),
                Some(coding),
                "{target}: {}",
                answer.head
            );
            assert!(
                answer.header("vary").unwrap().contains("accept-encoding"),
                "{}",
                answer.head
            );
            assert!(decoded(Some(coding), &answer.body) == wanted, "{coding} {target}");
            assert!(
                answer.body.len() * 5 < wanted.len(),
                "{coding} {target}: {}",
                answer.body.len()
            );
            let head = ask(node, "HEAD", target, &accept);
            assert_eq!(head.header("content-encoding"), Some(coding), "{target}: {}", head.head);
            assert_eq!(
                (head.header("content-length"), head.body.len()),
                (None, 0),
                "{}",
                head.head
            );
        }
    }
    let plain = "<li class=\"task\">Задача</li>".repeat(900);
    assert_eq!(ask(node, "GET", "/page.php", "").text(), plain);
}

fn only_what_may_change_is_changed(node: &Node) {
    let all = "Accept-Encoding: gzip, deflate, br, zstd\r\n";
    assert_eq!(
        ask(node, "GET", "/page.php", all).header("content-encoding"),
        Some("zstd")
    );
    let least = "Accept-Encoding: zstd;q=0, br;q=0.1, gzip;q=0.9\r\n";
    assert_eq!(
        ask(node, "GET", "/page.php", least).header("content-encoding"),
        Some("gzip")
    );
    assert_eq!(ask(node, "GET", "/tagged.php", all).header("etag"), Some("W/\"a\""));
    assert_eq!(ask(node, "GET", "/tagged.php", "").header("etag"), Some("\"a\""));
    for (target, fields) in [
        ("/still.php", all),
        ("/short.php", all),
        (
            "/page.php",
            "Accept-Encoding: gzip\r\nCookie: PHPSESSID=1\r\nSec-Fetch-Site: cross-site\r\n",
        ),
    ] {
        assert_eq!(
            ask(node, "GET", target, fields).header("content-encoding"),
            None,
            "{target}"
        );
    }
    let done = ask(node, "GET", "/done.php", all);
    assert_eq!(done.header("content-encoding"), Some("gzip"));
    assert_eq!(decoded(Some("gzip"), &done.body), [b'x'; 5000], "encoded twice");
    let part = ask(node, "GET", "/big.css", &format!("{all}Range: bytes=0-9\r\n"));
    assert_eq!(
        (part.status, part.header("content-encoding"), part.text().as_str()),
        (206, None, "a{color:re")
    );
    let tag = ask(node, "GET", "/big.css", all).header("etag").unwrap().to_string();
    assert!(tag.starts_with("W/\""), "{tag}");
    let same = ask(node, "GET", "/big.css", &format!("{all}If-None-Match: {tag}\r\n"));
    assert_eq!((same.status, same.header("etag")), (304, Some(tag.as_str())));
}

/// What PHP flushed reaches the client while the script goes on.
fn stream_goes_out_as_it_comes(node: &Node) {
    let gate = node.config.portal_root().join("gate");
    script(
        node,
        "stream.php",
        "header('Content-Type: text/event-stream'); while (ob_get_level()) ob_end_flush(); echo \"data: one\\n\\n\"; flush();
         for ($i = 0; $i < 3000 && !file_exists(__DIR__ . '/gate'); $i++) { clearstatcache(); usleep(10000); }
         echo \"data: two\\n\\n\";",
    );
    for coding in ["gzip", "br", "zstd"] {
        let _ = fs::remove_file(&gate);
        let mut stream = http::connect(node.http()).unwrap();
        let head = format!("GET /stream.php HTTP/1.0\r\nHost: x\r\nAccept-Encoding: {coding}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            let body = bytes
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
                .map(|end| end + 4);
            if body.is_some_and(|at| decoded(Some(coding), &bytes[at..]) == b"data: one\n\n") {
                break;
            }
            let count = stream.read(&mut chunk).unwrap();
            assert!(count > 0, "{coding}: ended before the first event");
            bytes.extend_from_slice(&chunk[..count]);
        }
        fs::write(&gate, "").unwrap();
        stream.read_to_end(&mut bytes).unwrap();
        let at = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(
            decoded(Some(coding), &bytes[at..]),
            b"data: one\n\ndata: two\n\n",
            "{coding}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn php_sees_the_client_that_a_trusted_proxy_names() {
    let extra =
        "trusted = [\"127.0.0.2/32\"]\nproxy_protocol = true\nlimit_rest = \"1/m, 1\"\nlimit_session = \"1/m, 2\"\n";
    let node = Node::start(extra).await;
    script(
        &node,
        "who.php",
        "foreach (['REMOTE_ADDR', 'REMOTE_PORT', 'HTTP_X_FORWARDED_FOR', 'REQUEST_SCHEME', 'HTTPS'] as $key) echo $_SERVER[$key] ?? '-', ' ';",
    );
    let said = "X-Forwarded-For: 203.0.113.9, 192.0.2.8\r\nX-Forwarded-Proto: https\r\n";
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let named = b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\n";
    for (source, preface, wanted) in [
        ("127.0.0.1", &b""[..], "127.0.0.1 * 127.0.0.1 http - "),
        ("127.0.0.2", named, "192.0.2.7 12345 192.0.2.7 http - "),
        ("127.0.0.2", local, "192.0.2.8 0 192.0.2.8 https on "),
    ] {
        let answer = ask_from(source, &node, preface, "/who.php", said).unwrap();
        let text = answer.text();
        let port = text.split(' ').nth(1).unwrap();
        assert_eq!(text, wanted.replace('*', port), "{source}");
    }
    assert!(
        ask_from("127.0.0.2", &node, b"", "/who.php", "").is_err(),
        "answered without a preface"
    );
    for status in [200, 200, 429] {
        let answer = ask_from(
            "127.0.0.2",
            &node,
            named,
            "/who.php?limited",
            "Cookie: PHPSESSID=abc\r\n",
        )
        .unwrap();
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let call = || ask_from("127.0.0.1", &node, b"", "/rest/1/secret/user.get", "").unwrap();
    assert_ne!(call().status, 503);
    let answer = call();
    assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true));
    assert!(answer.text().contains("QUERY_LIMIT_EXCEEDED"), "{}", answer.text());
    logged(&node, |line| {
        line.starts_with("192.0.2.7 ") && line.contains("?limited") && line.contains(" 429 ")
    })
    .await;
    eventually("the node's log tells of each client once", async || {
        let log = node.log();
        match log.matches("a client sends more requests than it may").count() {
            2 => Ok(()),
            _ => Err(log),
        }
    })
    .await;
    node.be_green().await;
}
