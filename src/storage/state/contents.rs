//! Contents: one ordinary file per inode under `data/`.
//!
//! A batch changes contents before it commits their sizes. So that nobody reads the new bytes with the old size (a file cut
//! to nothing and not yet committed would read as zeros), a batch holds the turn of each inode that it changes until
//! it has committed, and a reader holds it over its look at the size and its read.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use quick_cache::unsync::Cache;

use super::buffer::Buffers;
use super::disk::{Content, Disk, is_unreadable};
use super::{Failure, HELD};
use crate::storage::call::Inode;

/// Folders below `data/`: 500 000 files make 2 000 names in each.
const FOLDERS: u64 = 256;
/// Turns are shared by inodes of equal rest. More would only spare a reader a short wait.
const TURNS: u64 = 64;
/// Contents kept open. With the log's files and the connections that stays below the 1024 descriptors of a plain process.
const OPENED: usize = 256;
/// Read at once for a checksum.
const CHUNK: usize = 256 * 1024;

type Opened = Cache<Inode, Arc<dyn Content>>;

pub struct Contents {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    turns: Vec<RwLock<()>>,
    /// Changed only by who has the inode's turn.
    opened: Mutex<Opened>,
    buffers: Buffers,
}

impl Contents {
    pub fn open(folder: PathBuf, disk: Arc<dyn Disk>) -> Result<Self, Failure> {
        let turns = (0..TURNS).map(|_| RwLock::new(())).collect();
        ensure_folders(disk.as_ref(), &folder)?;
        Ok(Contents {
            disk,
            folder,
            turns,
            opened: Mutex::new(Cache::new(OPENED)),
            buffers: Buffers::default(),
        })
    }

    pub fn path(&self, inode: Inode) -> PathBuf {
        path_in(&self.folder, inode)
    }

    /// All turns: waits until nobody reads or changes a content.
    pub fn all_turns(&self) -> Vec<RwLockWriteGuard<'_, ()>> {
        self.turns.iter().map(|turn| turn.write().expect(HELD)).collect()
    }

    /// Waits until nobody reads or changes the inode's content, keeps all from it, and closes it. Only for who holds the writer.
    pub fn turn_alone(&self, inode: Inode) -> RwLockWriteGuard<'_, ()> {
        let turn = self.turn_of(inode).write().expect(HELD);
        self.opened().remove(&inode);
        turn
    }

    /// Waits until no batch is changing the inode, and keeps the next from it.
    pub fn turn(&self, inode: Inode) -> Turn<'_> {
        self.reader(inode, self.turn_of(inode).read().expect(HELD))
    }

    /// The turn, if no batch is changing the inode now.
    pub fn try_turn(&self, inode: Inode) -> Option<Turn<'_>> {
        let turn = self.turn_of(inode).try_read().ok()?;
        Some(self.reader(inode, turn))
    }

    fn reader<'a>(&'a self, inode: Inode, turn: RwLockReadGuard<'a, ()>) -> Turn<'a> {
        Turn {
            contents: self,
            inode,
            _turn: turn,
        }
    }

    fn turn_of(&self, inode: Inode) -> &RwLock<()> {
        let at = usize::try_from(inode.0 % TURNS).expect("less than the number of turns");
        self.turns.get(at).expect("there is one for each rest")
    }

    fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().expect(HELD)
    }

    /// Closes all. Whoever reads now has its turn, so take all turns before.
    pub fn close(&self) {
        self.opened().clear();
    }

    /// Reads up to `count` bytes as they are at this moment, whatever is being applied; fewer at the end of the file.
    pub fn peek(&self, inode: Inode, offset: u64, count: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; count];
        let filled = self.disk.read_at(&self.path(inode), offset, &mut buffer)?;
        buffer.truncate(filled);
        Ok(buffer)
    }

    /// BLAKE3 of the first `size` bytes and how many of them there are; what cannot be read ends them.
    pub fn checksum(&self, inode: Inode, size: u64) -> io::Result<([u8; 32], u64)> {
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        while at < size {
            let count = (size - at).min(CHUNK as u64);
            let data = match self.peek(inode, at, usize::try_from(count).expect("at most a chunk")) {
                Err(error) if is_unreadable(&error) => {
                    tracing::warn!(inode = inode.0, at, %error, "a content cannot be read from the disk");
                    break;
                }
                other => other?,
            };
            if data.is_empty() {
                break;
            }
            hasher.update(&data);
            at += data.len() as u64;
        }
        Ok((*hasher.finalize().as_bytes(), at))
    }

    /// Removes the content of an inode that is gone. Gone already is as good. Only for who holds the writer.
    pub fn remove(&self, inode: Inode) -> io::Result<()> {
        let _turn = self.turn_alone(inode);
        match self.disk.remove(&self.path(inode)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Changes of one batch. Drop it after the commit.
    pub fn changing(&self) -> Changing<'_> {
        Changing {
            contents: self,
            held: BTreeMap::new(),
            changed: BTreeSet::new(),
        }
    }
}

