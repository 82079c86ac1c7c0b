//! Locks of this node's processes, and what the node has of the leader for them: in rows that the process that comes next finds.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use nix::errno::Errno;

use super::flock::{Flock, Holder, Level, Verdict};
use super::memory::{Full, Rows};
use crate::storage::call::Inode;

/// In whose name the node has a flock of the leader.
pub const NODE: u64 = u64::MAX;

/// Files whose flock the node keeps though nobody uses it; half of the rows.
const KEPT: usize = 4096;
/// Of those beyond, so many go for each that comes.
const AT_ONCE: usize = 2;

/// Kinds of rows.
const HOLDER: u64 = 0;
const NODE_LEVEL: u64 = 1;
const FCNTL: u64 = 2;
const EXCLUSIVE: u64 = 1 << 8;

#[derive(Default)]
pub struct File {
    pub flock: Flock,
    /// The leader was asked, and what it said is not known: whoever asked was interrupted.
    pub is_asked: bool,
    /// The leader knows that somebody here uses it.
    pub is_said: bool,
    /// It is on its way back, for too many are kept.
    pub is_leaving: bool,
    /// Who asks the leader for this file.
    pub turn: Arc<tokio::sync::Mutex<()>>,
    /// Places of rows.
    pub node_row: Option<usize>,
    pub holder_rows: HashMap<u64, usize>,
    pub fcntl_rows: HashMap<u64, usize>,
}

/// What goes back to the leader.
pub enum GiveBack {
    Nothing,
    /// All but this, which is in use.
    To(Level),
    All,
}

impl File {
    /// Nothing of it is held, and nobody is about to ask.
    fn is_empty(&self) -> bool {
        self.flock.is_idle()
            && self.flock.node == Level::None
            && !self.is_asked
            && self.fcntl_rows.is_empty()
            && Arc::strong_count(&self.turn) == 1
    }

    /// Another node waits for what nobody here uses.
    pub fn has_more_than_used(&self) -> bool {
        matches!(self.give_back(), GiveBack::To(level) if level != self.flock.node)
    }

    pub fn give_back(&self) -> GiveBack {
        let is_exclusive = self.flock.holders.iter().any(|holder| holder.is_exclusive);
        let used = match is_exclusive {
            true => Level::Exclusive,
            false => Level::Shared,
        };
        let has_any = self.is_asked || self.flock.node != Level::None;
        match self.flock.is_idle() {
            true if has_any => GiveBack::All,
            false if self.flock.is_wanted && (self.flock.node != used || !self.is_said) => GiveBack::To(used),
            _ => GiveBack::Nothing,
        }
    }
}

pub struct Table {
    rows: Rows<3>,
    pub files: HashMap<Inode, File>,
    /// Until then nobody knows whether the node still has what the process before noted.
    pub is_begun: bool,
    /// How often all that the node had was lost.
    pub losses: u64,
    /// Handles whose close is not told (`abi::open::NO_FLUSH`), and owners who asked for ranges by them: several, where one has forked.
    /// What the process before knew of that is made up for when nobody here has the file open.
    pub unflushed: HashMap<u64, HashSet<u64>>,
}

impl Table {
    pub fn of(rows: Rows<3>) -> Self {
        let mut table = Table {
            files: HashMap::new(),
            is_begun: false,
            losses: 0,
            unflushed: HashMap::new(),
            rows,
        };
        for (place, [inode, bits, owner]) in table.rows.all() {
            let file = table.files.entry(Inode(inode)).or_default();
            let is_exclusive = bits & EXCLUSIVE != 0;
            match bits & 0xff {
                HOLDER => {
                    file.flock.grant(Holder { owner, is_exclusive });
                    file.holder_rows.insert(owner, place);
                }
                NODE_LEVEL => {
                    file.flock.node = if is_exclusive { Level::Exclusive } else { Level::Shared };
                    // Who asked for it meanwhile is not known.
                    file.flock.is_wanted = true;
                    file.node_row = Some(place);
                }
                _ => drop(file.fcntl_rows.insert(owner, place)),
            }
        }
        table
    }

    /// The leader says that a lock of this node is in the way, or that one may be free. It may have one of which nothing is known here:
    /// who asked for it was interrupted, or there was no room to note it.
    pub fn look(&mut self, inode: Inode) {
        let is_known = self.files.get(&inode).is_some_and(|file| !file.is_empty());
        let file = self.file(inode);
        file.flock.is_wanted = true;
        file.is_asked |= !is_known;
    }

