//! `Relay`: the module in the place of the cache where another node has it. Listens under the same address and passes each connection
//! on to the node that holds the role; what is in it is not read. Where the nodes' caches are one
//! it votes in their council, and keeps nothing.

use std::sync::{Arc, OnceLock};

use anyhow::Context;
use tracing::info;

use super::membership;
use crate::base::{BoxFuture, Cx, Service, Status};
use crate::cluster::{Held, Role};
use crate::config::{Config, Port};
use crate::metrics::names;
use crate::net::relay::{self, Words};
use crate::net::tally::Names;

/// A client speaks first and in a dialect of its choice: there is nothing to say that each one would understand.
pub(super) const WORDS: Words = Words {
    authority: "cache",
    refusal: |_| Vec::new(),
    metrics: Names {
        relayed: names::CACHE_RELAYED,
        refused: names::CACHE_REFUSED,
        more: None,
    },
};

pub struct Relay {
    config: Arc<Config>,
    relay: OnceLock<Arc<relay::Relay>>,
}

impl Relay {
    pub fn new(config: Arc<Config>) -> Self {
        Relay {
            config,
            relay: OnceLock::new(),
        }
    }

    async fn serve(&self, mut cx: Cx) -> anyhow::Result<()> {
        let scope = cx.scope.clone();
        let held = Held::follow(&self.config, Role::Cache, Port::Cache, &scope)?;
        // Another node whose view is older is told that the cache is not here.
        let offer = held.offer(WORDS, relay::nowhere());
        for listener in cx.take_tcp("cache-mesh") {
            let answered = match self.config.cache.shared {
                true => membership::vote(&self.config, offer.clone(), listener, &scope),
                false => offer.listen(listener, held.tls.clone(), &scope).map_err(Into::into),
            };
            answered.context("answer other nodes")?;
        }
        let relay = held.relay(WORDS, &scope);
        for listener in cx.take_tcp("cache") {
            relay.listen(listener, &scope).context("listen for PHP")?;
        }
        info!("the way to the cache is open");
        let _ = self.relay.set(relay);
        scope.draining().await;
        Ok(())
    }
}

impl Service for Relay {
    fn name(&self) -> &'static str {
        "cache"
    }

    fn run<'a>(&'a self, cx: Cx) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(self.serve(cx))
    }

    fn status(&self) -> Status {
        self.relay.get().map_or_else(Status::starting, |relay| relay.status())
    }

    fn metrics(&self) -> String {
        self.relay.get().map(|relay| relay.metrics()).unwrap_or_default()
    }
}
