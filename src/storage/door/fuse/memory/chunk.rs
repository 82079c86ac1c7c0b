//! Data on its way to the leader.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use bytes::Bytes;

use super::area::{Area, PAGE};
use super::turn::Turn;
use crate::storage::call::{DATA_MAX, Inode};

const CHUNK: usize = PAGE + DATA_MAX;
const CHUNKS: usize = 128;
pub const LENGTH: usize = CHUNKS * CHUNK;
/// Of a chunk that is free again, so much stays in memory: most writes are small.
const KEPT: usize = 4 * PAGE;

const AT_STATE: usize = 0;
const AT_INODE: usize = 8;
const AT_OFFSET: usize = 16;
const AT_LENGTH: usize = 24;
const AT_NUMBER: usize = 32;
const AT_LAST: usize = 40;
const AT_OWED: usize = 48;
const AT_OWED_SIZE: usize = 56;
const AT_FIRST: usize = 64;

const WRITE: u64 = 1;
const APPEND: u64 = 2;

/// What a chunk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Data at an offset of an inode.
    Write { inode: Inode, offset: u64 },
    /// Data for its end.
    Append { inode: Inode },
}

/// A request whose answer waits for the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    pub unique: u64,
    /// Bytes that it brought.
    pub size: u32,
    /// Who asks.
    pub thread: u32,
}

impl Content {
    pub fn inode(self) -> Inode {
        match self {
            Content::Write { inode, .. } | Content::Append { inode } => inode,
        }
    }
}

/// Free chunks. Clones are the same.
#[derive(Clone)]
pub struct Chunks(Arc<Inner>);

struct Inner {
    free: Mutex<Vec<Area>>,
    freed: Condvar,
    turn: Turn,
}

/// Data that was taken from the kernel. One that is dropped and not freed is left for the process that comes next.
pub struct Chunk {
    area: Area,
    pool: Chunks,
    pub content: Content,
    length: usize,
}

impl Chunks {
    pub(super) fn new(all: &mut Area, turn: Turn) -> Self {
        Chunks(Arc::new(Inner {
            free: Mutex::new(all.cut_many(CHUNKS, CHUNK)),
            freed: Condvar::new(),
            turn,
        }))
    }

    fn free(&self) -> MutexGuard<'_, Vec<Area>> {
        self.0.free.lock().expect("no holder of this lock panics")
    }

    /// How many are free.
    pub fn room(&self) -> usize {
        self.free().len()
    }

    /// What the process before took and did not bring to the leader, oldest first.
    pub fn left(&self) -> Vec<Chunk> {
        let mut free = self.free();
        let (left, unused): (Vec<_>, Vec<_>) = free.drain(..).partition(|area| area.u64(AT_STATE) != 0);
        *free = unused;
        drop(free);
        let mut left: Vec<Chunk> = left.into_iter().filter_map(|area| Chunk::found(area, self)).collect();
        left.sort_by_key(Chunk::number);
        left
    }

    /// A new chunk with the first data of the request `unique`; waits, with the whole thread, while there is none.
    pub fn begin(&self, content: Content, number: u64, unique: u64, data: &[u8]) -> Chunk {
        let mut free = self.0.turn.wait_for(&self.0.freed, self.free());
        let mut area = free.pop().expect("waited for");
        drop(free);
        let (state, offset) = match content {
            Content::Write { offset, .. } => (WRITE, offset),
            Content::Append { .. } => (APPEND, 0),
        };
        area.put(PAGE, data);
        area.set_u64(AT_INODE, content.inode().0);
        area.set_u64(AT_OFFSET, offset);
        area.set_u64(AT_LENGTH, data.len() as u64);
        area.set_u64(AT_NUMBER, number);
        area.set_u64(AT_FIRST, unique);
        area.set_u64(AT_LAST, unique);
        area.set_u64(AT_OWED, 0);
        area.set_u64(AT_STATE, state);
        Chunk {
            area,
            pool: self.clone(),
            content,
            length: data.len(),
        }
    }
}

impl Chunk {
    fn found(area: Area, pool: &Chunks) -> Option<Self> {
        let inode = Inode(area.u64(AT_INODE));
        let content = match area.u64(AT_STATE) {
            WRITE => Content::Write {
                inode,
                offset: area.u64(AT_OFFSET),
            },
            APPEND => Content::Append { inode },
            _ => return None,
        };
        let length = usize::try_from(area.u64(AT_LENGTH))
            .ok()
            .filter(|length| *length <= DATA_MAX)?;
        Some(Chunk {
            area,
            pool: pool.clone(),
            content,
            length,
        })
    }

    /// Its place in the order of all.
    pub fn number(&self) -> u64 {
        self.area.u64(AT_NUMBER)
    }

    /// The first request whose data is in it; by this the leader knows it.
    pub fn first(&self) -> u64 {
        self.area.u64(AT_FIRST)
    }

    /// The last request whose data is in it.
    pub fn last(&self) -> u64 {
        self.area.u64(AT_LAST)
    }

    /// The request that is answered when the leader has it.
    pub fn owed(&self) -> Option<Owed> {
        let unique = Some(self.area.u64(AT_OWED)).filter(|unique| *unique != 0)?;
        let [size, thread] = halves(self.area.u64(AT_OWED_SIZE));
        Some(Owed { unique, size, thread })
    }

