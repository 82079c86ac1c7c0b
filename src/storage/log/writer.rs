//! Every change of the log, one after another, each on the disk before it returns. Runs on the log's own thread.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::Sizes;
use super::blocks::{self, BLOCK, Blocks};
use super::index::{Index, Segment, name};
use super::marks::{self, Committed};
use super::record;
use super::segment::{self, Header, Places};
use crate::storage::disk::{Disk, DiskFile};
use crate::storage::entry;
use crate::storage::types::{Entry, LogId, Vote, next_index};

/// Zeros that go with a small write where nothing was written before: the disk's blocks are given to the file once for many
/// writes then, and the syncs of those that follow need not note it (measured: half the time).
const FILL: u32 = 64 << 10;

pub struct Writer {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) index: Arc<Mutex<Index>>,
    pub(super) sizes: Sizes,
    pub(super) committed: Committed,
    pub(super) blocks: Blocks,
    pub(super) unfinished: Option<Unfinished>,
}

/// Where the last write has ended.
pub(super) struct Unfinished {
    identity: u64,
    end: u32,
    /// What the block holds in which that is.
    bytes: Vec<u8>,
    /// Up to here the file was written, with zeros behind `end`.
    filled: u32,
}

/// Where the next record goes.
struct Tail {
    file: Arc<dyn DiskFile>,
    identity: u64,
    end: u32,
    /// Records that still fit by number.
    room: usize,
}

