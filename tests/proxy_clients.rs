//! Whose request it is and how many of them are too many: proxies before the front, and limits by client.

use std::time::Duration;

use bitrix_node::base::service::Service;
use tokio::io::AsyncReadExt;

use crate::support::front::{Front, statuses};

const LAST: &str = "GET /a.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const TRUSTED: &str = "trusted = [\"127.0.0.1/32\"]";
const ANNOUNCED: &str = "trusted = [\"127.0.0.1/32\"]\nproxy_protocol = true";

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_a_trusted_proxy_name_the_client_everywhere() {
    let said = "X-Forwarded-For: 203.0.113.9, 192.0.2.8\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n";
    for (extra, client, scheme) in [(TRUSTED, "192.0.2.8", "https"), ("", "127.0.0.1", "http")] {
        let front = Front::start(extra).await;
        let answer = front.exchange(get("/app/fields", said).as_bytes()).await;
        for field in [
            format!("\"x-forwarded-for\": \"{client}\""),
            format!("\"x-real-ip\": \"{client}\""),
            format!("\"x-forwarded-proto\": \"{scheme}\""),
            "\"x-forwarded-host\": \"a\"".to_string(),
        ] {
            assert!(answer.contains(&field), "{field}: {answer}");
        }
        let line = front.logged("/app/fields").await;
        assert!(line.starts_with(&format!("{client} - - [")), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_protocol_names_the_client_before_tls_and_http() {
    let front = Front::start(ANNOUNCED).await;
    let first = "PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\n";
    // Nothing that the client itself says counts then.
    let asked = get("/app/fields?one", "X-Forwarded-For: 1.2.3.4\r\n");
    let answer = front.exchange(format!("{first}{asked}").as_bytes()).await;
    assert!(answer.contains("\"x-forwarded-for\": \"192.0.2.7\""), "{answer}");
    // The proxy's own request, and a client that another trusted proxy names.
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let asked = get("/app/fields?two", "X-Forwarded-For: 192.0.2.8\r\n");
    let answer = front.exchange(&[&local[..], asked.as_bytes()].concat()).await;
    assert!(answer.contains("\"x-forwarded-for\": \"192.0.2.8\""), "{answer}");
    for silent in [LAST, "PROXY TCP4 nonsense\r\n", "\r\n\r\n\0\r\nQUIT\n\x71\0\0\0"] {
        let mut client = front.connect().await;
        client.send(silent).await;
        let mut bytes = Vec::new();
        // What was not read makes it a reset.
        let _ = client.stream.read_to_end(&mut bytes).await;
        assert!(bytes.is_empty(), "{silent:?}: {bytes:?}");
    }
    let metrics = front.proxy.metrics();
    assert!(metrics.contains("refused_total{reason=\"proxy\"} 3"), "{metrics}");
    front.logged("192.0.2.7 - - [").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_does_not_say_for_whom_it_connects_is_not_waited_for() {
    let front = Front::start(&format!("{ANNOUNCED}\nheader_timeout = \"300ms\"")).await;
    let mut client = front.connect().await;
    client.send("PROXY TCP4 192.0.2.7").await;
    assert_eq!(client.read_to_end().await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_behind_a_proxy_count_for_their_clients() {
    let front = Front::start(&format!("{ANNOUNCED}\nmax_connections_per_address = 1")).await;
    let of = |client: &str| format!("PROXY TCP4 {client} 10.0.0.1 12345 80\r\nGET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut held = Vec::new();
    for client in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        let mut connection = front.connect().await;
        connection.send(of(client)).await;
        connection.read_until("text of a").await;
        held.push(connection);
    }
    assert_eq!(statuses(&front.exchange(of("192.0.2.2").as_bytes()).await), [429]);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_its_limit_an_address_gets_429_and_others_do_not() {
    let limits = "limit_address = \"1/m, 4\"\nlimit_address_dynamic = \"1/m, 1\"";
    let front = Front::start(&format!("{TRUSTED}\n{limits}")).await;
    let ask = async |client: &str, target: &str| {
        let asked = get(target, &format!("X-Forwarded-For: {client}\r\n"));
        front.exchange(asked.as_bytes()).await
    };
    for (client, target, status) in [
        ("192.0.2.1", "/app/fields", 200),
        ("192.0.2.1", "/app/fields?dynamic", 429),
        ("192.0.2.1", "/a.txt", 200),
        ("192.0.2.1", "/a.txt", 200),
        ("192.0.2.1", "/a.txt?all", 429),
        ("192.0.2.2", "/app/fields", 200),
        ("2001:db8::1", "/app/fields", 200),
        ("2001:db8::2", "/app/fields", 429),
    ] {
        let answer = ask(client, target).await;
        assert_eq!(statuses(&answer), [status], "{client} {target}: {answer}");
        if status == 429 {
            let (_, after) = answer.split_once("retry-after: ").unwrap();
            let seconds: u64 = after.split_once("\r\n").unwrap().0.parse().unwrap();
            assert!((1..=60).contains(&seconds), "{answer}");
        }
    }
    let line = front.logged("?dynamic").await;
    assert!(
        line.contains(" 429 ") && line.contains("the limit by dynamic"),
        "{line}"
    );
    let metrics = front.proxy.metrics();
    for counted in [
        "limited_total{limit=\"address\"} 1",
        "limited_total{limit=\"dynamic\"} 2",
    ] {
        assert!(metrics.contains(counted), "{metrics}");
    }
    front.reconfigure(TRUSTED, "");
    assert_eq!(statuses(&ask("192.0.2.1", "/app/fields").await), [200]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_comes_back_when_it_was_told_to() {
    let front = Front::start("limit_address = \"5/s, 1\"").await;
    let refused = async || statuses(&front.exchange(LAST.as_bytes()).await) == [429];
    let mut count = 0;
    while !refused().await {
        count += 1;
        assert!(count < 100, "never refused");
    }
    // The time that it takes is what is tested.
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert!(!refused().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_rest_tokens_have_limits_of_their_own() {
    let front = Front::start("limit_session = \"1/m, 2\"\nlimit_rest = \"1/m, 1\"").await;
    let ask = async |target: &str, fields: &str| front.exchange(get(target, fields).as_bytes()).await;
    for (cookie, status) in [("one", 200), ("one", 200), ("one", 429), ("two", 200)] {
        let answer = ask("/app/fields", &format!("Cookie: PHPSESSID={cookie}\r\n")).await;
        assert_eq!(statuses(&answer), [status], "{cookie}");
    }
    assert_eq!(
        statuses(&ask("/a.txt", "Cookie: PHPSESSID=one\r\n").await),
        [200],
        "a file"
    );
    assert_eq!(
        statuses(&ask("/rest/1/secret/user.get", "").await),
        [404],
        "not in this portal"
    );
    let answer = ask("/rest/1/secret/user.get", "").await;
    assert!(
        statuses(&answer) == [503] && answer.contains("{\"error\":\"QUERY_LIMIT_EXCEEDED\""),
        "{answer}"
    );
    assert_eq!(statuses(&ask("/rest/1/other/user.get", "").await), [404]);
}
