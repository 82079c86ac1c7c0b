//! The portal's certificates on a real node, from a real directory that makes trouble: issued, renewed, revoked, imported.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use bitrix_node::net::tls::self_signed;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use crate::support::daemon::free_port;
use crate::support::eventually::eventually;
use crate::support::node::Node;
use crate::support::pebble::{BLOCKED, Pebble};

const PORTAL: &str = "portal.example";

/// A client that believes one root alone.
struct Visit(StreamOwned<ClientConnection, TcpStream>);

impl Visit {
    /// The handshake, with that name asked for and believed.
    fn open(address: SocketAddr, name: &str, root: &str) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_string()).unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut visit = Visit(StreamOwned::new(session, stream));
        visit.0.flush().map_err(|error| error.to_string())?;
        while visit.0.conn.is_handshaking() {
            let (session, stream) = (&mut visit.0.conn, &mut visit.0.sock);
            session.complete_io(stream).map_err(|error| error.to_string())?;
        }
        Ok(visit)
    }

    fn leaf(&self) -> Vec<u8> {
        self.0.conn.peer_certificates().unwrap()[0].to_vec()
    }

    fn serial(&self) -> String {
        let leaf = self.leaf();
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).unwrap();
        data_encoding::HEXLOWER.encode(parsed.raw_serial())
    }

    /// Status line of an answer on this connection, which stays open.
    fn ask(&mut self, path: &str) -> String {
        let request = format!("HEAD {path} HTTP/1.1\r\nhost: {PORTAL}\r\n\r\n");
        self.0.write_all(request.as_bytes()).unwrap();
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while !answer.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        let answer = String::from_utf8(answer).unwrap();
        answer.lines().next().unwrap().to_string()
    }
}

struct Bed {
    pebble: Pebble,
    node: Node,
}

impl Bed {
    async fn start(challenge: &str) -> Self {
        let mut pebble = Pebble::prepare();
        let sections = format!(
            "[storage]\nengine = \"replicated\"\nmount = \"none\"\nlisten = \"127.0.0.1:{}\"\n\
             [acme]\ndirectory = \"{}\"\nca = \"{}\"\nnames = [\"{PORTAL}\"]\nchallenge = \"{challenge}\"\n",
            free_port(),
            pebble.directory(),
            pebble.ca().display(),
        );
        let mut node = Node::prepare(&sections);
        pebble.run(node.http(), node.config.proxy.https[0]).await;
        node.run();
        node.be_healthy().await;
        Bed { pebble, node }
    }

    fn https(&self) -> SocketAddr {
        self.node.config.proxy.https[0]
    }

    fn visit(&self, name: &str) -> Result<Visit, String> {
        Visit::open(self.https(), name, &self.pebble.root())
    }

    /// Once the front shows a certificate of the directory that is not `old`.
    async fn shown(&self, name: &str, old: Option<&[u8]>) -> Visit {
        eventually(&format!("{name} is shown"), async || match self.visit(name) {
            Ok(visit) if old != Some(&visit.leaf()) => Ok(visit),
            Ok(_) => Err("the old one still".to_string()),
            Err(error) => Err(format!("{error}; {}", self.list())),
        })
        .await
    }

    fn list(&self) -> Value {
        serde_json::from_str(&self.node.command(&["cert", "list", "--output", "json"]).out).unwrap_or_default()
    }

    fn row(&self, name: &str) -> Value {
        let rows = self.list();
        let mut rows = rows.as_array().unwrap().iter();
        rows.find(|row| row["names"][0] == name).cloned().unwrap_or_default()
    }

