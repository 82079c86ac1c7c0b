//! The numbers of the proxy. Handles of every label are made once, so that a request only adds.

use std::time::Duration;

use http::Version;

use super::error::Kind;
use super::exchange::Target;
use super::fastcgi::Counts;
use super::firewall::Action;
use crate::config::Coding;
use crate::metrics::{Counter, EncodeLabelSet, Family, Gauge, Histogram, Set, names, seconds};

const TARGETS: [(Target, &str); 5] = [
    (Target::None, "none"),
    (Target::Static, "static"),
    (Target::Php, "php"),
    (Target::Peer, "peer"),
    (Target::Upstream, "upstream"),
];
/// Seconds: from a request without arguments to the largest body.
const INSPECTION: [f64; 9] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Versions of HTTP, in the order of their handles.
const VERSIONS: [&str; 3] = ["1", "2", "3"];

#[derive(Debug)]
pub struct Metrics {
    set: Set,
    opened: Vec<Counter>,
    received: Vec<Counter>,
    by_target: Vec<OfKind>,
    refused: Family<Reason, Counter>,
    fastcgi: Family<InState, Gauge>,
    target_requests: Family<Balanced, Counter>,
    target_failures: Family<Balanced, Counter>,
    target_ejections: Family<Balanced, Counter>,
    target_in_flight: Family<Balanced, Gauge>,
    repeated: Family<Outcome, Counter>,
    limited: Family<OfLimit, Counter>,
    compressed: Family<InCoding, Counter>,
    compressed_bytes: Family<InForm, Counter>,
    uncompressed: Counter,
    pub connections: Gauge,
    pub panics: Counter,
    /// Lines of the access log that were dropped.
    pub log_dropped: Counter,
    inspected: Family<CameTo, Counter>,
    inspected_answers: Family<CameTo, Counter>,
    inspected_seconds: Histogram,
    pub waf_log_dropped: Counter,
    edge: OfEdge,
    edge_kept: Gauge,
    edge_kept_bytes: Gauge,
}

/// What the cache of answers did. Clones are the same numbers.
#[derive(Clone, Debug, Default)]
pub struct OfEdge {
    pub hits: Counter,
    pub misses: Counter,
    /// Of bodies.
    pub sent: Counter,
    pub purged: Counter,
}

#[derive(Debug)]
struct OfKind {
    by_class: Vec<Counter>,
    seconds: Histogram,
}

/// The numbers of one target among which requests are balanced.
#[derive(Debug)]
pub struct OfTarget {
    pub requests: Counter,
    pub failures: Counter,
    pub ejections: Counter,
    pub in_flight: Gauge,
}

/// The numbers of one content coding.
#[derive(Debug)]
pub struct OfCoding {
    /// Bytes that its coders took, and gave.
    pub taken: Counter,
    pub given: Counter,
}