impl Writer {
    /// Adds entries; they are on the disk on return. One write and one sync, or one more per segment that is filled.
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        self.guarded(|writer| {
            // What a snapshot covers already is not needed again.
            let purged = next_index(writer.lock().purged);
            let covered = entries.partition_point(|entry| entry.log_id.index < purged);
            let mut left = &entries[covered..];
            while let Some(first) = left.first() {
                let tail = writer.tail(first.log_id.index)?;
                let written = writer.write(tail, left)?;
                left = &left[written..];
            }
            Ok(())
        })
    }

    /// Removes the entry `from` and all after it.
    pub fn truncate(&mut self, from: u64) -> io::Result<()> {
        self.guarded(|writer| {
            writer.unfinished = None;
            writer.lock().cache.truncate(from);
            writer.drop_from(from)?;
            writer.cut_back(from)?;
            writer.settle_last()
        })
    }

    /// Forgets all entries up to `id`, which may lie beyond the last one.
    pub fn purge(&mut self, id: LogId) -> io::Result<()> {
        self.guarded(|writer| {
            if writer.lock().purged >= Some(id) {
                return Ok(());
            }
            // The mark first: segments that are gone must not look like a hole.
            marks::save_purged(&*writer.disk, &id)?;
            {
                let mut index = writer.lock();
                index.purged = Some(id);
                match index.last < Some(id) {
                    true => index.cache.truncate(0),
                    false => index.cache.purge(id.index + 1),
                }
            }
            writer.drop_purged(id)
        })
    }

    /// Removes what a purge up to `id` leaves unneeded: segments that end there, or all, when the whole log is older than
    /// `id` (a snapshot came from a later leader, and entries beyond `id` are not its).
    pub(super) fn drop_purged(&mut self, id: LogId) -> io::Result<()> {
        if self.lock().last < Some(id) {
            self.drop_from(0)?;
            self.lock().last = Some(id);
            return Ok(());
        }
        let names = {
            let mut index = self.lock();
            let whole = index.segments.partition_point(|segment| segment.next() <= id.index + 1);
            index
                .segments
                .drain(..whole)
                .map(|segment| segment.name())
                .collect::<Vec<_>>()
        };
        names.iter().try_for_each(|name| self.disk.remove(name))?;
        self.disk.sync()
    }

    pub fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.guarded(|writer| marks::save_vote(&*writer.disk, vote))
    }

    /// Not synced.
    pub fn save_committed(&mut self, id: &LogId) -> io::Result<()> {
        self.guarded(|writer| writer.committed.save(id))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("no holder of this lock panics")
    }

    /// Runs a change; the first error ends the log.
    fn guarded(&mut self, change: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        self.lock().usable()?;
        let result = change(self);
        if let Err(error) = &result {
            self.lock().failure = Some(error.to_string());
        }
        result
    }

    /// The end of the last segment, or of a new one where the last is full.
    fn tail(&mut self, first: u64) -> io::Result<Tail> {
        let full = {
            let index = self.lock();
            let expected = match (index.segments.back(), index.purged) {
                (Some(segment), _) => Some(segment.next()),
                (None, purged) => purged.map(|id| id.index + 1),
            };
            if expected.is_some_and(|expected| expected != first) {
                return Err(io::Error::other(format!(
                    "the log wants entry {expected:?} next, not {first}"
                )));
            }
            index.segments.back().is_none_or(|segment| self.is_full(segment))
        };
        if full {
            self.seal()?;
            self.begin(first)?;
        }
        let index = self.lock();
        let segment = index.segments.back().expect("one was just made where there was none");
        Ok(Tail {
            file: segment.file.clone(),
            identity: segment.header.identity,
            end: segment.places.end,
            room: self.sizes.records - segment.places.offsets.len(),
        })
    }

    fn is_full(&self, segment: &Segment) -> bool {
        let places = &segment.places;
        segment.is_sealed || u64::from(places.end) >= self.sizes.segment || places.offsets.len() >= self.sizes.records
    }

    /// Writes and syncs as many entries as the tail takes; returns how many.
    fn write(&mut self, tail: Tail, entries: &[Entry]) -> io::Result<usize> {
        let start = blocks::floor(tail.end);
        let Unfinished { bytes, mut filled, .. } = self.unfinished(&tail)?;
        let fitting = &entries[..entries.len().min(tail.room)];
        let expected = fitting.iter().map(|entry| entry::size(&entry.payload) + record::HEADER);
        self.blocks.begin(&bytes, expected.sum());
        let mut offsets = Vec::new();
        for entry in fitting {
            let offset = start + u32::try_from(self.blocks.len()).map_err(io::Error::other)?;
            if !offsets.is_empty() && u64::from(offset) >= self.sizes.segment {
                break;
            }
            record::encode(tail.identity, offsets.is_empty(), entry, self.blocks.records())
                .map_err(|length| io::Error::other(format!("an entry of {length} bytes is too long for the log")))?;
            offsets.push(offset);
        }
        let length = self.blocks.len();
        let end = start + u32::try_from(length).map_err(io::Error::other)?;
        let whole = self
            .blocks
            .whole(zeros(end, filled, end - tail.end, self.sizes.segment));
        tail.file.write_blocks(whole, u64::from(start))?;
        tail.file.sync()?;
        filled = filled.max(start + u32::try_from(whole.len()).map_err(io::Error::other)?);
        self.unfinished = Some(Unfinished {
            identity: tail.identity,
            end,
            bytes: whole[length - length % BLOCK..length].to_vec(),
            filled,
        });
        let last = entries[offsets.len() - 1].log_id;
        let mut index = self.lock();
        let segment = index.segments.back_mut().expect("the tail is its end");
        segment.places.end = end;
        segment.places.offsets.extend(&offsets);
        index.last = Some(last);
        index.cache.synced(last.index + 1);
        Ok(offsets.len())
    }

    /// What is known of the place where the tail lies.
    fn unfinished(&mut self, tail: &Tail) -> io::Result<Unfinished> {
        match self.unfinished.take() {
            Some(known) if (known.identity, known.end) == (tail.identity, tail.end) => Ok(known),
            _ => {
                let start = blocks::floor(tail.end);
                let mut bytes = vec![0; (tail.end - start) as usize];
                tail.file.read_at(&mut bytes, u64::from(start))?;
                Ok(Unfinished {
                    identity: tail.identity,
                    end: tail.end,
                    bytes,
                    filled: 0,
                })
            }
        }
    }

    /// Gives the last segment its footer, so that opening need not read it.
    fn seal(&mut self) -> io::Result<()> {
        let (file, footer, end) = {
            let index = self.lock();
            match index.segments.back() {
                Some(segment) if !segment.is_sealed => (
                    segment.file.clone(),
                    segment.places.encode_footer(segment.header.identity),
                    u64::from(segment.places.end),
                ),
                _ => return Ok(()),
            }
        };
        file.write_at(&footer, end)?;
        file.cut(end + footer.len() as u64)?;
        if let Some(segment) = self.lock().segments.back_mut() {
            segment.is_sealed = true;
        }
        Ok(())
    }

    /// Starts a segment. It gets its name only when its header is on the disk.
    fn begin(&mut self, first: u64) -> io::Result<()> {
        let mut identity = [0; 8];
        getrandom::fill(&mut identity).map_err(|error| io::Error::other(error.to_string()))?;
        let header = Header {
            identity: u64::from_le_bytes(identity),
            first,
        };
        let file = self.disk.create("segment.tmp")?;
        file.allocate(self.sizes.segment)?;
        file.write_at(&header.encode(), 0)?;
        file.sync()?;
        self.disk.rename("segment.tmp", &name(first))?;
        self.disk.sync()?;
        self.lock().segments.push_back(Segment {
            file,
            header,
            places: Places::empty(),
            is_sealed: false,
        });
        Ok(())
    }

    /// Removes the segments that begin at or after `from`.
    fn drop_from(&mut self, from: u64) -> io::Result<()> {
        // From the back and one by one: a crash in between leaves a longer log, never a hole.
        while let Some(segment) = self.pop_back(from) {
            self.disk.remove(&segment.name())?;
            self.disk.sync()?;
        }
        Ok(())
    }

    fn pop_back(&self, from: u64) -> Option<Segment> {
        let mut index = self.lock();
        index.segments.pop_back_if(|segment| segment.header.first >= from)
    }

    /// Cuts the last segment before `from`.
    fn cut_back(&mut self, from: u64) -> io::Result<()> {
        let (file, end) = {
            let mut index = self.lock();
            let Some(segment) = index.segments.back_mut().filter(|segment| from < segment.next()) else {
                return Ok(());
            };
            let count = usize::try_from(from - segment.header.first).map_err(io::Error::other)?;
            segment.places.truncate(count);
            segment.is_sealed = false;
            let cut = (segment.file.clone(), segment.places.end);
            index.truncations += 1;
            cut
        };
        file.cut(u64::from(end))?;
        file.allocate(self.sizes.segment)
    }

    /// Finds out the last log id anew.
    pub(super) fn settle_last(&mut self) -> io::Result<()> {
        let (place, purged) = {
            let index = self.lock();
            let next = index.segments.back().map_or(0, Segment::next);
            let place = next.checked_sub(1).and_then(|last| index.place(last));
            (place.filter(|_| next > next_index(index.purged)), index.purged)
        };
        let last = place.map(|place| place.read_id()).transpose()?;
        self.lock().last = last.or(purged);
        Ok(())
    }
}

