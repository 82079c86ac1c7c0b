//! A real memcached that is lost: nothing old comes back, whatever it carries out late, and nothing new is overwritten.

use std::hash::RandomState;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::backend_tests::{Far, set};
use super::memcached_tests::{Memcached, own_address};
use super::*;
use crate::base::Scope;
use crate::cache::client_tests::PATIENCE;
use crate::cache::command::{Command, Get, Reply};
use crate::cache::store::Expiry;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_killed_and_started_anew_shows_nothing_old() {
    let address = own_address();
    let memcached = Memcached::start(address);
    let far = Far::new(memcached.address, RandomState::new()).await;
    far.execute(&set(b"k", b"old", Expiry::Never)).await;
    assert_eq!(far.value(b"k").await.as_deref(), Some(&b"old"[..]));
    drop(memcached);
    far.until_up(false).await;
    assert!(matches!(
        far.execute(&set(b"k", b"new", Expiry::Never)).await,
        Reply::Unavailable
    ));
    assert_eq!(far.value(b"k").await, None, "a failed read is a miss");
    assert!(
        matches!(far.execute(&Command::Get(Get::plain(b"s.1"))).await, Reply::Silence),
        "but for a session"
    );
    let again = Memcached::start(address);
    far.until_up(true).await;
    assert_eq!(far.value(b"k").await, None);
    far.execute(&set(b"k", b"newest", Expiry::Never)).await;
    assert_eq!(far.value(b"k").await.as_deref(), Some(&b"newest"[..]));
    drop(again);
    far.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_frozen_server_carries_out_late_is_nothing() {
    let memcached = Memcached::start(own_address());
    let far = Far::new(memcached.address, RandomState::new()).await;
    far.execute(&set(b"k", b"old", Expiry::Never)).await;
    memcached.freeze();
    let refused = far.execute(&set(b"k", b"late", Expiry::Never)).await;
    assert!(matches!(refused, Reply::Unavailable), "{refused:?}");
    far.until_up(false).await;
    memcached.thaw();
    far.until_up(true).await;
    // The server may still have it; nobody sees it.
    for _ in 0..50 {
        assert_eq!(far.value(b"k").await, None);
    }
    assert_eq!(far.backend.look(&Name::of(b"k")).await, Ok(None));
    far.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_of_this_node_sees_nothing_of_the_one_before() {
    let memcached = Memcached::start(own_address());
    let first = Far::new(memcached.address, RandomState::new()).await;
    first.execute(&set(b"k", b"old", Expiry::Never)).await;
    let second = Far::new(memcached.address, RandomState::new()).await;
    assert_eq!(second.value(b"k").await, None);
    // What the first one had sent before it ended comes late.
    first.execute(&set(b"k", b"late", Expiry::Never)).await;
    assert_eq!(second.value(b"k").await, None);
    for far in [first, second] {
        far.stop().await;
    }
}

/// A network before a server that can hold back what is sent over the connections that are open.
struct Network {
    address: SocketAddr,
    /// Whether it is open, of the connections from now on.
    gate: watch::Sender<watch::Sender<bool>>,
    /// Changes that the server has said it has carried out.
    stored: watch::Sender<usize>,
    scope: Scope,
}

impl Network {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
        let network = Network {
            address: listener.local_addr().expect("address"),
            gate: watch::Sender::new(watch::Sender::new(true)),
            stored: watch::Sender::new(0),
            scope: Scope::new(),
        };
        let (gate, stored, scope) = (network.gate.clone(), network.stored.clone(), network.scope.clone());
        network.scope.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(server).await.expect("it listens");
                let is_open = gate.borrow().subscribe();
                scope.spawn(carry(near, far, is_open, stored.clone()));
            }
        });
        network
    }

    /// What is sent over the connections of now waits until it is told `true`.
    fn hold(&self) -> watch::Sender<bool> {
        let held = self.gate.send_replace(watch::Sender::new(true));
        held.send_replace(false);
        held
    }
}

async fn carry(near: TcpStream, far: TcpStream, mut is_open: watch::Receiver<bool>, stored: watch::Sender<usize>) {
    let (mut asked, mut answers) = near.into_split();
    let (mut back, mut on) = far.into_split();
    let there = async {
        let mut buffer = vec![0; 4096];
        while let Ok(count @ 1..) = asked.read(&mut buffer).await {
            if is_open.wait_for(|is_open| *is_open).await.is_err() || on.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
        // The other end stays open: what was sent is carried out though nobody waits for it.
        std::future::pending().await
    };
    let here = async {
        let mut buffer = vec![0; 4096];
        while let Ok(count @ 1..) = back.read(&mut buffer).await {
            // Who asked may be gone.
            let _ = answers.write_all(&buffer[..count]).await;
            stored.send_modify(|stored| *stored += usize::from(buffer.starts_with(b"HD ")));
        }
    };
    tokio::join!(there, here);
}

/// 1. A change is held up between this node and the server, which is lost for that.
/// 2. It is back, and the item is stored anew.
/// 3. The server carries out the change.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_late_overwrites_nothing_new() {
    let memcached = Memcached::start(own_address());
    memcached.until_open().await;
    let network = Network::before(memcached.address).await;
    let far = Far::new(network.address, RandomState::new()).await;
    far.execute(&set(b"k", b"old", Expiry::Never)).await;
    let held = network.hold();
    let refused = far.execute(&set(b"k", b"late", Expiry::Never)).await;
    assert!(matches!(refused, Reply::Unavailable), "{refused:?}");
    far.until_up(false).await;
    far.until_up(true).await;
    assert_eq!(far.value(b"k").await, None);
    far.execute(&set(b"k", b"new", Expiry::Never)).await;
    let mut stored = network.stored.subscribe();
    assert_eq!(*stored.borrow(), 2);
    held.send_replace(true);
    let carried_out = stored.wait_for(|stored| *stored == 3);
    tokio::time::timeout(PATIENCE, carried_out)
        .await
        .expect("in time")
        .expect("it lives");
    assert_eq!(far.value(b"k").await.as_deref(), Some(&b"new"[..]));
    far.stop().await;
    network.scope.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_of_a_command_counts_for_other_nodes_though_the_server_is_lost_then() {
    let memcached = Memcached::start(own_address());
    let far = Far::new(memcached.address, RandomState::new()).await;
    let changed = far
        .backend
        .change(set(b"s.1", b"v", Expiry::Never))
        .await
        .expect("it is up");
    drop(memcached);
    far.until_up(false).await;
    assert!(far.backend.is_current(&changed));
    far.backend.flush(None, |_| true);
    assert!(!far.backend.is_current(&changed), "but not after a flush");
    far.stop().await;
}
