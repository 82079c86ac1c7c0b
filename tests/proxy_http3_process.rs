//! HTTP/3 of proxy processes that share their sockets as a supervisor's modules do: one after another, and one after a crash. And a real
//! browser.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;

use bitrix_node::base::Scope;
use bitrix_node::host::child::{Child, Launch, above_reserved, reserve};
use bitrix_node::net::listen;
use bytes::Buf;
use data_encoding::BASE64;
use h3::error::{Code, StreamError};
use nix::sys::signal::Signal;
use quinn::ConnectionError;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use crate::support::command::EXECUTABLE;
use crate::support::daemon::free_port;
use crate::support::front::{self, PATIENCE};
use crate::support::http3::{Client, get};
use crate::support::upstream::Upstream;

/// What a supervisor has of the front.
struct Bed {
    folder: TempDir,
    file: PathBuf,
    upstream: Upstream,
    scope: Scope,
    address: SocketAddr,
    tcp: OwnedFd,
    udp: OwnedFd,
    _reserved: Vec<OwnedFd>,
}

impl Bed {
    /// Listens on a free port of that address.
    async fn new(ip: &str) -> Self {
        let reserved = reserve().unwrap();
        let (folder, scope) = (tempfile::tempdir().unwrap(), Scope::new());
        let upstream = Upstream::start(&scope).await;
        front::fill(&folder);
        let file = folder.path().join("bitrix-node.toml");
        std::fs::write(&file, front::text(&folder, &upstream, "http3 = true", "")).unwrap();
        let tcp = TcpListener::bind((ip, free_port())).unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = listen::udp(address).unwrap();
        Bed {
            tcp: above_reserved(&tcp.as_fd()).unwrap(),
            udp: above_reserved(&udp.as_fd()).unwrap(),
            folder,
            file,
            upstream,
            scope,
            address,
            _reserved: reserved,
        }
    }

    /// A process of the front, ready.
    async fn start(&self) -> Child {
        let launch = Launch {
            program: EXECUTABLE.into(),
            arguments: ["module", "proxy", "--config"]
                .map(Into::into)
                .into_iter()
                .chain([self.file.clone().into()])
                .collect(),
            environment: Vec::new(),
            account: None,
            sockets: vec![
                ("https".into(), self.tcp.as_raw_fd()),
                ("http3".into(), self.udp.as_raw_fd()),
            ],
            when_orphaned: Signal::SIGKILL,
        };
        let mut child = Child::launch(&launch).unwrap();
        let mut beats = BufReader::new(child.output.take().unwrap()).lines();
        let ready = async {
            while let Some(line) = beats.next_line().await.unwrap() {
                if line == "ready" {
                    return;
                }
            }
            panic!("it has ended");
        };
        timeout(PATIENCE, ready).await.expect("ready in time");
        // It would be ended by a pipe that nobody reads.
        self.scope
            .spawn(async move { while let Ok(Some(_)) = beats.next_line().await {} });
        child
    }

    async fn connect(&self, ip: &str) -> Result<Client, ConnectionError> {
        let address = SocketAddr::new(ip.parse().unwrap(), self.address.port());
        let chain = self.folder.path().join("tls/portal.crt");
        timeout(PATIENCE, Client::connect(address, &chain, &self.scope))
            .await
            .expect("in time")
    }

    /// As soon as somebody takes it.
    async fn client(&self) -> Client {
        let trying = async {
            loop {
                match self.connect("127.0.0.1").await {
                    Ok(client) => return client,
                    Err(ConnectionError::ConnectionClosed(_)) => tokio::task::yield_now().await,
                    Err(other) => panic!("{other}"),
                }
            }
        };
        timeout(PATIENCE, trying).await.expect("somebody takes it")
    }

    /// One that is served: whoever is told to go comes again.
    async fn served(&self) -> Client {
        let trying = async {
            loop {
                let client = self.client().await;
                match client.get("/a.txt").await {
                    Ok(_) => return client,
                    Err(StreamError::RemoteClosing { .. }) => tokio::task::yield_now().await,
                    Err(other) => panic!("{other}"),
                }
            }
        };
        timeout(PATIENCE, trying).await.expect("somebody serves it")
    }
}

/// Until this client is told to go.
async fn told(client: &Client) {
    let asking = async { while client.get("/a.txt").await.is_ok() {} };
    timeout(PATIENCE, asking).await.expect("told in time");
}

async fn ask(client: &Client) {
    let answer = timeout(PATIENCE, client.get("/a.txt")).await.expect("in time").unwrap();
    assert_eq!(answer.text(), "text of a");
}

