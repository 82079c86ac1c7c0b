//! What a relay counts: sessions, those that it turned away or cut, and how long a session waited for the service.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::metrics::names::Name;
use crate::metrics::{Counter, Gauge, Histogram, Set, seconds};

/// How the numbers of one service are called.
#[derive(Clone, Copy)]
pub struct Names {
    /// Open sessions.
    pub relayed: Name,
    /// Connections turned away.
    pub refused: Name,
    pub more: Option<More>,
}

/// Of a service whose sessions are looked at one by one.
#[derive(Clone, Copy)]
pub struct More {
    /// Sessions that reached the service.
    pub begun: Name,
    /// Sessions cut because their node holds the service no more.
    pub cut: Name,
    /// From the connection to the service.
    pub seconds: Name,
}

/// All clones count together.
#[derive(Clone)]
pub struct Tally {
    pub open: Arc<AtomicUsize>,
    pub refused: Counter,
    pub begun: Counter,
    pub cut: Counter,
    seconds: Histogram,
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            open: Arc::default(),
            refused: Counter::default(),
            begun: Counter::default(),
            cut: Counter::default(),
            seconds: seconds(),
        }
    }
}

impl Tally {
    /// A session reached the service after so long.
    pub fn reached(&self, after: Duration) {
        self.begun.inc();
        self.seconds.observe(after.as_secs_f64());
    }

    pub fn encode(&self, names: Names) -> String {
        let mut set = Set::new();
        let open = set.add(names.relayed, Gauge::<i64>::default());
        open.set(i64::try_from(self.open.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
        set.add(names.refused, self.refused.clone());
        if let Some(more) = names.more {
            set.add(more.begun, self.begun.clone());
            set.add(more.cut, self.cut.clone());
            set.add(more.seconds, self.seconds.clone());
        }
        set.encode()
    }
}

/// Counts a session as long as it lives, also if it is killed.
pub struct Open<'a>(&'a AtomicUsize);

impl<'a> Open<'a> {
    pub fn new(sessions: &'a AtomicUsize) -> Self {
        sessions.fetch_add(1, Ordering::Relaxed);
        Open(sessions)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