/// Keeps batches from changing a content while it is read.
pub struct Turn<'a> {
    contents: &'a Contents,
    inode: Inode,
    _turn: RwLockReadGuard<'a, ()>,
}

impl Turn<'_> {
    /// Reads up to `count` bytes; fewer at the end of the file.
    pub fn read(&self, offset: u64, count: usize) -> io::Result<Bytes> {
        let content = match self.opened() {
            Some(content) => content,
            None => {
                let content = self.contents.disk.open(&self.contents.path(self.inode))?;
                self.contents.opened().insert(self.inode, content.clone());
                content
            }
        };
        let buffers = &self.contents.buffers;
        buffers.fill(count, |buffer| content.read_at(offset, buffer))
    }

    /// Reads `count` bytes if the content is open and they are in memory.
    pub fn read_ready(&self, offset: u64, count: usize) -> Option<Bytes> {
        let content = self.opened()?;
        let buffers = &self.contents.buffers;
        let ready = buffers.fill(count, |buffer| Ok(content.read_ready(offset, buffer)));
        ready.ok().filter(|data| data.len() == count)
    }

    fn opened(&self) -> Option<Arc<dyn Content>> {
        self.contents.opened().get(&self.inode).cloned()
    }
}

/// Holds the turns of what it changed. There is one at a time (the writer's), and who waits for a turn holds
/// nothing that the writer waits for.
pub struct Changing<'a> {
    contents: &'a Contents,
    held: BTreeMap<u64, RwLockWriteGuard<'a, ()>>,
    changed: BTreeSet<Inode>,
}

impl Changing<'_> {
    pub fn create(&mut self, inode: Inode) -> Result<(), Failure> {
        let path = self.take(inode);
        Ok(self.contents.disk.create(&path)?)
    }

    pub fn write(&mut self, inode: Inode, offset: u64, data: &[u8]) -> Result<(), Failure> {
        let path = self.take(inode);
        Ok(self.contents.disk.write_at(&path, offset, data)?)
    }

    pub fn set_len(&mut self, inode: Inode, size: u64) -> Result<(), Failure> {
        let path = self.take(inode);
        Ok(self.contents.disk.set_len(&path, size)?)
    }

    /// What was changed so far, or half changed.
    pub fn changed(&self) -> impl Iterator<Item = Inode> {
        self.changed.iter().copied()
    }

    fn take(&mut self, inode: Inode) -> PathBuf {
        let contents = self.contents;
        self.changed.insert(inode);
        self.held
            .entry(inode.0 % TURNS)
            .or_insert_with(|| contents.turn_of(inode).write().expect(HELD));
        contents.path(inode)
    }
}

/// Where the content of an inode lies below `folder`.
pub fn path_in(folder: &Path, inode: Inode) -> PathBuf {
    folder.join(format!("{:02x}/{}", inode.0 % FOLDERS, inode.0))
}

/// A folder for contents with the folders in it.
pub fn ensure_folders(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    ensure_folder(disk, folder)?;
    (0..FOLDERS).try_for_each(|part| ensure_folder(disk, &folder.join(format!("{part:02x}"))))
}

pub fn ensure_folder(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.make_folder(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}