    pub fn file(&mut self, inode: Inode) -> &mut File {
        self.files.entry(inode).or_default()
    }

    /// What becomes of the wish; with `Granted` the holder has it.
    pub fn judge(&mut self, inode: Inode, holder: Holder) -> Result<Verdict, i32> {
        let verdict = self.file(inode).flock.judge(holder);
        match verdict {
            Verdict::Granted if !self.is_begun => Ok(Verdict::Ask(holder.level())),
            Verdict::Granted => self.grant(inode, holder).map(|()| verdict),
            _ => Ok(verdict),
        }
    }

    pub fn grant(&mut self, inode: Inode, holder: Holder) -> Result<(), i32> {
        let row = row(inode, HOLDER, holder.is_exclusive, holder.owner);
        let file = self.files.entry(inode).or_default();
        match file.holder_rows.get(&holder.owner) {
            Some(place) => self.rows.put(*place, &row),
            None => {
                let place = self.rows.add(&row).map_err(|_| Errno::ENOLCK as i32)?;
                file.holder_rows.insert(holder.owner, place);
            }
        }
        file.flock.grant(holder);
        Ok(())
    }

    pub fn has(&self, inode: Inode, owner: u64) -> bool {
        let file = self.files.get(&inode);
        file.is_some_and(|file| file.holder_rows.contains_key(&owner))
    }

    /// Whether the file is to be given back now.
    pub fn release(&mut self, inode: Inode, owner: u64) -> bool {
        let Some(file) = self.files.get_mut(&inode) else {
            return false;
        };
        file.flock.release(owner);
        if let Some(place) = file.holder_rows.remove(&owner) {
            self.rows.remove(place);
        }
        file.flock.is_wanted && file.flock.is_idle()
    }

    pub fn set_level(&mut self, inode: Inode, level: Level) {
        let file = self.files.entry(inode).or_default();
        (file.flock.node, file.flock.is_wanted) = (level, false);
        (file.is_asked, file.is_said) = (false, false);
        let row = row(inode, NODE_LEVEL, level == Level::Exclusive, NODE);
        match (level, file.node_row) {
            (Level::None, place) => {
                file.node_row = None;
                place.into_iter().for_each(|place| self.rows.remove(place));
            }
            (_, Some(place)) => self.rows.put(place, &row),
            // Without a row the next process gives it back when it is asked to (`look`).
            (_, None) => file.node_row = self.rows.add(&row).ok(),
        }
    }

    /// The node may have nothing of the leader any more. What is used here, to be asked for again; the rest is forgotten.
    pub fn lose(&mut self) -> Vec<Inode> {
        self.losses += 1;
        let all: Vec<Inode> = self.files.keys().copied().collect();
        let is_used = |inode: &Inode| {
            self.set_level(*inode, Level::None);
            let file = self.file(*inode);
            let is_used = !file.flock.is_idle();
            file.flock.is_wanted = is_used;
            self.tidy(*inode);
            is_used
        };
        all.into_iter().filter(is_used).collect()
    }

    /// Of too many kept, some that nobody uses, each once: they are on their way back from here on.
    pub fn too_many(&mut self, but: Inode) -> Vec<Inode> {
        let beyond = self.files.len().saturating_sub(KEPT).min(AT_ONCE);
        let is_idle = |(inode, file): &(&Inode, &mut File)| {
            **inode != but && file.node_row.is_some() && !file.is_leaving && file.flock.is_idle()
        };
        let leaving = self.files.iter_mut().filter(is_idle).take(beyond);
        let leave = |(inode, file): (&Inode, &mut File)| {
            file.is_leaving = true;
            *inode
        };
        leaving.map(leave).collect()
    }

    /// It was given back, or is still used.
    pub fn settle(&mut self, inode: Inode) {
        if let Some(file) = self.files.get_mut(&inode) {
            file.is_leaving = false;
        }
        self.tidy(inode);
    }

    pub fn note_fcntl(&mut self, inode: Inode, owner: u64) -> Result<(), Full> {
        let file = self.files.entry(inode).or_default();
        if let Entry::Vacant(free) = file.fcntl_rows.entry(owner) {
            free.insert(self.rows.add(&row(inode, FCNTL, false, owner))?);
        }
        Ok(())
    }

