//! The mesh over real loopback TCP with certificates of a generated authority: who is let in, calls under load and
//! renewal, HTTP/2 with many silent and dropped streams.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitrix_node::base::{BoxFuture, Scope};
use bitrix_node::net::mesh::identity::{Authority, NodeKey};
use bitrix_node::net::mesh::{
    Body, ByteStream, CallError, Class, ConnectError, Dial, Fault, Handler, Identity, Limits, Mesh, Name, OpenError,
    Peer, Protocol, Server, Services, Stream, Streams, TcpDial, Tls, Tunnel, Why, empty, serve_streams,
};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};

const LONG: Duration = Duration::from_secs(60);
const LIFE: Duration = Duration::from_secs(3600);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A node's TLS with a fresh certificate of that life.
fn tls(authority: &Authority, node: &str, life: Duration) -> Arc<Tls> {
    let key = NodeKey::generate().unwrap();
    let signed = authority.sign(&key.request().unwrap(), &name(node), life).unwrap();
    Arc::new(Tls::new(authority.certificate(), signed.der().clone(), &key).unwrap())
}

/// What the authority would never sign: any identity, already expired or not.
fn forged(authority: &Authority, uri: &str, expired: bool) -> Arc<Tls> {
    let key = NodeKey::generate().unwrap();
    let public = rcgen::KeyPair::from_pem(&key.to_pem()).unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
    if expired {
        parameters.not_after = rcgen::date_time_ymd(2020, 1, 1);
    }
    let issuer = rcgen::KeyPair::from_pem(&authority.key_pem()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(authority.certificate_pem(), issuer).unwrap();
    let signed = parameters.signed_by(&public, &issuer).unwrap();
    Arc::new(Tls::new(authority.certificate(), signed.der().clone(), &key).unwrap())
}

fn renew(tls: &Tls, authority: &Authority, node: &str) {
    let key = NodeKey::generate().unwrap();
    let signed = authority.sign(&key.request().unwrap(), &name(node), LIFE).unwrap();
    tls.replace(authority.certificate(), signed.der().clone(), &key)
        .unwrap();
}

/// Service 1: answers `NODE:BODY`, after a delay that differs from call to call.
struct Greeter(AtomicUsize);

impl Handler for Greeter {
    fn call<'a>(&'a self, peer: &'a Identity, body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            let turns = self.0.fetch_add(1, Ordering::Relaxed) * 7919 % 13;
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            Ok(Bytes::from([peer.node.as_str().as_bytes(), b":", &body].concat()))
        })
    }
}

struct Hang;

impl Handler for Hang {
    fn call<'a>(&'a self, _peer: &'a Identity, _body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(std::future::pending())
    }
}

/// `/silent` is never answered; other requests are echoed. Streams to `echo:1` are echoed, others refused.
struct Echo;

impl Streams for Echo {
    fn request<'a>(&'a self, _peer: &'a Identity, request: Request<Incoming>) -> BoxFuture<'a, Response<Body>> {
        Box::pin(async move {
            if request.uri().path() == "/silent" {
                return std::future::pending().await;
            }
            Response::new(request.into_body().map_err(Into::into).boxed_unsync())
        })
    }

    fn open<'a>(&'a self, _peer: &'a Identity, authority: &'a str) -> BoxFuture<'a, Result<Tunnel, StatusCode>> {
        Box::pin(async move {
            if authority != "echo:1" {
                return Err(StatusCode::BAD_GATEWAY);
            }
            let tunnel = |stream: ByteStream| -> BoxFuture<'static, ()> {
                Box::pin(async move {
                    let (mut read, mut write) = tokio::io::split(stream);
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    let _ = write.shutdown().await;
                })
            };
            Ok(Box::new(tunnel) as Tunnel)
        })
    }
}

/// Node n2 serving, node n1 dialling it.
struct World {
    authority: Authority,
    address: SocketAddr,
    near: Arc<Tls>,
    far: Arc<Tls>,
    client: Scope,
    server: Scope,
    mesh: Mesh,
}

