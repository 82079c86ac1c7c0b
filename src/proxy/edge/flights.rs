//! Requests for one address that come while it is fetched: they wait for that one answer. Where the answers of an address cannot be
//! kept, nobody waits for a while.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Addresses whose answers could not be kept; of more, some are found out again.
const UNKEPT: usize = 4096;

/// How long that is believed.
const BELIEVED: Duration = Duration::from_secs(10);

/// Nobody waits longer for another one's answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct Flights(Arc<Inner>);

struct Inner {
    /// Resolves when the one in front is done.
    under_way: Mutex<HashMap<Box<str>, watch::Receiver<()>>>,
    /// By the hash of an address, which may be long. Where two meet, nobody waits for either.
    unkept: Cache<u64, Instant>,
    hasher: RandomState,
}

/// The one that fetches. Dropped, it lets the others go.
pub struct Flight {
    flights: Flights,
    key: Box<str>,
    _done: watch::Sender<()>,
}

/// Whose turn it is to fetch.
pub enum Turn {
    /// The caller's, for all who come meanwhile.
    Front(Flight),
    /// Somebody did: what came is to be looked for.
    Waited,
    /// Everybody's: there is nothing to wait for.
    Free,
}

impl Turn {
    pub fn flight(self) -> Option<Flight> {
        match self {
            Turn::Front(flight) => Some(flight),
            Turn::Waited | Turn::Free => None,
        }
    }
}

impl Default for Flights {
    fn default() -> Self {
        Flights(Arc::new(Inner {
            under_way: Mutex::default(),
            unkept: Cache::new(UNKEPT),
            hasher: RandomState::new(),
        }))
    }
}

impl Flights {
    pub async fn enter(&self, key: &str) -> Turn {
        let until = self.0.unkept.get(&self.0.hasher.hash_one(key));
        if until.is_some_and(|until| Instant::now() < until) {
            return Turn::Free;
        }
        if let Some(flight) = self.try_enter(key) {
            return Turn::Front(flight);
        }
        let other = self.under_way().get(key).cloned();
        if let Some(mut other) = other {
            // It ends by being dropped.
            let _ = timeout(PATIENCE, other.changed()).await;
        }
        Turn::Waited
    }

    /// `Some`: the caller fetches. `None`: somebody does.
    pub fn try_enter(&self, key: &str) -> Option<Flight> {
        let mut under_way = self.under_way();
        if under_way.contains_key(key) {
            return None;
        }
        let (done, seen) = watch::channel(());
        under_way.insert(key.into(), seen);
        Some(Flight {
            flights: self.clone(),
            key: key.into(),
            _done: done,
        })
    }

    /// What comes of an address cannot be kept, whoever asks.
    pub fn is_in_vain(&self, key: &str) {
        let place = self.0.hasher.hash_one(key);
        self.0.unkept.insert(place, Instant::now() + BELIEVED);
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<Box<str>, watch::Receiver<()>>> {
        self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// What came cannot be kept.
    pub fn is_in_vain(&self) {
        self.flights.is_in_vain(&self.key);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights.under_way().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_fetches_and_the_others_wait() {
        let flights = Flights::default();
        let first = flights.enter("a").await.flight().expect("the first");
        assert!(flights.enter("b").await.flight().is_some());
        let begun = Instant::now();
        let (second, ()) = tokio::join!(flights.enter("a"), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(first);
        });
        assert!(matches!(second, Turn::Waited));
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
        assert!(flights.enter("a").await.flight().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn patience_has_an_end_and_what_is_in_vain_is_not_waited_for() {
        let flights = Flights::default();
        let first = flights.enter("a").await.flight().expect("the first");
        let begun = Instant::now();
        assert!(matches!(flights.enter("a").await, Turn::Waited));
        assert_eq!(begun.elapsed(), PATIENCE);
        first.is_in_vain();
        drop(first);
        let begun = Instant::now();
        assert!(matches!(flights.enter("a").await, Turn::Free));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        tokio::time::sleep(BELIEVED).await;
        assert!(flights.enter("a").await.flight().is_some());
    }
}
