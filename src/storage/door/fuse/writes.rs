//! Write-behind: data is taken from the kernel at once and brought to the leader in large calls.
//!
//! Data that follows on the last goes into one chunk; a chunk goes when it is full, when other data comes, when somebody waits for it
//! (flush, fsync, a look at the file), and after `LINGER`. What fails is told at the next flush, fsync or close, as write(2) has
//! it. Chunks of one file that overlap go one after another; an append goes alone.
//! Beyond the bounds the kernel gets its answer when the leader has the data.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::ask::{Asker, Number};
use super::convert::errno;
use super::device::Device;
use super::memory::{Chunk, Chunks, Content, Owed};
use super::pages::Pages;
use super::wire::{Answer, Body, abi};
use crate::base::Scope;
use crate::storage::call::{Attributes, DATA_MAX, Error, Inode, Mutation, Reply};

/// How long data may stay here when nobody asks for it.
const LINGER: Duration = Duration::from_millis(100);
/// Chunks of one file on their way: at 1 MiB each as much as a link of 10 Gbit/s and 3 ms holds.
const UNDER_WAY: usize = 4;
/// Free chunks below which every write waits for the leader, so that many writers have one each.
const SCARCE: usize = 32;

/// Clones are the same.
#[derive(Clone)]
pub struct Writes(Arc<Inner>);

struct Inner {
    ask: Asker,
    device: Device,
    pages: Arc<Pages>,
    chunks: Chunks,
    scope: Scope,
    order: AtomicU64,
    files: Mutex<HashMap<Inode, File>>,
    /// Requests that are answered when the leader has their data.
    owed: Mutex<HashMap<u64, Arc<Notify>>>,
    settled: Notify,
}

/// A file with data that is not with the leader.
#[derive(Default)]
struct File {
    open: Option<Chunk>,
    queue: VecDeque<Chunk>,
    is_sending: bool,
    /// How many are being sent now.
    sent: usize,
    /// Behind the last byte of all that is here.
    end: u64,
    error: Option<Error>,
}

/// A request that is answered when the leader has its data.
#[derive(Clone, Debug)]
pub struct Later {
    pub unique: u64,
    pub thread: u32,
    /// Says when, unless `give_up` comes first.
    pub done: Arc<Notify>,
}

impl Writes {
    pub fn new(ask: Asker, device: Device, pages: Arc<Pages>, chunks: Chunks, scope: Scope) -> Self {
        Writes(Arc::new(Inner {
            ask,
            device,
            pages,
            chunks,
            scope,
            order: AtomicU64::new(0),
            files: Mutex::default(),
            owed: Mutex::default(),
            settled: Notify::new(),
        }))
    }

    /// Sends what the process before has left. Requests whose data was taken, and those of them that wait for the leader.
    pub fn resume(&self) -> (Vec<u64>, Vec<Later>) {
        let left = self.0.chunks.left();
        let taken = left.iter().map(Chunk::last).collect();
        let last = left.last().map_or(0, Chunk::number);
        self.0.order.store(last, Ordering::Relaxed);
        let waiting = left
            .iter()
            .filter_map(Chunk::owed)
            .map(|owed| self.0.wait(owed))
            .collect();
        for chunk in left {
            let inode = chunk.content.inode();
            let mut files = self.0.files();
            let file = files.entry(inode).or_default();
            file.end = file.end.max(chunk.end());
            file.queue.push_back(chunk);
            self.0.start(inode, file);
        }
        (taken, waiting)
    }

    /// Takes data at an offset from the kernel, and answers it at once or later. May wait for a free chunk, with the whole thread.
    pub fn write(&self, inode: Inode, offset: u64, (unique, thread): (u64, u32), data: &[u8]) -> Option<Later> {
        let inner = &self.0;
        let owed = owed((unique, thread), data);
        {
            let mut files = inner.files();
            if let Some(file) = files.get_mut(&inode)
                && let Some(open) = file.open.as_mut().filter(|open| open.takes(offset, data.len()))
            {
                open.add(unique, data);
                return inner.added(inode, file, owed);
            }
        }
        let chunk = inner.begin(Content::Write { inode, offset }, unique, data);
        let number = chunk.number();
        let mut files = inner.files();
        let file = files.entry(inode).or_default();
        if let Some(full) = file.open.replace(chunk) {
            file.queue.push_back(full);
            inner.start(inode, file);
        }
        let later = inner.added(inode, file, owed);
        if file.open.is_some() {
            self.linger(inode, number);
        }
        later
    }

