//! Which answers that are under way are not kept when they come: their address changed, or something was purged, after they were asked for.
//! In little memory, whatever the addresses are. No clock, no I/O.

use std::hash::{BuildHasher, RandomState};

/// Addresses are told apart so far. Where two meet, an answer of the one is not kept for a change of the other.
const PLACES: usize = 4096;

pub struct Changes {
    /// How many there were, purges among them.
    count: u64,
    /// The count at the last purge.
    purge: u64,
    /// The same at the last change of each place.
    places: Vec<u64>,
    hasher: RandomState,
}

impl Default for Changes {
    fn default() -> Self {
        Changes {
            count: 0,
            purge: 0,
            places: vec![0; PLACES],
            hasher: RandomState::new(),
        }
    }
}

impl Changes {
    /// By what an answer that is asked for from now on is known.
    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn purged(&mut self) {
        self.count += 1;
        self.purge = self.count;
    }

    pub fn changed(&mut self, key: &str) {
        self.count += 1;
        let place = self.place(key);
        if let Some(last) = self.places.get_mut(place) {
            *last = self.count;
        }
    }

    /// Whether an answer that was asked for at that count shows nothing older.
    pub fn is_new(&self, key: &str, since: u64) -> bool {
        let last = self.places.get(self.place(key));
        self.purge <= since && last.is_none_or(|last| *last <= since)
    }

    fn place(&self, key: &str) -> usize {
        usize::try_from(self.hasher.hash_one(key) % PLACES as u64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_before_a_change_is_old() {
        let mut changes = Changes::default();
        let before = changes.count();
        changes.changed("a");
        let after = changes.count();
        assert!(!changes.is_new("a", before) && changes.is_new("a", after));
        // One or the other may share the place.
        let others = (0..16).map(|number| number.to_string());
        assert!(others.clone().any(|other| changes.is_new(&other, before)));
        changes.purged();
        assert!(others.clone().all(|other| !changes.is_new(&other, after)));
        assert!(
            others
                .chain(["a".into()])
                .all(|key| changes.is_new(&key, changes.count()))
        );
    }
}
