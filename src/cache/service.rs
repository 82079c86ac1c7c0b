//! `Cache`: the service. Listens where the supervisor says, joins the caches of other nodes where there are some, sweeps once a second.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;
use tracing::{debug, info};

use super::backend::{self, Backend};
use super::class::Rules;
use super::engine::{Engine, Flushes, Limits, Route};
use super::membership::{self, Brought, Membership};
use super::metrics::Metrics;
use super::peer::Space;
use super::relay::WORDS;
use super::router::ITEM_MAX;
use super::store::Store;
use super::{connection, stats};
use crate::base::{BoxFuture, Cx, Health, Scope, Service, Status};
use crate::cluster::{Held, Role};
use crate::config::{Config, Flush, Port};
use crate::host::facts;
use crate::net::mesh::{ByteStream, Tunnel};
use crate::net::relay::{Connect, Offer};
use crate::net::serve::serve;

/// Names of the listening sockets, in the order of `Space::ALL`.
const SOCKETS: [&str; Space::ALL.len()] = ["cache", "cache-composite"];
/// The composite storage's share of the memory, where it has an address.
const COMPOSITE_SHARE: usize = 4;
/// What it has without one: pages that other nodes of the cluster keep here.
const COMPOSITE_MIN: usize = 16 << 20;
const MEMORY_MIN: usize = 64 << 20;
/// More threads than this gain nothing: the portal's PHP needs the processors.
const WORKERS_MAX: usize = 4;

/// The memcached-protocol cache of this node.
pub struct Cache {
    config: Arc<Config>,
    /// In the order of `Space::ALL`.
    engines: [Arc<Engine>; Space::ALL.len()],
    metrics: Metrics,
    permits: Arc<Semaphore>,
    /// Where the nodes' caches are one.
    membership: OnceLock<Membership>,
    /// Where there are other nodes.
    offer: OnceLock<Arc<Offer>>,
}

impl Cache {
    pub fn new(config: Arc<Config>) -> Self {
        let cache = &config.cache;
        let memory = match cache.memory.bytes() {
            0 => usize::try_from(facts::memory() / 16)
                .unwrap_or(usize::MAX)
                .max(MEMORY_MIN),
            bytes => bytes,
        };
        let workers = match cache.workers {
            0 => facts::processors().min(WORKERS_MAX),
            count => count,
        };
        let limits = Limits {
            max_connections: cache.max_connections,
            workers,
            tcp_port: cache.listen.port(),
        };
        let max_connections = cache.max_connections.min(Semaphore::MAX_PERMITS);
        let max_item = match config.cluster.address.is_empty() {
            true => cache.max_item_size.bytes(),
            // What does not fit a message between nodes cannot be kept twice.
            false => cache.max_item_size.bytes().min(ITEM_MAX),
        };
        let composite = match cache.composite.is_empty() {
            true => COMPOSITE_MIN,
            false => memory / COMPOSITE_SHARE,
        };
        let engines = Space::ALL.map(|space| {
            let budget = match (space, cache.composite.is_empty()) {
                (Space::Portal, true) => memory,
                (Space::Portal, false) => memory - composite,
                (Space::Composite, _) => composite,
            };
            Engine::new(Store::new(budget, max_item), limits)
        });
        let [mut portal, composite] = engines;
        portal.flushed = match cache.flush {
            Flush::All => portal.flushed,
            Flush::Composite => Some(composite.store.clone()),
            Flush::Off => None,
        };
        let engines = [Arc::new(portal), Arc::new(composite)];
        Cache {
            config,
            engines,
            metrics: Metrics::default(),
            permits: Arc::new(Semaphore::new(max_connections)),
            membership: OnceLock::new(),
            offer: OnceLock::new(),
        }
    }

