//! Answers of PHP and of upstreams that are kept for others, as a shared cache of HTTP keeps them (RFC 9111, 5861, 9211, 9213). Off unless
//! `proxy.cache` is set.
//!
//! `serve` is the way of a request through it: `judge` says what may be done with what `store` has, `storable` what may be kept of what
//! comes, `freshness` for how long. One request fetches what many want (`flights`). What is older than a change is not kept (`changes`).
//! What is kept is never compressed here: that is done on the way out, as for any answer.
//!
//! A portal's page is made for one user. So, beyond the RFC: an answer that sets a cookie is never kept, and a request with cookies or
//! credentials gets what is kept only where the answer says that it is for all (`public`, `s-maxage`, `CDN-Cache-Control`).
//!
//! Each node keeps its own, in memory. What is to be purged, an operator says to one front (`control`), which tells the others (`desk`).
//!
//! Not by the crate `http-cache-semantics`: it knows neither stale-while-revalidate nor stale-if-error nor targeted fields, splits
//! directives inside quotes, tells their case apart, and keeps the head of each answer twice.

mod changes;
pub mod control;
mod desk;
mod directives;
mod entry;
mod fill;
mod flights;
mod freshness;
mod judge;
mod question;
mod reply;
mod serve;
mod storable;
mod store;

use std::sync::Arc;

pub use desk::{CDN, Desk};
use flights::Flights;
use store::{Counts, Store};

use super::metrics::OfEdge;

pub struct Edge {
    store: Arc<Store>,
    flights: Flights,
    /// Largest body that is kept.
    most: usize,
}

impl Edge {
    /// `memory` and `most`: bytes.
    pub fn new(memory: u64, most: usize, numbers: OfEdge) -> Self {
        Edge {
            store: Arc::new(Store::new(memory, numbers)),
            flights: Flights::default(),
            most,
        }
    }

    pub fn counts(&self) -> Counts {
        self.store.counts()
    }

    /// Removes what lies at addresses that begin so; a path stands for every host. How many were removed.
    pub fn purge_prefix(&self, prefix: &str) -> u64 {
        self.store.purge(|key, _| match prefix.starts_with('/') {
            true => path_of(key).starts_with(prefix),
            false => key.starts_with(prefix),
        })
    }

    pub fn purge_tag(&self, tag: &str) -> u64 {
        self.store.purge(|_, entry| entry.has_tag(tag))
    }
}

/// What follows scheme and host.
fn path_of(key: &str) -> &str {
    let start = key.find("://").map_or(0, |at| at + 3);
    let path = key.get(start..).and_then(|rest| rest.find('/').map(|at| start + at));
    path.and_then(|at| key.get(at..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_what_follows_the_host() {
        assert_eq!(path_of("https://portal.example:8443/a/b?c"), "/a/b?c");
        assert_eq!(path_of("x"), "");
    }
}
