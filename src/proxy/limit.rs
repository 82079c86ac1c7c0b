//! How many connections are open, in all and from one address. Memory is bounded by the first number.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

use super::error::Kind;
use crate::metrics::Gauge;

/// Counts open connections.
#[derive(Debug)]
pub struct Limit {
    counts: Mutex<Counts>,
    gauge: Gauge,
}

#[derive(Debug)]
struct Counts {
    bounds: Bounds,
    open: usize,
    by_source: HashMap<IpAddr, usize>,
}

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub connections: usize,
    pub per_address: usize,
}

/// One admitted connection; counts until it is dropped.
#[derive(Debug)]
pub struct Permit {
    limit: Arc<Limit>,
    source: IpAddr,
}

impl Limit {
    /// `gauge` follows the number of open connections.
    pub fn new(bounds: Bounds, gauge: Gauge) -> Arc<Self> {
        Arc::new(Limit {
            counts: Mutex::new(Counts {
                bounds,
                open: 0,
                by_source: HashMap::new(),
            }),
            gauge,
        })
    }

    /// New bounds hold for connections that come from now on.
    pub fn set(&self, bounds: Bounds) {
        self.counts().bounds = bounds;
    }

    /// `Err` is what the client shall be told.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Permit, Kind> {
        let source = source(address);
        let mut counts = self.counts();
        if counts.open >= counts.bounds.connections {
            return Err(Kind::Unavailable);
        }
        let per_address = counts.bounds.per_address;
        let own = counts.by_source.entry(source).or_default();
        if *own >= per_address {
            return Err(Kind::TooMany);
        }
        *own += 1;
        counts.open += 1;
        drop(counts);
        self.gauge.inc();
        Ok(Permit {
            limit: self.clone(),
            source,
        })
    }

    pub fn open(&self) -> usize {
        self.counts().open
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("nothing panics under this lock")
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.limit.counts();
        counts.open -= 1;
        if let Some(own) = counts.by_source.get_mut(&self.source) {
            *own -= 1;
            if *own == 0 {
                counts.by_source.remove(&self.source);
            }
        }
        drop(counts);
        self.limit.gauge.dec();
    }
}

/// One customer holds a whole IPv6 /64, so that counts as one address.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(connections: usize, per_address: usize) -> Arc<Limit> {
        let bounds = Bounds {
            connections,
            per_address,
        };
        Limit::new(bounds, Gauge::default())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_address_cannot_take_all() {
        let limit = limit(10, 2);
        let first = limit.admit(address("10.0.0.1")).expect("first");
        let _second = limit.admit(address("::ffff:10.0.0.1")).expect("second, mapped");
        assert_eq!(limit.admit(address("10.0.0.1")).expect_err("third"), Kind::TooMany);
        let _other = limit.admit(address("10.0.0.2")).expect("another address");
        drop(first);
        limit.admit(address("10.0.0.1")).expect("a place is free again");
    }

    #[test]
    fn a_network_of_one_customer_counts_as_one_address() {
        let limit = limit(10, 1);
        let _first = limit.admit(address("2001:db8::1")).expect("first");
        assert_eq!(
            limit.admit(address("2001:db8::ffff:1")).expect_err("second"),
            Kind::TooMany
        );
        let _other = limit.admit(address("2001:db8:0:1::1")).expect("another network");
    }

    #[test]
    fn nothing_is_kept_of_connections_that_are_gone() {
        let limit = limit(2, 2);
        let first = limit.admit(address("10.0.0.1")).expect("first");
        let second = limit.admit(address("10.0.0.2")).expect("second");
        assert_eq!(limit.admit(address("10.0.0.3")).expect_err("third"), Kind::Unavailable);
        drop((first, second));
        assert_eq!(limit.open(), 0);
        assert!(limit.counts().by_source.is_empty());
        assert_eq!(limit.gauge.get(), 0);
    }
}
