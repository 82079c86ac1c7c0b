//! Sessions of TLS over the fronts of one cluster, each a process of its own: resumed at another one and after a replacement, but not by
//! a ticket whose key is gone. The keys come as agents send them; at last of a whole node, whose own agent makes them.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use bitrix_node::base::{Scope, clock};
use bitrix_node::cert::Sealer;
use bitrix_node::cert::tickets::{Draw, TICKETS, rotated};
use bitrix_node::cluster::{self, Snapshot};
use bitrix_node::host::child::above_reserved;
use bitrix_node::net::listen;
use bitrix_node::net::tls::self_signed;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::support::command::EXECUTABLE;
use crate::support::daemon::free_port;
use crate::support::eventually::eventually;
use crate::support::module;
use crate::support::node::Node;

const NAME: &str = "portal.example";
const DAY: u64 = 24 * 3600;

struct Bed {
    fronts: Vec<Front>,
    setting: Option<String>,
    sealer: Sealer,
    chain: String,
    _agents: Scope,
}

struct Front {
    folder: TempDir,
    https: SocketAddr,
    sockets: Vec<(&'static str, OwnedFd)>,
    child: Option<Child>,
    view: watch::Sender<Arc<Snapshot>>,
}

impl Bed {
    /// Two fronts with one certificate and one secret.
    fn start() -> Self {
        let (chain, key) = self_signed(vec!["portal.example".into()]).unwrap();
        let agents = Scope::new();
        let mut fronts: Vec<Front> = (0..2).map(|_| Front::new(&chain, &key, &agents)).collect();
        fronts.iter_mut().for_each(Front::run);
        Bed {
            fronts,
            setting: None,
            sealer: Sealer::new("secret of the cluster"),
            chain,
            _agents: agents,
        }
    }

    /// A new key, as old as that, is made in the cluster.
    fn rotate(&mut self, number: u8, age: u64) {
        let draw = Draw {
            name: [number; 16],
            secret: [number; 32],
        };
        let now = clock::unix().as_secs() - age;
        let setting = rotated(self.setting.as_deref(), now, &draw, &self.sealer).unwrap();
        for front in &self.fronts {
            front.view.send_modify(|snapshot| {
                let mut next = Snapshot::clone(snapshot);
                next.revision += 1;
                next.settings.insert(TICKETS.to_string(), setting.clone());
                *snapshot = Arc::new(next);
            });
        }
        self.setting = Some(setting);
    }
}

impl Front {
    fn new(chain: &str, key: &str, agents: &Scope) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("tls/portal.crt", chain);
        write("tls/portal.key", key);
        write("secrets/cert.key", "secret of the cluster");
        write("portal/index.html", "home");
        let listener = listen::tcp(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let https = listener.local_addr().unwrap();
        let udp = listen::udp(https).unwrap();
        write(
            "config.toml",
            &format!(
                "[node]\ndata_dir = {at:?}\nlog_dir = {at:?}\nrun_dir = {at:?}\n[portal]\nroot = \"{at}/portal\"\n\
                 [storage]\nengine = \"replicated\"\nmount = \"none\"\n\
                 [proxy]\naccess_log = \"access.log\"\nhttp = []\nhttps = [\"{https}\"]\nhttp3 = true\n",
                at = folder.path().display(),
            ),
        );
        let (view, snapshots) = watch::channel(Arc::new(Snapshot {
            revision: 1,
            own: "node1".into(),
            ..Snapshot::default()
        }));
        let socket = listen::unix(&folder.path().join("view.sock")).unwrap();
        cluster::publish(socket, snapshots, agents).unwrap();
        Front {
            folder,
            https,
            sockets: vec![
                ("https", above_reserved(&listener).unwrap()),
                ("http3", above_reserved(&udp).unwrap()),
            ],
            child: None,
            view,
        }
    }

