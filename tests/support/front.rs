//! The proxy module in this process: real sockets on loopback, a document root, an upstream; and a client that speaks bytes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bitrix_node::base::Scope;
use bitrix_node::base::service::{Cx, NamedSocket, Service, Socket};
use bitrix_node::config::{self, Config};
use bitrix_node::net::{self, tls::self_signed};
use bitrix_node::proxy::Proxy;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::daemon::free_port;
use super::eventually::eventually as patiently;
use super::php::PhpFpm;
use super::upstream::Upstream;

/// Longer than anything here takes; a test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Front {
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub upstream: Upstream,
    pub proxy: Arc<Proxy>,
    /// The proxy's own.
    pub scope: Scope,
    pub folder: TempDir,
    /// The upstream's.
    _rest: Scope,
}

impl Front {
    /// `extra` are lines of the section `[proxy]`.
    pub async fn start(extra: &str) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), extra).await
    }

    pub async fn start_at(ip: IpAddr, extra: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rest = Scope::new();
        let upstream = Upstream::start(&rest).await;
        fill(&folder);
        let proxy = Arc::new(Proxy::new(Arc::new(read(&folder, &upstream, extra, ""))));
        let scope = Scope::new();
        let (plain, secure) = (listen(ip, "http"), listen(ip, "https"));
        let (http, https) = (plain.0, secure.0);
        let mut sockets = vec![plain.1, secure.1];
        if extra.contains("http3 = true") {
            sockets.push(NamedSocket {
                name: "http3".into(),
                socket: Socket::Udp(net::listen::udp(https).unwrap()),
            });
        }
        let cx = Cx {
            scope: scope.clone(),
            sockets,
        };
        let running = proxy.clone();
        scope.spawn(async move { running.run(cx).await.unwrap() });
        let front = Front {
            http,
            https,
            upstream,
            proxy,
            scope,
            folder,
            _rest: rest,
        };
        eventually("the proxy runs", || front.proxy.status().detail != "starting").await;
        front
    }

    /// The same configuration with other settings; takes effect at `reload`.
    pub fn reconfigure(&self, extra: &str, domain: &str) {
        let config = read(&self.folder, &self.upstream, extra, domain);
        self.proxy.reconfigure(Arc::new(config));
        self.proxy.reload();
    }

    pub async fn connect(&self) -> Client {
        Client {
            stream: TcpStream::connect(self.http).await.unwrap(),
            read: Vec::new(),
        }
    }

    /// Sends bytes on a connection of their own; returns all that comes until it is closed.
    pub async fn exchange(&self, bytes: &[u8]) -> String {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client.read_to_end().await
    }

    /// A GET over a connection of its own. `fields`: whole lines.
    pub async fn get(&self, target: &str, fields: &str) -> String {
        let head = format!("GET {target} HTTP/1.1\r\nHost: portal.example\r\nConnection: close\r\n{fields}\r\n");
        self.exchange(head.as_bytes()).await
    }

    /// A PHP-FPM where the front looks for it, as soon as that page comes from it.
    pub async fn start_php(&self, children: usize, page: &str) -> PhpFpm {
        let socket = self.folder.path().join("run/php/fpm.sock");
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let php = PhpFpm::start(self.folder.path(), &socket, "front", children);
        patiently("PHP answers", async || {
            let answer = self.get(page, "").await;
            (statuses(&answer) == [200]).then_some(()).ok_or(answer)
        })
        .await;
        php
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("access.log")).unwrap()
    }

    /// Waits until the log has a line with this text, and returns it.
    pub async fn logged(&self, text: &str) -> String {
        let find = || self.log().lines().find(|line| line.contains(text)).map(str::to_string);
        eventually(&format!("a log line with {text}"), || find().is_some()).await;
        find().unwrap()
    }
}

/// A client's connection.
pub struct Client {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    /// Sends what the other side takes: it may close before the end.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Everything up to the end of the connection.
    pub async fn read_to_end(mut self) -> String {
        let rest = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut self.read)).await;
        rest.expect("closed in time").expect("closed in order");
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// Everything up to and with this text.
    pub async fn read_until(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = String::from_utf8_lossy(&self.read).find(text) {
                let part = self.read.drain(..at + text.len()).collect();
                return String::from_utf8(part).unwrap();
            }
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
            let count: io::Result<usize> = read.unwrap_or_else(|_| panic!("no {text} in {:?}", self.text()));
            assert!(count.unwrap() > 0, "no {text} in {:?}", self.text());
        }
    }

    /// What came and was not taken.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }
}

/// Status codes of all answers in a text.
pub fn statuses(text: &str) -> Vec<u16> {
    let answers = text.match_indices("HTTP/1.").map(|(at, _)| &text[at + 9..at + 12]);
    answers.map(|code| code.parse().unwrap()).collect()
}

/// Looks again and again until it holds.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn listen(ip: IpAddr, name: &str) -> (SocketAddr, NamedSocket) {
    let listener = std::net::TcpListener::bind((ip, free_port())).unwrap();
    let address = listener.local_addr().unwrap();
    let socket = NamedSocket {
        name: name.into(),
        socket: Socket::Tcp(listener),
    };
    (address, socket)
}

pub fn fill(folder: &TempDir) {
    let (chain, key) = self_signed(vec!["portal.example".into()]).unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("tls/portal.crt", &chain);
    write("tls/portal.key", &key);
    write("portal/index.html", "home");
    write("portal/a.txt", "text of a");
    write("portal/docs/index.html", "docs");
    write("portal/upload/page.html", "<b>");
    write("portal/upload/shell/index.php", "<?php");
    write("secret.txt", "secret");
}

fn read(folder: &TempDir, upstream: &Upstream, extra: &str, domain: &str) -> Config {
    let text = text(folder, upstream, extra, domain);
    config::parse(&text, std::iter::empty()).unwrap().config
}

/// A configuration file.
pub fn text(folder: &TempDir, upstream: &Upstream, extra: &str, domain: &str) -> String {
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    format!(
        "[node]\ndata_dir = {:?}\nlog_dir = {:?}\nrun_dir = {:?}\n\
         [portal]\nroot = {:?}\ndomain = {domain:?}\n\
         [proxy]\naccess_log = \"access.log\"\n{extra}\n[[proxy.routes]]\nprefix = \"/app/\"\nupstream = \"http://{}\"\n",
        folder.path(),
        folder.path(),
        path("run"),
        path("portal"),
        upstream.address,
    )
}