impl World {
    async fn new() -> Self {
        let authority = Authority::generate(name("c")).unwrap();
        let (near, far) = (tls(&authority, "n1", LIFE), tls(&authority, "n2", LIFE));
        let (client, server) = (Scope::new(), Scope::new());
        let address = serve(far.clone(), &server).await;
        let dial = dial(near.clone(), address);
        let mesh = Mesh::new(dial, Limits::default(), &client);
        World {
            authority,
            address,
            near,
            far,
            client,
            server,
            mesh,
        }
    }

    fn peer(&self) -> Peer {
        self.mesh.peer(&name("n2"))
    }
}

async fn serve(tls: Arc<Tls>, scope: &Scope) -> SocketAddr {
    let handlers: [(u16, Arc<dyn Handler>); 2] = [(1, Arc::new(Greeter(AtomicUsize::new(0)))), (2, Arc::new(Hang))];
    let server = Server {
        tls,
        services: handlers.into_iter().collect::<Services>(),
        streams: Some(Arc::new(Echo)),
        limits: Limits::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    scope.spawn(Arc::new(server).serve(listener, scope.clone()));
    address
}

fn dial(tls: Arc<Tls>, address: SocketAddr) -> Arc<TcpDial> {
    let addresses = Arc::new(move |_: &Name| Some(address));
    Arc::new(TcpDial { tls, addresses })
}

async fn refusal(tls: Arc<Tls>, address: SocketAddr, node: &str) -> ConnectError {
    let dial = dial(tls, address);
    let result = dial.dial(&name(node), Protocol::Call).await;
    result.err().expect("refused")
}

#[tokio::test]
async fn only_the_dialled_node_of_this_cluster_is_accepted() {
    let world = World::new().await;
    let wrong = refusal(world.near.clone(), world.address, "n3").await;
    assert!(
        matches!(&wrong, ConnectError::WrongNode { wanted, found }
        if wanted.as_str() == "n3" && found.as_str() == "n2"),
        "{wrong}"
    );

    let foreign = Authority::generate(name("c")).unwrap();
    let stranger = refusal(tls(&foreign, "n1", LIFE), world.address, "n2").await;
    assert!(matches!(stranger, ConnectError::ForeignAuthority), "{stranger}");

    let scope = Scope::new();
    let expired = serve(forged(&world.authority, "bitrix-node://c/n2", true), &scope).await;
    let refused = refusal(world.near.clone(), expired, "n2").await;
    assert!(matches!(refused, ConnectError::Expired), "{refused}");
}

#[tokio::test]
async fn certificate_of_another_cluster_is_refused() {
    let world = World::new().await;
    let scope = Scope::new();
    let other = forged(&world.authority, "bitrix-node://other/n2", false);
    let error = refusal(world.near.clone(), serve(other, &scope).await, "n2").await;
    assert!(
        matches!(&error, ConnectError::WrongCluster { found, .. } if found.as_str() == "other"),
        "{error}"
    );
}

#[tokio::test]
async fn plain_text_is_refused_on_both_sides() {
    let world = World::new().await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    // A fatal alert (RFC 8446 §6): content type 21.
    assert!(answer.is_empty() || answer.first() == Some(&21), "{answer:?}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let scope = Scope::new();
    scope.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
        stream.read_to_end(&mut Vec::new()).await
    });
    let error = refusal(world.near.clone(), address, "n2").await;
    assert!(matches!(error, ConnectError::PlainText), "{error}");
}

/// The dialler trusts the server, but not the other way round.
#[tokio::test]
async fn dialler_with_a_bad_certificate_never_gets_a_call_through() {
    let world = World::new().await;
    let bad = forged(&world.authority, "bitrix-node://c/n1", true);
    let scope = Scope::new();
    let mesh = Mesh::new(dial(bad, world.address), Limits::default(), &scope);
    let peer = mesh.peer(&name("n2"));
    let call = peer
        .call(Class::Calls, 1, Bytes::new(), LONG)
        .await
        .expect_err("refused");
    assert!(matches!(call, CallError::NotSent(Why::Unreachable(_))), "{call}");
    let request = Request::get("http://n2/").body(empty()).unwrap();
    let request = peer.request(request, LONG).await.expect_err("refused");
    assert!(matches!(request, CallError::NotSent(Why::Unreachable(_))), "{request}");
}

