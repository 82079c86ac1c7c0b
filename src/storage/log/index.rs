//! What the log holds and where: shared by the writer's thread, which changes it, and the readers.
//! Four bytes of memory per entry, and the cache.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::cache::Cache;
use super::record::{self, Record};
use super::segment::{Header, Places};
use crate::storage::disk::DiskFile;
use crate::storage::entry;
use crate::storage::types::{Entry, LogId, next_index};

/// A segment file and where its records lie.
pub struct Segment {
    pub file: Arc<dyn DiskFile>,
    pub header: Header,
    pub places: Places,
    /// Has its footer; no record is added to it any more.
    pub is_sealed: bool,
}

impl Segment {
    pub fn name(&self) -> String {
        name(self.header.first)
    }

    /// The index after its last record.
    pub fn next(&self) -> u64 {
        self.header.first + self.places.offsets.len() as u64
    }

    pub fn place(&self, index: u64) -> Option<Place> {
        let position = usize::try_from(index.checked_sub(self.header.first)?).ok()?;
        let (offset, length) = self.places.record(position)?;
        Some(Place {
            file: self.file.clone(),
            identity: self.header.identity,
            index,
            offset,
            length,
        })
    }
}

/// File name of the segment that begins with `first`; names sort like their segments.
pub fn name(first: u64) -> String {
    format!("{first:020}.log")
}

/// The log as its readers see it.
pub struct Index {
    /// Consecutive; all but the last are sealed.
    pub segments: VecDeque<Segment>,
    pub purged: Option<LogId>,
    /// The last entry on the disk, or `purged`.
    pub last: Option<LogId>,
    pub cache: Cache,
    /// The last committed entry, until that is noted on the disk.
    pub committed: Option<LogId>,
    /// Grows when places are cut away, so that a reader sees why one went bad under it.
    pub truncations: u64,
    /// The error that ended this log.
    pub failure: Option<String>,
}

impl Index {
    /// First index that can be read, and the one after the last, entries on their way to the disk included.
    pub fn bounds(&self) -> (u64, u64) {
        let first = self.segments.front().map_or(0, |segment| segment.header.first);
        let next = self.segments.back().map_or(0, Segment::next);
        let next = next.max(self.cache.next().unwrap_or_default());
        (first.max(next_index(self.purged)), next)
    }

    pub fn place(&self, index: u64) -> Option<Place> {
        let after = self.segments.partition_point(|segment| segment.header.first <= index);
        self.segments.get(after.checked_sub(1)?)?.place(index)
    }

    /// Refuses everything once the log has failed.
    pub fn usable(&self) -> io::Result<()> {
        match &self.failure {
            None => Ok(()),
            Some(failure) => Err(io::Error::other(format!("the log has failed before: {failure}"))),
        }
    }
}

/// Where one record lies. Keeps its file open, also when the segment is removed.
#[derive(Clone)]
pub struct Place {
    file: Arc<dyn DiskFile>,
    identity: u64,
    index: u64,
    offset: u32,
    length: u32,
}

impl Place {
    pub fn length(&self) -> usize {
        self.length as usize
    }

    /// Reads and checks the entry. Blocks.
    pub fn read(&self) -> io::Result<Entry> {
        let bytes = self.load()?;
        let record = self.check(&bytes)?;
        let payload = entry::decode(record.kind, bytes.slice(record::HEADER..));
        let payload = payload.map_err(|error| self.damaged(&error.to_string()))?;
        Ok(Entry {
            log_id: record.id,
            payload,
        })
    }

    /// The log id alone; checks the record all the same. Blocks.
    pub fn read_id(&self) -> io::Result<LogId> {
        Ok(self.check(&self.load()?)?.id)
    }

    fn load(&self) -> io::Result<Bytes> {
        let mut bytes = vec![0; self.length()];
        self.file.read_at(&mut bytes, u64::from(self.offset))?;
        Ok(bytes.into())
    }

    fn check<'a>(&self, bytes: &'a [u8]) -> io::Result<Record<'a>> {
        record::decode(self.identity, self.index, bytes).ok_or_else(|| self.damaged("wrong checksum"))
    }

    fn damaged(&self, why: &str) -> io::Error {
        let text = format!("log entry {} is damaged: {why}", self.index);
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}