async fn end(client: &Client) -> ConnectionError {
    timeout(PATIENCE, client.quic.closed()).await.expect("closed in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_takes_over_without_a_failed_request() {
    let bed = Bed::new("127.0.0.1").await;
    let mut first = bed.start().await;
    let client = bed.client().await;
    ask(&client).await;
    // 1. Two processes have the socket, and one reads it: nothing is lost on connections old and new.
    let second = bed.start().await;
    for _ in 0..50 {
        ask(&client).await;
    }
    ask(&bed.client().await).await;
    // 2. The first one drains with a request under way, which is answered.
    let mut waiting = client.begin(get("/app/wait")).await.unwrap();
    waiting.finish().await.unwrap();
    bed.upstream.arrived.acquire().await.unwrap().forget();
    first.signal(Signal::SIGTERM);
    told(&client).await;
    let early = bed.served();
    let release = async {
        bed.upstream.gate.add_permits(1);
        assert_eq!(waiting.recv_response().await.unwrap().status(), 200);
        let mut body = waiting.recv_data().await.unwrap().unwrap();
        assert_eq!(body.copy_to_bytes(body.remaining()), "waited");
    };
    // 3. Who comes meanwhile is sent away, until the second one has the socket.
    let (early, ()) = tokio::join!(early, release);
    ask(&early).await;
    match end(&client).await {
        ConnectionError::ApplicationClosed(close) => {
            assert_eq!(close.error_code.into_inner(), Code::H3_NO_ERROR.value());
        }
        other => panic!("{other}"),
    }
    let ended = timeout(PATIENCE, first.wait()).await.expect("ended in time").unwrap();
    assert!(ended.success(), "{ended}");
    ask(&early).await;
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_killed_process_hear_of_it_from_its_successor() {
    let bed = Bed::new("127.0.0.1").await;
    let first = bed.start().await;
    let client = bed.client().await;
    ask(&client).await;
    let _second = bed.start().await;
    first.signal(Signal::SIGKILL);
    let asking = client.get("/a.txt");
    let asked = timeout(PATIENCE, asking).await.expect("it hears of it");
    // It may have been answered before the signal came.
    if asked.is_ok() {
        drop(first);
        let again = timeout(PATIENCE, client.get("/a.txt")).await.expect("it hears of it");
        assert!(again.is_err(), "{again:?}");
    }
    assert!(matches!(end(&client).await, ConnectionError::Reset));
    ask(&bed.client().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_from_the_address_that_was_asked() {
    let bed = Bed::new("0.0.0.0").await;
    let _front = bed.start().await;
    // A client takes nothing from another address than the one that it asked.
    for ip in ["127.0.0.2", "127.9.9.9"] {
        ask(&bed.connect(ip).await.unwrap()).await;
    }
}

/// Debian's Chromium, told to speak HTTP/3 to this port. `make test-http3`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium"]
async fn chromium_loads_a_page_over_http3() {
    let bed = Bed::new("127.0.0.1").await;
    let _front = bed.start().await;
    let root = bed.folder.path().join("portal");
    let page = "<script src=/name.js></script><img src=/dot.svg><script>\
                fetch('/app/echo', {method: 'POST', body: 'x'.repeat(1 << 20)}).then(answer => answer.text())\
                .then(text => document.body.innerText = name_of_it + ' ' + text.length)</script>";
    std::fs::write(root.join("page.html"), page).unwrap();
    std::fs::write(root.join("name.js"), "var name_of_it = 'echoed';").unwrap();
    std::fs::write(root.join("dot.svg"), "<svg xmlns='http://www.w3.org/2000/svg'/>").unwrap();
    let leaf = CertificateDer::from_pem_file(bed.folder.path().join("tls/portal.crt")).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).unwrap();
    let pin = BASE64.encode(ring::digest::digest(&ring::digest::SHA256, leaf.public_key().raw).as_ref());
    let host = format!("portal.example:{}", bed.address.port());
    #[allow(clippy::disallowed_methods)]
    let mut command = std::process::Command::new("chromium");
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--dump-dom",
            "--enable-quic",
        ])
        .args([
            "--virtual-time-budget=20000",
            "--no-first-run",
            "--disable-dev-shm-usage",
        ])
        .arg(format!(
            "--user-data-dir={}",
            bed.folder.path().join("profile").display()
        ))
        .arg(format!("--origin-to-force-quic-on={host}"))
        .arg(format!("--ignore-certificate-errors-spki-list={pin}"))
        .arg("--host-resolver-rules=MAP portal.example 127.0.0.1")
        .arg(format!("https://{host}/page.html"))
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let (page, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(page.contains("echoed 1048576"), "{page}\n{errors}");
    let log = std::fs::read_to_string(bed.folder.path().join("access.log")).unwrap();
    for asked in ["GET /page.html", "GET /name.js", "GET /dot.svg", "POST /app/echo"] {
        let line = log.lines().find(|line| line.contains(asked)).unwrap_or_default();
        assert!(line.contains("HTTP/3.0\" 200 "), "{asked}: {log}");
    }
}
