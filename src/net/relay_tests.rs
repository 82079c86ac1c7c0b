//! Relays over real loopback TLS: what passes, who waits, who is turned away and how, and that a change of hands cuts.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::listen;
use super::mesh::identity::{Authority, NodeKey};
use super::mesh::{Limits, Mesh, Name, OpenError, TcpDial, Tls, Tunnel};
use super::relay::*;
use super::tally::{More, Names};
use crate::base::{BoxFuture, Health, Scope};
use crate::metrics::names;

const LONG: Duration = Duration::from_secs(60);

const WORDS: Words = Words {
    authority: "thing",
    refusal: |why| match why {
        Refusal::Full => b"full".to_vec(),
        Refusal::Nobody => b"nobody".to_vec(),
        Refusal::Unreachable => b"unreachable".to_vec(),
    },
    metrics: Names {
        relayed: names::DB_RELAYED,
        refused: names::DB_REFUSED,
        more: Some(More {
            begun: names::DB_SESSIONS,
            cut: names::DB_CUT,
            seconds: names::DB_CONNECT_SECONDS,
        }),
    },
};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn holding(node: &str, epoch: u64) -> Vec<Holding> {
    let node = name(node);
    vec![Holding { node, epoch }]
}

/// Nodes that meet on loopback and are told by the test who holds the thing.
struct World {
    authority: Authority,
    holder: watch::Sender<Vec<Holding>>,
    addresses: Arc<Mutex<HashMap<Name, SocketAddr>>>,
    scope: Scope,
}

impl World {
    fn new() -> Self {
        World {
            authority: Authority::generate(name("c")).unwrap(),
            holder: watch::Sender::default(),
            addresses: Arc::default(),
            scope: Scope::new(),
        }
    }

    fn tls(&self, node: &str) -> Arc<Tls> {
        let key = NodeKey::generate().unwrap();
        let life = Duration::from_secs(3600);
        let signed = self.authority.sign(&key.request().unwrap(), &name(node), life).unwrap();
        Arc::new(Tls::new(self.authority.certificate(), signed.der().clone(), &key).unwrap())
    }

    fn dial(&self, node: &str) -> TcpDial {
        let known = self.addresses.clone();
        TcpDial {
            tls: self.tls(node),
            addresses: Arc::new(move |name| known.lock().unwrap().get(name).copied()),
        }
    }

    fn relay(&self) -> Arc<Relay> {
        let TcpDial { tls, addresses } = self.dial("n0");
        Relay::new(tls, addresses, self.holder.subscribe(), WORDS, &self.scope)
    }

    /// A node that believes in this holder; the test gets the service's end of each session.
    fn offer(&self, node: &str, believed: Holder) -> mpsc::Receiver<DuplexStream> {
        let (sender, sessions) = mpsc::channel(16);
        let connect: Connect = Arc::new(move || {
            let sender = sender.clone();
            Box::pin(async move {
                let (mut near, far) = duplex(1 << 10);
                sender.send(far).await.map_err(io::Error::other)?;
                let tunnel =
                    move |stream| -> BoxFuture<'static, ()> { Box::pin(async move { copy(&mut near, stream).await }) };
                Ok(Box::new(tunnel) as Tunnel)
            })
        });
        let offer = Offer::new(name(node), believed, WORDS, connect);
        let listener = listen::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        self.addresses.lock().unwrap().insert(name(node), address);
        offer.listen(listener, self.tls(node), &self.scope).unwrap();
        sessions
    }