/// A node's name, or `local`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Balanced {
    node: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfVersion {
    version: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLimit {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InCoding {
    coding: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InForm {
    coding: &'static str,
    side: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    class: &'static str,
    target: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct To {
    target: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CameTo {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Found {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let mut set = Set::new();
        let requests: Family<Answered, Counter> = set.add(names::PROXY_REQUESTS, Family::default());
        let durations: Family<To, Histogram, fn() -> Histogram> =
            set.add(names::PROXY_REQUEST_SECONDS, Family::new_with_constructor(seconds));
        let of_target = |(_, target): &(Target, &'static str)| OfKind {
            by_class: CLASSES
                .iter()
                .map(|class| requests.get_or_create(&Answered { class, target }).clone())
                .collect(),
            seconds: durations.get_or_create(&To { target }).clone(),
        };
        let found: Family<Found, Counter> = set.add(names::PROXY_EDGE_REQUESTS, Family::default());
        let of_result = |result| found.get_or_create(&Found { result }).clone();
        let edge = OfEdge {
            hits: of_result("hit"),
            misses: of_result("miss"),
            sent: set.add(names::PROXY_EDGE_SENT_BYTES, Counter::default()),
            purged: set.add(names::PROXY_EDGE_PURGED, Counter::default()),
        };
        let mut by_version = |name| {
            let family: Family<OfVersion, Counter> = set.add(name, Family::default());
            VERSIONS.map(|version| family.get_or_create(&OfVersion { version }).clone())
        };
        Metrics {
            opened: by_version(names::PROXY_OPENED).into(),
            received: by_version(names::PROXY_RECEIVED).into(),
            by_target: TARGETS.iter().map(of_target).collect(),
            refused: set.add(names::PROXY_REFUSED, Family::default()),
            fastcgi: set.add(names::PROXY_FASTCGI_CONNECTIONS, Family::default()),
            target_requests: set.add(names::PROXY_TARGET_REQUESTS, Family::default()),
            target_failures: set.add(names::PROXY_TARGET_FAILURES, Family::default()),
            target_ejections: set.add(names::PROXY_TARGET_EJECTIONS, Family::default()),
            target_in_flight: set.add(names::PROXY_TARGET_IN_FLIGHT, Family::default()),
            repeated: set.add(names::PROXY_REPEATED, Family::default()),
            limited: set.add(names::PROXY_LIMITED, Family::default()),
            compressed: set.add(names::PROXY_COMPRESSED, Family::default()),
            compressed_bytes: set.add(names::PROXY_COMPRESSED_BYTES, Family::default()),
            uncompressed: set.add(names::PROXY_UNCOMPRESSED, Counter::default()),
            connections: set.add(names::PROXY_CONNECTIONS, Gauge::default()),
            panics: set.add(names::PROXY_PANICS, Counter::default()),
            log_dropped: set.add(names::PROXY_LOG_DROPPED, Counter::default()),
            inspected: set.add(names::PROXY_WAF, Family::default()),
            inspected_answers: set.add(names::PROXY_WAF_ANSWERS, Family::default()),
            inspected_seconds: set.add(names::PROXY_WAF_SECONDS, Histogram::new(INSPECTION)),
            waf_log_dropped: set.add(names::PROXY_WAF_LOG_DROPPED, Counter::default()),
            edge,
            edge_kept: set.add(names::PROXY_EDGE_KEPT, Gauge::default()),
            edge_kept_bytes: set.add(names::PROXY_EDGE_KEPT_BYTES, Gauge::default()),
            set,
        }
    }

    /// A request is over; `header` is the time from its header to the answer's.
    pub fn answered(&self, target: Target, status: u16, header: Duration) {
        let index = TARGETS.iter().position(|(known, _)| *known == target);
        let Some(of_target) = index.and_then(|index| self.by_target.get(index)) else {
            return;
        };
        let class = usize::from(status / 100).saturating_sub(1);
        if let Some(counter) = of_target.by_class.get(class) {
            counter.inc();
        }
        of_target.seconds.observe(header.as_secs_f64());
    }

    /// A connection speaks that version from now on.
    pub fn opened(&self, version: Version) {
        count(&self.opened, version);
    }

    /// A client's request came by that version.
    pub fn received(&self, version: Version) {
        count(&self.received, version);
    }

    pub fn refused(&self, kind: Kind) {
        self.count_refused(match kind {
            Kind::TooMany => "address",
            Kind::Unavailable => "connections",
            Kind::Slow => "slow",
            Kind::TooLarge | Kind::TargetTooLong | Kind::HeaderTooLarge => "size",
            Kind::Misdirected => "host",
            _ => "malformed",
        });
    }

    /// Connections to PHP-FPM now.
    pub fn fastcgi(&self, counts: Counts) {
        for (state, count) in [("idle", counts.idle), ("busy", counts.busy), ("fresh", counts.fresh)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.fastcgi.get_or_create(&InState { state }).set(count);
        }
    }

    /// The numbers of the cache of answers: they go on where another one takes its place.
    pub fn of_edge(&self) -> OfEdge {
        self.edge.clone()
    }

    /// Addresses and bytes that it keeps now.
    pub fn kept(&self, addresses: u64, bytes: u64) {
        for (gauge, value) in [(&self.edge_kept, addresses), (&self.edge_kept_bytes, bytes)] {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    /// The handles of one target.
    pub fn of_target(&self, node: &str) -> OfTarget {
        let node = Balanced { node: node.into() };
        OfTarget {
            requests: self.target_requests.get_or_create(&node).clone(),
            failures: self.target_failures.get_or_create(&node).clone(),
            ejections: self.target_ejections.get_or_create(&node).clone(),
            in_flight: self.target_in_flight.get_or_create(&node).clone(),
        }
    }

    /// A node left the cluster.
    pub fn forget_target(&self, node: &str) {
        let node = Balanced { node: node.into() };
        for counters in [&self.target_requests, &self.target_failures, &self.target_ejections] {
            counters.remove(&node);
        }
        self.target_in_flight.remove(&node);
    }

    /// A request that failed may be sent again, or the budget for that is spent.
    pub fn repeated(&self, is_paid: bool) {
        let outcome = if is_paid { "sent" } else { "refused" };
        self.repeated.get_or_create(&Outcome { outcome }).inc();
    }

    /// A request is one too many.
    pub fn limited(&self, limit: &'static str) {
        self.limited.get_or_create(&OfLimit { limit }).inc();
    }

    /// An answer is compressed: the handles for its bytes.
    pub fn of_coding(&self, coding: Coding) -> OfCoding {
        let coding = coding.name();
        self.compressed.get_or_create(&InCoding { coding }).inc();
        let bytes = |side| self.compressed_bytes.get_or_create(&InForm { coding, side }).clone();
        OfCoding {
            taken: bytes("in"),
            given: bytes("out"),
        }
    }

    /// An answer goes out plain because there is no seat for its coder.
    pub fn uncompressed(&self) {
        self.uncompressed.inc();
    }

    /// The firewall looked at a request for so long.
    pub fn inspected(&self, action: Action, spent: Duration) {
        self.inspected.get_or_create(&came_to(action)).inc();
        self.inspected_seconds.observe(spent.as_secs_f64());
    }

    /// The same of an answer.
    pub fn inspected_answer(&self, action: Action, spent: Duration) {
        self.inspected_answers.get_or_create(&came_to(action)).inc();
        self.inspected_seconds.observe(spent.as_secs_f64());
    }

    pub fn refused_handshake(&self) {
        self.count_refused("tls");
    }

    /// A stream without a request that can be answered.
    pub fn refused_request(&self) {
        self.count_refused("malformed");
    }

    /// A client gave up too many requests.
    pub fn refused_resets(&self) {
        self.count_refused("resets");
    }

    /// A trusted proxy did not say for whom it connects.
    pub fn refused_announcement(&self) {
        self.count_refused("proxy");
    }

    /// Requests answered so far.
    pub fn total(&self) -> u64 {
        self.by_target
            .iter()
            .flat_map(|of| &of.by_class)
            .map(Counter::get)
            .sum()
    }

    pub fn encode(&self) -> String {
        self.set.encode()
    }

    fn count_refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }
}

fn came_to(action: Action) -> CameTo {
    let result = match action {
        Action::Passed => "passed",
        Action::Detected => "detected",
        Action::Blocked => "blocked",
        Action::FailedOpen | Action::FailedClosed => "failed",
    };
    CameTo { result }
}

fn count(handles: &[Counter], version: Version) {
    let place = match version {
        Version::HTTP_3 => 2,
        Version::HTTP_2 => 1,
        _ => 0,
    };
    if let Some(counter) = handles.get(place) {
        counter.inc();
    }
}

/// Name of a target in labels and in the access log.
pub fn target_name(target: Target) -> &'static str {
    TARGETS
        .iter()
        .find(|(known, _)| *known == target)
        .map_or("none", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_class_and_target() {
        let metrics = Metrics::new();
        metrics.answered(Target::Php, 404, Duration::from_millis(3));
        metrics.answered(Target::Static, 200, Duration::ZERO);
        metrics.answered(Target::None, 499, Duration::ZERO);
        metrics.refused(Kind::Slow);
        assert_eq!(metrics.total(), 3);
        let text = metrics.encode();
        for line in [
            "bitrix_proxy_requests_total{class=\"4xx\",target=\"php\"} 1",
            "bitrix_proxy_requests_total{class=\"4xx\",target=\"none\"} 1",
            "bitrix_proxy_requests_total{class=\"2xx\",target=\"static\"} 1",
            "bitrix_proxy_request_seconds_count{target=\"php\"} 1",
            "bitrix_proxy_refused_total{reason=\"slow\"} 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
