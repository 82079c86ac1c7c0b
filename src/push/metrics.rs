//! The module's numbers.

use super::hub::Numbers;
use super::refusal::Refusal;
use crate::metrics::{Counter, EncodeLabelSet, Family, Gauge, Set, names};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct By {
    by: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Over {
    transport: &'static str,
}

/// How a client listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    WebSocket,
    Poll,
}

#[derive(Debug)]
pub struct Metrics {
    set: Set,
    connections: Family<Over, Gauge>,
    channels: Gauge,
    published: Family<By, Counter>,
    delivered: Counter,
    refused: Family<Reason, Counter>,
    cut: Family<Reason, Counter>,
    kept: Gauge,
    kept_bytes: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut set = Set::new();
        Metrics {
            connections: set.add(names::PUSH_CONNECTIONS, Family::default()),
            channels: set.add(names::PUSH_CHANNELS, Gauge::default()),
            published: set.add(names::PUSH_PUBLISHED, Family::default()),
            delivered: set.add(names::PUSH_DELIVERED, Counter::default()),
            refused: set.add(names::PUSH_REFUSED, Family::default()),
            cut: set.add(names::PUSH_CUT, Family::default()),
            kept: set.add(names::PUSH_KEPT, Gauge::default()),
            kept_bytes: set.add(names::PUSH_KEPT_BYTES, Gauge::default()),
            set,
        }
    }
}

impl Metrics {
    /// Counts a listening client as long as the guard lives.
    pub fn listens(&self, transport: Transport) -> Listening {
        let gauge = self.connections.get_or_create(&over(transport)).clone();
        gauge.inc();
        Listening(gauge)
    }

    /// WebSockets and long polls that are open.
    pub fn open(&self) -> (i64, i64) {
        let of = |transport| self.connections.get_or_create(&over(transport)).get();
        (of(Transport::WebSocket), of(Transport::Poll))
    }

    pub fn published(&self, by: &'static str) {
        self.published.get_or_create(&By { by }).inc();
    }

    pub fn delivered(&self, count: usize) {
        self.delivered.inc_by(count as u64);
    }

    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    pub fn refused_with(&self, refusal: Refusal) {
        self.refused(refusal.name());
    }

    pub fn cut(&self, reason: &'static str) {
        self.cut.get_or_create(&Reason { reason }).inc();
    }

    /// The numbers of now, as OpenMetrics text.
    pub fn encode(&self, numbers: Numbers) -> String {
        let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.channels.set(number(numbers.channels));
        self.kept.set(number(numbers.kept));
        self.kept_bytes.set(number(numbers.bytes));
        self.set.encode()
    }
}

fn over(transport: Transport) -> Over {
    let transport = match transport {
        Transport::WebSocket => "websocket",
        Transport::Poll => "poll",
    };
    Over { transport }
}

/// A client that listens.
pub struct Listening(Gauge);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.dec();
    }
}