    fn run(&mut self) {
        self.child = Some(module::run(
            EXECUTABLE.as_ref(),
            "proxy",
            self.folder.path(),
            &self.sockets,
        ));
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.kill();
    }
}

fn client(chain: &str, version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(chain.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// One request by a handshake of its own: of which kind that was, and what came over the wire.
fn visit(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<(HandshakeKind, Vec<u8>), String> {
    let text = |error: std::io::Error| error.to_string();
    let name = ServerName::try_from(NAME).unwrap();
    let session = ClientConnection::new(config.clone(), name).unwrap();
    let stream = TcpStream::connect(address).map_err(text)?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut stream = StreamOwned::new(session, Seen(stream, Vec::new()));
    let request = format!("GET / HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(text)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(text)?;
    assert!(answer.starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&answer));
    Ok((stream.conn.handshake_kind().unwrap(), stream.sock.1))
}

/// Fresh sessions until a ticket is sent by the key of that name: the front has heard of it. TLS 1.2 shows the ticket on the wire.
async fn heard(address: SocketAddr, chain: &str, key: &[u8]) {
    eventually("the front makes tickets with the new key", async || {
        let (_, wire) = visit(address, &client(chain, &rustls::version::TLS12))?;
        match wire.windows(key.len()).any(|bytes| bytes == key) {
            true => Ok(()),
            false => Err("not yet".to_string()),
        }
    })
    .await;
}

/// Name of the newest key, in what `registry show` says.
fn newest(registry: &Value) -> Option<Vec<u8>> {
    let mut settings = registry["settings"].as_array()?.iter();
    let setting = settings.find(|setting| setting["key"] == TICKETS)?;
    let setting: Value = serde_json::from_str(setting["value"].as_str()?).ok()?;
    let name = setting["keys"][0]["name"].as_str()?;
    data_encoding::HEXLOWER.decode(name.as_bytes()).ok()
}

/// A connection, and what came by it.
struct Seen(TcpStream, Vec<u8>);

impl Read for Seen {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let size = self.0.read(into)?;
        self.1.extend_from_slice(&into[..size]);
        Ok(size)
    }
}

impl Write for Seen {
    fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
        self.0.write(from)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Bed {
    fn client(&self, version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
        client(&self.chain, version)
    }

    fn visit(&self, place: usize, config: &Arc<ClientConfig>) -> HandshakeKind {
        visit(self.fronts[place].https, config).unwrap().0
    }

    async fn heard(&self, number: u8, place: usize) {
        heard(self.fronts[place].https, &self.chain, &[number; 16]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_at_another_front_and_after_a_replacement() {
    let mut bed = Bed::start();
    bed.rotate(1, 0);
    for place in 0..2 {
        bed.heard(1, place).await;
    }
    let versions = [&rustls::version::TLS12, &rustls::version::TLS13];
    for version in versions {
        let client = bed.client(version);
        assert_eq!(bed.visit(0, &client), HandshakeKind::Full);
        assert_eq!(
            bed.visit(1, &client),
            HandshakeKind::Resumed,
            "{version:?} at the other front"
        );
        assert_eq!(bed.visit(0, &client), HandshakeKind::Resumed);
    }
    let kept = versions.map(|version| bed.client(version));
    for client in &kept {
        bed.visit(0, client);
    }
    bed.fronts[0].kill();
    bed.fronts[0].run();
    bed.heard(1, 0).await;
    for client in &kept {
        assert_eq!(bed.visit(0, client), HandshakeKind::Resumed, "replaced");
    }
    // A key later the ticket is good, two later it is not.
    for (numbers, expected) in [(vec![2], HandshakeKind::Resumed), (vec![3, 4], HandshakeKind::Full)] {
        let client = bed.client(&rustls::version::TLS12);
        bed.visit(0, &client);
        for number in &numbers {
            bed.rotate(*number, 0);
            bed.heard(*number, 0).await;
            bed.heard(*number, 1).await;
        }
        assert_eq!(bed.visit(1, &client), expected, "keys {numbers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_nobody_made_anew_make_no_tickets() {
    let mut bed = Bed::start();
    bed.rotate(1, 0);
    bed.heard(1, 0).await;
    let client = bed.client(&rustls::version::TLS12);
    bed.visit(0, &client);
    // As after days without a registry.
    bed.setting = None;
    bed.rotate(1, 3 * DAY);
    eventually("the ticket is refused", async || match bed.visit(0, &client) {
        HandshakeKind::Full => Ok(()),
        kind => Err(format!("{kind:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_makes_the_keys_and_a_session_outlives_its_front() {
    let storage = format!(
        "[storage]\nengine = \"replicated\"\nmount = \"none\"\nlisten = \"127.0.0.1:{}\"\n",
        free_port()
    );
    let mut node = Node::prepare(&storage);
    let (chain, key) = self_signed(vec![NAME.into()]).unwrap();
    let (chain_at, key_at) = node.config.certificate();
    fs::write(chain_at, &chain).unwrap();
    fs::write(key_at, key).unwrap();
    node.run();
    node.be_healthy().await;
    let name = eventually("there is a key", async || {
        let shown = node.command(&["registry", "show", "--output", "json"]).out;
        newest(&serde_json::from_str(&shown).unwrap_or_default()).ok_or(shown)
    })
    .await;
    let address = node.config.proxy.https[0];
    heard(address, &chain, &name).await;
    let session = client(&chain, &rustls::version::TLS13);
    assert_eq!(visit(address, &session).unwrap().0, HandshakeKind::Full);
    let pid = node.kill("proxy");
    eventually("it has a successor", async || match node.pid("proxy") {
        Some(other) if other != pid => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    heard(address, &chain, &name).await;
    assert_eq!(visit(address, &session).unwrap().0, HandshakeKind::Resumed);
}
