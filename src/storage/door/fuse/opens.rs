//! How often each inode is open here. The leader is told only of those that lost their last name: it keeps them then.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use super::memory::Rows;
use crate::storage::call::Inode;

/// In the word of the count.
const TOLD: u64 = 1 << 63;

pub struct Opens(Mutex<Inner>);

struct Inner {
    rows: Rows<2>,
    open: HashMap<Inode, Open>,
}

struct Open {
    place: usize,
    count: u64,
    /// The leader knows.
    is_told: bool,
}

impl Open {
    fn row(&self, inode: Inode) -> [u64; 2] {
        [inode.0, self.count | if self.is_told { TOLD } else { 0 }]
    }
}

impl Opens {
    pub fn new(rows: Rows<2>) -> Self {
        let found = |(place, [inode, count]): (usize, [u64; 2])| {
            let open = Open {
                place,
                count: count & !TOLD,
                is_told: count & TOLD != 0,
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
            is_told: false,
        };
        open.insert(inode, new);
        true
    }

    /// Whether that was the last one, and the leader is to be told.
    pub fn close(&self, inode: Inode) -> bool {
        let Inner { rows, open } = &mut *self.inner();
        let Some(known) = open.get_mut(&inode) else {
            return false;
        };
        known.count = known.count.saturating_sub(1);
        if known.count > 0 {
            rows.put(known.place, &known.row(inode));
            return false;
        }
        let is_told = known.is_told;
        rows.remove(known.place);
        open.remove(&inode);
        is_told
    }

    pub fn is_open(&self, inode: Inode) -> bool {
        self.inner().open.contains_key(&inode)
    }

    pub fn all(&self) -> Vec<Inode> {
        self.inner().open.keys().copied().collect()
    }

    /// The leader is about to be told. `false`: it knows, or the inode is open no more.
    pub fn tell(&self, inode: Inode) -> bool {
        let Inner { rows, open } = &mut *self.inner();
        match open.get_mut(&inode) {
            Some(known) if !known.is_told => {
                known.is_told = true;
                rows.put(known.place, &known.row(inode));
                true
            }
            _ => false,
        }
    }
}