async fn greet(peer: &Peer, caller: usize, rounds: usize) {
    for round in 0..rounds {
        let body = format!("{caller}/{round}");
        let reply = peer.call(Class::Calls, 1, body.clone(), LONG).await;
        assert_eq!(reply.unwrap(), format!("n1:{body}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_get_their_own_replies() {
    let world = World::new().await;
    let peer = world.peer();
    for callers in [16, 256] {
        join_all((0..callers).map(|caller| greet(&peer, caller, 50))).await;
    }
    let pulse = peer.pulse(Class::Calls).unwrap();
    assert!(pulse.round_trip.is_some());
    assert!(world.client.stop(LONG).await);
    assert!(world.server.stop(LONG).await);
}

#[tokio::test]
async fn certificates_are_replaced_under_load_without_a_failed_call() {
    let world = World::new().await;
    let peer = world.peer();
    let load = join_all((0..32).map(|caller| greet(&peer, caller, 500)));
    let renewal = async {
        for turn in 0..10 {
            // Something must have gone over the newest connections.
            greet(&peer, 100, 20).await;
            let (tls, node) = if turn % 2 == 0 {
                (&world.near, "n1")
            } else {
                (&world.far, "n2")
            };
            renew(tls, &world.authority, node);
        }
    };
    tokio::join!(load, renewal);
}

#[tokio::test]
async fn killed_server_fails_calls_under_way_at_once() {
    let world = World::new().await;
    let peer = world.peer();
    greet(&peer, 0, 1).await;
    let calls = join_all((0..100).map(|_| peer.call(Class::Calls, 2, Bytes::new(), LONG)));
    let kill = async {
        greet(&peer, 0, 1).await;
        world.server.stop(Duration::ZERO).await;
    };
    let (results, ()) = tokio::join!(calls, kill);
    for result in results {
        // Neither a deadline nor silence: the closed connection itself.
        assert_eq!(result, Err(CallError::Unknown(Why::Closed)));
    }
}

async fn exchange(peer: &Peer, text: &str) {
    let body = Full::new(Bytes::from(text.to_string())).map_err(|never| match never {});
    let request = Request::post("http://n2/echo").body(body.boxed_unsync()).unwrap();
    let response = peer.request(request, LONG).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, text);
}

fn silent() -> Request<Body> {
    Request::get("http://n2/silent").body(empty()).unwrap()
}

#[tokio::test]
async fn thousand_silent_streams_do_not_stop_others() {
    let world = World::new().await;
    let peer = world.peer();
    let silent = join_all((0..1000).map(|_| peer.request(silent(), LONG)));
    let others = async {
        for round in 0..100 {
            exchange(&peer, &format!("{round}")).await;
        }
    };
    tokio::select! {
        biased;
        _ = silent => panic!("never answered"),
        () = others => {}
    }
}

#[tokio::test]
async fn streams_beyond_the_bound_are_refused_at_once() {
    let world = World::new().await;
    let peer = world.peer();
    exchange(&peer, "x").await;
    let mut held: Vec<_> = (0..4096).map(|_| Box::pin(peer.request(silent(), LONG))).collect();
    for request in &mut held {
        // Without the yield tokio's budget of one poll would make most of them wait before they begin.
        tokio::task::yield_now().await;
        assert!(request.as_mut().now_or_never().is_none());
    }
    let refused = peer.request(silent(), LONG).await.expect_err("full");
    assert_eq!(refused, CallError::NotSent(Why::Busy));
    drop(held);
    exchange(&peer, "room again").await;
}

#[tokio::test]
async fn dropped_streams_do_not_end_the_connection() {
    let world = World::new().await;
    let peer = world.peer();
    let stream = peer.open("echo:1", LONG).await.unwrap();
    for _ in 0..100 {
        let requests = begun(&peer, 20);
        // Behind them: the server has taken them.
        exchange(&peer, "between").await;
        drop(requests);
    }
    // On the same connection as at first.
    echoes(stream).await;
}

fn begun(peer: &Peer, count: usize) -> Vec<impl Future + Unpin> {
    let mut requests: Vec<_> = (0..count).map(|_| Box::pin(peer.request(silent(), LONG))).collect();
    for request in &mut requests {
        assert!(request.as_mut().now_or_never().is_none());
    }
    requests
}

/// Dials a pipe once.
struct Pipe(Mutex<Option<DuplexStream>>);

impl Dial for Pipe {
    fn dial<'a>(&'a self, _: &'a Name, _: Protocol) -> BoxFuture<'a, Result<Box<dyn Stream>, ConnectError>> {
        let end = self.0.lock().unwrap().take();
        let end = end.map(|end| Box::new(end) as Box<dyn Stream>);
        Box::pin(async move { end.ok_or(ConnectError::NoAddress) })
    }

    fn renewed(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

/// 1. The server stands still. 2. 500 streams are begun and dropped: it will see the end of each with its beginning,
/// of which the `h2` crate by itself bears 20. 3. The server goes on, and so does the connection.
#[tokio::test]
async fn streams_dropped_before_the_server_sees_them_do_not_end_the_connection() {
    let (near, far) = tokio::io::duplex(1 << 20);
    let scope = Scope::new();
    let mesh = Mesh::new(Arc::new(Pipe(Mutex::new(Some(near)))), Limits::default(), &scope);
    let peer = mesh.peer(&name("n2"));
    let identity = "bitrix-node://c/n1".parse().unwrap();
    let streams: Arc<dyn Streams> = Arc::new(Echo);
    let mut server = pin!(serve_streams(&streams, far, identity, &scope, std::future::pending()));
    tokio::select! {
        () = server.as_mut() => panic!("the connection ended"),
        () = exchange(&peer, "before") => {}
    }
    for _ in 0..5 {
        let requests = begun(&peer, 100);
        // Enough turns for the client to write them.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        drop(requests);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    tokio::select! {
        () = server.as_mut() => panic!("the connection ended"),
        () = exchange(&peer, "after") => {}
    }
}

async fn echoes(mut stream: ByteStream) {
    for round in 0..10u8 {
        stream.write_all(&[round; 5000]).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = [0; 5000];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [round; 5000]);
    }
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "the end is seen");
}

#[tokio::test]
async fn byte_streams_are_opened_or_refused() {
    let world = World::new().await;
    let peer = world.peer();
    let streams = join_all((0..50).map(|_| peer.open("echo:1", LONG))).await;
    join_all(streams.into_iter().map(|stream| echoes(stream.unwrap()))).await;
    let refused = peer.open("nowhere:1", LONG).await.err().expect("refused");
    assert_eq!(refused, OpenError::Refused(StatusCode::BAD_GATEWAY));
    let nonsense = peer.open("no authority", LONG).await.err().expect("refused");
    assert_eq!(nonsense, OpenError::Authority);
}

/// 1. A stream is opened. 2. Both certificates are replaced, requests go on over new connections.
/// 3. The stream on the first connection still works.
#[tokio::test]
async fn renewal_leaves_open_streams_alone() {
    let world = World::new().await;
    let peer = world.peer();
    let stream = peer.open("echo:1", LONG).await.unwrap();
    for round in 0..10 {
        match round % 2 {
            0 => renew(&world.near, &world.authority, "n1"),
            _ => renew(&world.far, &world.authority, "n2"),
        }
        for _ in 0..20 {
            exchange(&peer, "on").await;
        }
    }
    echoes(stream).await;
    assert!(world.client.stop(LONG).await);
    assert!(world.server.stop(LONG).await);
}
