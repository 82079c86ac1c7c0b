//! Fronts as processes of their own, each with a real PHP-FPM, on loopback: what a client of one of them sees when another one's
//! PHP, front or whole node is killed or frozen under load.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;

use bitrix_node::base::Scope;
use bitrix_node::cluster::{self, Fit, Member, Snapshot, Standing};
use bitrix_node::host::child::above_reserved;
use bitrix_node::net::listen;
use bitrix_node::net::mesh::trust::Trust;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::support::command::{EXECUTABLE, Ran, bitrix_node};
use crate::support::front::eventually;
use crate::support::http;
use crate::support::load::Clients;
use crate::support::module;
use crate::support::php::PhpFpm;

/// PHP's children on each node, and clients: more than one node's children would leave idle.
const CHILDREN: usize = 8;
const CLIENTS: usize = 24;

/// A page that costs little and takes a while.
const PAGE: &str = "<?php usleep(10000); echo getenv('NODE');";

pub struct Nodes {
    pub nodes: Vec<Node>,
    pub root: TempDir,
    /// What their agents say.
    agents: Scope,
    views: Vec<watch::Sender<Arc<Snapshot>>>,
}

pub struct Node {
    name: String,
    folder: TempDir,
    pub http: SocketAddr,
    mesh: SocketAddr,
    sockets: Vec<(&'static str, OwnedFd)>,
    front: Option<Child>,
    php: Option<PhpFpm>,
}

impl Nodes {
    /// Three nodes that run, and know each other.
    pub async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("page.php"), PAGE).unwrap();
        let mut nodes = Nodes {
            nodes: (1..=3).map(Node::new).collect(),
            root,
            agents: Scope::new(),
            views: Vec::new(),
        };
        nodes.issue();
        let members: Vec<Member> = nodes.nodes.iter().map(Node::member).collect();
        for node in &nodes.nodes {
            let snapshot = Snapshot {
                revision: 1,
                own: node.name.clone(),
                nodes: members.clone(),
                ..Snapshot::default()
            };
            let (view, snapshots) = watch::channel(Arc::new(snapshot));
            let socket = listen::unix(&node.folder.path().join("view.sock")).unwrap();
            cluster::publish(socket, snapshots, &nodes.agents).unwrap();
            nodes.views.push(view);
        }
        for node in &mut nodes.nodes {
            node.write_config(nodes.root.path());
            node.start_php();
            node.start_front();
        }
        for node in &nodes.nodes {
            let answers = || http::get(node.http, "/page.php").is_ok_and(|answer| answer.status == 200);
            eventually(&format!("{} answers", node.name), answers).await;
        }
        nodes
    }

    fn issue(&self) {
        let trust = |node: &Node| Trust::new(node.folder.path().join("trust"));
        let founder = trust(&self.nodes[0]);
        for node in &self.nodes {
            let name = node.name.parse().unwrap();
            match founder.exists() {
                false => founder.found("c".parse().unwrap(), &name, None).unwrap(),
                true => founder.issue(&name, &trust(node)).unwrap(),
            }
        }
    }

    /// Changes what one node's agent says.
    pub fn tell(&self, place: usize, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = Snapshot::clone(&self.views[place].borrow());
        change(&mut snapshot);
        self.views[place].send_replace(Arc::new(snapshot));
    }

    fn load(&self, method: &'static str) -> Clients {
        Clients::begin(self.nodes[0].http, method, "/page.php", CLIENTS)
    }
}

