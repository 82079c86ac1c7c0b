//! Numbers of the mount, for /metrics.

use super::decide::Pulse;
use crate::metrics::{Counter, EncodeLabelSet, Family, Gauge, Histogram, Set, names, seconds};

#[derive(Debug)]
pub struct Numbers {
    set: Set,
    mounts: Counter,
    probes: Family<Probe, Counter>,
    probe_seconds: Histogram,
    total_bytes: Gauge,
    free_bytes: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Probe {
    result: &'static str,
}

impl Numbers {
    pub fn new() -> Self {
        let mut set = Set::new();
        Numbers {
            mounts: set.add(names::MOUNT_MOUNTS, Counter::default()),
            probes: set.add(names::MOUNT_PROBES, Family::default()),
            probe_seconds: set.add(names::MOUNT_PROBE_SECONDS, seconds()),
            total_bytes: set.add(names::MOUNT_TOTAL_BYTES, Gauge::default()),
            free_bytes: set.add(names::MOUNT_FREE_BYTES, Gauge::default()),
            set,
        }
    }

    pub fn mounted(&self) {
        self.mounts.inc();
    }

    pub fn probed(&self, pulse: &Pulse) {
        let result = match pulse {
            Pulse::Good(_) => "good",
            Pulse::Silent(_) => "silent",
            Pulse::Dead(_) => "dead",
            Pulse::Unknown | Pulse::Ill(_) => "failed",
        };
        self.probes.get_or_create(&Probe { result }).inc();
        if let Pulse::Good(room) = pulse {
            let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
            self.probe_seconds.observe(room.took.as_secs_f64());
            self.total_bytes.set(number(room.total_bytes));
            self.free_bytes.set(number(room.free_bytes));
        }
    }

    pub fn text(&self) -> String {
        self.set.encode()
    }
}
