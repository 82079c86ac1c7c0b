//! What each store has said to hold of what is committed. One that lacks any of it later was set back: its disk is an older image
//! of itself, from a backup or a virtual machine's snapshot. It must not vote any more, for what it promised it forgot. Pure.
//!
//! Known to whoever has led since it started. A replica that is set back while all that led are down is not found out.

use std::collections::HashMap;

use super::types::StoreId;

#[derive(Debug, Default)]
pub struct Held(HashMap<StoreId, u64>);

impl Held {
    /// The store has all entries up to `last` on its disk; those up to `committed` are never replaced by others.
    pub fn has(&mut self, store: StoreId, last: Option<u64>, committed: Option<u64>) {
        if let Some(held) = last.min(committed) {
            let known = self.0.entry(store).or_insert(held);
            *known = held.max(*known);
        }
    }

    /// The store lacks the entry `index`. Whether it had it.
    pub fn lacks(&self, store: StoreId, index: u64) -> bool {
        self.0.get(&store).is_some_and(|held| index <= *held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_committed_and_on_the_disk_is_missed() {
        let (store, other) = (StoreId([1; 16]), StoreId([2; 16]));
        let mut held = Held::default();
        held.has(store, Some(9), None);
        assert!(!held.lacks(store, 5), "nothing of it was committed");
        held.has(store, Some(9), Some(7));
        held.has(store, Some(5), Some(7));
        assert!(held.lacks(store, 7) && !held.lacks(store, 8) && !held.lacks(other, 7));
        held.has(other, None, Some(7));
        assert!(!held.lacks(other, 0), "a new store has nothing yet");
    }
}
