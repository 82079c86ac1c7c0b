//! This node's cache among those of the other nodes: certificate, ways, council and router, put together.

use std::net::TcpListener as StdListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::backend::{Backend, Seen};
use super::class::Rules;
use super::council::{self, COUNCIL, Event, Seat, Teller, Timing, Told};
use super::relay::WORDS;
use super::router::{self, Parts, Router};
use super::store::{Clock, Store};
use crate::base::Scope;
use crate::cluster::{self, Held, Role};
use crate::config::{Config, Port};
use crate::net::mesh::trust::Trust;
use crate::net::mesh::{Dial, Mesh, Name, Server, Services, TcpDial, Tls};
use crate::net::relay::{Connect, Offer};

/// Words for the council that wait: a handful for each change of table.
const TOLD: usize = 64;

/// For answers that are under way when this node has left the table.
const LAST: Duration = Duration::from_millis(300);

/// What came of joining.
pub struct Membership {
    pub router: Arc<Router>,
    /// For nodes without a cache of their own.
    pub offer: Arc<Offer>,
    over: Mutex<Option<oneshot::Receiver<anyhow::Result<()>>>>,
}

/// What this node brings.
pub struct Brought<'a> {
    pub config: &'a Config,
    /// In the order of `Space::ALL`.
    pub stores: [Arc<Store>; 2],
    pub backend: Option<Arc<Backend>>,
    pub clock: Clock,
    /// For sessions of nodes without a cache.
    pub connect: Connect,
}

/// How other nodes are met.
struct Ways {
    own: Name,
    tls: Arc<Tls>,
    dial: Arc<dyn Dial>,
    council: Seat,
}

impl Ways {
    fn new(config: &Config, keeps_cache: bool, scope: &Scope) -> anyhow::Result<Self> {
        let snapshots = cluster::follow(config.view_socket(), scope);
        let tls = cluster::tls(&Trust::new(config.trust()), snapshots.clone(), scope);
        let tls = tls.context("this node's certificate")?;
        let own = tls.identity().node;
        let known = snapshots.clone();
        let dial: Arc<dyn Dial> = Arc::new(TcpDial {
            tls: tls.clone(),
            addresses: Arc::new(move |name: &Name| known.borrow().node(name.as_str())?.port(Port::Cache)),
        });
        let parts = council::Parts {
            own: own.clone(),
            keeps_cache,
            timing: Timing::default(),
            snapshots,
            dial: dial.clone(),
        };
        let council = council::start(parts, scope)?;
        Ok(Ways {
            own,
            tls,
            dial,
            council,
        })
    }
}

/// Answers other nodes until the scope drains.
fn listen(
    listener: StdListener,
    (tls, offer): (Arc<Tls>, Arc<Offer>),
    services: Services,
    scope: &Scope,
) -> anyhow::Result<()> {
    let server = Arc::new(Server {
        tls,
        services,
        streams: Some(offer),
        limits: router::LIMITS,
    });
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener).context("listen to other caches")?;
    scope.spawn(server.serve(listener, scope.clone()));
    Ok(())
}

/// The part of a node without a cache: it votes, so that a majority can be found among few nodes.
pub fn vote(config: &Config, offer: Arc<Offer>, listener: StdListener, scope: &Scope) -> anyhow::Result<()> {
    let Ways { tls, council, .. } = Ways::new(config, false, scope)?;
    let services = [(COUNCIL, council.handler)].into_iter().collect();
    listen(listener, (tls, offer), services, scope)?;
    let mut events = council.events;
    // None of them concerns a node that has no items.
    scope.spawn(async move { while events.recv().await.is_some() {} });
    Ok(())
}

/// Meets the caches of other nodes at `listener` until the scope drains.
pub fn join(brought: Brought<'_>, listener: StdListener, scope: &Scope) -> anyhow::Result<Membership> {
    let config = brought.config;
    let ways = Ways::new(config, true, scope)?;
    let (own, council) = (ways.own, ways.council);
    // Not below `scope`: until the council has left the table others ask for what is here.
    let inner = Scope::new();
    let mesh = Mesh::new(ways.dial, router::LIMITS, &inner);
    let (told, says) = mpsc::channel(TOLD);
    let router = Router::new(
        Parts {
            own,
            rules: Rules::new(&config.cache.sync_prefixes),
            stores: brought.stores,
            backend: brought.backend.clone(),
            clock: brought.clock,
            standing: council.standing,
            mesh,
            told: told.clone(),
        },
        &inner,
    );
    let held = Held::follow(config, Role::Cache, Port::Cache, scope)?;
    let offer = held.offer(WORDS, brought.connect);
    let services = router::services(&router)
        .into_iter()
        .chain([(COUNCIL, council.handler)]);
    listen(listener, (ways.tls, offer.clone()), services.collect(), &inner)?;
    if let Some(backend) = brought.backend {
        inner.spawn(tell_losses(backend, council.teller.clone()));
    }
    inner.spawn(pass_on(says, council.teller));
    inner.spawn(obey(router.clone(), council.events, told));
    let (ended, over) = oneshot::channel();
    let guard = Guard(inner);
    scope.spawn(async move {
        // An error says that the thread has ended without a word.
        let result = council.over.await.unwrap_or(Ok(()));
        guard.0.stop(LAST).await;
        let _ = ended.send(result);
    });
    Ok(Membership {
        router,
        offer,
        over: Mutex::new(Some(over)),
    })
}

/// Carries out what the council decides, one after the other.
async fn obey(router: Arc<Router>, mut events: mpsc::Receiver<Event>, told: mpsc::Sender<Told>) {
    // Until the council has left the table, which takes a moment of a stop.
    while let Some(event) = events.recv().await {
        let obeying = router.clone();
        // Removing items may take as long as looking at all of them.
        let Ok(answer) = tokio::task::spawn_blocking(move || obeying.carry_out(event)).await else {
            return;
        };
        if let Some(answer) = answer
            && told.send(answer).await.is_err()
        {
            return;
        }
    }
}

/// Ends what it owns also where its task is killed.
struct Guard(Scope);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.drain();
    }
}

/// A node serves while its server keeps what it is given. The council hears of each loss before it hears that the server is back.
async fn tell_losses(backend: Arc<Backend>, teller: Teller) {
    let mut seen = backend.seen();
    // The last session that is known to be over, and the one that is known to last.
    let (mut lost, mut kept) = (None, None);
    loop {
        let Seen { session, is_up } = *seen.borrow_and_update();
        let over = if is_up { session.checked_sub(1) } else { Some(session) };
        if over != lost {
            teller.tell(Told::Lost).await;
            lost = over;
        }
        if is_up && kept != Some(session) {
            teller.tell(Told::Able).await;
            kept = Some(session);
        }
        if seen.changed().await.is_err() {
            return;
        }
    }
}

async fn pass_on(mut says: mpsc::Receiver<Told>, teller: Teller) {
    while let Some(told) = says.recv().await {
        teller.tell(told).await;
    }
}

impl Membership {
    /// Resolves when the council has ended, with why. Once.
    pub async fn over(&self) -> anyhow::Result<()> {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner).take();
        match over {
            Some(over) => over.await.unwrap_or(Ok(())),
            None => std::future::pending().await,
        }
    }
}
