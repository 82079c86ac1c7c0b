//! Hubs with councils on their threads, over real loopback TLS: one order for all, whoever is cut off.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::channel::Address;
use super::hub::{Hub, Subscription, Wanted};
use super::message::{Body, Publication, Sender};
use super::metrics::Metrics;
use super::mid::Mid;
use super::order::wire;
use crate::base::{BoxFuture, Scope};
use crate::cluster::council::{self, COUNCIL, Seat, Timing};
use crate::cluster::{Fit, Member, Snapshot, Standing as Wish};
use crate::net::listen;
use crate::net::mesh::identity::{Authority, NodeKey};
use crate::net::mesh::{Dial, Fault, Handler, Identity, Limits, Mesh, Name, Server, TcpDial, Tls};

/// Two busy processors pause a thread for longer than a fifth of a second.
const LEASE: Duration = Duration::from_millis(600);
const PATIENCE: Duration = Duration::from_secs(90);

type Cut = Arc<Mutex<BTreeSet<Name>>>;

/// Does not let through what comes from or to a node that is cut off.
struct Gate {
    own: Name,
    inner: Arc<dyn Handler>,
    cut: Cut,
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
    cut: Cut,
    newest: watch::Sender<Arc<Snapshot>>,
    hubs: Vec<(Name, Arc<Hub>)>,
    scope: Scope,
}

impl Bed {
    fn new(names: &[&str]) -> Self {
        let member = |node: &&str| Member {
            name: node.to_string(),
            address: None,
            standing: Wish::Member,
            is_live: true,
            fit: Fit::NONE,
        };
        let snapshot = Snapshot {
            revision: 1,
            nodes: names.iter().map(member).collect(),
            ..Snapshot::default()
        };
        let mut bed = Bed {
            authority: Authority::generate("c".parse().unwrap()).unwrap(),
            addresses: Arc::default(),
            cut: Arc::default(),
            newest: watch::Sender::new(Arc::new(snapshot)),
            hubs: Vec::new(),
            scope: Scope::new(),
        };
        names.iter().for_each(|name| bed.start(&name.parse().unwrap()));
        bed
    }

    fn start(&mut self, own: &Name) {
        let key = NodeKey::generate().unwrap();
        let life = Duration::from_secs(3600);
        let signed = self.authority.sign(&key.request().unwrap(), own, life).unwrap();
        let tls = Arc::new(Tls::new(self.authority.certificate(), signed.der().clone(), &key).unwrap());
        let known = self.addresses.clone();
        let dial: Arc<dyn Dial> = Arc::new(TcpDial {
            tls: tls.clone(),
            addresses: Arc::new(move |name| known.lock().unwrap().get(name).copied()),
        });
        let parts = council::Parts {
            own: own.clone(),
            keeps_data: true,
            timing: Timing::of(LEASE),
            snapshots: self.newest.subscribe(),
            dial: dial.clone(),
        };
        let Seat {
            standing,
            events,
            teller,
            handler,
            over: _,
        } = council::start(parts, &self.scope).unwrap();
        let process = getrandom::u64().unwrap();
        let metrics = Arc::new(Metrics::default());
        let hub = Hub::among(own.clone(), process, standing.clone(), (8 << 20, metrics));
        let parts = wire::Parts {
            hub: hub.clone(),
            standing,
            events,
            teller,
            snapshots: self.newest.subscribe(),
            mesh: Mesh::new(dial, wire::LIMITS, &self.scope),
        };
        let wired = wire::start(parts, &self.scope);
        let gate = |inner| -> Arc<dyn Handler> {
            Arc::new(Gate {
                own: own.clone(),
                inner,
                cut: self.cut.clone(),
            })
        };
        let listener = listen::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        self.addresses.lock().unwrap().insert(own.clone(), address);
        let server = Arc::new(Server {
            tls,
            services: [(COUNCIL, gate(handler)), (wire::HUB, gate(wired))]
                .into_iter()
                .collect(),
            streams: None,
            limits: Limits { ..wire::LIMITS },
        });
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        self.scope.spawn(server.serve(listener, self.scope.clone()));
        self.scope.spawn(hub.clone().keep_house(self.scope.clone()));
        self.hubs.push((own.clone(), hub));
    }

    fn hub(&self, at: usize) -> &Arc<Hub> {
        &self.hubs[at].1
    }

    fn is_cut(&self, at: usize) -> bool {
        self.cut.lock().unwrap().contains(&self.hubs[at].0)
    }

    /// Until it is taken; how often that was refused.
    async fn publish(&self, at: usize, number: usize) -> usize {
        let end = Instant::now() + PATIENCE;
        for refused in 0.. {
            if self.hub(at).enter(vec![publication(number)]).await.is_ok() {
                return refused;
            }
            assert!(Instant::now() < end, "nobody orders");
        }
        unreachable!("it ends before")
    }

