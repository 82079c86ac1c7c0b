//! Which version of each file the kernel may have pages of. Bounded: of what is forgotten here it has to forget its pages too.

use std::sync::{Mutex, MutexGuard};

use quick_cache::unsync::Cache;

use super::convert::Version;
use crate::storage::call::{Attributes, Changed, Inode};

/// Files remembered, about 60 bytes each.
const KNOWN: usize = 64 << 10;

pub struct Pages(Mutex<Cache<Inode, Version>>);

impl Default for Pages {
    fn default() -> Self {
        Pages(Mutex::new(Cache::new(KNOWN)))
    }
}

impl Pages {
    fn known(&self) -> MutexGuard<'_, Cache<Inode, Version>> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// The file is opened. Whether the kernel may keep its pages; if not, it has none from now on.
    pub fn open(&self, attributes: &Attributes) -> bool {
        let version = Version::of(attributes);
        let mut known = self.known();
        if known.get(&attributes.inode) == Some(&version) {
            return true;
        }
        known.insert(attributes.inode, version);
        false
    }

    /// Whether what it may have is of another version.
    pub fn are_old(&self, attributes: &Attributes) -> bool {
        let known = self.known();
        known
            .get(&attributes.inode)
            .is_some_and(|version| *version != Version::of(attributes))
    }

    pub fn is_known(&self, inode: Inode) -> bool {
        self.known().get(&inode).is_some()
    }

    /// The kernel has no page older than this.
    pub fn are(&self, attributes: &Attributes) {
        self.known().insert(attributes.inode, Version::of(attributes));
    }

    /// A change that the kernel made in its own pages too.
    pub fn follow(&self, changed: &Changed) {
        let mut known = self.known();
        let inode = changed.after.inode;
        if known.get(&inode) == Some(&Version::of(&changed.before)) {
            known.insert(inode, Version::of(&changed.after));
        }
    }

    pub fn forget_all(&self) {
        self.known().clear();
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::storage::call::{Kind, Time};

    pub fn file(inode: u64, changed: i64, size: u64) -> Attributes {
        let time = Time {
            seconds: changed,
            nanoseconds: 0,
        };
        Attributes {
            inode: Inode(inode),
            generation: 1,
            kind: Kind::File,
            mode: 0o644,
            links: 1,
            uid: 0,
            gid: 0,
            size,
            used: size,
            device: (0, 0),
            accessed: time,
            modified: time,
            changed: time,
        }
    }

    #[test]
    fn pages_are_kept_while_the_version_stays_and_follow_own_changes() {
        let pages = Pages::default();
        assert!(!pages.open(&file(1, 10, 5)) && pages.open(&file(1, 10, 5)));
        let changed = |before, after| Changed { before, after };
        pages.follow(&changed(file(1, 10, 5), file(1, 11, 6)));
        assert!(pages.open(&file(1, 11, 6)));
        // Somebody else's change came between.
        pages.follow(&changed(file(1, 12, 7), file(1, 13, 8)));
        assert!(pages.are_old(&file(1, 13, 8)) && !pages.open(&file(1, 13, 8)));
        pages.forget_all();
        assert!(!pages.are_old(&file(1, 14, 8)) && !pages.open(&file(1, 13, 8)));
    }
}
