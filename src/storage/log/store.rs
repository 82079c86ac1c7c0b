//! The log's face to openraft: jobs go to the writer's thread through a bounded mailbox, reads come from memory or the files.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError};
use tokio::sync::{mpsc, oneshot};

use super::Sizes;
use super::index::{Index, Place};
use super::open::{self, Opened};
use super::writer::Writer;
use crate::storage::disk::Disk;
use crate::storage::entry;
use crate::storage::types::{Entry, LogId, StorageError, Types, Vote};

/// openraft awaits each job before it sends the next. When full, the sender waits.
const MAILBOX: usize = 16;
/// Longest answer to `limited_get_log_entries`, in bytes: one message to a follower must pass within a heartbeat.
const MAX_READ: usize = 1 << 20;

enum Job {
    Append(Vec<Entry>, LogFlushed<Types>),
    Vote(Vote, Done),
    Truncate(u64, Done),
    Purge(LogId, Done),
}

type Done = oneshot::Sender<io::Result<()>>;

/// Does the log's jobs, one after another, until the store is dropped.
pub struct Worker {
    writer: Writer,
    mailbox: mpsc::Receiver<Job>,
}

/// The log of one replica. Its worker ends when this is dropped.
pub struct LogStore {
    jobs: mpsc::Sender<Job>,
    reader: LogReader,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

impl LogStore {
    /// Opens the log and starts its thread. Blocks: it reads the last segment. The handle lets the owner wait for the end.
    pub fn open(disk: Arc<dyn Disk>, sizes: Sizes) -> io::Result<(Self, JoinHandle<()>)> {
        let (store, worker) = Self::prepare(disk, sizes)?;
        let thread = thread::Builder::new()
            .name("raft-log".into())
            .spawn(move || worker.run())?;
        Ok((store, thread))
    }

    /// Opens the log; nothing is written before its worker runs.
    pub fn prepare(disk: Arc<dyn Disk>, sizes: Sizes) -> io::Result<(Self, Worker)> {
        let blocks = disk.blocks();
        let Opened {
            writer,
            vote,
            committed,
        } = open::open(disk, sizes)?;
        let (jobs, mailbox) = mpsc::channel(MAILBOX);
        let index = writer.index.clone();
        let store = LogStore {
            jobs,
            reader: LogReader { index, blocks },
            vote,
            committed,
        };
        Ok((store, Worker { writer, mailbox }))
    }

    /// A reader for others than openraft.
    pub fn reader(&self) -> LogReader {
        self.reader.clone()
    }

    /// Sends a job and waits until it is on the disk.
    async fn done(&self, job: impl FnOnce(Done) -> Job) -> io::Result<()> {
        let (done, result) = oneshot::channel();
        self.jobs.send(job(done)).await.map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }
}

fn gone() -> io::Error {
    io::Error::other("the log's thread has ended")
}

impl Worker {
    /// Blocks: it wants a thread of its own.
    pub fn run(mut self) {
        while let Some(job) = self.mailbox.blocking_recv() {
            self.work(job);
        }
        self.mark();
    }

    /// As a task, for a disk that does not block; each job takes as long as `duration` says.
    #[cfg(test)]
    pub async fn run_in_task(mut self, duration: impl Fn() -> std::time::Duration) {
        while let Some(job) = self.mailbox.recv().await {
            tokio::time::sleep(duration()).await;
            self.work(job);
        }
        self.mark();
    }

    fn work(&mut self, job: Job) {
        let writer = &mut self.writer;
        match job {
            Job::Append(entries, flushed) => flushed.log_io_completed(writer.append(&entries)),
            Job::Vote(vote, done) => answer(done, writer.save_vote(&vote)),
            Job::Truncate(from, done) => answer(done, writer.truncate(from)),
            Job::Purge(id, done) => answer(done, writer.purge(id)),
        }
        self.mark();
    }

    /// Notes how far entries are committed, when nobody waits: a job for each would wake this thread once more per entry, and
    /// an old value is safe.
    fn mark(&mut self) {
        let committed = self.writer.lock().committed.take();
        if let Some(id) = committed {
            // The failure is remembered; the next job reports it.
            let _ = self.writer.save_committed(&id);
        }
    }
}

fn answer(done: Done, result: io::Result<()>) {
    // A caller that gave up does not want to know.
    let _ = done.send(result);
}

/// Reads entries, from memory where it can.
#[derive(Clone)]
pub struct LogReader {
    index: Arc<Mutex<Index>>,
    /// Whether files are read on a thread for that.
    blocks: bool,
}

/// Where an entry comes from.
enum Source {
    Memory(Entry),
    File(Place),
}

impl LogReader {
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("no holder of this lock panics")
    }

