//! A state that came from another replica takes the place of the machine's own.
//!
//! ```text
//! incoming/meta.db     the sender's metadata at some index
//! incoming/data/xx/ID  contents; whole and synced under this name, older or newer than the metadata as after a crash
//! incoming/complete    everything is there and on the disk
//! incoming/accepted    it shall take the place, whatever happens
//! ```
//!
//! Raft purges the log right after it has told the machine to install, and a crash may come between. So `complete` is
//! written before Raft is asked, and the next start decides by the log: if that lacks entries which the old state needs, Raft had said
//! yes. Otherwise it had not, or it does not matter, and the old state goes on; a state that Raft never took could lie on
//! entries of the log that contradict it. Once `accepted` stands, nothing of the old state counts any more: `finish` does what is left
//! of the moves before anybody opens anything, as often as it takes.
//!
//! The mirror stays where it is and is mended when the machine opens: most of its links still point to the right contents.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::checkpoint::{Marker, Phase};
use super::contents::{ensure_folder, ensure_folders, path_in};
use super::disk::Disk;
use super::layout::{Layout, remove_if_there};
use super::machine::{Machine, lock};
use super::manifest::Snapshot;
use super::tree::clear;
use super::{Failure, FileFact};
use crate::storage::call::Inode;

/// The folder of a state that is coming, inside the machine's folder: so names can move and contents be linked.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub folder: PathBuf,
    pub meta: PathBuf,
    pub data: PathBuf,
    complete: PathBuf,
    accepted: PathBuf,
}

impl Incoming {
    pub fn of(machine: &Path) -> Self {
        Incoming::at(machine.join("incoming"))
    }

    pub fn at(folder: PathBuf) -> Self {
        Incoming {
            meta: folder.join("meta.db"),
            data: folder.join("data"),
            complete: folder.join("complete"),
            accepted: folder.join("accepted"),
            folder,
        }
    }

    /// Makes the folders; what is there stays, but it counts as complete no longer.
    pub fn prepare(&self, disk: &dyn Disk) -> Result<(), Failure> {
        // SQLite's files do not pass through the disk.
        fs::create_dir_all(&self.folder)?;
        ensure_folder(disk, &self.folder)?;
        ensure_folders(disk, &self.data)?;
        self.withdraw(disk)
    }

    pub fn content(&self, inode: Inode) -> PathBuf {
        path_in(&self.data, inode)
    }

    /// Everything is there and synced.
    pub fn complete(&self, disk: &dyn Disk) -> Result<(), Failure> {
        disk.sync(&self.folder)?;
        Ok(disk.replace(&self.complete, b"")?)
    }

    pub fn is_complete(&self, disk: &dyn Disk) -> Result<bool, Failure> {
        exists(disk, &self.complete)
    }

    /// It shall not take the machine's place; what is there may be used again.
    pub fn withdraw(&self, disk: &dyn Disk) -> Result<(), Failure> {
        if self.is_complete(disk)? {
            disk.remove(&self.complete)?;
            disk.sync(&self.folder)?;
        }
        Ok(())
    }

    /// Removes all of it.
    pub fn discard(&self, disk: &dyn Disk) -> Result<(), Failure> {
        self.withdraw(disk)?;
        clear(disk, &self.folder)?;
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Does the log lack entries that the state needs? `purged` is the last entry that is gone, `durable` the state's.
fn is_needed(purged: Option<u64>, durable: Option<u64>) -> bool {
    purged > durable
}

/// Before the machine in `folder` is opened at a start: decides whether a complete received state takes its place. `purged` is the index
/// of the last entry that the log has purged.
pub fn admit_incoming(folder: &Path, disk: &dyn Disk, purged: Option<u64>) -> Result<(), Failure> {
    let incoming = Incoming::of(folder);
    if !exists(disk, &incoming.complete)? {
        return Ok(());
    }
    let _in_use = lock(folder)?;
    let durable = Marker::read(disk, &Layout::of(folder).marker)?.and_then(|marker| marker.index);
    match is_needed(purged, durable) {
        true => Ok(disk.replace(&incoming.accepted, b"")?),
        false => incoming.withdraw(disk),
    }
}

/// Brings an accepted state to its place, from whatever step it stopped at. Nothing of the folder is open.
pub fn finish(folder: &Path, disk: &dyn Disk) -> Result<(), Failure> {
    let (own, incoming) = (Layout::of(folder), Incoming::of(folder));
    let (replaced, outgoing) = (folder.join("replaced"), folder.join("outgoing"));
    if exists(disk, &incoming.accepted)? {
        if exists(disk, &incoming.data)? {
            if exists(disk, &own.data)? {
                clear(disk, &replaced)?;
                disk.rename(&own.data, &replaced)?;
            }
            disk.rename(&incoming.data, &own.data)?;
        }
        remove_if_there(&own.wal())?;
        remove_if_there(&own.shm())?;
        if incoming.meta.exists() {
            fs::rename(&incoming.meta, &own.meta)?;
        }
        disk.sync(folder)?;
        let marker = Marker {
            phase: Phase::Settled,
            index: Snapshot::open(&own.meta)?.applied()?,
            is_mirror_broken: true,
        };
        marker.write(disk, &own.marker)?;
        disk.remove(&incoming.accepted)?;
        // Were it to come back after a power cut, it would undo what comes now.
        disk.sync(folder)?;
        incoming.discard(disk)?;
    }
    if exists(disk, &replaced)? {
        clear(disk, &replaced)?;
    }
    match fs::remove_dir_all(outgoing) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

impl Machine {
    /// Gives its place to the complete state in `incoming`. This machine refuses everything from now on, also after a failure: then the
    /// process must end, and the next start finishes what this began.
    pub(super) fn give_way(&self) -> Result<Machine, Failure> {
        let incoming = Incoming::of(&self.folder);
        if !incoming.is_complete(self.disk.as_ref())? {
            return Err(Failure::Damaged("the received state is not complete".into()));
        }
        self.disk.replace(&incoming.accepted, b"")?;
        let in_use = self.retire()?.ok_or(Failure::Stopped)?;
        Machine::open_locked(&self.folder, self.disk.clone(), in_use)
    }

    /// Puts the file `from`, whole and synced, in the place of a content, unless that has changed since `fact`. Says whether
    /// it did.
    pub fn replace_content(&self, fact: &FileFact, from: &Path) -> Result<bool, Failure> {
        self.exchange(fact.inode, || {
            let is_same = self.fact_now(fact.inode)? == Some(*fact) && !self.is_torn(fact.inode);
            if is_same {
                self.disk.rename(from, &self.contents.path(fact.inode))?;
            }
            Ok(is_same)
        })
    }
}

fn exists(disk: &dyn Disk, path: &Path) -> Result<bool, Failure> {
    match disk.look(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        other => Ok(other.map(|_| true)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_received_state_is_needed_when_the_log_has_a_gap_before_it() {
        assert!(!is_needed(None, None));
        assert!(is_needed(Some(0), None));
        assert!(is_needed(Some(8), Some(7)));
        assert!(!is_needed(Some(7), Some(7)) && !is_needed(Some(3), Some(7)) && !is_needed(None, Some(0)));
    }
}
