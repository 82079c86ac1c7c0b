//! How many requests may be repeated: a tenth of all, so that a cluster in trouble is not finished off by its own fronts.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a repetition costs, where each request earns 1.
const COST: u64 = 10;

/// What is there at the beginning: a front with few requests may repeat them too.
const RESERVE: u64 = 100 * COST;

/// What can be saved up: a node that is lost takes along what it had in hand, which comes all at once.
const MOST: u64 = 1000 * COST;

#[derive(Debug)]
pub struct Budget(AtomicU64);

impl Budget {
    pub fn new() -> Self {
        Budget(AtomicU64::new(RESERVE))
    }

    /// A request came.
    pub fn earn(&self) {
        let earned = |saved: u64| (saved < MOST).then_some(saved + 1);
        // Full is as good.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earned);
    }

    /// Pays for a repetition, if there is enough.
    pub fn spend(&self) -> bool {
        let spent = |saved: u64| saved.checked_sub(COST);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_requests_is_repeated_beyond_the_reserve() {
        let budget = Budget::new();
        let repeated = (0..10_000).filter(|_| {
            budget.earn();
            budget.spend()
        });
        assert_eq!(repeated.count(), 1100);
        assert!(!budget.spend());
    }

    #[test]
    fn no_more_is_saved_than_one_lost_node_needs() {
        let budget = Budget::new();
        (0..1_000_000).for_each(|_| budget.earn());
        assert_eq!((0..2000).filter(|_| budget.spend()).count(), 1000);
    }
}