impl Node {
    fn new(number: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("php")).unwrap();
        let (http, mesh) = (bind(), bind());
        let control = listen::unix(&folder.path().join("proxy-control.sock")).unwrap();
        Node {
            name: format!("n{number}"),
            folder,
            http: http.local_addr().unwrap(),
            mesh: mesh.local_addr().unwrap(),
            sockets: vec![
                ("http", above_reserved(&http).unwrap()),
                ("proxy-mesh", above_reserved(&mesh).unwrap()),
                ("proxy-control", above_reserved(&control).unwrap()),
            ],
            front: None,
            php: None,
        }
    }

    fn member(&self) -> Member {
        let mut agent = self.mesh;
        agent.set_port(self.mesh.port() - 4);
        Member {
            name: self.name.clone(),
            address: Some(agent),
            standing: Standing::Member,
            is_live: true,
            fit: Fit::FRONT.with(Fit::WEB),
        }
    }

    fn write_config(&self, root: &std::path::Path) {
        let text = format!(
            "[node]\nname = {name:?}\ndata_dir = {at:?}\nlog_dir = {at:?}\nrun_dir = {at:?}\n\
             [portal]\nroot = {root:?}\n[php]\nchildren = {CHILDREN}\nkept_connections = 4\n\
             [proxy]\naccess_log = \"access.log\"\ncache = \"16MiB\"\n",
            name = self.name,
            at = self.folder.path(),
        );
        std::fs::write(self.folder.path().join("config.toml"), text).unwrap();
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("php/fpm.sock")
    }

    fn start_php(&mut self) {
        self.php = Some(PhpFpm::start(self.folder.path(), &self.socket(), &self.name, CHILDREN));
    }

    fn start_front(&mut self) {
        self.front = Some(module::run(&executable(), "proxy", self.folder.path(), &self.sockets));
    }

    /// Runs `bitrix-node ARGUMENTS` there.
    pub fn command(&self, arguments: &[&str]) -> Ran {
        let config = self.folder.path().join("config.toml");
        let config = ["--config", config.to_str().unwrap()];
        bitrix_node(&[arguments, &config].concat(), &[])
    }

    pub fn signal(&self, signal: Signal) {
        let front = self.front.as_ref().expect("it runs");
        let front = Pid::from_raw(front.id().try_into().unwrap());
        kill(front, signal).unwrap();
        if signal == Signal::SIGSTOP {
            // None of its threads runs any more, which kill(2) does not promise.
            waitpid(front, Some(WaitPidFlag::WUNTRACED)).unwrap();
        }
    }

    /// Power-off: front, PHP and listening sockets are gone at once.
    fn kill(&mut self) {
        self.sockets.clear();
        self.kill_front();
        self.php = None;
    }

    fn kill_front(&mut self) {
        if let Some(mut front) = self.front.take() {
            let _ = front.kill();
            let _ = front.wait();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn bind() -> TcpListener {
    listen::tcp(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

/// `BITRIX_NODE` names the executable as it is shipped; else the one built with the tests.
fn executable() -> PathBuf {
    #[allow(clippy::disallowed_methods)]
    let named = std::env::var_os("BITRIX_NODE");
    named.map_or_else(|| EXECUTABLE.into(), PathBuf::from)
}

/// Everybody has his share; the front's own PHP may have more than the others'.
fn is_spread(spread: [usize; 3]) -> bool {
    let third = spread.iter().sum::<usize>() / 3;
    spread.iter().all(|count| count * 3 > third && *count < third * 2)
}

#[tokio::test(flavor = "multi_thread")]
async fn safe_requests_survive_what_happens_to_a_node() {
    let mut nodes = Nodes::start().await;
    let clients = nodes.load("GET");
    clients.go_on(500).await;
    // A target whose first answer was an error gets its share back over ten seconds.
    let mut spread = clients.go_on(1500).await;
    for _ in 0..20 {
        if is_spread(spread) {
            break;
        }
        spread = clients.go_on(1500).await;
    }
    println!("three nodes: {spread:?}, slowest {:?}", clients.slowest());
    assert!(is_spread(spread), "{spread:?}");

    nodes.nodes[1].php = None;
    clients.go_on(500).await;
    let spread = clients.go_on(500).await;
    println!(
        "PHP of n2 killed: {spread:?}, {} failed, slowest {:?}",
        clients.failed(),
        clients.slowest()
    );
    assert_eq!(spread[1], 0);
    nodes.nodes[1].start_php();
    let before = clients.answers()[1];
    eventually("n2 serves again", || clients.answers()[1] > before + 50).await;

    nodes.nodes[0].php = None;
    clients.go_on(500).await;
    let spread = clients.go_on(500).await;
    println!(
        "PHP of n1, which they ask, killed: {spread:?}, {} failed, slowest {:?}",
        clients.failed(),
        clients.slowest()
    );
    assert_eq!(spread[0], 0);
    nodes.nodes[0].start_php();

    nodes.nodes[1].signal(Signal::SIGSTOP);
    clients.go_on(2000).await;
    println!(
        "front of n2 frozen: {} failed, slowest {:?}",
        clients.failed(),
        clients.slowest()
    );
    nodes.nodes[1].signal(Signal::SIGCONT);
    let before = clients.answers()[1];
    eventually("n2 serves again", || clients.answers()[1] > before + 50).await;

    nodes.nodes[1].kill_front();
    clients.go_on(500).await;
    nodes.nodes[1].start_front();
    let before = clients.answers()[1];
    eventually("n2 serves again", || clients.answers()[1] > before + 50).await;
    println!(
        "front of n2 killed and restarted: {} failed, slowest {:?}",
        clients.failed(),
        clients.slowest()
    );

    nodes.nodes[2].kill();
    clients.go_on(500).await;
    let spread = clients.go_on(500).await;
    println!(
        "n3 killed: {spread:?}, {} failed, slowest {:?}",
        clients.failed(),
        clients.slowest()
    );
    assert_eq!(spread[2], 0);
    assert_eq!(clients.end(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn unsafe_requests_fail_only_where_they_were() {
    let mut nodes = Nodes::start().await;
    let clients = nodes.load("POST");
    clients.go_on(1000).await;
    nodes.nodes[1].php = None;
    clients.go_on(1000).await;
    let of_php = clients.failed();
    nodes.nodes[2].kill();
    clients.go_on(1000).await;
    let of_node = clients.failed() - of_php;
    println!(
        "POST: {of_php} failed with the PHP of n2, {of_node} with n3, of {CLIENTS} clients; slowest {:?}",
        clients.slowest()
    );
    // Those under way there: each client has one.
    assert!(of_php <= CLIENTS && of_node <= CLIENTS, "{of_php} {of_node}");
    clients.end();
    // What failed is over: nothing more fails.
    let clients = nodes.load("POST");
    clients.go_on(300).await;
    assert_eq!(clients.end(), 0);
}
