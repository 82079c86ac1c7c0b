//! Joins over real sockets, honest ones and attacks: who is refused, what the log says, and that nothing leaks.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tracing::subscriber::DefaultGuard;

use super::codec::{self, Answer, digest};
use super::*;
use data_encoding::HEXLOWER;

use crate::base::BoxFuture;
use crate::base::{Scope, clock};
use crate::host::verb::{Answer as Said, Root, Secrets, Verb};
use crate::net::mesh::identity::{Authority, Identity, NodeKey, certificate_from_pem};
use crate::net::mesh::{Class, Fingerprint, Limits, Mesh, Name, Server, Services, TcpDial, Tls, guest, identity};
use crate::registry::{
    Change, Key, MemoryRegistry, NodeState, PathFiles, Publish, Record, Registry, Token as Kept, Write,
};

const HOUR: Duration = Duration::from_secs(3600);
const LIMITS: Limits = Limits {
    body: 1 << 16,
    queued: 1 << 20,
    outstanding: 16,
    concurrent: 16,
    received: 1 << 20,
};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A supervisor that signs with the authority's key and has one secret.
struct Signer(Authority);

impl Root for Signer {
    fn ask<'a>(&'a self, verb: &'a Verb) -> BoxFuture<'a, io::Result<Said>> {
        Box::pin(async move {
            Ok(match verb {
                Verb::Sign { node, key } => Said::Certificate {
                    certificate: self.0.sign_key(key, &name(node), HOUR).unwrap().pem(),
                },
                Verb::Secrets => Said::Secrets(Secrets {
                    files: vec![("secrets/database.password".into(), "TOP-SECRET".into())],
                }),
                other => panic!("nobody asks for {other:?} here"),
            })
        })
    }
}

