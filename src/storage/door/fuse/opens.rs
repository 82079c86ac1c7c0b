//! How often each inode is open here. The leader is told only of those that lost their last name: it keeps them then.
//!
//! A process may die between noting that it tells and telling. So the note says how often the leader may have been told; as often it is
//! told at the end that the inode is closed, for one close too many is none. The note goes when the leader has heard of that.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use super::memory::Rows;
use crate::storage::call::Inode;

/// Where in the word of the count it says how often the leader may have been told.
const TOLD: u32 = 48;

pub struct Opens(Mutex<Inner>);

struct Inner {
    rows: Rows<2>,
    open: HashMap<Inode, Open>,
}

struct Open {
    place: usize,
    /// 0: closed, and the leader is to hear of it.
    count: u64,
    told: u64,
    /// This process has told it.
    is_told: bool,
}

impl Open {
    fn row(&self, inode: Inode) -> [u64; 2] {
        [inode.0, self.count | self.told << TOLD]
    }
}

impl Opens {
    pub fn new(rows: Rows<2>) -> Self {
        let found = |(place, [inode, word]): (usize, [u64; 2])| {
            let open = Open {
                place,
                count: word & ((1 << TOLD) - 1),
                told: word >> TOLD,
                is_told: false,
            };
            (Inode(inode), open)
        };
        let open = rows.all().into_iter().map(found).collect();
        Opens(Mutex::new(Inner { rows, open }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// `false`: there are too many.
    pub fn open(&self, inode: Inode) -> bool {
        let Inner { rows, open } = &mut *self.inner();
        if let Some(known) = open.get_mut(&inode) {
            known.count += 1;
            rows.put(known.place, &known.row(inode));
            return true;
        }
        let Ok(place) = rows.add(&[inode.0, 1]) else {
            return false;
        };
        let new = Open {
            place,
            count: 1,
            told: 0,
            is_told: false,
        };
        open.insert(inode, new);
        true
    }

    /// How often the leader is to be told that the inode is closed; then call `closed`.
    pub fn close(&self, inode: Inode) -> u64 {
        let Inner { rows, open } = &mut *self.inner();
        let Some(known) = open.get_mut(&inode) else {
            return 0;
        };
        known.count = known.count.saturating_sub(1);
        if known.count > 0 || known.told > 0 {
            rows.put(known.place, &known.row(inode));
            return if known.count > 0 { 0 } else { known.told };
        }
        rows.remove(known.place);
        open.remove(&inode);
        0
    }

    /// The leader knows that the inode is closed.
    pub fn closed(&self, inode: Inode) {
        let Inner { rows, open } = &mut *self.inner();
        if let Some(known) = open.get(&inode).filter(|known| known.count == 0) {
            rows.remove(known.place);
            open.remove(&inode);
        }
    }

    pub fn is_open(&self, inode: Inode) -> bool {
        self.inner().open.get(&inode).is_some_and(|known| known.count > 0)
    }

    pub fn all(&self) -> Vec<Inode> {
        let inner = self.inner();
        let open = inner.open.iter().filter(|(_, known)| known.count > 0);
        open.map(|(inode, _)| *inode).collect()
    }

    /// Closed by the process before, which may not have told the leader; and how often it is to be told.
    pub fn left(&self) -> Vec<(Inode, u64)> {
        let inner = self.inner();
        let closed = inner.open.iter().filter(|(_, known)| known.count == 0);
        closed.map(|(inode, known)| (*inode, known.told)).collect()
    }

    /// The leader is about to be told that the inode is open. `false`: this process has told it, or it is open no more.
    pub fn tell(&self, inode: Inode) -> bool {
        let Inner { rows, open } = &mut *self.inner();
        match open.get_mut(&inode) {
            Some(known) if !known.is_told && known.count > 0 => {
                known.is_told = true;
                known.told += 1;
                rows.put(known.place, &known.row(inode));
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::Area;
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};

    const FILE: Inode = Inode(7);

    #[test]
    fn what_was_told_is_told_again_by_the_next_and_taken_back_as_often() {
        let memory = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        let open = || Opens::new(Rows::new(Area::map(memory.try_clone().unwrap(), 4096).unwrap()));
        let first = open();
        assert!(first.open(FILE) && first.open(FILE) && first.open(Inode(8)));
        assert!(first.tell(FILE) && !first.tell(FILE));
        assert_eq!(
            (first.close(FILE), first.close(Inode(8))),
            (0, 0),
            "one has it open, of the other nobody knows"
        );
        let second = open();
        assert_eq!(second.all(), [FILE]);
        assert!(
            second.tell(FILE) && !second.tell(FILE),
            "the process before may not have come to it"
        );
        assert_eq!(second.close(FILE), 2);
        assert!(!second.is_open(FILE) && second.all().is_empty());
        let third = open();
        assert_eq!(third.left(), [(FILE, 2)]);
        third.closed(FILE);
        assert!(open().left().is_empty());
    }
}