    fn must(&self, arguments: &[&str]) -> String {
        let ran = self.node.command(arguments);
        assert_eq!(
            ran.code,
            0,
            "{arguments:?}: {}{}\n{}",
            ran.out,
            ran.err,
            self.node.log()
        );
        ran.out
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs pebble: make test-acme"]
async fn certificates_come_and_go_and_connections_stay() {
    let bed = Bed::start("http-01").await;
    // The names of the configuration, without being told.
    let mut first = bed.shown(PORTAL, None).await;
    assert!(first.ask("/").starts_with("HTTP/1.1 "));
    let row = bed.row(PORTAL);
    assert!(row["issuer"].as_str().unwrap().contains("Pebble"), "{row}");
    assert!(row["renewal"].as_u64() > Some(0) && row["error"].is_null(), "{row}");

    bed.must(&["cert", "renew", PORTAL]);
    let renewed = bed.shown(PORTAL, Some(&first.leaf())).await;
    assert!(first.ask("/").starts_with("HTTP/1.1 "), "the connection goes on");

    assert_eq!(bed.pebble.status(&renewed.serial()), "Valid");
    bed.must(&["cert", "revoke", PORTAL]);
    assert_eq!(bed.pebble.status(&renewed.serial()), "Revoked");
    let again = bed.shown(PORTAL, Some(&renewed.leaf())).await;
    assert_eq!(bed.pebble.status(&again.serial()), "Valid");

    let out = bed.must(&["cert", "issue", "A.example", "b.example"]);
    assert!(out.contains("a.example b.example: issued by Pebble"), "{out}");
    let (one, two) = (bed.shown("a.example", None).await, bed.shown("b.example", None).await);
    assert_eq!(one.leaf(), two.leaf());
    assert_ne!(one.leaf(), again.leaf());
    assert!(bed.visit("c.example").is_err(), "the self-signed one is shown");

    let refused = bed.node.command(&["cert", "issue", BLOCKED]);
    assert!(
        refused.code == 1 && refused.err.contains("rejectedIdentifier"),
        "{}",
        refused.err
    );
    let row = bed.row(BLOCKED);
    assert!(
        row["error"].as_str().unwrap().contains("rejectedIdentifier") && row["attempts"] == 1,
        "{row}"
    );
    bed.must(&["cert", "remove", BLOCKED]);
    assert_eq!(bed.row(BLOCKED), Value::Null);
    own_certificates(&bed).await;
    no_key_is_seen(&bed);
}

async fn own_certificates(bed: &Bed) {
    let place = |name: &str, text: &str| {
        let path = bed.node.file.with_file_name(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (chain, key) = self_signed(vec!["*.wild.example".into()]).unwrap();
    let (_, other) = self_signed(vec!["*.wild.example".into()]).unwrap();
    let (chain_at, key_at, other_at) = (
        place("own.pem", &chain),
        place("own.key", &key),
        place("other.key", &other),
    );
    let refused = bed.node.command(&["cert", "import", &chain_at, &other_at]);
    assert!(
        refused.code == 1 && refused.err.contains("does not belong"),
        "{}",
        refused.err
    );
    bed.must(&["cert", "import", &chain_at, &key_at]);
    let address = bed.https();
    eventually("the wildcard is shown", async || {
        Visit::open(address, "x.wild.example", &chain)
    })
    .await;
    assert!(Visit::open(address, "x.y.wild.example", &chain).is_err());
    let row = bed.row("*.wild.example");
    assert!(row["from"] == "import" && row["renewal"].is_null(), "{row}");
    bed.must(&["cert", "remove", "*.wild.example"]);
    eventually("the wildcard is shown no more", async || {
        match Visit::open(address, "x.wild.example", &chain) {
            Ok(_) => Err("it is"),
            Err(_) => Ok(()),
        }
    })
    .await;
}

fn no_key_is_seen(bed: &Bed) {
    let secret = fs::metadata(bed.node.config.cert_key()).unwrap();
    assert_eq!(secret.permissions().mode() & 0o777, 0o640);
    let registry = bed.must(&["registry", "show", "--output", "json"]);
    assert!(registry.contains("cert.of.") && registry.contains("cert.account."));
    for (what, text) in [("log", bed.node.log()), ("registry", registry)] {
        assert!(
            !text.contains("PRIVATE KEY") && !text.contains("key_pkcs8"),
            "a key is in the {what}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs pebble: make test-acme"]
async fn challenges_by_tls_are_answered_and_a_directory_that_forgot_us_is_met_anew() {
    let mut bed = Bed::start("tls-alpn-01").await;
    let first = bed.shown(PORTAL, None).await;
    bed.must(&["cert", "issue", "a.example", "b.example"]);
    bed.shown("b.example", None).await;
    // Nothing is shown to who asks without there being a challenge: the handshake fails, and the front serves on.
    let (http, tls) = (bed.node.http(), bed.https());
    bed.pebble.run(http, tls).await;
    let forgotten = bed.node.command(&["cert", "renew", PORTAL]);
    assert!(
        forgotten.code == 1 && forgotten.err.contains("accountDoesNotExist"),
        "{}",
        forgotten.err
    );
    bed.must(&["cert", "renew", PORTAL]);
    bed.shown(PORTAL, Some(&first.leaf())).await;
}
