//! Names of which the kernel has an answer for `PROMISED`. Once the lease is over nobody says when one is true no longer; then the kernel
//! must ask again. Bounded: of more than that it has the last answer for its time.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::convert::PROMISED;
use crate::storage::call::Inode;

/// Names told within `PROMISED`; about 100 bytes each, for twice that time.
const REMEMBERED: usize = 64 << 10;

/// A name of a folder.
pub type Name = (Inode, Vec<u8>);

#[derive(Default)]
pub struct Told(Mutex<Inner>);

/// Whether a name means a folder, by name.
type Names = HashMap<Name, bool>;

#[derive(Default)]
struct Inner {
    young: Names,
    old: Names,
    /// When the young ones began.
    turned: Duration,
}

impl Told {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// The kernel is told at `now` what the name means; call it before that.
    pub fn note(&self, name: Name, is_folder: bool, now: Duration) {
        let mut inner = self.inner();
        inner.turn(now);
        if inner.young.len() < REMEMBERED {
            inner.young.insert(name, is_folder);
        }
    }

    /// All of which it may have an answer still; they are the caller's to tell.
    pub fn take(&self, now: Duration) -> Vec<(Name, bool)> {
        let mut inner = self.inner();
        inner.turn(now);
        let mut names = std::mem::take(&mut inner.old);
        names.extend(std::mem::take(&mut inner.young));
        names.into_iter().collect()
    }
}

impl Inner {
    fn turn(&mut self, now: Duration) {
        let age = now.saturating_sub(self.turned);
        if age >= PROMISED {
            self.old = std::mem::take(&mut self.young);
            self.turned = now;
        }
        if age >= PROMISED * 2 {
            self.old.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Name {
        (Inode(1), name.into())
    }

    fn at(millis: u64) -> Duration {
        PROMISED * 10 + Duration::from_millis(millis)
    }

    #[test]
    fn what_the_kernel_may_have_is_taken_once() {
        let told = Told::default();
        told.note(name("file"), false, at(0));
        told.note(name("folder"), true, at(2999));
        told.note(name("late"), false, at(3000));
        let mut taken = told.take(at(5998));
        taken.sort();
        assert_eq!(
            taken,
            [(name("file"), false), (name("folder"), true), (name("late"), false)]
        );
        assert!(told.take(at(5999)).is_empty());
    }

    #[test]
    fn what_it_has_forgotten_by_itself_goes() {
        let told = Told::default();
        told.note(name("early"), false, at(0));
        told.note(name("late"), false, at(3000));
        assert_eq!(told.take(at(6000)), [(name("late"), false)]);
        told.note(name("early"), false, at(6000));
        assert!(told.take(at(12_000)).is_empty());
    }

    #[test]
    fn there_are_not_more_than_so_many() {
        let told = Told::default();
        (0..=REMEMBERED).for_each(|number| told.note(name(&number.to_string()), false, at(0)));
        assert_eq!(told.take(at(1)).len(), REMEMBERED);
    }
}
