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
    /// The address that it counts for.
    source: Option<IpAddr>,
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

    /// `address`: for whom it counts, if that is known. `Err` is what the client shall be told.
    pub fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Permit, Kind> {
        let source = address.map(source);
        let mut counts = self.counts();
        if counts.open >= counts.bounds.connections {
            return Err(Kind::Unavailable);
        }
        counts.charge(source)?;
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

impl Counts {
    fn charge(&mut self, source: Option<IpAddr>) -> Result<(), Kind> {
        let Some(source) = source else { return Ok(()) };
        let own = self.by_source.entry(source).or_default();
        // With a bound of at least one, an entry made just now is never refused.
        if *own >= self.bounds.per_address {
            return Err(Kind::TooMany);
        }
        *own += 1;
        Ok(())
    }

    fn release(&mut self, source: Option<IpAddr>) {
        let Some(source) = source else { return };
        if let Some(own) = self.by_source.get_mut(&source) {
            *own -= 1;
            if *own == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}

impl Permit {
    /// It was learned for whom the connection is.
    pub fn charge(&mut self, address: IpAddr) -> Result<(), Kind> {
        let source = source(address);
        let mut counts = self.limit.counts();
        counts.charge(Some(source))?;
        let before = self.source.replace(source);
        counts.release(before);
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.limit.counts();
        counts.open -= 1;
        counts.release(self.source);
        drop(counts);
        self.limit.gauge.dec();
    }
}

/// One customer holds a whole IPv6 /64, so that counts as one address.
pub fn source(address: IpAddr) -> IpAddr {
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

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
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
    fn a_connection_counts_for_the_client_that_its_proxy_names() {
        let limit = limit(10, 1);
        let mut first = limit.admit(None).expect("of a proxy");
        let mut second = limit.admit(None).expect("of a proxy");
        let client = address("10.0.0.1").expect("one");
        first.charge(client).expect("the first");
        assert_eq!(second.charge(client).expect_err("second"), Kind::TooMany);
        drop(second);
        drop(first);
        assert!(limit.counts().by_source.is_empty());
        assert_eq!(limit.open(), 0);
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