    async fn serve(&self, mut cx: Cx) -> anyhow::Result<()> {
        if let Some(address) = self.config.cache.backend() {
            let parts = backend::Parts {
                address,
                patience: backend::PATIENCE,
                bench: self.portal().store.clone(),
                rules: Rules::new(&self.config.cache.sync_prefixes),
                clock: self.portal().clock,
            };
            self.portal().keep_in(Backend::new(parts, &cx.scope));
        }
        if let Some(listener) = cx.take_tcp("cache-mesh").into_iter().next() {
            match self.config.cache.shared {
                true => self.join(listener, &cx.scope)?,
                false => self.let_in(listener, &cx.scope)?,
            }
        }
        let mut count = 0;
        for space in Space::ALL {
            let name = SOCKETS[space.index()];
            let (tcp, unix) = (cx.take_tcp(name), cx.take_unix(name));
            count += tcp.len() + unix.len();
            for listener in tcp {
                self.listen_tcp(space, listener, &cx.scope)?;
            }
            for listener in unix {
                self.listen_unix(space, listener, &cx.scope)?;
            }
        }
        ensure!(count > 0, "no socket named \"{}\" was handed down", SOCKETS[0]);
        info!(memory = self.portal().store.budget(), "cache is open");
        let over = async {
            match self.membership.get() {
                Some(joined) => joined.over().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sweep(&self.engines, &cx.scope) => Ok(()),
            // Without it nothing is served: a new process begins anew.
            ended = over => ended.context("the council of caches"),
        }
    }

    fn portal(&self) -> &Arc<Engine> {
        &self.engines[Space::Portal.index()]
    }

    fn listen_tcp(&self, space: Space, listener: StdListener, scope: &Scope) -> anyhow::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener).context("listen on TCP")?;
        let handle = self.handler(space, scope).of_tcp();
        scope.spawn(serve(listener, self.permits.clone(), scope.clone(), handle));
        Ok(())
    }

    fn listen_unix(&self, space: Space, listener: StdUnixListener, scope: &Scope) -> anyhow::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener).context("listen on a unix socket")?;
        let handle = self.handler(space, scope).of_unix();
        scope.spawn(serve(listener, self.permits.clone(), scope.clone(), handle));
        Ok(())
    }

    /// For clients of other nodes.
    fn connect(&self, scope: &Scope) -> Connect {
        let handler = self.handler(Space::Portal, scope);
        Arc::new(move || {
            let handler = handler.clone();
            let tunnel = move |stream: ByteStream| -> BoxFuture<'static, ()> { Box::pin(handler.run(stream)) };
            Box::pin(std::future::ready(Ok(Box::new(tunnel) as Tunnel)))
        })
    }

    /// The cache is this node's alone: clients of other nodes come to it.
    fn let_in(&self, listener: StdListener, scope: &Scope) -> anyhow::Result<()> {
        let held = Held::follow(&self.config, Role::Cache, Port::Cache, scope)?;
        let offer = held.offer(WORDS, self.connect(scope));
        offer
            .listen(listener, held.tls.clone(), scope)
            .context("answer other nodes")?;
        let _ = self.offer.set(offer);
        Ok(())
    }

    /// Meets the caches of other nodes; from then on keys are placed.
    fn join(&self, listener: StdListener, scope: &Scope) -> anyhow::Result<()> {
        let brought = Brought {
            config: &self.config,
            stores: self.engines.each_ref().map(|engine| engine.store.clone()),
            backend: self.portal().backend().cloned(),
            clock: self.portal().clock,
            connect: self.connect(scope),
        };
        let joined = membership::join(brought, listener, scope)?;
        for (space, engine) in Space::ALL.into_iter().zip(&self.engines) {
            let flushes = match (space, self.config.cache.flush) {
                (Space::Composite, _) => Flushes::Space(Space::Composite),
                (Space::Portal, Flush::All) => Flushes::Space(Space::Portal),
                (Space::Portal, Flush::Composite) => Flushes::Space(Space::Composite),
                (Space::Portal, Flush::Off) => Flushes::Nothing,
            };
            let router = joined.router.clone();
            engine.place(Route { router, space, flushes });
        }
        let _ = self.offer.set(joined.offer.clone());
        let _ = self.membership.set(joined);
        Ok(())
    }

    fn handler(&self, space: Space, scope: &Scope) -> Handler {
        Handler {
            engine: self.engines[space.index()].clone(),
            permits: self.permits.clone(),
            scope: scope.clone(),
        }
    }
}