    async fn eventually(&self, what: &str, is: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is() {
            assert!(Instant::now() < end, "{what}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn orderer(&self) -> Option<usize> {
        let mut hubs = 0..self.hubs.len();
        hubs.find(|at| !self.is_cut(*at) && self.hub(*at).orders())
    }
}

fn publication(number: usize) -> Publication {
    Publication {
        receivers: vec![Address::User(1)],
        sender: Sender::Backend,
        body: Body::new(number.to_string()).unwrap(),
        expiry: 3600,
        extras: None,
    }
}

fn listen_to(hub: &Arc<Hub>, user: u64, after: Option<Mid>) -> Subscription {
    hub.subscribe(Wanted {
        addresses: vec![Address::User(user)],
        after,
        own: vec![Address::User(user)],
        is_bounded: false,
    })
}

/// What comes, until so many have come.
async fn hear(subscription: &Subscription, seen: &mut Vec<(Mid, String)>, count: usize) {
    while seen.len() < count {
        let taken = timeout(PATIENCE, subscription.queue().take()).await;
        let taken = taken.unwrap_or_else(|_| panic!("{} of {count} came", seen.len()));
        let taken = taken.expect("fast enough").into_iter();
        seen.extend(taken.map(|message| (message.mid, message.body.as_str().to_owned())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hubs_show_one_order_and_go_on_without_any_one_of_them() {
    let bed = Bed::new(&["n1", "n2", "n3"]);
    for at in 0..3 {
        bed.hub(at).caught_up(PATIENCE).await;
    }
    let listening: Vec<Subscription> = (0..3).map(|at| listen_to(bed.hub(at), 1, None)).collect();
    let mut seen: Vec<Vec<(Mid, String)>> = vec![Vec::new(); 3];
    let mut count = 0;
    for victim in [None, Some(true), Some(false)] {
        // Who orders is cut off, and then another one.
        let orderer = bed.orderer();
        bed.eventually("somebody orders", || bed.orderer().is_some()).await;
        let at = victim.map(|is_orderer| match (is_orderer, orderer) {
            (true, Some(orderer)) => orderer,
            (_, orderer) => (orderer.unwrap_or_default() + 1) % 3,
        });
        if let Some(at) = at {
            bed.cut.lock().unwrap().insert(bed.hubs[at].0.clone());
        }
        let mut refused = 0;
        for number in 0..30 {
            let publisher = (0..3).cycle().skip(number).find(|hub| Some(*hub) != at).unwrap();
            refused += bed.publish(publisher, count).await;
            count += 1;
        }
        assert!(refused <= 5, "{refused} refused");
        if let Some(at) = at {
            assert!(
                bed.hub(at).enter(vec![publication(count)]).await.is_err(),
                "nobody hears it"
            );
            bed.cut.lock().unwrap().clear();
            bed.eventually("it has caught up", || bed.hub(at).is_current()).await;
        }
        for (subscription, seen) in listening.iter().zip(&mut seen) {
            hear(subscription, seen, count).await;
        }
    }
    assert!(seen[0].is_sorted() && seen[0] == seen[1] && seen[1] == seen[2]);
    let numbers: BTreeSet<&String> = seen[0].iter().map(|(_, body)| body).collect();
    assert_eq!(numbers.len(), seen[0].len(), "each once");
    // Elsewhere with the id of somewhere.
    let (middle, mut rest) = (seen[0].len() - 20, Vec::new());
    let back = listen_to(bed.hub(2), 1, Some(seen[0][middle - 1].0));
    hear(&back, &mut rest, 20).await;
    assert_eq!(rest, seen[0][middle..]);
    bed.scope.stop(LEASE * 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_online_is_known_to_all_hubs() {
    let bed = Bed::new(&["n1", "n2"]);
    for at in 0..2 {
        bed.hub(at).caught_up(PATIENCE).await;
    }
    let mut watcher = listen_to(bed.hub(1), 2, None);
    assert!(watcher.follow(1));
    let other = listen_to(bed.hub(0), 1, None);
    let user = [Address::User(1)];
    bed.eventually("the other one hears of it", || bed.hub(1).online(&user) == [true])
        .await;
    let told = timeout(PATIENCE, watcher.queue().take()).await.expect("it is told");
    let told = told.expect("fast enough");
    assert!(told[0].body.as_str().contains("userStatusChange"));
    drop(other);
    assert_eq!(bed.hub(1).online(&user), [true], "for a while");
    bed.scope.stop(LEASE * 4).await;
}
