//! Councils on their threads, over real loopback TLS. The data path is a task that does at once whatever it is asked for.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::driver::{COUNCIL, Parts, Seat, start};
use super::shard::SHARDS;
use super::{Event, Filled, Stage, Standing, Teller, Timing, Told};
use crate::base::{BoxFuture, Scope, clock};
use crate::cluster::{Fit, Member, Snapshot, Standing as Wanted};
use crate::net::listen;
use crate::net::mesh::identity::{Authority, NodeKey};
use crate::net::mesh::{Fault, Handler, Identity, Limits, Name, Server, TcpDial, Tls};

/// Two busy processors pause a thread for longer than a fifth of a second.
const LEASE: Duration = Duration::from_millis(600);

/// Does not let through what comes from or to a node that is cut off.
struct Gate {
    own: Name,
    inner: Arc<dyn Handler>,
    cut: Arc<Mutex<BTreeSet<Name>>>,
}

impl Handler for Gate {
    fn call<'a>(&'a self, peer: &'a Identity, body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        let cut = self.cut.lock().unwrap();
        match cut.contains(&self.own) || cut.contains(&peer.node) {
            true => Box::pin(std::future::ready(Err(Fault::Busy))),
            false => self.inner.call(peer, body),
        }
    }
}

struct Bed {
    authority: Authority,
    addresses: Arc<Mutex<HashMap<Name, SocketAddr>>>,
    cut: Arc<Mutex<BTreeSet<Name>>>,
    newest: watch::Sender<Arc<Snapshot>>,
    nodes: Vec<(Name, Standing, Scope)>,
    tellers: Vec<Teller>,
    scope: Scope,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

impl Bed {
    async fn new(names: &[&str]) -> Self {
        let member = |node: &&str| Member {
            name: node.to_string(),
            address: None,
            standing: Wanted::Member,
            is_live: true,
            fit: Fit::NONE,
        };
        let snapshot = Snapshot {
            revision: 1,
            nodes: names.iter().map(member).collect(),
            ..Snapshot::default()
        };
        let mut bed = Bed {
            authority: Authority::generate(name("c")).unwrap(),
            addresses: Arc::default(),
            cut: Arc::default(),
            newest: watch::Sender::new(Arc::new(snapshot)),
            nodes: Vec::new(),
            tellers: Vec::new(),
            scope: Scope::new(),
        };
        for node in names {
            bed.start(&name(node));
        }
        bed
    }

    fn tls(&self, node: &Name) -> Arc<Tls> {
        let key = NodeKey::generate().unwrap();
        let life = Duration::from_secs(3600);
        let signed = self.authority.sign(&key.request().unwrap(), node, life).unwrap();
        Arc::new(Tls::new(self.authority.certificate(), signed.der().clone(), &key).unwrap())
    }

    fn start(&mut self, own: &Name) {
        let (tls, known, scope) = (self.tls(own), self.addresses.clone(), self.scope.child());
        let dial = TcpDial {
            tls: tls.clone(),
            addresses: Arc::new(move |name| known.lock().unwrap().get(name).copied()),
        };
        let parts = Parts {
            own: own.clone(),
            keeps_cache: true,
            timing: Timing::of(LEASE),
            snapshots: self.newest.subscribe(),
            dial: Arc::new(dial),
        };
        let Seat {
            standing,
            mut events,
            teller,
            handler,
            over: _,
        } = start(parts, &scope).unwrap();
        let gate: Arc<dyn Handler> = Arc::new(Gate {
            own: own.clone(),
            inner: handler,
            cut: self.cut.clone(),
        });
        let listener = listen::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        self.addresses
            .lock()
            .unwrap()
            .insert(own.clone(), listener.local_addr().unwrap());
        let server = Arc::new(Server {
            tls,
            services: [(COUNCIL, gate)].into_iter().collect(),
            streams: None,
            limits: Limits::default(),
        });
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        self.scope.spawn(server.serve(listener, self.scope.clone()));
        let says = teller.clone();
        self.scope.spawn(async move {
            while let Some(event) = events.recv().await {
                obey(event, &says).await;
            }
        });
        self.tellers.push(teller);
        self.nodes.push((own.clone(), standing, scope));
    }

    /// How many shards each node serves now.
    fn served(&self) -> Vec<usize> {
        let served = |standing: &Standing| match standing.is_leased(clock::boot()) {
            true => standing.state().served().len(),
            false => 0,
        };
        self.nodes.iter().map(|(_, standing, _)| served(standing)).collect()
    }

    async fn eventually(&self, what: &str, is: impl Fn(&[usize]) -> bool) {
        let end = tokio::time::Instant::now() + Duration::from_secs(90);
        loop {
            let served = self.served();
            let sum: usize = served.iter().sum();
            assert!(sum <= SHARDS, "served twice: {served:?}");
            if sum == SHARDS && is(&served) {
                return;
            }
            assert!(tokio::time::Instant::now() < end, "{what}: {served:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn obey(event: Event, teller: &Teller) {
    match event {
        Event::Stop(next) => teller.tell(Told::Stopped(next.epoch())).await,
        Event::Empty { incarnation } => teller.tell(Told::Emptied { incarnation }).await,
        Event::Commit(placement) => {
            let nodes = placement.table().nodes.iter();
            for node in nodes.filter(|node| node.stage == Stage::Filling) {
                let filled = Filled {
                    node: node.name.clone(),
                    incarnation: node.incarnation,
                    epoch: placement.epoch(),
                };
                teller.tell(Told::Filled(filled)).await;
            }
        }
        Event::Alone | Event::Rejoined => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_share_the_shards_and_go_on_without_any_one_of_them() {
    let bed = Bed::new(&["n1", "n2", "n3"]).await;
    let all = |served: &[usize]| served.iter().all(|count| *count > 100);
    bed.eventually("three serve", all).await;
    // One of them leads.
    for victim in 0..3 {
        bed.cut.lock().unwrap().insert(bed.nodes[victim].0.clone());
        bed.eventually("two serve", |served| served[victim] == 0).await;
        bed.cut.lock().unwrap().clear();
        bed.eventually("three serve again", all).await;
    }
    let leaving = &bed.nodes[0].2;
    leaving.drain();
    bed.eventually("the others serve when one leaves", |served| served[0] == 0)
        .await;
    bed.scope.stop(LEASE * 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_can_keep_nothing_leaves_until_it_can() {
    let bed = Bed::new(&["n1", "n2", "n3"]).await;
    let all = |served: &[usize]| served.iter().all(|count| *count > 100);
    bed.eventually("three serve", all).await;
    // One of them leads, and goes on leading.
    for (victim, teller) in bed.tellers.iter().enumerate() {
        teller.tell(Told::Lost).await;
        bed.eventually("two serve", |served| served[victim] == 0).await;
        teller.tell(Told::Able).await;
        bed.eventually("three serve again", all).await;
    }
    for teller in &bed.tellers {
        teller.tell(Told::Lost).await;
    }
    let end = tokio::time::Instant::now() + Duration::from_secs(90);
    while bed.served().iter().sum::<usize>() > 0 {
        assert!(tokio::time::Instant::now() < end, "{:?}", bed.served());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for teller in &bed.tellers {
        teller.tell(Told::Able).await;
    }
    bed.eventually("three begin anew", all).await;
    bed.scope.stop(LEASE * 4).await;
}