impl Service for Cache {
    fn name(&self) -> &'static str {
        "cache"
    }

    fn run<'a>(&'a self, cx: Cx) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(self.serve(cx))
    }

    fn status(&self) -> Status {
        let (_, sum) = stats::totals(self.portal());
        let held = stats::held(self.portal());
        let mut detail = detail(held.items, held.bytes, held.budget, sum.get_hits, sum.get_misses);
        let is_up = self.portal().backend().is_some_and(|backend| backend.is_up());
        let lost = self.config.cache.backend().filter(|_| !is_up);
        if let Some(address) = lost {
            detail = format!("memcached at {address} does not answer; {detail}");
        }
        let status = match self.membership.get() {
            Some(joined) => joined.router.status(&detail),
            None => Status::good(detail),
        };
        match lost {
            Some(_) => Status {
                health: Health::Degraded,
                ..status
            },
            None => status,
        }
    }

    fn metrics(&self) -> String {
        let of_others = self.offer.get().map(|offer| offer.metrics());
        self.metrics.encode(self.portal()) + &of_others.unwrap_or_default()
    }
}

/// Frees what has expired, once a second, until the scope drains.
pub async fn sweep(engines: &[Arc<Engine>], scope: &Scope) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = scope.draining() => return,
            _ = second.tick() => for engine in engines {
                engine.store.sweep(engine.clock.moment().now);
            },
        }
    }
}

/// What each connection needs.
#[derive(Clone)]
pub struct Handler {
    pub engine: Arc<Engine>,
    pub permits: Arc<Semaphore>,
    pub scope: Scope,
}

impl Handler {
    /// For the accept loop of a TCP listener. Boxed, or each future around it would hold its size twice.
    pub fn of_tcp(&self) -> impl Fn(TcpStream, SocketAddr) -> BoxFuture<'static, ()> + use<> {
        let handler = self.clone();
        move |stream, _| {
            // Replies are whole when they are written: waiting for more only delays them.
            let _ = stream.set_nodelay(true);
            Box::pin(handler.clone().run(stream))
        }
    }

    /// For the accept loop of a unix socket.
    pub fn of_unix(&self) -> impl Fn(UnixStream, tokio::net::unix::SocketAddr) -> BoxFuture<'static, ()> + use<> {
        let handler = self.clone();
        move |stream, _| Box::pin(handler.clone().run(stream))
    }

    async fn run<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S) {
        let traffic = &self.engine.traffic;
        traffic.connections_total.fetch_add(1, Ordering::Relaxed);
        if self.permits.available_permits() == 0 {
            traffic.full.fetch_add(1, Ordering::Relaxed);
        }
        let _open = Open::new(&self.engine);
        // A scope of its own, so that the connections do not queue at one lock to ask whether they shall drain.
        if let Err(error) = connection::serve(stream, &self.engine, self.scope.child()).await {
            debug!(%error, "client is gone");
        }
    }
}

/// Counts a connection as long as it lives, also if it is killed or panics.
struct Open<'a>(&'a Engine);

impl<'a> Open<'a> {
    fn new(engine: &'a Engine) -> Self {
        engine.traffic.connections.fetch_add(1, Ordering::Relaxed);
        Open(engine)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.traffic.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// "12 345 items, 48 of 64 MiB, hit rate 97 %"
fn detail(items: usize, used: usize, budget: usize, hits: u64, misses: u64) -> String {
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    let rate = match (u128::from(hits) * 100).checked_div(u128::from(hits) + u128::from(misses)) {
        Some(percent) => format!("hit rate {percent} %"),
        None => "no reads yet".to_string(),
    };
    let noun = if items == 1 { "item" } else { "items" };
    format!(
        "{} {noun}, {} of {} MiB, {rate}",
        grouped(items),
        mib(used),
        mib(budget)
    )
}

/// Thousands apart.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detail_is_one_short_line() {
        assert_eq!(
            detail(12_345, 48 << 20, 64 << 20, 97, 3),
            "12 345 items, 48 of 64 MiB, hit rate 97 %"
        );
        assert_eq!(detail(1, 1, 1 << 20, 0, 0), "1 item, 1 of 1 MiB, no reads yet");
        assert_eq!(grouped(1_234_567), "1 234 567");
    }
}
