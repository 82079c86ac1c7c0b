//! The log's face to openraft: jobs go to the writer's thread through a bounded mailbox, reads come from memory or the files.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError};
use tokio::sync::{mpsc, oneshot, watch};

use super::Sizes;
use super::ahead::{self, Members};
use super::index::{Index, Place};
use super::open::{self, Opened};
use super::writer::Writer;
use crate::storage::disk::Disk;
use crate::storage::entry;
use crate::storage::types::{Entry, LogId, NodeId, StorageError, Types, Vote, next_index};

/// Appends that run ahead wait here; openraft awaits any other job before it sends the next. When full, the sender waits.
const MAILBOX: usize = 16;
/// Longest answer to `limited_get_log_entries`, in bytes: one message to a follower must pass within a heartbeat.
const MAX_READ: usize = 1 << 20;

enum Job {
    /// Without a callback it was answered before.
    Append(Vec<Entry>, Option<LogFlushed<Types>>),
    Vote(Vote, Done),
    /// From now on this leader's log may lack what others hold of its term.
    RunAhead(Vote, Done),
    Truncate(u64, Done),
    Purge(LogId, Done),
}

type Done = oneshot::Sender<io::Result<()>>;

/// Does the log's jobs, one after another, until the store is dropped.
pub struct Worker {
    writer: Writer,
    mailbox: mpsc::Receiver<Job>,
    reach: watch::Sender<Reach>,
    /// On the disk.
    vote: Option<Vote>,
    /// Of a leader that runs ahead: on the disk it leads again once all is written.
    leading: Option<Vote>,
}

/// The index after the last entry on the disk, or what ended the log.
type Reach = Result<u64, String>;

/// The log of one replica. Its worker ends when this is dropped.
pub struct LogStore {
    jobs: mpsc::Sender<Job>,
    reader: LogReader,
    vote: Option<Vote>,
    committed: Option<LogId>,
    ahead: Option<Ahead>,
}

/// Of a log whose leader may run ahead.
struct Ahead {
    me: NodeId,
    told: Box<dyn Fn() -> Members + Send + Sync>,
    /// By an entry that is not told of yet.
    changed: Option<Members>,
    /// The vote on the disk leads no longer.
    has_begun: bool,
}

