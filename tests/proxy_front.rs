//! The web front over real sockets: hostile input, order, bodies, upgrades, HTTP/2, limits.

use bitrix_node::base::Scope;
use bitrix_node::base::service::Service;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::support::front::{Front, PATIENCE, eventually, statuses};
use crate::support::hostile::{self, Probe};
use crate::support::tls;

const GET: &str = "GET /a.txt HTTP/1.1\r\nHost: portal.example\r\n\r\n";
const LAST: &str = "GET /a.txt HTTP/1.1\r\nHost: portal.example\r\nConnection: close\r\n\r\n";

async fn check(front: &Front, probes: Vec<Probe>) {
    for probe in probes {
        let answer = front.exchange(&[&probe.bytes[..], LAST.as_bytes()].concat()).await;
        assert_eq!(statuses(&answer), [probe.status], "{}: {answer}", probe.name);
        assert!(answer.contains("connection: close"), "{}: {answer}", probe.name);
        let (_, id) = answer.split_once("x-request-id: ").unwrap();
        let line = front.logged(&id[..16]).await;
        assert!(line.contains(&format!(" {} ", probe.status)), "{}: {line}", probe.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_heads_are_answered_logged_and_cut() {
    let front = Front::start("").await;
    check(&front, hostile::heads()).await;
    for line in front.log().lines().filter(|line| line.contains("/hidden")) {
        assert!(line.contains("\" 400 "), "a smuggled request was served: {line}");
    }
    assert!(front.log().contains("\"GE\\x00T / HTTP/1.1\" 400"));
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_bodies_are_the_clients_fault() {
    let front = Front::start("").await;
    let mut probes = hostile::bodies("/app/wait");
    for probe in &mut probes {
        probe.bytes.extend_from_slice(&[b'x'; 64]);
    }
    check(&front, probes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn path_tricks_reach_no_file() {
    let front = Front::start("").await;
    for probe in hostile::paths() {
        let answer = front.exchange(&[&probe.bytes[..], LAST.as_bytes()].concat()).await;
        assert_eq!(statuses(&answer), [probe.status, 200], "{}: {answer}", probe.name);
        assert!(!answer.contains("secret"), "{}: {answer}", probe.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn valid_messages_are_answered_one_by_one() {
    let front = Front::start("").await;
    for (bytes, count) in hostile::valid("/app/echo") {
        let answer = front.exchange(&[&bytes[..], LAST.as_bytes()].concat()).await;
        let wanted = if bytes.starts_with(b"GET /app/echo HTTP/1.0") {
            1
        } else {
            count + 1
        };
        assert_eq!(
            statuses(&answer).iter().filter(|code| **code != 100).count() as u64,
            wanted,
            "{answer}"
        );
        assert!(
            statuses(&answer).iter().all(|code| matches!(code, 100 | 200 | 204)),
            "{answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_just_below_the_limit_is_taken() {
    let front = Front::start("").await;
    let head = format!(
        "GET /a.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: {}\r\n\r\n",
        "x".repeat(65_000)
    );
    assert_eq!(statuses(&front.exchange(head.as_bytes()).await), [200]);
    let fields = format!(
        "GET /a.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{}\r\n",
        "X: y\r\n".repeat(98)
    );
    assert_eq!(statuses(&front.exchange(fields.as_bytes()).await), [200]);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_waits_for_the_answers_before_it() {
    let front = Front::start("").await;
    let mut client = front.connect().await;
    let wait = "GET /app/wait HTTP/1.1\r\nHost: portal.example\r\n\r\n";
    client.send(format!("{GET}{wait}GET / HTTP/1.1\r\n\r\n{GET}")).await;
    client.read_until("text of a").await;
    front.upstream.arrived.acquire().await.unwrap().forget();
    assert_eq!(client.text(), "", "the refusal overtook the answer before it");
    front.upstream.gate.add_permits(1);
    let rest = client.read_to_end().await;
    assert_eq!(statuses(&rest), [200, 400], "{rest}");
    assert!(rest.find("waited") < rest.find("400 Bad"), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_asked_for_only_when_it_is_wanted() {
    let front = Front::start("max_body_size = \"1KiB\"").await;
    let head = |size: usize| {
        format!("POST /app/echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {size}\r\n\r\n")
    };
    let mut client = front.connect().await;
    client.send(head(5)).await;
    assert_eq!(client.read_until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello").await;
    assert!(client.read_until("hello").await.starts_with("HTTP/1.1 200"));
    client.send(head(2000)).await;
    assert_eq!(statuses(&client.read_to_end().await), [413]);
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_to_a_refused_upload_can_be_read() {
    let front = Front::start("max_body_size = \"1KiB\"").await;
    let body = vec![b'x'; 8 << 20];
    let fixed = format!(
        "POST /app/echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = front.exchange(&[fixed.as_bytes(), &body].concat()).await;
    assert_eq!(statuses(&answer), [413], "{answer}");
    let chunked = "POST /app/wait HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n800000\r\n";
    let answer = front.exchange(&[chunked.as_bytes(), &body].concat()).await;
    assert_eq!(statuses(&answer), [413], "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_unchanged_in_both_framings() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let front = Front::start("").await;
    let body: Vec<u8> = (0u32..2 << 20).flat_map(u32::to_le_bytes).collect();
    let chunks = body
        .chunks(54_321)
        .map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    let chunked = [chunks.collect::<Vec<_>>().concat(), b"0\r\n\r\n".to_vec()].concat();
    let fixed = format!("Content-Length: {}", body.len());
    for (field, sent) in [(fixed.as_str(), &body), ("Transfer-Encoding: chunked", &chunked)] {
        let (mut read, mut write) = front.connect().await.stream.into_split();
        let head = format!("POST /app/echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{field}\r\n\r\n");
        let send = async {
            write.write_all(head.as_bytes()).await.unwrap();
            write.write_all(sent).await.unwrap();
        };
        let mut answer = Vec::new();
        let ((), result) = tokio::join!(send, read.read_to_end(&mut answer));
        result.unwrap();
        let at = memchr::memmem::find(&answer, b"\r\n\r\n").unwrap() + 4;
        assert!(
            answer[at..] == body || unchunked(&answer[at..]) == body,
            "{field}: {} bytes",
            answer.len()
        );
    }
}

/// The content of a chunked body.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    while let Some(end) = memchr::memmem::find(rest, b"\r\n") {
        let size = std::str::from_utf8(&rest[..end])
            .ok()
            .and_then(|size| usize::from_str_radix(size, 16).ok());
        let Some(size @ 1..) = size else { break };
        content.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
    content
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_upgrade_bytes_pass_unexamined() {
    let front = Front::start("").await;
    let mut client = front.connect().await;
    let upgrade = "GET /app/upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.send(format!("{upgrade}early\n")).await;
    let head = client.read_until("\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 101") && head.contains("upgrade: websocket"),
        "{head}"
    );
    client.read_until("early\n").await;
    client.send("GET\0 not http\r\n\r\n\n").await;
    client.read_until("GET\0 not http\r\n\r\n\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_upgrade_leaves_http_and_its_checks() {
    let front = Front::start("").await;
    let ask = "GET /a.txt HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answer = front
        .exchange(format!("{ask}{GET}{ask}GET /a.txt HTTP/1.1\r\n\r\n").as_bytes())
        .await;
    assert_eq!(statuses(&answer), [200, 200, 200, 400], "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_requests_find_their_files() {
    let front = Front::start("").await;
    for (path, status, text) in [
        ("/", 200, "home"),
        ("/a.txt", 200, "text of a"),
        ("/docs?x=1", 301, "location: /docs/?x=1\r\n"),
        ("//docs", 301, "location: /docs/\r\n"),
        ("/docs/", 200, "docs"),
        ("/missing", 404, "content-type: text/plain"),
        ("/upload/shell/", 403, "403 Forbidden"),
        ("/upload/page.html", 200, "content-disposition: attachment"),
        ("/app/nothing", 404, "nothing here"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = front.exchange(request.as_bytes()).await;
        assert_eq!(statuses(&answer), [status], "{path}: {answer}");
        assert!(answer.contains(text), "{path}: {answer}");
        assert!(answer.contains("server: bitrix-node\r\n"), "{path}: {answer}");
    }
    let head = "HEAD /missing HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\nConnection: close\r\n\r\n";
    let answer = front.exchange(head.as_bytes()).await;
    assert!(answer.contains("text/html") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn log_tells_target_bytes_and_agent() {
    let front = Front::start("").await;
    let request = "GET /a.txt?q HTTP/1.1\r\nHost: a\r\nUser-Agent: \"x\"\r\nConnection: close\r\n\r\n";
    front.exchange(request.as_bytes()).await;
    let line = front.logged("/a.txt?q").await;
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(
        line.contains("\"GET /a.txt?q HTTP/1.1\" 200 9 \"-\" \"\\\"x\\\"\" 0."),
        "{line}"
    );
    assert!(line.ends_with(" static - - \"-\""), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_logged_as_499() {
    let front = Front::start("").await;
    let mut client = front.connect().await;
    client.send("GET /app/wait?left HTTP/1.1\r\nHost: a\r\n\r\n").await;
    front.upstream.arrived.acquire().await.unwrap().forget();
    drop(client);
    let line = front.logged("/app/wait?left").await;
    assert!(line.contains(" 499 0 ") && line.contains(" upstream "), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_gets_429_and_a_full_front_503() {
    let front = Front::start("max_connections = 3\nmax_connections_per_address = 2").await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = front.connect().await;
        client.send(GET).await;
        client.read_until("text of a").await;
        held.push(client);
    }
    assert_eq!(statuses(&front.exchange(LAST.as_bytes()).await), [429]);
    front.reconfigure("max_connections = 2\nmax_connections_per_address = 9", "");
    assert_eq!(statuses(&front.exchange(LAST.as_bytes()).await), [503]);
    held.clear();
    eventually("the connections are gone", || {
        front.proxy.status().detail.contains(", 0 connections")
    })
    .await;
    assert_eq!(statuses(&front.exchange(LAST.as_bytes()).await), [200]);
    let metrics = front.proxy.metrics();
    assert!(
        metrics.contains("bitrix_proxy_refused_total{reason=\"address\"} 1"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_takes_a_new_configuration_and_keeps_connections() {
    let front = Front::start("").await;
    let mut client = front.connect().await;
    client.send(GET).await;
    client.read_until("text of a").await;
    front.reconfigure("", "portal.example");
    client.send(GET).await;
    client.read_until("text of a").await;
    client.send(LAST.replace("portal.example", "other.example")).await;
    assert_eq!(statuses(&client.read_to_end().await), [421]);
    let rotated = front.folder.path().join("access.log.1");
    std::fs::rename(front.folder.path().join("access.log"), &rotated).unwrap();
    front.proxy.reload();
    eventually("a new log", || front.folder.path().join("access.log").exists()).await;
    front.exchange(LAST.as_bytes()).await;
    front.logged("/a.txt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_finishes_running_requests_and_closes_idle_connections() {
    let front = Front::start("").await;
    let mut running = front.connect().await;
    running.send("GET /app/wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    front.upstream.arrived.acquire().await.unwrap().forget();
    let mut idle = front.connect().await;
    idle.send(GET).await;
    idle.read_until("text of a").await;
    let fresh = front.connect().await;
    eventually("all are accepted", || {
        front.proxy.status().detail.contains(", 3 connections")
    })
    .await;
    front.scope.drain();
    assert_eq!(idle.read_to_end().await, "");
    assert_eq!(fresh.read_to_end().await, "");
    front.upstream.gate.add_permits(1);
    let answer = running.read_to_end().await;
    assert!(
        answer.contains("waited") && answer.contains("connection: close"),
        "{answer}"
    );
    assert!(front.scope.stop(PATIENCE).await, "something did not end by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_spoken_over_tls() {
    let front = Front::start("").await;
    let scope = Scope::new();
    let mut sender = http2(&front, &scope).await;
    let mut get = async |target: &str| {
        let request = hyper::Request::get(target)
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(nothing());
        let answer = sender.send_request(request.unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        (parts.status.as_u16(), body.collect().await.unwrap().to_bytes())
    };
    assert_eq!(
        get("https://portal.example/a.txt").await,
        (200, Bytes::from("text of a"))
    );
    assert_eq!(get("https://portal.example/.git/x").await.0, 404);
    assert_eq!(get("https://portal.example/..%2fx").await.0, 400);
    let (_, fields) = get("https://portal.example/app/fields").await;
    let fields = String::from_utf8_lossy(&fields).into_owned();
    assert!(
        fields.contains("portal.example") && fields.contains("a=1; b=2"),
        "{fields}"
    );
    let line = front.logged("/a.txt").await;
    assert!(
        line.contains("\"GET /a.txt HTTP/2.0\" 200 9 ") && line.ends_with(" static TLSv1.3 - \"-\""),
        "{line}"
    );
    front.scope.drain();
    assert!(front.scope.stop(PATIENCE).await, "the connection did not end by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_bodies_hold_on_http2() {
    let front = Front::start("max_body_size = \"1KiB\"\nbody_timeout = \"300ms\"").await;
    let scope = Scope::new();
    let mut sender = http2(&front, &scope).await;
    let frame = |size: usize| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![b'x'; size])));
    for (frames, status) in [(vec![frame(1000), frame(1000)], 413), (vec![frame(10)], 408)] {
        let body = StreamBody::new(stream::iter(frames).chain(stream::pending())).boxed_unsync();
        let request = hyper::Request::post("https://portal.example/app/wait")
            .body(body)
            .unwrap();
        let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await;
        assert_eq!(answer.unwrap().unwrap().status().as_u16(), status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_client_that_takes_nothing_is_cut() {
    let front = Front::start("body_timeout = \"300ms\"").await;
    let scope = Scope::new();
    let mut sender = http2(&front, &scope).await;
    let request = hyper::Request::get("https://portal.example/app/flood")
        .body(nothing())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let line = front.logged("/app/flood").await;
    assert!(
        line.ends_with("\"the client left before the end of the answer\""),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_http2_connections_are_closed() {
    let front = Front::start("idle_timeout = \"300ms\"").await;
    let scope = Scope::new();
    let mut sender = http2(&front, &scope).await;
    let request = hyper::Request::get("https://portal.example/a.txt")
        .body(nothing())
        .unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    eventually("the connection is closed", || sender.is_closed()).await;
    eventually("and forgotten", || {
        front.proxy.status().detail.contains(", 0 connections")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_over_tls_is_guarded_too() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let front = Front::start("").await;
    let mut stream = tls(&front, &[b"http/1.1"]).await;
    stream
        .write_all(format!("{GET}GET / HTTP/1.1\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(statuses(&answer), [200, 400], "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_portal_asks_for_it_plain_clients_are_led_to_https() {
    let front = Front::start("https = [\"127.0.0.1:8443\"]").await;
    let ask = async |method: &str, fields: &str| {
        let head = format!(
            "{method} /a.txt?q=1 HTTP/1.1\r\nHost: portal.example:8080\r\nContent-Length: 0\r\nConnection: close\r\n{fields}\r\n"
        );
        front.exchange(head.as_bytes()).await
    };
    assert_eq!(statuses(&ask("GET", "").await), [200]);
    let mark = front.folder.path().join("portal/.htsecure");
    std::fs::write(&mark, "").unwrap();
    let led = async |method: &str, status: u16| statuses(&ask(method, "").await) == [status];
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !led("GET", 301).await {
        assert!(tokio::time::Instant::now() < deadline, "never led");
    }
    let answer = ask("GET", "").await;
    assert!(
        answer.contains("location: https://portal.example:8443/a.txt?q=1\r\n"),
        "{answer}"
    );
    assert!(led("POST", 308).await, "its body is sent again");
    // The file itself is nobody's business, and over TLS all is as before.
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tls(&front, &[b"http/1.1"]).await;
    let pair = format!("{GET}GET /.htsecure HTTP/1.1\r\nHost: portal.example\r\nConnection: close\r\n\r\n");
    stream.write_all(pair.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(statuses(&answer), [200, 404], "{answer}");
    std::fs::remove_file(&mark).unwrap();
    while !led("GET", 200).await {
        assert!(tokio::time::Instant::now() < deadline, "led for ever");
    }
}

type AnyBody = UnsyncBoxBody<Bytes, std::io::Error>;

fn nothing() -> AnyBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

async fn http2(front: &Front, scope: &Scope) -> SendRequest<AnyBody> {
    let stream = tls(front, &[b"h2", b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let handshake = hyper::client::conn::http2::handshake(OnScope(scope.clone()), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    scope.spawn(connection);
    sender
}

async fn tls(front: &Front, protocols: &[&[u8]]) -> tokio_rustls::client::TlsStream<TcpStream> {
    let stream = TcpStream::connect(front.https).await.unwrap();
    tls::connect(stream, &front.folder.path().join("tls/portal.crt"), protocols).await
}

#[derive(Clone)]
struct OnScope(Scope);

impl<F> hyper::rt::Executor<F> for OnScope
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
