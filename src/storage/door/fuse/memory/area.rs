//! Shared memory that outlives this process, cut into areas of one owner each.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};

/// A part of the memory. Nobody else in this process has it; the process before is gone.
pub struct Area {
    map: Arc<MmapRaw>,
    file: Arc<File>,
    at: usize,
    length: usize,
}

impl Area {
    /// Maps all of the memory, as large as `length`.
    pub fn map(memory: OwnedFd, length: usize) -> io::Result<Self> {
        let file = File::from(memory);
        let wanted = u64::try_from(length).map_err(io::Error::other)?;
        if file.metadata()?.len() < wanted {
            file.set_len(wanted)?;
        }
        let map = MmapOptions::new().len(length).map_raw(&file)?;
        Ok(Area {
            map: Arc::new(map),
            file: Arc::new(file),
            at: 0,
            length,
        })
    }

    /// Takes the first `length` bytes off.
    pub fn cut(&mut self, length: usize) -> Self {
        assert!(length <= self.length, "the layout fits the memory");
        let part = Area {
            map: self.map.clone(),
            file: self.file.clone(),
            at: self.at,
            length,
        };
        self.at += length;
        self.length -= length;
        part
    }

    pub fn cut_many(&mut self, count: usize, length: usize) -> Vec<Self> {
        (0..count).map(|_| self.cut(length)).collect()
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the area lies within the map, which lives as long as `self`. No other area overlaps it (`cut` takes it off), and
        // no other process writes: the supervisor maps nothing, and starts the next owner when this process has ended. Changes
        // go through `&mut self` only.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(self.at), self.length) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` is the only reference to the area.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().add(self.at), self.length) }
    }

    /// Gives the pages behind the first `kept` bytes back to the machine; they read as zero then.
    pub fn release(&mut self, kept: usize) {
        let start = (self.at + kept).next_multiple_of(PAGE);
        let end = (self.at + self.length) / PAGE * PAGE;
        if start >= end {
            return;
        }
        let mode = nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let (Ok(offset), Ok(length)) = (i64::try_from(start), i64::try_from(end - start)) else {
            return;
        };
        // Memory that is not given back is used again later.
        let _ = nix::fcntl::fallocate(&*self.file, mode, offset, length);
    }

    /// Has every page mapped for writing. Where the kernel is to put something while this process is being killed, it cannot wait
    /// for a page, and would fail whoever sent it.
    pub fn touch(&mut self) {
        for byte in self.bytes_mut().iter_mut().step_by(PAGE) {
            *byte = std::hint::black_box(*byte);
        }
    }

    pub fn u64(&self, at: usize) -> u64 {
        let bytes = self.bytes().get(at..at + 8).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    }

    pub fn set_u64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_ne_bytes());
    }

    /// Whoever comes next finds this only with all that was put before: nothing is put earlier than it is said.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        fence(Ordering::Release);
        self.bytes_mut()[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

pub const PAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};

    #[test]
    fn areas_are_apart_and_what_they_hold_is_there_for_the_next_process() {
        let memory = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        let mut all = Area::map(memory.try_clone().unwrap(), 4 * PAGE).unwrap();
        let (mut first, mut rest) = (all.cut(PAGE), all.cut_many(3, PAGE));
        first.set_u64(8, 7);
        rest[0].put(0, b"data");
        assert_eq!(
            (first.u64(8), first.u64(0), &rest[0].bytes()[..5]),
            (7, 0, &b"data\0"[..])
        );
        drop((first, rest, all));
        let mut again = Area::map(memory, 4 * PAGE).unwrap();
        assert_eq!(again.u64(8), 7);
        let _head = again.cut(PAGE);
        let mut second = again.cut(PAGE);
        assert_eq!(&second.bytes()[..4], b"data");
        second.release(0);
        assert_eq!(&second.bytes()[..4], [0; 4]);
    }

    #[test]
    #[should_panic(expected = "the layout fits")]
    fn more_than_there_is_cannot_be_cut() {
        let memory = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        Area::map(memory, PAGE).unwrap().cut(PAGE + 1);
    }
}