    /// Entries of `[start, end)` that exist, at least one if any does, then up to `limit` bytes.
    async fn read(&self, start: u64, end: u64, limit: usize) -> io::Result<Vec<Entry>> {
        loop {
            let (sources, truncations) = self.plan(start, end, limit)?;
            let blocks = self.blocks && sources.iter().any(|source| matches!(source, Source::File(_)));
            let read = move || sources.into_iter().map(load).collect::<io::Result<Vec<_>>>();
            let entries = match blocks {
                false => read(),
                true => tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?,
            };
            // A place that was cut away while we read it is not damage.
            if entries.is_ok() || self.lock().truncations == truncations {
                return entries;
            }
        }
    }

    /// The last entry on the disk.
    pub fn last(&self) -> Option<LogId> {
        self.lock().last
    }

    /// The last index that can be purged while the segments after it still hold `keep` bytes; purging removes whole segments.
    pub fn purge_point(&self, keep: u64) -> Option<u64> {
        let index = self.lock();
        let mut after = 0;
        let kept = index.segments.iter().rev().find(|segment| {
            after += u64::from(segment.places.end);
            after >= keep
        })?;
        kept.header
            .first
            .checked_sub(1)
            .filter(|last| *last >= index.bounds().0)
    }

    /// Bytes in segments that begin after entry `index`.
    pub fn bytes_after(&self, index: Option<u64>) -> u64 {
        let log = self.lock();
        let later = log.segments.iter().filter(|segment| Some(segment.header.first) > index);
        later.map(|segment| u64::from(segment.places.end)).sum()
    }

    fn plan(&self, start: u64, end: u64, limit: usize) -> io::Result<(Vec<Source>, u64)> {
        let index = self.lock();
        index.usable()?;
        let (first, next) = index.bounds();
        let mut sources = Vec::new();
        let mut bytes = 0;
        for number in start.max(first)..end.min(next) {
            let (source, size) = match index.cache.get(number) {
                Some(entry) => (Source::Memory(entry.clone()), entry::size(&entry.payload)),
                None => {
                    let place = index.place(number).ok_or_else(|| missing(number))?;
                    let size = place.length();
                    (Source::File(place), size)
                }
            };
            if !sources.is_empty() && bytes + size > limit {
                break;
            }
            bytes += size;
            sources.push(source);
        }
        Ok((sources, index.truncations))
    }
}

fn load(source: Source) -> io::Result<Entry> {
    match source {
        Source::Memory(entry) => Ok(entry),
        Source::File(place) => place.read(),
    }
}

fn missing(number: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("log entry {number} is missing"))
}

fn read_error(error: io::Error) -> StorageError {
    StorageIOError::read_logs(AnyError::new(&error)).into()
}

fn write_error(error: io::Error) -> StorageError {
    StorageIOError::write_logs(AnyError::new(&error)).into()
}

impl RaftLogReader<Types> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end, usize::MAX).await.map_err(read_error)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.read(start, end, MAX_READ).await.map_err(read_error)
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        self.reader.try_get_log_entries(range).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.reader.limited_get_log_entries(start, end).await
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let index = self.reader.lock();
        Ok(LogState {
            last_purged_log_id: index.purged,
            last_log_id: index.last,
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let saved = self.done(|done| Job::Vote(*vote, done)).await;
        saved.map_err(|error| StorageIOError::write_vote(AnyError::new(&error)))?;
        self.vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.committed = committed;
        self.reader.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        {
            let mut index = self.reader.lock();
            entries.iter().for_each(|entry| index.cache.push(entry.clone()));
        }
        let sent = self.jobs.send(Job::Append(entries, callback)).await;
        sent.map_err(|_| write_error(gone()))
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let cut = self.done(|done| Job::Truncate(log_id.index, done)).await;
        cut.map_err(write_error)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let purged = self.done(|done| Job::Purge(log_id, done)).await;
        purged.map_err(write_error)
    }
}
