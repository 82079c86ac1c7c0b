//! This node's hub among those of the other nodes: certificate, ways, council and order, put together.

use std::net::TcpListener as StdListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::hub::Hub;
use super::metrics::Metrics;
use super::order::wire;
use crate::base::Scope;
use crate::cluster;
use crate::cluster::council::{self, COUNCIL, Seat, Timing};
use crate::config::{Config, Port};
use crate::net::mesh::trust::Trust;
use crate::net::mesh::{Dial, Mesh, Name, Server, TcpDial};

/// For answers that are under way when this node has left the table.
const LAST: Duration = Duration::from_millis(300);

/// What came of joining.
pub struct Membership {
    pub hub: Arc<Hub>,
    over: Mutex<Option<oneshot::Receiver<anyhow::Result<()>>>>,
}

/// Meets the hubs of other nodes at `listener` until the scope drains. `budget`: bytes for the history.
pub fn join(
    config: &Config,
    (budget, metrics): (usize, Arc<Metrics>),
    listener: StdListener,
    scope: &Scope,
) -> anyhow::Result<Membership> {
    let snapshots = cluster::follow(config.view_socket(), scope);
    let tls = cluster::tls(&Trust::new(config.trust()), snapshots.clone(), scope);
    let tls = tls.context("this node's certificate")?;
    let own = tls.identity().node;
    let known = snapshots.clone();
    let dial: Arc<dyn Dial> = Arc::new(TcpDial {
        tls: tls.clone(),
        addresses: Arc::new(move |name: &Name| known.borrow().node(name.as_str())?.port(Port::Push)),
    });
    let Seat {
        standing,
        events,
        teller,
        handler,
        over,
    } = council::start(
        council::Parts {
            own: own.clone(),
            keeps_data: true,
            timing: Timing::default(),
            snapshots: snapshots.clone(),
            dial: dial.clone(),
        },
        scope,
    )?;
    let process = getrandom::u64().map_err(|error| anyhow::anyhow!("random bytes: {error}"))?;
    let hub = Hub::among(own, process, standing.clone(), (budget, metrics));
    // Not below `scope`: until the council has left the table others ask for what is here.
    let inner = Scope::new();
    let parts = wire::Parts {
        hub: hub.clone(),
        standing,
        events,
        teller,
        snapshots,
        mesh: Mesh::new(dial, wire::LIMITS, &inner),
    };
    let server = Arc::new(Server {
        tls,
        services: [(COUNCIL, handler), (wire::HUB, wire::start(parts, &inner))]
            .into_iter()
            .collect(),
        streams: None,
        limits: wire::LIMITS,
    });
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener).context("listen to other hubs")?;
    inner.spawn(server.serve(listener, inner.clone()));
    let (ended, awaited) = oneshot::channel();
    let guard = Guard(inner);
    scope.spawn(async move {
        // An error says that the thread has ended without a word.
        let result = over.await.unwrap_or(Ok(()));
        guard.0.stop(LAST).await;
        // Nobody may wait for it.
        let _ = ended.send(result);
    });
    Ok(Membership {
        hub,
        over: Mutex::new(Some(awaited)),
    })
}

/// Ends what it owns also where its task is killed.
struct Guard(Scope);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.drain();
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
