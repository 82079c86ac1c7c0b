//! Keeping connections, over pipes in memory and in paused time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::duplex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::*;
use crate::base::{BoxFuture, Scope};

const LONG: Duration = Duration::from_secs(60);

/// A network of one node that echoes.
#[derive(Default)]
struct Network {
    away: AtomicBool,
    dials: AtomicUsize,
    renewal: Arc<Notify>,
    /// Of the newest connection: its server's.
    server: Mutex<Scope>,
}

struct Echo;

impl Handler for Echo {
    fn call<'a>(&'a self, _peer: &'a Identity, body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(3)).await;
            Ok(body)
        })
    }
}

impl Dial for Network {
    fn dial<'a>(
        &'a self,
        _node: &'a Name,
        _protocol: Protocol,
    ) -> BoxFuture<'a, Result<Box<dyn Stream>, ConnectError>> {
        Box::pin(async move {
            self.dials.fetch_add(1, Ordering::SeqCst);
            if self.away.load(Ordering::SeqCst) {
                return Err(ConnectError::TimedOut);
            }
            let (near, far) = duplex(4096);
            let server = Scope::new();
            *self.server.lock().expect("not poisoned") = server.clone();
            let services: Services = [(1, Arc::new(Echo) as Arc<dyn Handler>)].into_iter().collect();
            let peer = "bitrix-node://c/n1".parse().expect("an identity");
            let scope = server.clone();
            server.spawn(async move {
                services
                    .serve(far, peer, Limits::default(), &scope, scope.draining())
                    .await
            });
            Ok(Box::new(near) as Box<dyn Stream>)
        })
    }

    fn renewed(&self) -> BoxFuture<'static, ()> {
        let renewal = self.renewal.clone();
        Box::pin(async move { renewal.notified().await })
    }
}

impl Network {
    fn dials(&self) -> usize {
        self.dials.load(Ordering::SeqCst)
    }

    fn server(&self) -> Scope {
        self.server.lock().expect("not poisoned").clone()
    }
}

fn mesh() -> (Arc<Network>, Mesh, Peer, Scope) {
    let network = Arc::new(Network::default());
    let scope = Scope::new();
    let mesh = Mesh::new(network.clone(), Limits::default(), &scope);
    let peer = mesh.peer(&"n2".parse().expect("a name"));
    (network, mesh, peer, scope)
}

async fn call(peer: &Peer) -> Result<Bytes, CallError> {
    peer.call(Class::Calls, 1, Bytes::from_static(b"x"), LONG).await
}

/// Sixteen callers without pause; none may fail.
async fn load(peer: &Peer, calls: usize) {
    let one = async |_| {
        for _ in 0..calls {
            assert_eq!(call(peer).await.expect("never fails"), "x");
        }
    };
    futures_util::future::join_all((0..16).map(one)).await;
}

#[tokio::test(start_paused = true)]
async fn calls_and_bulk_have_connections_of_their_own() {
    let (network, mesh, peer, _scope) = mesh();
    load(&peer, 10).await;
    assert_eq!(network.dials(), 1);
    let again = mesh.peer(peer.node());
    again.call(Class::Bulk, 1, Bytes::new(), LONG).await.expect("answered");
    assert_eq!(network.dials(), 2);
}

#[tokio::test(start_paused = true)]
async fn renewal_under_load_fails_no_call() {
    let (network, _mesh, peer, _scope) = mesh();
    let renew = async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(3)).await;
            network.renewal.notify_one();
        }
    };
    tokio::join!(load(&peer, 25_000), renew);
    assert_eq!(network.dials(), 21);
}

#[tokio::test(start_paused = true)]
async fn connection_is_replaced_when_it_is_old() {
    let (network, _mesh, peer, _scope) = mesh();
    call(&peer).await.expect("answered");
    tokio::time::sleep(keeper::AGE).await;
    call(&peer).await.expect("answered");
    assert_eq!(network.dials(), 2);
}

#[tokio::test(start_paused = true)]
async fn server_that_leaves_fails_no_call() {
    let (network, _mesh, peer, _scope) = mesh();
    let leave = async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(3)).await;
            network.server().drain();
        }
    };
    tokio::join!(load(&peer, 25_000), leave);
    assert_eq!(network.dials(), 21);
}

#[tokio::test(start_paused = true)]
async fn node_that_is_away_is_known_at_once_and_found_again() {
    let (network, _mesh, peer, _scope) = mesh();
    call(&peer).await.expect("answered");
    network.away.store(true, Ordering::SeqCst);
    network.server().stop(Duration::ZERO).await;
    while call(&peer).await.is_ok() {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let since = Instant::now();
    let error = call(&peer).await.expect_err("away");
    assert!(matches!(error, CallError::NotSent(Why::Unreachable(_))), "{error}");
    assert_eq!(since.elapsed(), Duration::ZERO);

    let before = network.dials();
    tokio::time::sleep(Duration::from_secs(100)).await;
    let tries = network.dials() - before;
    assert!((50..=110).contains(&tries), "every one to two seconds: {tries}");

    network.away.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(2)).await;
    call(&peer).await.expect("found again");
}

#[tokio::test(start_paused = true)]
async fn connection_that_ends_at_once_is_not_retried_in_a_busy_loop() {
    let (network, _mesh, peer, _scope) = mesh();
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(20) {
        let _ = call(&peer).await;
        network.server().stop(Duration::ZERO).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(network.dials() < 40, "{}", network.dials());
}

#[tokio::test(start_paused = true)]
async fn drained_mesh_finishes_and_refuses() {
    let (network, _mesh, peer, scope) = mesh();
    call(&peer).await.expect("answered");
    let under_way = call(&peer);
    let stop = async {
        tokio::task::yield_now().await;
        assert!(scope.stop(LONG).await);
    };
    let (finished, ()) = tokio::join!(under_way, stop);
    finished.expect("finished");
    assert_eq!(call(&peer).await, Err(CallError::NotSent(Why::Stopped)));
    assert!(
        network.server().stop(Duration::from_secs(1)).await,
        "nothing is left at the server"
    );
}

#[tokio::test(start_paused = true)]
async fn forgotten_node_is_let_go() {
    let (network, mesh, peer, _scope) = mesh();
    call(&peer).await.expect("answered");
    mesh.forget(peer.node());
    drop(peer);
    assert!(
        network.server().stop(Duration::from_secs(1)).await,
        "the connection was closed"
    );
}