impl Ahead {
    fn members(&self) -> Members {
        let told = (self.told)();
        match &self.changed {
            Some(changed) if changed.since > told.since => changed.clone(),
            _ => told,
        }
    }
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
        let (reach, synced) = watch::channel(Ok(next_index(writer.lock().last)));
        let reader = LogReader { index, blocks, synced };
        let store = LogStore {
            jobs,
            reader,
            vote,
            committed,
            ahead: None,
        };
        let worker = Worker {
            writer,
            mailbox,
            reach,
            vote,
            leading: None,
        };
        Ok((store, worker))
    }

    /// Lets `me` run ahead of its disk while it leads. `told`: the members as openraft tells them; none until it does. Whoever counts
    /// a follower's copy must wait for `LogReader::synced` first.
    pub fn run_ahead(&mut self, me: NodeId, told: impl Fn() -> Members + Send + Sync + 'static) {
        self.ahead = Some(Ahead {
            me,
            told: Box::new(told),
            changed: None,
            has_begun: false,
        });
    }

    /// Whether these may be answered before they are on the disk; then the vote there leads no longer.
    async fn runs_ahead(&mut self, entries: &[Entry]) -> io::Result<bool> {
        let vote = self.vote;
        let Some(ahead) = &mut self.ahead else {
            return Ok(false);
        };
        let may = ahead::may(ahead.me, vote, &ahead.members(), entries);
        if let Some(changed) = Members::of(entries) {
            ahead.changed = Some(changed);
        }
        if let Some(vote) = vote.filter(|_| may && !ahead.has_begun) {
            ahead.has_begun = true;
            self.done(|done| Job::RunAhead(vote, done)).await?;
        }
        Ok(may)
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
        self.end();
    }

    /// As a task, for a disk that does not block; each job takes as long as `duration` says.
    #[cfg(test)]
    pub async fn run_in_task(mut self, duration: impl Fn() -> std::time::Duration) {
        while let Some(job) = self.mailbox.recv().await {
            tokio::time::sleep(duration()).await;
            self.work(job);
        }
        self.end();
    }

    fn work(&mut self, job: Job) {
        let writer = &mut self.writer;
        match job {
            Job::Append(entries, flushed) => {
                let written = writer.append(&entries);
                // Where nobody waits for it, a failure is told by the reach.
                if let Some(flushed) = flushed {
                    flushed.log_io_completed(written);
                }
            }
            Job::Vote(vote, done) => {
                self.leading = None;
                answer(done, self.save(vote));
            }
            Job::RunAhead(vote, done) => {
                self.leading = Some(vote);
                let candidate = Vote::new(vote.leader_id.term, vote.leader_id.node_id);
                answer(done, self.save(candidate));
            }
            Job::Truncate(from, done) => answer(done, writer.truncate(from)),
            Job::Purge(id, done) => answer(done, writer.purge(id)),
        }
        self.reach();
        self.mark();
    }

    /// Who has just been elected has its vote as a candidate there.
    fn save(&mut self, vote: Vote) -> io::Result<()> {
        if self.vote != Some(vote) {
            self.writer.save_vote(&vote)?;
            self.vote = Some(vote);
        }
        Ok(())
    }

    /// Tells how far the disk is.
    fn reach(&self) {
        let index = self.writer.lock();
        let reach = match &index.failure {
            None => Ok(next_index(index.last)),
            Some(failure) => Err(failure.clone()),
        };
        drop(index);
        let _before = self.reach.send_replace(reach);
    }

    /// All is written: nobody holds what this log lacks.
    fn end(mut self) {
        self.mark();
        if let Some(vote) = self.leading {
            // What fails costs an election.
            let _ = self.save(vote);
        }
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
    synced: watch::Receiver<Reach>,
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

    /// Returns when the entry `index` is on the disk. An error: the log has failed or ended before.
    pub async fn synced(&self, index: u64) -> io::Result<()> {
        let mut synced = self.synced.clone();
        let reach = synced
            .wait_for(|reach| reach.as_ref().map_or(true, |next| *next > index))
            .await;
        match &*reach.map_err(|_| gone())? {
            Ok(_) => Ok(()),
            Err(failure) => Err(io::Error::other(format!("the log has failed: {failure}"))),
        }
    }

    /// Resolves when the log has failed; why.
    pub async fn failed(&self) -> String {
        let mut synced = self.synced.clone();
        let failed = synced.wait_for(Result::is_err).await.map(|reach| reach.clone());
        match failed {
            Ok(Err(failure)) => failure,
            // It ended well.
            _ => std::future::pending().await,
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
        let begins = |ahead: &Ahead| ahead::may(ahead.me, Some(*vote), &ahead.members(), &[]);
        let has_begun = self.ahead.as_ref().is_some_and(begins);
        let job = |done| match has_begun {
            true => Job::RunAhead(*vote, done),
            false => Job::Vote(*vote, done),
        };
        let saved = self.done(job).await;
        saved.map_err(|error| StorageIOError::write_vote(AnyError::new(&error)))?;
        self.vote = Some(*vote);
        self.ahead.iter_mut().for_each(|ahead| ahead.has_begun = has_begun);
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
        let runs_ahead = self.runs_ahead(&entries).await.map_err(write_error)?;
        {
            let mut index = self.reader.lock();
            entries.iter().for_each(|entry| index.cache.push(entry.clone()));
        }
        let (now, later) = match runs_ahead {
            true => (Some(callback), None),
            false => (None, Some(callback)),
        };
        let sent = self.jobs.send(Job::Append(entries, later)).await;
        sent.map_err(|_| write_error(gone()))?;
        if let Some(callback) = now {
            callback.log_io_completed(self.reader.lock().usable());
        }
        Ok(())
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