    pub fn owe(&mut self, owed: Owed) {
        let both = u64::from(owed.thread) << 32 | u64::from(owed.size);
        self.area.set_u64(AT_OWED_SIZE, both);
        self.area.set_u64(AT_OWED, owed.unique);
    }

    pub fn len(&self) -> usize {
        self.length
    }

    /// Behind the last byte.
    pub fn end(&self) -> u64 {
        match self.content {
            Content::Write { offset, .. } => offset.saturating_add(self.length as u64),
            Content::Append { .. } => 0,
        }
    }

    /// Whether data at `offset` goes on where this ends, and fits.
    pub fn takes(&self, offset: u64, length: usize) -> bool {
        matches!(self.content, Content::Write { .. }) && offset == self.end() && self.length + length <= DATA_MAX
    }

    /// Adds data of the request `unique` at the end.
    pub fn add(&mut self, unique: u64, data: &[u8]) {
        let at = PAGE + self.length;
        self.length += data.len();
        let length = self.length as u64;
        let area = &mut self.area;
        area.put(at, data);
        area.set_u64(AT_LENGTH, length);
        // After: the next process takes the request for done.
        area.set_u64(AT_LAST, unique);
    }

    pub fn data(&self) -> Bytes {
        let data = self.area.bytes().get(PAGE..PAGE + self.length);
        Bytes::copy_from_slice(data.unwrap_or_default())
    }

    /// The leader has it.
    pub fn free(mut self) {
        self.area.set_u64(AT_STATE, 0);
        if self.length > KEPT {
            self.area.release(PAGE + KEPT);
        }
        self.pool.free().push(self.area);
        self.pool.0.freed.notify_one();
    }
}

fn halves(both: u64) -> [u32; 2] {
    [both, both >> 32].map(|half| u32::try_from(half & u64::from(u32::MAX)).expect("32 bits"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};

    const CONTENT: Content = Content::Write {
        inode: Inode(5),
        offset: 100,
    };

    #[test]
    fn chunks_grow_and_are_left_in_their_order() {
        let memory = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        let open = || {
            Chunks::new(
                &mut Area::map(memory.try_clone().unwrap(), LENGTH).unwrap(),
                Turn::default(),
            )
        };
        let chunks = open();
        let mut second = chunks.begin(CONTENT, 2, 20, b"abc");
        let mut first = chunks.begin(Content::Append { inode: Inode(6) }, 1, 10, b"x");
        chunks.begin(CONTENT, 3, 30, b"gone").free();
        assert!(second.takes(103, DATA_MAX - 3) && !second.takes(103, DATA_MAX - 2) && !second.takes(104, 1));
        second.add(21, b"def");
        let owed = Owed {
            unique: 10,
            size: 1,
            thread: 9,
        };
        first.owe(owed);
        drop((first, second));
        let left = open().left();
        let seen: Vec<_> = left
            .iter()
            .map(|chunk| (chunk.content, chunk.data(), chunk.last(), chunk.owed()))
            .collect();
        let append = Content::Append { inode: Inode(6) };
        let wanted = [
            (append, Bytes::from_static(b"x"), 10, Some(owed)),
            (CONTENT, Bytes::from_static(b"abcdef"), 21, None),
        ];
        assert_eq!(seen, wanted);
        left.into_iter().for_each(Chunk::free);
        assert!(open().left().is_empty());
    }

    #[test]
    fn a_request_is_the_last_one_when_its_data_counts() {
        let memory = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        let map = || Area::map(memory.try_clone().unwrap(), LENGTH).unwrap();
        let chunks = Chunks::new(&mut map(), Turn::default());
        let (is_over, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
        let found = map().cut_many(CHUNKS, CHUNK).pop().unwrap();
        std::thread::scope(|scope| {
            // What a process that comes at any moment would find.
            let watcher = scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    let last = found.u64(AT_LAST);
                    fence(Ordering::Acquire);
                    let length = found.u64(AT_LENGTH);
                    looks.fetch_add(1, Ordering::AcqRel);
                    if last > length {
                        return Some((last, length));
                    }
                }
                None
            });
            while looks.load(Ordering::Acquire) == 0 {
                std::thread::yield_now();
            }
            // Requests of one byte each, and their numbers are its length.
            let mut chunk = chunks.begin(CONTENT, 1, 1, b"a");
            for number in 2..=DATA_MAX as u64 {
                chunk.add(number, b"a");
            }
            is_over.store(true, Ordering::Release);
            assert_eq!(watcher.join().unwrap(), None);
        });
    }

    #[test]
    fn a_chunk_that_was_large_gives_its_memory_back() {
        let memory = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        let file = std::fs::File::from(memory.try_clone().unwrap());
        let chunks = Chunks::new(&mut Area::map(memory, LENGTH).unwrap(), Turn::default());
        let used = || std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap()) * 512;
        let chunk = chunks.begin(CONTENT, 1, 1, &vec![7; DATA_MAX]);
        assert!(used() > DATA_MAX as u64);
        chunk.free();
        assert!(used() < DATA_MAX as u64 / 4, "{}", used());
    }
}