    /// Takes data for the end of a file.
    pub fn append(&self, inode: Inode, (unique, thread): (u64, u32), data: &[u8]) -> Later {
        let inner = &self.0;
        let mut chunk = inner.begin(Content::Append { inode }, unique, data);
        let owed = owed((unique, thread), data);
        let later = inner.wait(owed);
        chunk.owe(owed);
        let mut files = inner.files();
        let file = files.entry(inode).or_default();
        file.seal();
        file.queue.push_back(chunk);
        inner.start(inode, file);
        later
    }

    /// Whether the request is answered when the leader has its data.
    pub fn owes(&self, unique: u64) -> bool {
        self.0.owed().contains_key(&unique)
    }

    /// Whether the request is still owed its answer; if so, that is the caller's to give now.
    pub fn give_up(&self, unique: u64) -> bool {
        self.0.owed().remove(&unique).is_some()
    }

    /// What is seen of a file with data that is not with the leader.
    pub fn overlay(&self, attributes: &mut Attributes) {
        if let Some(file) = self.0.files().get(&attributes.inode) {
            attributes.size = attributes.size.max(file.end);
        }
    }

    /// Returns when all that was taken is with the leader; and what failed since this was asked last. Cancel safe, but for the failure.
    pub async fn settle(&self, inode: Inode) -> Result<(), Error> {
        if !self.0.files().contains_key(&inode) {
            return Ok(());
        }
        loop {
            let settled = self.0.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            {
                let mut files = self.0.files();
                let Some(file) = files.get_mut(&inode) else {
                    return Ok(());
                };
                file.seal();
                self.0.start(inode, file);
                if !file.is_sending {
                    let error = files.remove(&inode).and_then(|file| file.error);
                    return error.map_or(Ok(()), Err);
                }
            }
            settled.await;
        }
    }

    /// As `settle`, but leaves a failure to whoever closes the file.
    pub async fn quiet(&self, inode: Inode) {
        if let Err(error) = self.settle(inode).await {
            let mut files = self.0.files();
            files.entry(inode).or_default().error.get_or_insert(error);
        }
    }

    /// Sends what is there, and waits for nothing.
    pub fn hurry(&self, inode: Inode) {
        if let Some(file) = self.0.files().get_mut(&inode) {
            file.seal();
            self.0.start(inode, file);
        }
    }

    fn linger(&self, inode: Inode, number: u64) {
        let inner = self.0.clone();
        self.0.scope.spawn(async move {
            tokio::time::sleep(LINGER).await;
            let mut files = inner.files();
            if let Some(file) = files.get_mut(&inode)
                && file.open.as_ref().is_some_and(|open| open.number() == number)
            {
                file.seal();
                inner.start(inode, file);
            }
        });
    }
}

