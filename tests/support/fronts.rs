//! Several fronts in this process, which meet over a real mesh: each with sockets of its own on loopback, a certificate, an agent that
//! publishes a snapshot made by hand, and a place for its PHP. They share one document root.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bitrix_node::base::Scope;
use bitrix_node::base::service::{Cx, NamedSocket, Service, Socket};
use bitrix_node::cluster::{self, Fit, Member, Snapshot, Standing};
use bitrix_node::config;
use bitrix_node::net::listen;
use bitrix_node::net::mesh::trust::Trust;
use bitrix_node::proxy::Proxy;
use tempfile::TempDir;
use tokio::sync::watch;

use super::daemon::free_port;
use super::front::eventually;
use super::http::{self, Answer};
use super::responder::Responder;

/// Scripts that the document root has.
const SCRIPTS: [&str; 10] = [
    "name", "vars", "length", "wait", "half", "break", "forge", "slow", "keep", "hand",
];

pub struct Fronts {
    pub nodes: Vec<Node>,
    /// The document root.
    pub root: TempDir,
    snapshot: Snapshot,
}

pub struct Node {
    pub name: String,
    pub http: SocketAddr,
    pub proxy: Arc<Proxy>,
    /// Of its proxy.
    pub scope: Scope,
    pub folder: TempDir,
    view: watch::Sender<Arc<Snapshot>>,
    _agent: Scope,
}

impl Fronts {
    /// So many fronts, whose PHP does not run yet. `extra` are lines of the section `[proxy]`.
    pub async fn start(count: usize, extra: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        for script in SCRIPTS {
            std::fs::write(root.path().join(format!("{script}.php")), "<?php").unwrap();
        }
        std::fs::write(root.path().join("a.txt"), "text of a").unwrap();
        let mut fronts = Fronts {
            nodes: Vec::new(),
            root,
            snapshot: Snapshot {
                revision: 1,
                ..Snapshot::default()
            },
        };
        let folders: Vec<TempDir> = (0..count).map(|_| tempfile::tempdir().unwrap()).collect();
        let founder = trust(&folders[0]);
        for (number, folder) in (1..).zip(folders) {
            let name = format!("n{number}");
            match number {
                1 => founder
                    .found("c".parse().unwrap(), &name.parse().unwrap(), None)
                    .unwrap(),
                _ => founder.issue(&name.parse().unwrap(), &trust(&folder)).unwrap(),
            }
            fronts.add(name, folder, extra);
        }
        fronts.tell(|_| {});
        fronts
    }

    fn add(&mut self, name: String, folder: TempDir, extra: &str) {
        let config = self.config(&name, &folder, extra);
        std::fs::create_dir_all(config.php_socket().parent().unwrap()).unwrap();
        let (plain, mesh) = (listen_as("http"), listen_as("proxy-mesh"));
        let (http, scope, agent) = (plain.0, Scope::new(), Scope::new());
        let (view, snapshots) = watch::channel(Arc::new(self.snapshot.clone()));
        cluster::publish(listen::unix(&config.view_socket()).unwrap(), snapshots, &agent).unwrap();
        let proxy = Arc::new(Proxy::new(Arc::new(config)));
        let cx = Cx {
            scope: scope.clone(),
            sockets: vec![plain.1, mesh.1],
        };
        let running = proxy.clone();
        scope.spawn(async move { running.run(cx).await.unwrap() });
        let mut agents = mesh.0;
        agents.set_port(mesh.0.port() - 4);
        self.snapshot.nodes.push(Member {
            name: name.clone(),
            address: Some(agents),
            standing: Standing::Member,
            is_live: true,
            fit: Fit::FRONT.with(Fit::WEB),
        });
        self.nodes.push(Node {
            name,
            http,
            proxy,
            scope,
            folder,
            view,
            _agent: agent,
        });
    }

    fn config(&self, name: &str, folder: &TempDir, extra: &str) -> config::Config {
        let text = format!(
            "[node]\nname = {name:?}\ndata_dir = {at:?}\nlog_dir = {at:?}\nrun_dir = {at:?}\n\
             [portal]\nroot = {root:?}\n[php]\nchildren = 8\nkept_connections = 0\n\
             [proxy]\naccess_log = \"access.log\"\n{extra}\n",
            at = folder.path(),
            root = self.root.path(),
        );
        config::parse(&text, std::iter::empty()).unwrap().config
    }

    /// Changes what the cluster says, to all.
    pub fn tell(&mut self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.snapshot);
        self.snapshot.revision += 1;
        for node in &self.nodes {
            let snapshot = Snapshot {
                own: node.name.clone(),
                ..self.snapshot.clone()
            };
            node.view.send_replace(Arc::new(snapshot));
        }
    }

    /// Changes what it says of one node.
    pub fn tell_of(&mut self, place: usize, change: impl FnOnce(&mut Member)) {
        self.tell(|snapshot| change(&mut snapshot.nodes[place]));
    }

    /// Waits until every front finds so many targets of use.
    pub async fn settle(&self, of_use: usize) {
        for node in &self.nodes {
            node.finds(of_use, self.nodes.len()).await;
        }
    }

    /// In how many lines of all access logs that text is, once it is in any.
    pub async fn lines(&self, text: &str) -> Vec<String> {
        let find = || {
            let logs = self.nodes.iter().map(Node::log).collect::<Vec<_>>().join("\n");
            let lines: Vec<_> = logs
                .lines()
                .filter(|line| line.contains(text))
                .map(str::to_string)
                .collect();
            lines
        };
        eventually(&format!("a log line with {text}"), || !find().is_empty()).await;
        find()
    }
}

impl Node {
    /// Starts its PHP, which answers with its name.
    pub fn php(&self) -> Responder {
        Responder::start(&self.socket(), &self.name)
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("php/fpm.sock")
    }

    /// Asks over a connection of its own, without holding up this process.
    pub async fn ask(&self, method: &'static str, path: &str, body: &'static [u8]) -> Answer {
        self.ask_with(method, path, "", body).await
    }

    /// The same with whole header lines.
    pub async fn ask_with(&self, method: &'static str, path: &str, fields: &str, body: &'static [u8]) -> Answer {
        let (address, path, fields) = (self.http, path.to_string(), fields.to_string());
        let asked = tokio::task::spawn_blocking(move || http::request(address, method, &path, &fields, body));
        asked.await.unwrap().unwrap()
    }

    /// Waits until this front finds so many targets of use.
    pub async fn finds(&self, of_use: usize, all: usize) {
        let wanted = match all - of_use {
            0 => format!("{all} targets"),
            out => format!("{all} targets, {out} ejected"),
        };
        eventually(&format!("{} finds {wanted}", self.name), || {
            self.proxy.status().detail.ends_with(&wanted)
        })
        .await;
    }

    pub fn proxy_metrics(&self) -> String {
        self.proxy.metrics()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default()
    }

    /// Stops its proxy; returns whether all that it held was finished.
    pub async fn stop(&self) -> bool {
        self.scope.stop(Duration::from_secs(20)).await
    }
}

fn trust(folder: &TempDir) -> Trust {
    Trust::new(folder.path().join("trust"))
}

fn listen_as(name: &str) -> (SocketAddr, NamedSocket) {
    let listener = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let address = listener.local_addr().unwrap();
    let socket = NamedSocket {
        name: name.into(),
        socket: Socket::Tcp(listener),
    };
    (address, socket)
}