    /// A client's end of a connection that is being relayed.
    fn connect(&self, relay: &Arc<Relay>) -> DuplexStream {
        let (near, far) = duplex(1 << 10);
        let relay = relay.clone();
        self.scope.spawn(async move { relay.carry(far).await });
        near
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(LONG, what).await.expect("in time")
}

/// All that comes until the end, an abrupt one included.
async fn rest(stream: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = soon(stream.read_to_end(&mut bytes)).await;
    bytes
}

async fn pass(from: &mut DuplexStream, to: &mut DuplexStream) {
    soon(from.write_all(b"ping")).await.unwrap();
    let mut got = [0; 4];
    soon(to.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"ping");
}

#[tokio::test]
async fn bytes_pass_both_ways_and_the_end_of_one_way_leaves_the_other() {
    let world = World::new();
    world.holder.send_replace(holding("n1", 1));
    let mut sessions = world.offer("n1", world.holder.subscribe());
    let relay = world.relay();
    let mut client = world.connect(&relay);
    let mut server = soon(sessions.recv()).await.unwrap();
    pass(&mut client, &mut server).await;
    pass(&mut server, &mut client).await;
    assert_eq!(relay.sessions(), 1);
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut server).await, b"");
    // What is on its way after the client's end still arrives, whole and in order.
    let answer: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let send = async {
        server.write_all(&answer).await.unwrap();
        drop(server);
    };
    let ((), got) = tokio::join!(send, rest(&mut client));
    assert!(got == answer, "{} bytes", got.len());
    while relay.sessions() > 0 {
        tokio::task::yield_now().await;
    }
    world.scope.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_session_goes_on_when_its_process_hears_nothing_of_the_holder_any_more() {
    let mut world = World::new();
    world.holder.send_replace(holding("n1", 1));
    let mut sessions = world.offer("n1", world.holder.subscribe());
    let relay = world.relay();
    let mut client = world.connect(&relay);
    let mut server = soon(sessions.recv()).await.unwrap();
    pass(&mut client, &mut server).await;
    // As when it is told to end.
    world.holder = watch::Sender::default();
    pass(&mut client, &mut server).await;
    pass(&mut server, &mut client).await;
    world.scope.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_reader_that_stops_stops_its_writer() {
    let world = World::new();
    world.holder.send_replace(holding("n1", 1));
    let mut sessions = world.offer("n1", world.holder.subscribe());
    let mut client = world.connect(&world.relay());
    let mut server = soon(sessions.recv()).await.unwrap();
    let (chunk, mut sent) = (vec![7; 64 << 10], 0);
    // It comes to rest when all that lies between is full: then a second has passed without a byte taken.
    while let Ok(written) = timeout(Duration::from_secs(1), server.write(&chunk)).await {
        sent += written.unwrap();
        assert!(sent < 64 << 20, "nothing holds the writer back");
    }
    drop(server);
    assert_eq!(rest(&mut client).await.len(), sent);
    world.scope.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn connections_wait_for_a_holder() {
    let world = World::new();
    let relay = world.relay();
    let mut sessions = world.offer("n1", world.holder.subscribe());
    let mut client = world.connect(&relay);
    assert!(client.read_u8().now_or_never().is_none());
    world.holder.send_replace(holding("n1", 1));
    let mut server = soon(sessions.recv()).await.unwrap();
    pass(&mut server, &mut client).await;
    world.scope.stop(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn who_waited_in_vain_gets_the_services_words_and_a_clean_end() {
    let world = World::new();
    let relay = world.relay();
    let start = Instant::now();
    let mut client = world.connect(&relay);
    // A client that speaks first does not spoil them.
    client.write_all(b"hello").await.unwrap();
    assert_eq!(rest(&mut client).await, b"nobody");
    assert!(start.elapsed() >= PATIENCE && start.elapsed() < 2 * PATIENCE);
    // The holder has no address that is known.
    world.holder.send_replace(holding("n1", 1));
    assert_eq!(rest(&mut world.connect(&relay)).await, b"unreachable");
    assert_eq!((relay.refused(), relay.sessions()), (2, 0));
    world.scope.stop(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn more_than_may_wait_are_turned_away_at_once() {
    let world = World::new();
    let relay = world.relay();
    let start = Instant::now();
    let mut waiting: Vec<DuplexStream> = (0..512).map(|_| world.connect(&relay)).collect();
    for client in &mut waiting {
        assert!(client.read_u8().now_or_never().is_none());
    }
    assert_eq!(rest(&mut world.connect(&relay)).await, b"full");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    for client in &mut waiting {
        assert_eq!(rest(client).await, b"nobody");
    }
    world.scope.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_change_of_hands_cuts_both_ends_at_once_and_the_next_session_goes_to_the_next_holder() {
    let world = World::new();
    world.holder.send_replace(holding("n1", 1));
    // The first one does not learn that it was deposed.
    let (late, believed) = watch::channel(holding("n1", 1));
    let mut first = world.offer("n1", believed);
    let mut second = world.offer("n2", world.holder.subscribe());
    let relay = world.relay();
    let mut client = world.connect(&relay);
    let mut server = soon(first.recv()).await.unwrap();
    pass(&mut client, &mut server).await;
    world.holder.send_replace(holding("n2", 2));
    assert_eq!(rest(&mut client).await, b"");
    assert_eq!(rest(&mut server).await, b"");
    let mut client = world.connect(&relay);
    let mut server = soon(second.recv()).await.unwrap();
    pass(&mut server, &mut client).await;
    // The same node with a new epoch is another holding.
    world.holder.send_replace(holding("n2", 3));
    assert_eq!(rest(&mut client).await, b"");
    assert_eq!(rest(&mut server).await, b"");
    drop(late);
    world.scope.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_deposed_node_cuts_the_sessions_of_those_who_do_not_know_it_yet() {
    let world = World::new();
    world.holder.send_replace(holding("n1", 1));
    let (told, believed) = watch::channel(holding("n1", 1));
    let mut sessions = world.offer("n1", believed);
    let mut client = world.connect(&world.relay());
    let mut server = soon(sessions.recv()).await.unwrap();
    pass(&mut client, &mut server).await;
    told.send_replace(holding("n2", 2));
    assert_eq!(rest(&mut server).await, b"");
    assert_eq!(rest(&mut client).await, b"");
    world.scope.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn nothing_but_the_service_is_reached_and_only_on_its_holder() {
    let world = World::new();
    world.holder.send_replace(holding("n1", 1));
    let _first = world.offer("n1", world.holder.subscribe());
    let _second = world.offer("n2", world.holder.subscribe());
    let mesh = Mesh::new(Arc::new(world.dial("n0")), Limits::default(), &world.scope);
    let refused = async |node: &str, authority: &str| {
        let opened = mesh.peer(&name(node)).open(authority, LONG).await;
        opened.map(drop).unwrap_err()
    };
    for foreign in ["127.0.0.1:22", "thing:3306", "other"] {
        let error = refused("n1", foreign).await;
        assert_eq!(error, OpenError::Refused(StatusCode::NOT_FOUND), "{foreign}");
    }
    let error = refused("n2", "thing").await;
    assert_eq!(error, OpenError::Refused(StatusCode::MISDIRECTED_REQUEST));
    world.scope.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn the_status_says_where_the_service_is() {
    let world = World::new();
    let relay = world.relay();
    let _sessions = world.offer("n1", world.holder.subscribe());
    let listener = listen::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    relay.listen(listener, &world.scope).unwrap();
    let becomes = async |health: Health, detail: &str| {
        let waited = async {
            while relay.status().health != health || !relay.status().detail.contains(detail) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let said = timeout(LONG, waited).await;
        assert!(said.is_ok(), "{:?}", relay.status());
    };
    becomes(Health::Degraded, "no node").await;
    world.holder.send_replace(holding("n1", 1));
    becomes(Health::Good, "on n1, 0 sessions").await;
    let client = TcpStream::connect(address).await.unwrap();
    becomes(Health::Good, "on n1, 1 session").await;
    let numbers = relay.metrics();
    for line in [
        "bitrix_db_relayed 1\n",
        "bitrix_db_sessions_total 1\n",
        "bitrix_db_connect_seconds_count 1\n",
    ] {
        assert!(numbers.contains(line), "{numbers}");
    }
    drop(client);
    world.holder.send_replace(holding("n2", 2));
    becomes(Health::Degraded, "on n2, which does not answer").await;
    world.scope.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn of_several_the_first_in_reach_has_the_session_until_it_is_none_of_them() {
    let world = World::new();
    let several = |nodes: &[&str]| nodes.iter().flat_map(|node| holding(node, 1)).collect::<Vec<_>>();
    // The first one has no address that is known.
    world.holder.send_replace(several(&["n1", "n2", "n3"]));
    let mut second = world.offer("n2", world.holder.subscribe());
    let mut third = world.offer("n3", world.holder.subscribe());
    let relay = world.relay();
    let mut client = world.connect(&relay);
    let mut server = soon(second.recv()).await.unwrap();
    // A better one, and another order, are no reason to go.
    world.holder.send_replace(several(&["n3", "n2"]));
    pass(&mut client, &mut server).await;
    let mut later = world.connect(&relay);
    let mut its = soon(third.recv()).await.unwrap();
    world.holder.send_replace(several(&["n3"]));
    assert_eq!(rest(&mut client).await, b"");
    assert_eq!(rest(&mut server).await, b"");
    pass(&mut later, &mut its).await;
    world.scope.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn services_behind_one_port_are_told_apart() {
    let world = World::new();
    let (holder, other) = (watch::Sender::new(holding("n1", 1)), watch::Sender::default());
    let connect: Connect = Arc::new(|| {
        let tunnel = |_| -> BoxFuture<'static, ()> { Box::pin(std::future::ready(())) };
        Box::pin(std::future::ready(Ok(Box::new(tunnel) as Tunnel)))
    });
    let words = Words {
        authority: "other",
        ..WORDS
    };
    let offers = vec![
        Offer::new(name("n1"), holder.subscribe(), WORDS, connect.clone()),
        Offer::new(name("n1"), other.subscribe(), words, connect),
    ];
    let listener = listen::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    world
        .addresses
        .lock()
        .unwrap()
        .insert(name("n1"), listener.local_addr().unwrap());
    Offer::listen_all(offers, listener, world.tls("n1"), &world.scope).unwrap();
    let mesh = Mesh::new(Arc::new(world.dial("n0")), Limits::default(), &world.scope);
    let opened = async |authority: &str| mesh.peer(&name("n1")).open(authority, LONG).await.map(drop);
    opened("thing").await.unwrap();
    let refused = OpenError::Refused(StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(opened("other").await.unwrap_err(), refused);
    other.send_replace(holding("n1", 1));
    opened("other").await.unwrap();
    world.scope.stop(Duration::ZERO).await;
}