/// What was logged in this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn start() -> (Self, DefaultGuard) {
        let log = Log::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO);
        let lines = lines.with_writer(move || writer.clone()).finish();
        (log, tracing::subscriber::set_default(lines))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// A line with all of these words comes.
    async fn says(&self, words: &[&str]) {
        for _ in 0..500 {
            let text = self.text();
            if text.lines().any(|line| words.iter().all(|word| line.contains(word))) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{words:?} are not in\n{}", self.text());
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Node n1 of cluster c1, listening.
struct World {
    registry: Arc<dyn Registry>,
    address: SocketAddr,
    authority: Fingerprint,
    scope: Scope,
    log: Log,
    _logging: DefaultGuard,
}

impl World {
    async fn new() -> Self {
        Self::over(Arc::new(MemoryRegistry::new("n1"))).await
    }

    async fn over(registry: Arc<dyn Registry>) -> Self {
        let (log, logging) = Log::start();
        let authority = Authority::generate(name("c1")).unwrap();
        let key = NodeKey::generate().unwrap();
        let signed = authority.sign_key(&key.public(), &name("n1"), HOUR).unwrap();
        let tls = Arc::new(Tls::new(authority.certificate(), signed.der().clone(), &key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scope = Scope::new();
        let (fingerprint, pem) = (
            Fingerprint::of(authority.certificate()),
            authority.certificate_pem().to_string(),
        );
        let source = registry.clone();
        let door = Door::new(Arc::new(move || Some(source.clone())), Arc::new(Signer(authority)), pem);
        let server = Arc::new(Server {
            tls,
            services: Services::default(),
            streams: None,
            limits: LIMITS,
        });
        scope.spawn(server.serve_with(listener, Arc::new(door), scope.clone()));
        World {
            registry,
            address,
            authority: fingerprint,
            scope,
            log,
            _logging: logging,
        }
    }

    /// A token that the registry knows, for so many milliseconds from now on.
    async fn token(&self, milliseconds: i64) -> Token {
        let token = Token::generate(self.authority).unwrap();
        let now = i64::try_from(clock::unix().as_millis()).unwrap();
        let kept = Record::Token(Kept {
            id: token.id.clone(),
            hash: token.hash(),
            expires: u64::try_from(now + milliseconds).unwrap(),
        });
        self.registry.commit(Change::put(kept)).await.unwrap();
        token
    }

    async fn state(&self, node: &str) -> Option<NodeState> {
        let view = self.registry.read().await.unwrap();
        view.node(node).map(|node| node.state)
    }

    async fn stop(self) {
        self.scope.stop(Duration::ZERO).await;
    }
}

fn request(token: &Token, node: &str, key: &NodeKey) -> Request {
    Request {
        id: token.id.clone(),
        secret: token.secret.clone(),
        node: node.into(),
        address: "10.0.0.2:7400".into(),
        request: HEXLOWER.encode(&key.request().unwrap()),
        version: "1".into(),
    }
}

const SOON: i64 = 60_000;

#[tokio::test]
async fn a_machine_joins_and_may_ask_again_until_it_is_a_member() {
    let world = World::new().await;
    let (token, key) = (world.token(SOON).await, NodeKey::generate().unwrap());
    let met = meet(world.address, &token).await.unwrap();
    assert_eq!((met.cluster, met.own.ip()), (name("c1"), world.address.ip()));
    for _ in 0..2 {
        let welcome = ask(world.address, &token, &request(&token, "n2", &key)).await.unwrap();
        let certificate = certificate_from_pem(&welcome.certificate).unwrap();
        assert_eq!(Identity::of(&certificate).unwrap().to_string(), "bitrix-node://c1/n2");
        assert_eq!(identity::certified_key(&certificate).unwrap(), key.public());
        assert_eq!(welcome.secrets.files[0].1, "TOP-SECRET");
        assert_eq!(welcome.members, [("n2".to_string(), "10.0.0.2:7400".to_string())]);
        assert_eq!(world.state("n2").await, Some(NodeState::Joining));
    }
    let log = world.log.text();
    assert!(!log.contains(&token.secret) && !log.contains("TOP-SECRET"), "{log}");
    world.stop().await;
}

#[tokio::test]
async fn with_a_wrong_fingerprint_nothing_is_sent() {
    let (world, imposter) = (World::new().await, World::new().await);
    let token = world.token(SOON).await;
    // The imposter would take the token, if it were sent.
    let kept = Record::Token(Kept {
        id: token.id.clone(),
        hash: token.hash(),
        expires: u64::MAX,
    });
    imposter.registry.commit(Change::put(kept)).await.unwrap();
    let key = NodeKey::generate().unwrap();
    for refused in [
        meet(imposter.address, &token).await.err(),
        ask(imposter.address, &token, &request(&token, "n2", &key)).await.err(),
    ] {
        let refused = refused.expect("refused").to_string();
        assert!(refused.contains("another fingerprint") && refused.contains("nothing secret was sent"));
    }
    assert_eq!(imposter.state("n2").await, None);
    // It saw two machines turn away, before the handshake was over.
    imposter.log.says(&["WARN", "refused", "client.addr=127.0.0.1"]).await;
    world.stop().await;
    imposter.stop().await;
}

#[tokio::test]
async fn tokens_that_do_not_hold_are_refused_in_the_same_words_and_logged() {
    let world = World::new().await;
    let key = NodeKey::generate().unwrap();
    let (expired, mut wrong, revoked) = (world.token(-1).await, world.token(SOON).await, world.token(SOON).await);
    wrong.secret = Token::generate(world.authority).unwrap().secret;
    // As `token revoke` does, and the join of another machine.
    let remove = Change::default().and(Write::Remove(Key::Token(revoked.id.clone())));
    world.registry.commit(remove).await.unwrap();
    let mut texts = std::collections::BTreeSet::new();
    for (token, fault) in [(&expired, "Expired"), (&wrong, "Secret"), (&revoked, "Unknown")] {
        let refused = ask(world.address, token, &request(token, "n2", &key)).await;
        texts.insert(format!("{:#}", refused.err().expect("refused")));
        world
            .log
            .says(&["WARN", "refused", "client.addr=127.0.0.1", fault])
            .await;
    }
    assert_eq!(texts.len(), 1, "{texts:?}");
    let view = world.registry.read().await.unwrap();
    assert_eq!(view.nodes().count(), 0);
    assert_eq!(view.events.len(), 1, "one event within ten seconds");
    assert_eq!(view.events[0].text, "a request to join from 127.0.0.1 was refused");
    assert!(!world.log.text().contains(&wrong.secret));
    world.stop().await;
}

#[tokio::test]
async fn a_token_admits_one_machine_only() {
    let world = World::new().await;
    let (token, key) = (world.token(SOON).await, NodeKey::generate().unwrap());
    assert!(ask(world.address, &token, &request(&token, "n2", &key)).await.is_ok());
    let thief = NodeKey::generate().unwrap();
    let refused = ask(world.address, &token, &request(&token, "n2", &thief)).await;
    assert!(refused.err().expect("refused").to_string().contains("another key"));
    let refused = ask(world.address, &token, &request(&token, "n3", &thief)).await;
    assert!(refused.err().expect("refused").to_string().contains("used for n2"));
    // Somebody else's request, with a signature that is not his.
    let mut forged = request(&token, "n3", &key);
    let cut = forged.request.len() - 2;
    forged.request.truncate(cut);
    forged.request.push_str("00");
    assert!(ask(world.address, &token, &forged).await.is_err());
    assert_eq!(world.state("n3").await, None);
    world.stop().await;
}

#[tokio::test]
async fn a_stolen_view_lets_nobody_in() {
    let folder = tempfile::tempdir().unwrap();
    let files = PathFiles::open(folder.path()).await.unwrap();
    let world = World::over(Arc::new(Publish::new(Arc::new(files), "n1", 1, None))).await;
    let token = world.token(SOON).await;
    let image = std::fs::read(folder.path().join("v1")).unwrap();
    let has = |bytes: &[u8]| image.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(token.id.as_bytes()) && has(&token.hash()), "this is the view");
    assert!(!has(token.secret.as_bytes()) && !has(&HEXLOWER.decode(token.secret.as_bytes()).unwrap()));
    let key = NodeKey::generate().unwrap();
    let stolen = Token {
        secret: HEXLOWER.encode(&token.hash()),
        ..token.clone()
    };
    let refused = ask(world.address, &stolen, &request(&stolen, "n2", &key)).await;
    assert!(refused.err().expect("refused").to_string().contains("not valid"));
    assert_ne!(digest(&token.hash()), token.hash());
    world.log.says(&["WARN", "refused", "127.0.0.1", "Secret"]).await;
    assert!(ask(world.address, &token, &request(&token, "n2", &key)).await.is_ok());
    world.stop().await;
}

#[tokio::test]
async fn plain_text_and_noise_get_an_alert_at_most() {
    let world = World::new().await;
    for sent in [
        &b"GET / HTTP/1.1\r\nHost: n1\r\n\r\n"[..],
        &[0; 64],
        b"\x16\x03\x01\x00\x02xx",
    ] {
        let mut tcp = TcpStream::connect(world.address).await.unwrap();
        tcp.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        // The rest of what was sent is not read: the connection may be reset.
        let _ = tcp.read_to_end(&mut answer).await;
        assert!(answer.len() <= 7, "{answer:?}");
        assert!(answer.is_empty() || answer[0] == 0x15, "a TLS alert: {answer:?}");
    }
    let words = ["WARN", "refused", "client.addr=127.0.0.1", "does not speak TLS"];
    world.log.says(&words).await;
    world.stop().await;
}

/// Believes whatever it is shown, as an attacker's program does.
#[derive(Debug)]
struct Anything(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// A client that trusts anybody and shows nothing, with these protocols.
async fn anonymous(world: &World, protocols: &[&[u8]]) -> io::Result<usize> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let anything = Anything(provider.signature_verification_algorithms);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.dangerous().set_certificate_verifier(Arc::new(anything));
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let tcp = TcpStream::connect(world.address).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let anyone = ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into());
    let mut tls = connector.connect(anyone, tcp).await?;
    tls.read(&mut [0; 64]).await
}

#[tokio::test]
async fn without_a_certificate_only_the_protocol_of_guests_is_spoken() {
    let world = World::new().await;
    for protocols in [
        &[&b"bn-call/1"[..]][..],
        &[b"bn-join/1", b"bn-call/1"],
        &[b"bn-call/1", b"bn-join/1"],
        &[b"bn-join/2"],
        &[],
    ] {
        let refused = anonymous(&world, protocols).await;
        assert!(refused.is_err(), "{protocols:?}: {refused:?}");
    }
    world
        .log
        .says(&["WARN", "refused", "client.addr=127.0.0.1", "no certificate"])
        .await;
    world.stop().await;
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_refused() {
    let world = World::new().await;
    // Of the same names, and as good in all but the authority.
    let foreign = Authority::generate(name("c1")).unwrap();
    let key = NodeKey::generate().unwrap();
    let signed = foreign.sign_key(&key.public(), &name("n2"), HOUR).unwrap();
    let tls = Arc::new(Tls::new(foreign.certificate(), signed.der().clone(), &key).unwrap());
    let address = world.address;
    let dial = TcpDial {
        tls,
        addresses: Arc::new(move |_| Some(address)),
    };
    let mesh = Mesh::new(Arc::new(dial), LIMITS, &world.scope);
    let peer = mesh.peer(&name("n1"));
    let called = peer.call(Class::Calls, 1, "x", Duration::from_secs(3)).await;
    assert!(called.is_err());
    world.log.says(&["WARN", "refused", "client.addr=127.0.0.1"]).await;
    world.stop().await;
}

#[tokio::test]
async fn hostile_requests_cost_little_and_too_many_are_not_heard() {
    let world = World::new().await;
    let token = world.token(SOON).await;
    for sent in [&[0xff; 4][..], &[0, 0, 0, 2, b'{', b'}'], &[0, 0, 0, 1, 0xff]] {
        let tcp = TcpStream::connect(world.address).await.unwrap();
        let (mut tls, _) = guest::connect(tcp, world.authority).await.unwrap();
        tls.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        let _ = tls.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{answer:?}");
    }
    world
        .log
        .says(&["WARN", "refused", "client.addr=127.0.0.1", "too long"])
        .await;
    let key = NodeKey::generate().unwrap();
    let mut wrong = token.clone();
    wrong.secret = "0".repeat(64);
    let mut last = String::new();
    for _ in 0..12 {
        let refused = ask(world.address, &wrong, &request(&wrong, "n2", &key)).await;
        last = refused.err().expect("refused").to_string();
    }
    assert!(last.contains("too many attempts"), "{last}");
    let refused = ask(world.address, &token, &request(&token, "n2", &key)).await;
    assert!(refused.err().expect("refused").to_string().contains("too many"));
    world.stop().await;
}

#[tokio::test]
async fn an_answer_of_another_authority_is_not_believed() {
    // A node of the cluster whose program was changed to hand out another authority.
    let world = World::new().await;
    let token = world.token(SOON).await;
    let refused = Answer::Refused { why: "x".into() };
    assert!(codec::encode(&refused).len() < codec::REQUEST_MAX);
    let other = Authority::generate(name("c1")).unwrap();
    let welcome = Welcome {
        certificate: String::new(),
        authority: other.certificate_pem().into(),
        secrets: Secrets::default(),
        settings: Default::default(),
        members: Vec::new(),
    };
    let error = super::ask::check(&welcome, world.address, &token)
        .unwrap_err()
        .to_string();
    assert!(error.contains("another authority"), "{error}");
    world.stop().await;
}
