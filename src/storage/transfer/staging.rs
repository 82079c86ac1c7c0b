//! The receiver's folder `incoming`: what has arrived, and what of it may be trusted after a cut (head of the module).

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::call::Inode;
use crate::storage::state::disk::{Disk, is_unreadable};
use crate::storage::state::{Failure, FileFact, Incoming, Machine, Snapshot};

/// A sync at least after this many contents, or bytes of them: what a cut costs.
const FRESH_FILES: usize = 10_000;
const FRESH_BYTES: u64 = 256 << 20;
/// Ends the name of a content that was not synced yet.
const FRESH: &str = "new";

pub struct Staging {
    incoming: Incoming,
    disk: Arc<dyn Disk>,
    /// Whose contents are linked, and who has them on the disk with what arrives.
    machine: Arc<Machine>,
    /// Arrived since the last sync.
    fresh: Vec<Inode>,
    fresh_bytes: u64,
}

impl Staging {
    pub fn open(incoming: Incoming, disk: Arc<dyn Disk>, machine: Arc<Machine>) -> Result<Self, Failure> {
        incoming.prepare(disk.as_ref())?;
        Ok(Staging {
            incoming,
            disk,
            machine,
            fresh: Vec::new(),
            fresh_bytes: 0,
        })
    }

    /// Where metadata that arrive are written.
    pub fn new_meta(&self) -> PathBuf {
        self.incoming.folder.join("meta.new")
    }

    /// From now on the metadata in `new_meta` say what each content is. What has arrived before and is another now goes.
    pub fn adopt(&self) -> Result<Snapshot, Failure> {
        let (new, meta) = (self.new_meta(), &self.incoming.meta);
        let before = match meta.exists() {
            true => Some(Snapshot::open(meta)?),
            false => None,
        };
        self.sweep(before.as_ref(), &Snapshot::open(&new)?)?;
        drop(before);
        self.disk.sync(&self.incoming.folder)?;
        for beside in ["meta.db-wal", "meta.db-shm", "meta.new-wal", "meta.new-shm"] {
            remove_if_there(&self.incoming.folder.join(beside))?;
        }
        fs::rename(new, meta)?;
        File::open(&self.incoming.folder)?.sync_all()?;
        Snapshot::open(meta)
    }

    fn sweep(&self, before: Option<&Snapshot>, now: &Snapshot) -> Result<(), Failure> {
        for (part, _) in self.disk.list(&self.incoming.data)? {
            let folder = self.incoming.data.join(std::ffi::OsStr::from_bytes(&part));
            for (name, _) in self.disk.list(&folder)? {
                let inode = std::str::from_utf8(&name).ok().and_then(|name| name.parse().ok());
                let is_same = match (inode.map(Inode), before) {
                    (Some(inode), Some(before)) => {
                        let fact = now.fact(inode)?;
                        fact.is_some() && before.fact(inode)? == fact
                    }
                    _ => false,
                };
                if !is_same {
                    self.disk.remove(&folder.join(std::ffi::OsStr::from_bytes(&name)))?;
                }
            }
        }
        Ok(())
    }

    /// Whether the content has arrived and was synced.
    pub fn has(&self, inode: Inode) -> Result<bool, Failure> {
        match self.disk.look(&self.incoming.content(inode)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            other => Ok(other.map(|_| true)?),
        }
    }

    /// Links a content from elsewhere if it is there and has all its bytes.
    pub fn link(&mut self, from: &Path, fact: &FileFact) -> Result<bool, Failure> {
        if !has_bytes(self.disk.as_ref(), from, fact.size)? {
            return Ok(false);
        }
        match self.disk.link(from, &self.fresh_path(fact.inode)) {
            // Removed at this moment.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
            Ok(()) => self.arrived(fact.inode, 0).map(|()| true),
        }
    }

    pub fn create(&self, inode: Inode) -> io::Result<()> {
        self.disk.create(&self.fresh_path(inode))
    }

    pub fn write(&self, inode: Inode, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write_at(&self.fresh_path(inode), offset, data)
    }

    /// A content has all its bytes; it is synced by and by.
    pub fn arrived(&mut self, inode: Inode, bytes: u64) -> Result<(), Failure> {
        self.fresh.push(inode);
        self.fresh_bytes += bytes;
        if self.fresh.len() >= FRESH_FILES || self.fresh_bytes >= FRESH_BYTES {
            self.settle()?;
        }
        Ok(())
    }

    /// Syncs what is fresh and gives it its name.
    pub fn settle(&mut self) -> Result<(), Failure> {
        self.machine.sync()?;
        for inode in &self.fresh {
            self.disk
                .rename(&self.fresh_path(*inode), &self.incoming.content(*inode))?;
        }
        self.fresh.clear();
        self.fresh_bytes = 0;
        Ok(())
    }

    /// Settles the rest, and the state is ready to be installed.
    pub fn complete(&mut self) -> Result<(), Failure> {
        self.settle()?;
        for beside in ["meta.db-wal", "meta.db-shm"] {
            remove_if_there(&self.incoming.folder.join(beside))?;
        }
        self.incoming.complete(self.disk.as_ref())
    }

    fn fresh_path(&self, inode: Inode) -> PathBuf {
        self.incoming.content(inode).with_extension(FRESH)
    }
}

fn has_bytes(disk: &dyn Disk, path: &Path, size: u64) -> Result<bool, Failure> {
    let Some(last) = size.checked_sub(1) else {
        return Ok(true);
    };
    match disk.read_at(path, last, &mut [0]) {
        Err(error) if error.kind() == ErrorKind::NotFound || is_unreadable(&error) => Ok(false),
        other => Ok(other? == 1),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
