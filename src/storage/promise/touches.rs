//! When inodes were last touched, in steps of a counter of its own. Bounded memory: what it has forgotten counts as touched.

use std::collections::HashMap;

use crate::storage::call::Inode;

/// Inodes remembered: about 32 bytes each.
const REMEMBERED: usize = 16 << 10;

#[derive(Debug, Default)]
pub struct Touches {
    now: u64,
    /// Of steps before this one nothing is known.
    floor: u64,
    last: HashMap<Inode, u64>,
}

impl Touches {
    /// The last step. What was read after it was asked for rests on all steps up to it.
    pub fn now(&self) -> u64 {
        self.now
    }

    pub fn touch(&mut self, inodes: impl IntoIterator<Item = Inode>) {
        self.now += 1;
        for inode in inodes {
            if self.last.len() >= REMEMBERED && !self.last.contains_key(&inode) {
                self.last.clear();
                self.floor = self.now;
            }
            self.last.insert(inode, self.now);
        }
    }

    pub fn touch_all(&mut self) {
        self.now += 1;
        self.floor = self.now;
        self.last.clear();
    }

    /// Whether `inode` was surely not touched after the step `since`.
    pub fn is_untouched(&self, inode: Inode, since: u64) -> bool {
        since >= self.floor && self.last.get(&inode).is_none_or(|last| *last <= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_touched_later_is_touched() {
        let mut touches = Touches::default();
        let before = touches.now();
        touches.touch([Inode(5)]);
        assert!(!touches.is_untouched(Inode(5), before) && touches.is_untouched(Inode(6), before));
        assert!(touches.is_untouched(Inode(5), touches.now()));
        let before = touches.now();
        touches.touch_all();
        assert!(!touches.is_untouched(Inode(6), before) && touches.is_untouched(Inode(6), touches.now()));
    }

    #[test]
    fn what_is_forgotten_counts_as_touched() {
        let mut touches = Touches::default();
        touches.touch([Inode(0)]);
        let before = touches.now();
        for inode in 0..=REMEMBERED as u64 {
            touches.touch([Inode(inode)]);
        }
        assert!(touches.last.len() <= REMEMBERED);
        assert!(!touches.is_untouched(Inode(0), before));
        assert!(!touches.is_untouched(Inode(u64::MAX), before), "nobody knows");
        assert!(touches.is_untouched(Inode(0), touches.now()));
    }
}
