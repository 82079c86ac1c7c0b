//! `Cache`: the service. Listens where the supervisor says, sweeps once a second.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;
use tracing::{debug, info};

use super::engine::{Engine, Limits};
use super::metrics::Metrics;
use super::relay::WORDS;
use super::store::Store;
use super::{connection, stats};
use crate::base::{BoxFuture, Cx, Scope, Service, Status};
use crate::cluster::{Held, Role};
use crate::config::{Config, Port};
use crate::host::facts;
use crate::net::mesh::{ByteStream, Tunnel};
use crate::net::relay::{Connect, Offer};
use crate::net::serve::serve;

/// Name of the listening sockets.
const SOCKET: &str = "cache";
const MEMORY_MIN: usize = 64 << 20;
/// More threads than this gain nothing: the portal's PHP needs the processors.
const WORKERS_MAX: usize = 4;

/// The memcached-protocol cache of this node.
pub struct Cache {
    config: Arc<Config>,
    engine: Arc<Engine>,
    metrics: Metrics,
    permits: Arc<Semaphore>,
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
        let store = Store::new(memory, cache.max_item_size.bytes());
        Cache {
            config,
            engine: Arc::new(Engine::new(store, limits)),
            metrics: Metrics::default(),
            permits: Arc::new(Semaphore::new(max_connections)),
            offer: OnceLock::new(),
        }
    }

    async fn serve(&self, mut cx: Cx) -> anyhow::Result<()> {
        let (tcp, unix) = (cx.take_tcp(SOCKET), cx.take_unix(SOCKET));
        ensure!(
            !tcp.is_empty() || !unix.is_empty(),
            "no socket named \"{SOCKET}\" was handed down"
        );
        for listener in tcp {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener).context("listen on TCP")?;
            let handle = self.handler(&cx.scope).of_tcp();
            cx.scope
                .spawn(serve(listener, self.permits.clone(), cx.scope.clone(), handle));
        }
        for listener in unix {
            listener.set_nonblocking(true)?;
            let listener = UnixListener::from_std(listener).context("listen on a unix socket")?;
            let handle = self.handler(&cx.scope).of_unix();
            cx.scope
                .spawn(serve(listener, self.permits.clone(), cx.scope.clone(), handle));
        }
        self.offer(cx.take_tcp("cache-mesh"), &cx.scope)?;
        info!(memory = self.engine.store.budget(), "cache is open");
        sweep(&self.engine, &cx.scope).await;
        Ok(())
    }

    /// Lets other nodes in, where there are any, while this one holds the role.
    fn offer(&self, listeners: Vec<StdListener>, scope: &Scope) -> anyhow::Result<()> {
        for listener in listeners {
            let held = Held::follow(&self.config, Role::Cache, Port::Cache, scope)?;
            let handler = self.handler(scope);
            let connect: Connect = Arc::new(move || {
                let handler = handler.clone();
                let tunnel = move |stream: ByteStream| -> BoxFuture<'static, ()> { Box::pin(handler.run(stream)) };
                Box::pin(std::future::ready(Ok(Box::new(tunnel) as Tunnel)))
            });
            let offer = held.offer(WORDS, connect);
            offer
                .listen(listener, held.tls.clone(), scope)
                .context("answer other nodes")?;
            let _ = self.offer.set(offer);
        }
        Ok(())
    }

    fn handler(&self, scope: &Scope) -> Handler {
        Handler {
            engine: self.engine.clone(),
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
        let (items, sum) = stats::totals(&self.engine);
        let store = &self.engine.store;
        Status::good(detail(
            items,
            store.used(),
            store.budget(),
            sum.get_hits,
            sum.get_misses,
        ))
    }

    fn metrics(&self) -> String {
        let of_others = self.offer.get().map(|offer| offer.metrics());
        self.metrics.encode(&self.engine) + &of_others.unwrap_or_default()
    }
}

/// Frees what has expired, once a second, until the scope drains.
pub async fn sweep(engine: &Engine, scope: &Scope) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = scope.draining() => return,
            _ = second.tick() => engine.store.sweep(engine.clock.moment().now),
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
