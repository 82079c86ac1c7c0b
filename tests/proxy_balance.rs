//! Fronts of several nodes, each with PHP of its own, over a real mesh: who answers, what travels along, what is repeated.

use std::time::Duration;

use bitrix_node::base::service::Service;
use bitrix_node::cluster::{Fit, Standing};

use crate::support::front::eventually;
use crate::support::fronts::{Fronts, Node};
use crate::support::http;
use crate::support::load::Clients;
use crate::support::responder::Responder;

/// Fronts whose PHP all runs, and which all know it.
async fn running(count: usize, extra: &str) -> (Fronts, Vec<Responder>) {
    let fronts = Fronts::start(count, extra).await;
    let php = fronts.nodes.iter().map(Node::php).collect();
    fronts.settle(count).await;
    (fronts, php)
}

/// Fronts of which the first one has no PHP, and knows it.
async fn crippled(count: usize) -> (Fronts, Vec<Responder>) {
    let (fronts, mut php) = running(count, "").await;
    php.remove(0).kill().await;
    fronts.nodes[0].ask("GET", "/name.php", b"").await;
    (fronts, php)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_answers_and_knows_the_client() {
    let (fronts, _php) = crippled(2).await;
    let fields = "X-Forwarded-For: 1.2.3.4\r\nCookie: a=1\r\n";
    let answer = fronts.nodes[0]
        .ask_with("GET", "/vars.php/info?q=%32", fields, b"")
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = answer.text();
    let id = answer.header("x-request-id").unwrap();
    let host = fronts.nodes[0].http.to_string();
    for wanted in [
        "served by n2",
        "REMOTE_ADDR=127.0.0.1",
        "HTTP_X_FORWARDED_FOR=127.0.0.1",
        "REQUEST_SCHEME=http",
        "REQUEST_URI=/vars.php/info?q=%32",
        "PATH_INFO=/info",
        "SERVER_PROTOCOL=HTTP/1.1",
        "HTTP_COOKIE=a=1",
        &format!("SERVER_PORT={}", fronts.nodes[0].http.port()),
        &format!("HTTP_HOST={host}"),
        &format!("HTTP_X_REQUEST_ID={id}"),
    ] {
        assert!(text.lines().any(|line| line == wanted), "{wanted} in {text}");
    }
    assert!(!text.contains("HTTP_BN_"), "{text}");
    eventually("both fronts log it", || {
        let has = |node: &Node, target: &str| node.log().lines().any(|line| line.contains(&format!("{id} {target} ")));
        has(&fronts.nodes[0], "peer") && has(&fronts.nodes[1], "php")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_fronts_may_say_is_believed_of_nobody_else() {
    let (fronts, _php) = crippled(2).await;
    let hop = "bn-hop: 1 0123456789abcdef 10.9.9.9:1 10.0.0.2:2 TLSv1.3 HTTP/1.1\r\nbn-pulse: 1\r\n";
    for node in &fronts.nodes {
        let answer = node.ask_with("GET", "/vars.php", hop, b"").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.text().contains("REMOTE_ADDR=127.0.0.1\n"), "{}", answer.text());
        assert!(!answer.text().contains("HTTP_BN_"), "{}", answer.text());
        assert_ne!(answer.header("x-request-id"), Some("0123456789abcdef"));
        // A script that claims to have failed, or to have no end of capacity.
        let forged = node.ask("GET", "/forge.php", b"").await;
        assert_eq!((forged.status, forged.text().as_str()), (200, "n2"), "{forged:?}");
    }
    let forged = fronts.nodes[0].ask("GET", "/forge.php", b"").await;
    assert!(!forged.head.contains("bn-"), "{forged:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_hops_once_and_fails_where_nobody_serves() {
    let (fronts, php) = crippled(3).await;
    for one in php {
        one.kill().await;
    }
    for node in &fronts.nodes {
        let answer = node.ask("POST", "/name.php", b"x=1").await;
        assert_eq!(answer.status, 503, "{answer:?}");
        let id = answer.header("x-request-id").unwrap();
        let lines = fronts.lines(id).await;
        // Its own front, and at most two others that were asked for their PHP.
        assert!(lines.len() <= 3, "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_reach_another_node_whole() {
    let (fronts, _php) = crippled(2).await;
    static BODY: [u8; 3 << 20] = [b'x'; 3 << 20];
    for _ in 0..3 {
        let answer = fronts.nodes[0].ask("POST", "/length.php", &BODY).await;
        assert_eq!(answer.text(), format!("n2 {}", BODY.len()));
    }
    let chunked = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n";
    let answer = fronts.nodes[0].ask_with("POST", "/length.php", chunked, b"").await;
    assert_eq!(answer.text(), "n2 5");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_nobody_took_goes_to_another_node() {
    let (fronts, mut php) = running(2, "").await;
    php.remove(0).kill().await;
    // The first request finds out.
    let answer = fronts.nodes[0].ask("POST", "/length.php", b"hello").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "n2 5"));
    fronts.nodes[0].finds(1, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_safe_is_repeated() {
    let (fronts, php) = running(2, "").await;
    let asked = || php.iter().map(Responder::asked).sum::<usize>();
    for (method, body, times) in [
        ("POST", &b""[..], 1),
        ("POST", b"x=1", 1),
        ("PUT", b"x", 1),
        ("GET", b"", 2),
        ("DELETE", b"", 2),
    ] {
        // Failures in a row would let it be left alone.
        fronts.nodes[0].ask("GET", "/name.php", b"").await;
        let before = asked();
        let answer = fronts.nodes[0].ask(method, "/break.php", body).await;
        assert_eq!(answer.status, 502, "{method}: {answer:?}");
        assert_eq!(asked() - before, times, "{method}");
    }
    let metrics = fronts.nodes[0].proxy_metrics();
    assert!(
        metrics.contains("bitrix_proxy_repeated_total{outcome=\"sent\"} 2"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn load_is_even_and_a_killed_php_fails_no_safe_request() {
    let (fronts, mut php) = running(3, "").await;
    let clients = Clients::begin(fronts.nodes[0].http, "GET", "/slow.php", 24);
    let spread = clients.go_on(2000).await;
    let (least, most) = (spread.iter().min().unwrap(), spread.iter().max().unwrap());
    assert!(*most < 2 * least, "{spread:?}");
    // One that is reached over the mesh, then the local one.
    for place in [2, 0] {
        php.remove(place).kill().await;
        clients.go_on(1000).await;
    }
    let after = clients.go_on(1000).await;
    assert_eq!((after[0], after[2]), (0, 0));
    assert_eq!(clients.end(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_php_fails_at_most_the_unsafe_requests_that_it_had() {
    let (fronts, mut php) = running(3, "").await;
    let clients = Clients::begin(fronts.nodes[0].http, "POST", "/slow.php", 24);
    clients.go_on(500).await;
    php.remove(1).kill().await;
    clients.go_on(1000).await;
    let failed = clients.end();
    assert!(failed <= 24, "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_front_fails_no_safe_request() {
    let (fronts, _php) = running(3, "").await;
    let clients = Clients::begin(fronts.nodes[0].http, "GET", "/slow.php", 24);
    clients.go_on(500).await;
    // Its connections break, as when its machine is gone; its PHP lives on and gets nothing.
    fronts.nodes[1].scope.stop(Duration::ZERO).await;
    clients.go_on(1500).await;
    assert_eq!(clients.end(), 0);
    fronts.nodes[0].finds(2, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_has_begun_is_cut_and_not_repeated() {
    let (fronts, mut php) = crippled(2).await;
    let client = fronts.nodes[0].http;
    let asked = tokio::task::spawn_blocking(move || http::get(client, "/half.php"));
    let far = php.remove(0);
    far.arrived().await;
    let before = far.asked();
    far.kill().await;
    let cut = asked.await.unwrap();
    assert!(
        cut.is_err() || !cut.as_ref().unwrap().text().contains("second"),
        "{cut:?}"
    );
    assert!(before > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_node_serves_its_clients_by_others_and_gets_nothing_from_them() {
    let (mut fronts, php) = running(2, "").await;
    fronts.tell_of(0, |node| node.standing = Standing::Draining);
    let (own, other) = (&fronts.nodes[0], &fronts.nodes[1]);
    eventually("the draining front sends its requests away", || {
        http::get(own.http, "/name.php").is_ok_and(|answer| answer.text() == "n2")
    })
    .await;
    let before = php[0].asked();
    for node in [own, other] {
        for _ in 0..50 {
            assert_eq!(node.ask("POST", "/name.php", b"x").await.text(), "n2");
        }
    }
    assert_eq!(php[0].asked(), before);
    // When nobody else lives, it serves all the same.
    let mut php = php;
    php.pop().unwrap().kill().await;
    for node in &fronts.nodes {
        // What was under way to the other one may fail still.
        eventually("the draining node serves all the same", || {
            http::get(node.http, "/name.php").is_ok_and(|answer| answer.text() == "n1")
        })
        .await;
        assert_eq!(node.ask("POST", "/length.php", b"x").await.text(), "n1 1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_front_finishes_what_others_sent_it() {
    let (fronts, php) = crippled(2).await;
    let near = fronts.nodes[0].http;
    let asked = tokio::task::spawn_blocking(move || http::get(near, "/wait.php").unwrap());
    php[0].arrived().await;
    let far = &fronts.nodes[1];
    far.scope.drain();
    fronts.nodes[0].finds(0, 2).await;
    php[0].open();
    let answer = asked.await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "n2"));
    assert!(far.stop().await, "nothing was cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_front_still_reaches_others_for_its_last_requests() {
    let (fronts, php) = crippled(2).await;
    let near = &fronts.nodes[0];
    let address = near.http;
    let request = "GET /wait.php HTTP/1.1\r\nHost: a\r\n\r\n";
    let asked = tokio::task::spawn_blocking(move || http::exchange(address, request.as_bytes()).unwrap());
    php[0].arrived().await;
    near.scope.drain();
    php[0].open();
    let answer = asked.await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "n2"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(near.stop().await, "nothing was cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_files_everything_is_served_elsewhere() {
    let (mut fronts, _php) = running(2, "").await;
    fronts.tell_of(0, |node| node.fit = Fit::FRONT);
    fronts.settle(1).await;
    let own = &fronts.nodes[0];
    for (path, text) in [("/a.txt", "text of a"), ("/name.php", "n2")] {
        let answer = own.ask("GET", path, b"").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, text));
        let line = fronts.lines(answer.header("x-request-id").unwrap()).await.join("\n");
        eventually("the log says that a peer answered", || own.log().contains(" peer ")).await;
        assert!(!line.contains(" 50"), "{line}");
    }
    assert_eq!(own.ask("GET", "/missing.txt", b"").await.status, 404);
    assert_eq!(own.ask("GET", "/.git/HEAD", b"").await.status, 404);
    // Nobody is better off: then it tries itself.
    fronts.tell_of(1, |node| node.fit = Fit::FRONT);
    fronts.settle(0).await;
    assert_eq!(fronts.nodes[0].ask("GET", "/name.php", b"").await.text(), "n1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_node_serves_from_its_files_is_not_kept() {
    let (mut fronts, _php) = running(2, "cache = \"16MiB\"").await;
    std::fs::create_dir(fronts.root.path().join("upload")).unwrap();
    std::fs::write(fronts.root.path().join("upload/a.jpg"), "picture").unwrap();
    fronts.tell_of(0, |node| node.fit = Fit::FRONT);
    fronts.settle(1).await;
    for (path, text, notes) in [
        ("/upload/a.jpg", "picture", ["fwd=uri-miss", "fwd=uri-miss"]),
        ("/hand.php", "text of a", ["fwd=uri-miss", "fwd=uri-miss"]),
        ("/keep.php", "n2", ["fwd=uri-miss; stored", "hit"]),
    ] {
        for note in notes {
            let answer = fronts.nodes[0].ask("GET", path, b"").await;
            assert_eq!((answer.status, answer.text().as_str()), (200, text), "{path}");
            assert_eq!(
                answer.header("cache-status"),
                Some(&*format!("bitrix-node; {note}")),
                "{path}"
            );
            assert!(!answer.head.contains("bn-"), "{answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_snapshot_removes_nobody_and_a_fresh_one_does() {
    let (mut fronts, mut php) = running(2, "").await;
    fronts.tell(|snapshot| {
        snapshot.is_stale = true;
        snapshot.nodes.iter_mut().for_each(|node| node.is_live = false);
    });
    php.remove(0).kill().await;
    for _ in 0..20 {
        assert_eq!(fronts.nodes[0].ask("POST", "/length.php", b"x").await.text(), "n2 1");
    }
    fronts.tell(|snapshot| snapshot.is_stale = false);
    fronts.settle(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_stay_with_their_node_on_demand() {
    let (fronts, mut php) = running(3, "affinity = \"session\"").await;
    let mut homes = [0; 3];
    let home = async |node: &Node, session: usize| {
        let cookie = format!("Cookie: PHPSESSID=session{session}\r\n");
        let answer = node.ask_with("POST", "/name.php", &cookie, b"").await;
        assert_eq!(answer.status, 200);
        answer.text()[1..].parse::<usize>().unwrap() - 1
    };
    for session in 0..30 {
        let first = home(&fronts.nodes[0], session).await;
        for node in &fronts.nodes {
            assert_eq!(home(node, session).await, first, "all fronts agree");
        }
        homes[first] += 1;
    }
    assert!(homes.iter().all(|count| *count > 0), "{homes:?}");
    php.remove(1).kill().await;
    for session in 0..30 {
        assert_ne!(home(&fronts.nodes[2], session).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_left_is_let_go_and_may_not_send() {
    let (mut fronts, mut php) = running(2, "").await;
    let gone = fronts.nodes[1].name.clone();
    // The second front does not hear of it.
    let left = fronts.nodes.pop().unwrap();
    fronts.tell(|snapshot| snapshot.nodes.retain(|node| node.name != gone));
    eventually("the first is alone", || {
        !fronts.nodes[0].proxy.status().detail.contains("targets")
    })
    .await;
    assert!(!fronts.nodes[0].proxy_metrics().contains("node=\"n2\""));
    let asked = php[0].asked();
    php.pop().unwrap().kill().await;
    assert_eq!(left.ask("GET", "/name.php", b"").await.status, 503);
    assert_eq!(php[0].asked(), asked, "what is not in the cluster is not served");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_its_request_on_the_other_node() {
    let (fronts, php) = crippled(2).await;
    let mut client = tokio::net::TcpStream::connect(fronts.nodes[0].http).await.unwrap();
    let request = "GET /wait.php HTTP/1.1\r\nHost: a\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut client, request.as_bytes())
        .await
        .unwrap();
    php[0].arrived().await;
    drop(client);
    php[0].gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_tell_who_did_what() {
    let (fronts, mut php) = running(2, "").await;
    php.remove(0).kill().await;
    fronts.nodes[0].ask("GET", "/name.php", b"").await;
    let metrics = fronts.nodes[0].proxy_metrics();
    for line in [
        "bitrix_proxy_target_requests_total{node=\"local\"} 1",
        "bitrix_proxy_target_failures_total{node=\"local\"} 1",
        "bitrix_proxy_target_ejections_total{node=\"local\"} 1",
        "bitrix_proxy_target_requests_total{node=\"n2\"} 1",
        "bitrix_proxy_requests_total{class=\"2xx\",target=\"peer\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert!(fronts.nodes[0].proxy.status().detail.ends_with("2 targets, 1 ejected"));
}
