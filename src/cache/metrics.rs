//! The module's numbers. Counted by the store and the connections; brought into the registry when somebody asks.

use std::sync::atomic::Ordering;

use super::engine::Engine;
use super::stats;
use crate::metrics::{Counter, EncodeLabelSet, Family, Gauge, Set, names};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    kind: &'static str,
    result: &'static str,
}

#[derive(Debug)]
pub struct Metrics {
    set: Set,
    commands: Family<Labels, Counter>,
    evictions: Counter,
    connections: Gauge,
    items: Gauge,
    bytes: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut set = Set::new();
        Metrics {
            commands: set.add(names::CACHE_COMMANDS, Family::default()),
            evictions: set.add(names::CACHE_EVICTIONS, Counter::default()),
            connections: set.add(names::CACHE_CONNECTIONS, Gauge::default()),
            items: set.add(names::CACHE_ITEMS, Gauge::default()),
            bytes: set.add(names::CACHE_BYTES, Gauge::default()),
            set,
        }
    }
}

impl Metrics {
    /// The numbers of now, as OpenMetrics text.
    pub fn encode(&self, engine: &Engine) -> String {
        let (_, sum) = stats::totals(engine);
        let held = stats::held(engine);
        for (kind, result, value) in [
            ("get", "hit", sum.get_hits),
            ("get", "miss", sum.get_misses),
            ("set", "stored", sum.set_commands),
            ("set", "too_large", sum.too_large),
            ("touch", "hit", sum.touch_hits),
            ("touch", "miss", sum.touch_misses),
            ("delete", "hit", sum.delete_hits),
            ("delete", "miss", sum.delete_misses),
            ("increment", "hit", sum.increment_hits),
            ("increment", "miss", sum.increment_misses),
            ("decrement", "hit", sum.decrement_hits),
            ("decrement", "miss", sum.decrement_misses),
            ("cas", "hit", sum.cas_hits),
            ("cas", "miss", sum.cas_misses),
            ("cas", "mismatch", sum.cas_mismatches),
            ("flush", "done", engine.traffic.flushes.load(Ordering::Relaxed)),
        ] {
            let counter = self.commands.get_or_create(&Labels { kind, result });
            counter.inner().store(value, Ordering::Relaxed);
        }
        self.evictions.inner().store(held.evictions, Ordering::Relaxed);
        let connections = engine.traffic.connections.load(Ordering::Relaxed);
        for (gauge, value) in [
            (&self.connections, connections),
            (&self.items, held.items),
            (&self.bytes, held.bytes),
        ] {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        self.set.encode()
    }
}