impl Inner {
    fn files(&self) -> MutexGuard<'_, HashMap<Inode, File>> {
        self.files.lock().expect("no holder of this lock panics")
    }

    fn owed(&self) -> MutexGuard<'_, HashMap<u64, Arc<Notify>>> {
        self.owed.lock().expect("no holder of this lock panics")
    }

    fn begin(&self, content: Content, unique: u64, data: &[u8]) -> Chunk {
        let number = self.order.fetch_add(1, Ordering::Relaxed) + 1;
        self.chunks.begin(content, number, unique, data)
    }

    fn wait(&self, owed: Owed) -> Later {
        let done = Arc::new(Notify::new());
        self.owed().insert(owed.unique, done.clone());
        Later {
            unique: owed.unique,
            thread: owed.thread,
            done,
        }
    }

    /// The file's open chunk has got the data of a request.
    fn added(self: &Arc<Self>, inode: Inode, file: &mut File, owed: Owed) -> Option<Later> {
        let is_much = file.queue.len() + file.sent >= UNDER_WAY || self.chunks.room() < SCARCE;
        let open = file.open.as_mut()?;
        file.end = file.end.max(open.end());
        let is_full = open.len() + usize::try_from(owed.size).unwrap_or(DATA_MAX) > DATA_MAX;
        let later = (is_much && open.owed().is_none()).then(|| {
            open.owe(owed);
            self.wait(owed)
        });
        if is_full || later.is_some() {
            file.seal();
            self.start(inode, file);
        }
        if later.is_none() {
            self.device.answer(owed.unique, &written(owed.size));
        }
        later
    }

    fn start(self: &Arc<Self>, inode: Inode, file: &mut File) {
        if file.is_sending || file.queue.is_empty() {
            return;
        }
        file.is_sending = true;
        let inner = self.clone();
        self.scope.spawn(async move { inner.send(inode).await });
    }

    async fn send(self: Arc<Self>, inode: Inode) {
        loop {
            let batch = {
                let mut files = self.files();
                let Some(file) = files.get_mut(&inode) else { return };
                let batch = file.next();
                file.sent = batch.len();
                if batch.is_empty() {
                    file.is_sending = false;
                    if file.open.is_none() && file.error.is_none() {
                        files.remove(&inode);
                    }
                    break;
                }
                batch
            };
            let errors = join_all(batch.into_iter().map(|chunk| self.bring(chunk))).await;
            if let Some(error) = errors.into_iter().flatten().next()
                && let Some(file) = self.files().get_mut(&inode)
            {
                file.error.get_or_insert(error);
            }
        }
        self.settled.notify_waiters();
    }

    /// Brings a chunk to the leader; the error, if nobody has heard of it.
    async fn bring(&self, chunk: Chunk) -> Option<Error> {
        let data = chunk.data();
        let mutation = match chunk.content {
            Content::Write { inode, offset } => Mutation::Write { inode, offset, data },
            Content::Append { inode } => Mutation::Append { inode, data },
        };
        let answer = self.ask.change(Number::of(chunk.first()), mutation).await;
        if let (Ok(Reply::Written { changed, .. }), Content::Write { .. }) = (&answer, chunk.content) {
            self.pages.follow(changed);
        }
        if self.device.is_closed() {
            // Whatever that was worth, the next process asks again.
            return None;
        }
        let error = answer.err();
        let Some(Owed { unique, size, .. }) = chunk.owed() else {
            chunk.free();
            return error;
        };
        let waiting = self.owed().remove(&unique);
        if let Some(done) = &waiting {
            self.device
                .answer(unique, &error.map_or_else(|| written(size), |error| Err(errno(error))));
            done.notify_one();
        }
        chunk.free();
        error.filter(|_| waiting.is_none())
    }
}

impl File {
    fn seal(&mut self) {
        self.queue.extend(self.open.take());
    }

    /// The chunks that may go now, side by side.
    fn next(&mut self) -> Vec<Chunk> {
        let mut batch: Vec<Chunk> = Vec::new();
        while let Some(chunk) = self.queue.front() {
            let is_apart = |other: &Chunk| match (chunk.content, other.content) {
                (Content::Write { offset, .. }, Content::Write { offset: start, .. }) => {
                    chunk.end() <= start || other.end() <= offset
                }
                _ => false,
            };
            if batch.len() >= UNDER_WAY || !batch.iter().all(is_apart) {
                break;
            }
            batch.extend(self.queue.pop_front());
        }
        batch
    }
}

fn owed((unique, thread): (u64, u32), data: &[u8]) -> Owed {
    let size = u32::try_from(data.len()).expect("at most DATA_MAX");
    Owed { unique, size, thread }
}

fn written(size: u32) -> Answer {
    Ok(Body::of(&abi::WriteOut { size, padding: 0 }))
}
