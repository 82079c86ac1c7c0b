//! Sessions of TLS over the fronts of one cluster, each a process of its own: resumed at another one and after a replacement, but not by
//! a ticket whose key is gone. The keys come as the agents send them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bitrix_node::base::{Scope, clock};
use bitrix_node::cert::Sealer;
use bitrix_node::cert::tickets::{Draw, TICKETS, rotated};
use bitrix_node::cluster::{self, Snapshot};
use bitrix_node::host::child::above_reserved;
use bitrix_node::net::listen;
use bitrix_node::net::tls::self_signed;
use nix::libc;
use nix::sys::signal::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::support::command::EXECUTABLE;
use crate::support::eventually::eventually;

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

    fn client(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let chain = CertificateDer::from_pem_slice(self.chain.as_bytes()).unwrap();
        roots.add(chain).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }

    /// Fresh sessions until a ticket is sent with the newest key: a front has heard of it.
    async fn heard(&self, number: u8, place: usize) {
        let versions = &[&rustls::version::TLS12];
        eventually("the front makes tickets with the new key", async || {
            let config = self.client(versions);
            let first = self.fronts[place].visit(&config)?;
            // In TLS 1.2 a ticket is seen on the wire, at the end of the handshake.
            match first.1.windows(16).any(|bytes| bytes == [number; 16]) {
                true => Ok(()),
                false => Err("not yet".to_string()),
            }
        })
        .await;
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
        let udp: UdpSocket = bitrix_node::net::listen::udp(https).unwrap();
        write(
            "config.toml",
            &format!(
                "[node]\ndata_dir = {at:?}\nlog_dir = {at:?}\nrun_dir = {at:?}\n[portal]\nroot = \"{at}/portal\"\n\
                 [storage]\nengine = \"replicated\"\nmount = \"none\"\n[proxy]\naccess_log = \"access.log\"\nhttp = []\nhttps = [\"{https}\"]\nhttp3 = true\n",
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
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .unwrap();
        #[allow(clippy::disallowed_methods)]
        let mut command = std::process::Command::new(PathBuf::from(EXECUTABLE));
        command
            .args(["module", "proxy", "--config"])
            .arg(self.folder.path().join("config.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let names: Vec<_> = self.sockets.iter().map(|(name, _)| *name).collect();
        command.env("LISTEN_FDS", names.len().to_string());
        command.env("LISTEN_FDNAMES", names.join(":"));
        let descriptors: Vec<_> = self.sockets.iter().map(|(_, socket)| socket.as_raw_fd()).collect();
        let prepare = move || {
            for (target, source) in (listen::FIRST_DESCRIPTOR..).zip(&descriptors) {
                // SAFETY: a system call on numbers; the sources are above the reserved range.
                if unsafe { libc::dup2(*source, target) } < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            // It ends with the test, however that ends.
            Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)
        };
        // SAFETY: `prepare` makes system calls only: it allocates nothing and takes no lock.
        unsafe { command.pre_exec(prepare) };
        self.child = Some(command.spawn().unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// One request by a handshake of its own: of which kind that was, and what came over the wire.
    fn visit(&self, config: &Arc<ClientConfig>) -> Result<(HandshakeKind, Vec<u8>), String> {
        let text = |error: std::io::Error| {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            format!("{error}: {log}")
        };
        let name = ServerName::try_from("portal.example").unwrap();
        let session = ClientConnection::new(config.clone(), name).unwrap();
        let stream = TcpStream::connect(self.https).map_err(text)?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut stream = StreamOwned::new(session, Seen(stream, Vec::new()));
        let request = "GET /index.html HTTP/1.1\r\nhost: portal.example\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).map_err(text)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(text)?;
        assert!(
            answer.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        Ok((stream.conn.handshake_kind().unwrap(), stream.sock.1))
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.kill();
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_at_another_front_and_after_a_replacement() {
    let mut bed = Bed::start();
    bed.rotate(1, 0);
    for place in 0..2 {
        bed.heard(1, place).await;
    }
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = bed.client(&[version]);
        let kind = |place: usize| bed.fronts[place].visit(&client).unwrap().0;
        assert_eq!(kind(0), HandshakeKind::Full);
        assert_eq!(kind(1), HandshakeKind::Resumed, "{version:?} at the other front");
        assert_eq!(kind(0), HandshakeKind::Resumed);
    }
    let kept: Vec<_> = [&rustls::version::TLS12, &rustls::version::TLS13]
        .into_iter()
        .map(|version| bed.client(&[version]))
        .collect();
    for client in &kept {
        bed.fronts[0].visit(client).unwrap();
    }
    bed.fronts[0].kill();
    bed.fronts[0].run();
    bed.heard(1, 0).await;
    for client in &kept {
        assert_eq!(
            bed.fronts[0].visit(client).unwrap().0,
            HandshakeKind::Resumed,
            "replaced"
        );
    }
    // A key later the ticket is good, two later it is not.
    for (numbers, expected) in [(vec![2], HandshakeKind::Resumed), (vec![3, 4], HandshakeKind::Full)] {
        let client = bed.client(&[&rustls::version::TLS12]);
        bed.fronts[0].visit(&client).unwrap();
        for number in &numbers {
            bed.rotate(*number, 0);
            bed.heard(*number, 0).await;
            bed.heard(*number, 1).await;
        }
        assert_eq!(bed.fronts[1].visit(&client).unwrap().0, expected, "keys {numbers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_nobody_made_anew_make_no_tickets() {
    let mut bed = Bed::start();
    bed.rotate(1, 0);
    bed.heard(1, 0).await;
    let client = bed.client(&[&rustls::version::TLS12]);
    bed.fronts[0].visit(&client).unwrap();
    // As after days without a registry.
    bed.setting = None;
    bed.rotate(1, 3 * DAY);
    eventually("the ticket is refused", async || {
        match bed.fronts[0].visit(&client)?.0 {
            HandshakeKind::Full => Ok(()),
            kind => Err(format!("{kind:?}")),
        }
    })
    .await;
}
