//! When things were last touched, in steps of a counter of its own. Bounded memory: what it has forgotten counts as touched.

use std::collections::HashMap;

use super::thing::Key;

/// Things remembered: 25 bytes each and as much room again, so 4 MiB at most.
const REMEMBERED: usize = 64 << 10;

#[derive(Debug, Default)]
pub struct Touches {
    now: u64,
    /// Of steps before this one nothing is known.
    floor: u64,
    last: HashMap<Key, u64>,
}

impl Touches {
    /// The last step. What was read after it was asked for rests on all steps up to it.
    pub fn now(&self) -> u64 {
        self.now
    }

    pub fn touch(&mut self, things: impl IntoIterator<Item = Key>) {
        self.now += 1;
        for thing in things {
            if self.last.len() >= REMEMBERED && !self.last.contains_key(&thing) {
                self.last.clear();
                self.floor = self.now;
            }
            self.last.insert(thing, self.now);
        }
    }

    pub fn touch_all(&mut self) {
        self.now += 1;
        self.floor = self.now;
        self.last.clear();
    }

    /// Whether the thing was surely not touched after the step `since`.
    pub fn is_untouched(&self, thing: Key, since: u64) -> bool {
        since >= self.floor && self.last.get(&thing).is_none_or(|last| *last <= since)
    }
}

#[cfg(test)]
mod tests {
    use super::super::thing::{Keys, Thing};
    use super::*;
    use crate::storage::call::Inode;

    fn key(inode: u64) -> Key {
        Keys::default().of::<Vec<u8>>(&Thing::Attributes(Inode(inode)))
    }

    #[test]
    fn only_what_was_touched_later_is_touched() {
        let mut touches = Touches::default();
        let before = touches.now();
        touches.touch([key(5)]);
        assert!(!touches.is_untouched(key(5), before) && touches.is_untouched(key(6), before));
        assert!(touches.is_untouched(key(5), touches.now()));
        let before = touches.now();
        touches.touch_all();
        assert!(!touches.is_untouched(key(6), before) && touches.is_untouched(key(6), touches.now()));
    }

    #[test]
    fn what_is_forgotten_counts_as_touched() {
        let mut touches = Touches::default();
        touches.touch([key(0)]);
        let before = touches.now();
        for inode in 0..=REMEMBERED as u64 {
            touches.touch([key(inode)]);
        }
        assert!(touches.last.len() <= REMEMBERED);
        assert!(!touches.is_untouched(key(0), before));
        assert!(!touches.is_untouched(key(u64::MAX), before), "nobody knows");
        assert!(touches.is_untouched(key(0), touches.now()));
    }
}
