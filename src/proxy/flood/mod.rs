//! Flood protection: how many requests one client may send. Connections are `limit`'s.
//!
//! Token buckets by address, by session and by REST token, off unless configured. They count at the front that the client
//! reached, each front for itself: with n fronts behind one name a client may get n times as much. A request that is refused costs
//! no token of the limit that refuses it. What is known is bounded (`table`).

mod bucket;
mod rest;
mod table;

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tracing::warn;

use self::table::{Excess, Table};
use super::balance::affinity;
use super::error::{Error, Kind};
use super::exchange::Exchange;
use super::limit::source;
use super::metrics::Metrics;
use crate::config::Quota;

/// What a client may do. `None`: no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quotas {
    /// Requests of one address.
    pub address: Option<Quota>,
    /// Those of them that no file answers.
    pub work: Option<Quota>,
    /// Of one session that no file answers.
    pub session: Option<Quota>,
    /// REST calls of one token.
    pub rest: Option<Quota>,
}

/// Which limit; a label, and part of the key of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Limit {
    Address,
    Work,
    Session,
    Rest,
}

impl Limit {
    fn name(self) -> &'static str {
        match self {
            Limit::Address => "address",
            Limit::Work => "dynamic",
            Limit::Session => "session",
            Limit::Rest => "rest",
        }
    }
}

pub struct Flood {
    opened: Instant,
    /// Drawn anew by every process: nobody can choose sessions whose buckets fall together.
    hasher: RandomState,
    /// Made with the first limit that is asked.
    table: OnceLock<Table>,
    metrics: Arc<Metrics>,
}

impl Flood {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Flood {
            opened: Instant::now(),
            hasher: RandomState::new(),
            table: OnceLock::new(),
            metrics,
        }
    }

    /// Every request, before it is routed.
    pub fn enter(&self, quotas: &Quotas, exchange: &Exchange) -> Result<(), Error> {
        let client = source(exchange.peer.ip());
        self.take(Limit::Address, client, client, quotas.address)?;
        if quotas.rest.is_none() || !rest::is_call(&exchange.path) {
            return Ok(());
        }
        match rest::token(exchange) {
            Some(token) => self.take(Limit::Rest, token, client, quotas.rest),
            None => self.take(Limit::Rest, client, client, quotas.rest),
        }
    }

    /// A request that is about to cost more than a file.
    pub fn work(&self, quotas: &Quotas, exchange: &Exchange) -> Result<(), Error> {
        let client = source(exchange.peer.ip());
        self.take(Limit::Work, client, client, quotas.work)?;
        if quotas.session.is_none() {
            return Ok(());
        }
        match affinity::session(&exchange.request.headers) {
            Some(session) => self.take(Limit::Session, session, client, quotas.session),
            None => Ok(()),
        }
    }

    fn take(&self, limit: Limit, key: impl Hash, client: IpAddr, quota: Option<Quota>) -> Result<(), Error> {
        let Some(quota) = quota else { return Ok(()) };
        let key = self.hasher.hash_one((limit, key));
        let table = self.table.get_or_init(Table::new);
        let Err(Excess { wait, is_news }) = table.take(key, quota, self.opened.elapsed()) else {
            return Ok(());
        };
        let name = limit.name();
        self.metrics.limited(name);
        if is_news {
            warn!(client.addr = %client, limit = name, %quota, "a client sends more requests than it may");
        }
        let seconds = seconds(wait);
        let kind = match limit {
            Limit::Rest => Kind::RestLimited(seconds),
            _ => Kind::Limited(seconds),
        };
        Err(Error::new(kind, format!("more requests than the limit by {name}")))
    }
}

/// Whole seconds, not less than the time itself.
fn seconds(wait: Duration) -> u32 {
    let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::proxy::fixture::exchange;

    fn quota(burst: u32) -> Option<Quota> {
        let interval = Duration::from_secs(3600);
        Some(Quota { interval, burst })
    }

    fn flood() -> Flood {
        Flood::new(Arc::new(Metrics::new()))
    }

    #[test]
    fn nothing_is_limited_or_kept_by_default() {
        let flood = flood();
        for _ in 0..10_000 {
            let exchange = exchange("GET", "/rest/1/secret/x", &[]);
            flood.enter(&Quotas::default(), &exchange).expect("free");
            flood.work(&Quotas::default(), &exchange).expect("free");
        }
        assert!(flood.table.get().is_none());
    }

    #[test]
    fn each_client_has_buckets_of_its_own() {
        let flood = flood();
        let quotas = Quotas {
            address: quota(2),
            work: quota(1),
            ..Quotas::default()
        };
        let of = |peer: &str| {
            let mut exchange = exchange("GET", "/", &[]);
            exchange.peer = peer.parse().expect("an address");
            exchange
        };
        let one = of("192.0.2.1:1");
        flood.enter(&quotas, &one).expect("first");
        flood.work(&quotas, &one).expect("the first that works");
        flood.enter(&quotas, &of("192.0.2.1:2")).expect("second");
        let kind = flood.enter(&quotas, &one).expect_err("third").kind;
        assert!(matches!(kind, Kind::Limited(3599..=3600)), "{kind:?}");
        flood.work(&quotas, &one).expect_err("the second that works");
        flood.enter(&quotas, &of("192.0.2.2:1")).expect("another address");
        for port in 1..3 {
            let neighbour = format!("[2001:db8::{port}]:1");
            flood.enter(&quotas, &of(&neighbour)).expect("of the same network");
        }
        flood
            .enter(&quotas, &of("[2001:db8::9]:1"))
            .expect_err("a third of that network");
        let text = flood.metrics.encode();
        for line in [
            "limited_total{limit=\"address\"} 2",
            "limited_total{limit=\"dynamic\"} 1",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn sessions_and_tokens_are_counted_wherever_they_come_from() {
        let flood = flood();
        let quotas = Quotas {
            session: quota(1),
            rest: quota(1),
            ..Quotas::default()
        };
        let page = |session: &str| exchange("GET", "/", &[("cookie", &format!("a=b; PHPSESSID={session}"))]);
        flood.work(&quotas, &page("one")).expect("first");
        flood.work(&quotas, &page("one")).expect_err("second");
        flood.work(&quotas, &page("two")).expect("another session");
        flood.work(&quotas, &exchange("GET", "/", &[])).expect("no session");
        let call = |target: &str| {
            flood
                .enter(&quotas, &exchange("GET", target, &[]))
                .map_err(|error| error.kind)
        };
        call("/rest/1/secret/crm.deal.list").expect("first");
        assert!(matches!(
            call("/rest/1/secret/user.get.json?x"),
            Err(Kind::RestLimited(_))
        ));
        call("/rest/2/secret/user.get").expect("another hook");
        call("/crm/").expect("no call");
    }
}
