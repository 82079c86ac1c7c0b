//! The embedded store alone, without a cluster, as memcached's flags describe it: for memcached's own tests and for benches
//! beside memcached. Not a service: no configuration, no supervisor.

use std::net::TcpListener as StdListener;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use super::engine::{Engine, Limits, Rules};
use super::service::{Handler, sweep};
use super::store::Store;
use crate::base::Scope;
use crate::net::serve::serve;

/// Clients that have not left by then are cut.
const GRACE: Duration = Duration::from_millis(100);

/// What the flags say.
#[derive(Debug)]
pub struct Compat {
    pub tcp: Vec<StdListener>,
    pub unix: Option<StdUnixListener>,
    /// Bytes for items, overhead included.
    pub memory: usize,
    pub max_item: usize,
    pub max_connections: usize,
    pub workers: usize,
    /// Whether items are dropped when memory is full; else they are refused.
    pub evicts: bool,
    pub allows_flush: bool,
}

impl Compat {
    /// Serves until `stop` comes.
    pub fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(self.workers)
            .thread_name("cache")
            .enable_all()
            .build()?;
        runtime.block_on(self.serve(stop))
    }

    async fn serve(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let tcp_port = self.tcp.first().map(StdListener::local_addr).transpose()?;
        let limits = Limits {
            max_connections: self.max_connections,
            workers: self.workers,
            tcp_port: tcp_port.map_or(0, |address| address.port()),
        };
        let rules = Rules {
            evicts: self.evicts,
            allows_flush: self.allows_flush,
        };
        let store = Store::new(self.memory, self.max_item);
        let engine = Arc::new(Engine::with_rules(store, limits, rules));
        let permits = Arc::new(Semaphore::new(self.max_connections.min(Semaphore::MAX_PERMITS)));
        let scope = Scope::new();
        let handler = Handler {
            engine: engine.clone(),
            permits: permits.clone(),
            scope: scope.clone(),
        };
        for listener in self.tcp {
            let listener = TcpListener::from_std(listener).context("listen on TCP")?;
            scope.spawn(serve(listener, permits.clone(), scope.clone(), handler.of_tcp()));
        }
        if let Some(listener) = self.unix {
            let listener = UnixListener::from_std(listener).context("listen on a unix socket")?;
            scope.spawn(serve(listener, permits.clone(), scope.clone(), handler.of_unix()));
        }
        tokio::select! {
            () = sweep(std::slice::from_ref(&engine), &scope) => {}
            () = stop => {}
        }
        scope.stop(GRACE).await;
        Ok(())
    }
}
