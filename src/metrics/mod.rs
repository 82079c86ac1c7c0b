//! Numbers: one set per module process, written in OpenMetrics text by `prometheus-client`.
//! Names and help texts are in `names.rs`; a module keeps its handles in a struct of its own.

pub mod names;

use std::fmt::Debug;

pub use prometheus_client::encoding::EncodeLabelSet;
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use names::Name;

/// Seconds, from a cache hit to a slow page.
pub const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// The numbers of one module.
#[derive(Debug, Default)]
pub struct Set {
    registry: Registry,
}

impl Set {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metric under its name; returns the handle for the module to keep.
    pub fn add<M: Metric + Clone + Debug>(&mut self, name: Name, metric: M) -> M {
        self.registry.register(name.name, name.help, metric.clone());
        metric
    }

    /// OpenMetrics text without the closing `# EOF`, so that texts of several modules can be joined.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string fails only when a metric's own encoder does; then the part before it is still right.
        let _ = prometheus_client::encoding::text::encode_registry(&mut text, &self.registry);
        text
    }
}

/// A histogram of durations in seconds.
pub fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}