/// How many zeros go with a write of `length` bytes that ends at `end`.
fn zeros(end: u32, filled: u32, length: u32, segment: u64) -> usize {
    let room = u32::try_from(segment).unwrap_or(u32::MAX).saturating_sub(end);
    match end > filled && length < FILL {
        true => FILL.min(room) as usize,
        false => 0,
    }
}

/// Whether the file of a sealed segment has a footer; reads it.
pub(super) fn read_footer(file: &dyn DiskFile, header: Header) -> io::Result<Option<Places>> {
    let size = file.size()?;
    let Some(trailer) = size.checked_sub(segment::TRAILER as u64) else {
        return Ok(None);
    };
    let mut length = [0; segment::TRAILER];
    file.read_at(&mut length, trailer)?;
    let length = u32::from_le_bytes(length);
    match size.checked_sub(u64::from(length)) {
        Some(start) if start >= segment::HEADER as u64 && length > 0 => {
            let mut footer = vec![0; length as usize];
            file.read_at(&mut footer, start)?;
            let places = Places::decode_footer(header.identity, &footer);
            Ok(places.filter(|places| u64::from(places.end) == start))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_go_only_with_small_writes_into_new_room() {
        const SEGMENT: u32 = 1 << 20;
        let zeros = |end, filled, length| zeros(end, filled, length, u64::from(SEGMENT)) as u32;
        assert_eq!(zeros(5000, 4096, 100), FILL);
        assert_eq!(zeros(5000, 8192, 100), 0, "written before");
        assert_eq!(zeros(FILL + 1, 0, FILL), 0, "a large write");
        assert_eq!(zeros(SEGMENT - 10, 0, 100), 10, "not beyond the segment");
        assert_eq!(zeros(SEGMENT + 10, 0, 100), 0);
    }
}