    /// Owners who have asked for ranges of the file.
    pub fn fcntl_owners(&self, inode: Inode) -> Vec<u64> {
        let file = self.files.get(&inode);
        file.map_or_else(Vec::new, |file| file.fcntl_rows.keys().copied().collect())
    }

    pub fn forget_fcntl(&mut self, inode: Inode, owner: u64) {
        if let Some(file) = self.files.get_mut(&inode)
            && let Some(place) = file.fcntl_rows.remove(&owner)
        {
            self.rows.remove(place);
        }
        self.tidy(inode);
    }

    /// Forgets a file of which nothing is held.
    pub fn tidy(&mut self, inode: Inode) {
        if self.files.get(&inode).is_some_and(File::is_empty) {
            self.files.remove(&inode);
        }
    }
}

fn row(inode: Inode, kind: u64, is_exclusive: bool, owner: u64) -> [u64; 3] {
    [inode.0, kind | if is_exclusive { EXCLUSIVE } else { 0 }, owner]
}

#[cfg(test)]
mod tests {
    use super::super::memory::Area;
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};

    #[test]
    fn what_nothing_is_known_of_goes_back_when_it_is_asked_for() {
        let memory = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        let mut table = Table::of(Rows::new(Area::map(memory, 4096).unwrap()));
        let (unknown, asked) = (Inode(7), Inode(8));
        table.look(unknown);
        assert!(matches!(table.file(unknown).give_back(), GiveBack::All));
        table.set_level(unknown, Level::None);
        table.tidy(unknown);
        assert!(table.files.is_empty());
        // Somebody waits for his turn to ask.
        let turn = table.file(asked).turn.clone();
        table.look(asked);
        assert!(matches!(table.file(asked).give_back(), GiveBack::Nothing));
        drop(turn);
    }

    #[test]
    fn of_what_was_lost_only_what_is_used_is_asked_for_again() {
        let memory = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        let open = || Table::of(Rows::new(Area::map(memory.try_clone().unwrap(), 4096).unwrap()));
        let mut table = open();
        let (used, idle) = (Inode(7), Inode(8));
        let holder = Holder {
            owner: 1,
            is_exclusive: false,
        };
        for inode in [used, idle] {
            table.set_level(inode, Level::Exclusive);
        }
        table.grant(used, holder).unwrap();
        let next = Holder {
            owner: 2,
            is_exclusive: true,
        };
        assert_eq!(table.judge(idle, next), Ok(Verdict::Ask(Level::Exclusive)), "not begun");
        assert_eq!(table.lose(), [used]);
        assert!(!table.files.contains_key(&idle));
        for mut table in [table, open()] {
            let file = table.file(used);
            assert_eq!(file.flock.node, Level::None);
            file.flock.is_wanted = true;
            assert!(matches!(file.give_back(), GiveBack::To(Level::Shared)));
        }
    }

    #[test]
    fn of_too_many_kept_each_goes_back_once_and_is_forgotten() {
        let memory = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        let mut table = Table::of(Rows::new(Area::map(memory, 2 * KEPT * 24).unwrap()));
        let count = u64::try_from(KEPT).unwrap() + 3;
        (1..=count).for_each(|number| table.set_level(Inode(number), Level::Exclusive));
        let used = Holder {
            owner: 7,
            is_exclusive: true,
        };
        table.grant(Inode(1), used).unwrap();
        let mut leaving: Vec<Inode> = (0..2).flat_map(|_| table.too_many(Inode(2))).collect();
        assert_eq!(leaving.len(), 2 * AT_ONCE);
        leaving.sort_unstable_by_key(|inode| inode.0);
        leaving.dedup();
        assert_eq!(leaving.len(), 2 * AT_ONCE, "each once");
        assert!(!leaving.contains(&Inode(1)) && !leaving.contains(&Inode(2)));
        for inode in &leaving {
            table.set_level(*inode, Level::None);
            table.settle(*inode);
            assert!(!table.files.contains_key(inode));
        }
        assert!(table.too_many(Inode(2)).is_empty());
        // One that came to be used meanwhile stays, and may go later.
        table.set_level(Inode(count + 1), Level::Shared);
        table.set_level(Inode(count + 2), Level::Shared);
        let again = table.too_many(Inode(2));
        again.iter().for_each(|inode| table.settle(*inode));
        assert_eq!(table.too_many(Inode(2)).len(), again.len());
    }
}
