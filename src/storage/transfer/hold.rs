//! What the log must keep while files are sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Transfers under way. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Holds(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    next: u64,
    /// By transfer: the last entry that may be purged.
    floors: BTreeMap<u64, u64>,
}

impl Holds {
    /// Nothing after entry `index` may be purged while the guard lives.
    pub fn hold(&self, index: u64) -> Hold {
        let mut held = self.held();
        let number = held.next;
        held.next += 1;
        held.floors.insert(number, index);
        Hold {
            holds: self.clone(),
            number,
        }
    }

    /// The last entry that may be purged now; `None`: no transfer is under way.
    pub fn floor(&self) -> Option<u64> {
        self.held().floors.values().min().copied()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

/// Ends the hold when dropped.
#[derive(Debug)]
pub struct Hold {
    holds: Holds,
    number: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds.held().floors.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_hold_counts_until_it_is_dropped() {
        let holds = Holds::default();
        assert_eq!(holds.floor(), None);
        let high = holds.hold(9);
        let low = holds.hold(4);
        assert_eq!(holds.floor(), Some(4));
        drop(low);
        assert_eq!(holds.floor(), Some(9));
        drop(high);
        assert_eq!(holds.floor(), None);
    }
}
