//! One mount: its requests answered, from what is promised or by the leader.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use zerocopy::FromBytes;

use super::ask::{Asker, Number};
use super::convert::{self, PROMISED, UNPROMISED, errno};
use super::device::Device;
use super::listing::Lister;
use super::locks::{Locks, Wanted};
use super::memory::{Flight, Flights, Head, Memory};
use super::names;
use super::notifier::Notifier;
use super::opens::Opens;
use super::pages::Pages;
use super::pending::{Patience, Pending};
use super::reader;
use super::wire::abi::{self, InHeader};
use super::wire::{Answer, Ask, Body, Request, init};
use super::writes::{Later, Writes};
use crate::base::Scope;
use crate::host::mount::Handed;
use crate::storage::call::{Attributes, Error, Inode, Lock, LockFamily, Mutation, Query, Reply};
use crate::storage::door::Calls;
use crate::storage::promise::Recalls;

/// How long a recall waits for the kernel to forget a name: its folder may be locked by a call that waits for the same leader.
const FORGET: Duration = Duration::from_millis(50);
/// Between two looks at a file that is open here and was not promised.
const LOOK: Duration = Duration::from_millis(100);

/// What a handle says of its open file, beside its number.
const APPENDS: u64 = 1 << 0;
const IS_UNFLUSHED: u64 = 1 << 1;
const HANDLE_FLAGS: u32 = 2;

pub struct Door {
    pub(super) ask: Asker,
    pub(super) device: Device,
    pub(super) writes: Writes,
    pub(super) pages: Arc<Pages>,
    head: Mutex<Head>,
    flights: Flights,
    notifier: Arc<Notifier>,
    opens: Opens,
    locks: Locks,
    lister: Lister,
    pending: Pending,
    pub(super) scope: Scope,
}

type Work = Pin<Box<dyn Future<Output = Answer> + Send>>;

impl Door {
    /// Takes a mount over, or begins it, and starts to answer.
    pub fn start(handed: Handed, calls: Arc<dyn Calls>, scope: &Scope) -> io::Result<Arc<Self>> {
        let memory = Memory::open(handed.memory, handed.mount)?;
        let device = Device::new(handed.device)?;
        let ask = Asker::new(calls, handed.mount);
        let pages = Arc::new(Pages::default());
        let notifier = Arc::new(Notifier::start(device.clone())?);
        let writes = Writes::new(ask.clone(), device.clone(), pages.clone(), memory.chunks, scope.clone());
        let locks = Locks::new(
            ask.clone(),
            writes.clone(),
            pages.clone(),
            notifier.clone(),
            memory.locks,
            scope.clone(),
        );
        let door = Arc::new(Door {
            ask,
            device,
            writes,
            pages,
            head: Mutex::new(memory.head),
            flights: memory.flights,
            notifier,
            opens: Opens::new(memory.opens),
            locks,
            lister: Lister::default(),
            pending: Pending::default(),
            scope: scope.clone(),
        });
        if memory.is_foreign {
            door.resend();
        }
        let (taken, waiting) = door.writes.resume();
        waiting.into_iter().for_each(|later| door.await_data(later));
        for (bytes, flight) in door.flights.left() {
            reader::again(&door, &bytes, Some(flight), &taken);
        }
        for mut landing in memory.landings {
            if let Some(bytes) = super::memory::noted(landing.bytes()) {
                reader::again(&door, bytes, None, &taken);
            }
            super::memory::strike(&mut landing);
            reader::start(door.clone(), landing)?;
        }
        Ok(door)
    }

    /// Another version's notes cannot be read: the kernel hands out again what it had.
    fn resend(&self) {
        if self.device.notify(&super::wire::answer::resend()).is_err() {
            tracing::warn!(
                "this kernel hands out nothing again: calls that were under way wait until they are interrupted"
            );
        }
    }

    /// Answers a request: at once if that takes no waiting, else beside the others.
    pub fn begin(self: &Arc<Self>, request: Request, bytes: &[u8], flight: Option<Flight>) {
        let Request { header, ask } = request;
        let (unique, thread) = (header.unique, header.pid);
        let patience = patience(&ask);
        let opened = match ask {
            Ask::Open(_) => Opened::Node(header.node),
            Ask::Create { .. } => Opened::Created,
            _ => Opened::Nothing,
        };
        let door = self.clone();
        let mut work: Work = Box::pin(async move { door.answer(&header, ask).await });
        if let Poll::Ready(answer) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            self.give(unique, &answer, opened);
            return flight.map_or((), Flight::strike);
        }
        let Some(flight) = flight.or_else(|| self.flights.note(bytes)) else {
            return self.give(unique, &Err(Errno::E2BIG as i32), Opened::Nothing);
        };
        let door = self.clone();
        self.scope.spawn(async move {
            let answer = {
                let wait = door.pending.wait(unique & !abi::RESENT, thread, patience);
                tokio::select! {
                    biased;
                    answer = work => answer,
                    () = wait.given_up() => Err(Errno::EINTR as i32),
                }
            };
            door.give(unique, &answer, opened);
            flight.strike();
        });
    }

    fn give(&self, unique: u64, answer: &Answer, opened: Opened) {
        let is_taken = self.device.answer(unique, answer);
        if !is_taken && let Some(inode) = opened.inode(answer) {
            // Nobody will close what nobody got.
            self.close(inode);
        }
    }

    pub fn interrupt(&self, header: &InHeader, unique: u64) {
        if !self.pending.interrupt(unique & !abi::RESENT) {
            // It may be on its way between two threads: the kernel says it again, unless it was answered by then.
            self.device.answer(header.unique, &Err(Errno::EAGAIN as i32));
        }
    }

    pub fn agree(&self, header: &InHeader, asked: &abi::InitIn) {
        let answer = match init::agree(asked) {
            Some((agreed, answer)) => {
                self.head.lock().expect("no holder of this lock panics").agree(agreed);
                tracing::info!(
                    minor = agreed.minor,
                    resends = agreed.resends(),
                    "the files are mounted by FUSE"
                );
                Ok(Body::of(&answer))
            }
            None => {
                tracing::error!(
                    minor = asked.minor,
                    "this kernel's FUSE is too old; it needs version 7.31 (Linux 5.4) with locks"
                );
                Err(Errno::EPROTO as i32)
            }
        };
        self.device.answer(header.unique, &answer);
    }

    /// Data of a WRITE.
    pub fn write(self: &Arc<Self>, header: &InHeader, of: &abi::WriteIn, data: &[u8]) {
        let (inode, from) = (Inode(header.node), (header.unique, header.pid));
        let later = match of.handle & APPENDS {
            0 => self.writes.write(inode, of.offset, from, data),
            _ => Some(self.writes.append(inode, from, data)),
        };
        later.into_iter().for_each(|later| self.await_data(later));
    }

    /// Until the leader has the data, its writer can be killed.
    fn await_data(self: &Arc<Self>, later: Later) {
        let door = self.clone();
        self.scope.spawn(async move {
            let unique = later.unique;
            let wait = door
                .pending
                .wait(unique & !abi::RESENT, later.thread, Patience::UntilDeath);
            tokio::select! {
                biased;
                () = later.done.notified() => {}
                () = wait.given_up() => if door.writes.give_up(unique) {
                    door.device.answer(unique, &Err(Errno::EINTR as i32));
                },
            }
        });
    }

    async fn answer(self: &Arc<Self>, header: &InHeader, ask: Ask) -> Answer {
        let inode = Inode(header.node);
        match ask {
            Ask::Lookup(name) => self.lookup(inode, name).await,
            Ask::Attributes => self.attributes(inode).await,
            Ask::Set(of) => names::set(self, header, &of).await,
            Ask::ReadLink => self.read_link(inode).await,
            Ask::Open(of) => self.open(header, &of).await,
            Ask::Create { name, of } => self.create(header, name, &of).await,
            Ask::Read(of) => self.read(inode, &of).await,
            Ask::Space => self.space(inode).await,
            Ask::Release(of) => self.release(inode, &of),
            Ask::Sync => self.writes.settle(inode).await.map(|()| Body::default()).map_err(errno),
            Ask::Flush(of) => self.flush(header, &of).await,
            Ask::List { of, is_plus } => {
                let listed = self.lister.list(&self.ask, &self.writes, inode, &of, is_plus).await;
                listed.map_err(errno)
            }
            Ask::TestLock(of) => self.test_lock(inode, &of).await,
            Ask::Lock { of, waits } => self.lock(header, &of, waits).await,
            Ask::MakeFolder { .. }
            | Ask::MakeLink { .. }
            | Ask::MakeNode { .. }
            | Ask::Link { .. }
            | Ask::Remove(_)
            | Ask::RemoveFolder(_)
            | Ask::Rename { .. } => names::answer(self, header, ask).await,
            Ask::Destroy => Ok(Body::default()),
            Ask::Other => Err(Errno::ENOSYS as i32),
            // Answered where they are read.
            Ask::Init(_) | Ask::Forget | Ask::Write(_) | Ask::Interrupt(_) => Err(Errno::EINVAL as i32),
        }
    }

    async fn lookup(&self, folder: Inode, name: Vec<u8>) -> Answer {
        let query = Query::Lookup { folder, name };
        let answer = self.ask.query(query.clone()).await;
        let valid = self.validity(&query);
        match answer {
            Ok(Reply::Object { mut attributes, .. }) => {
                self.writes.overlay(&mut attributes);
                Ok(Body::of(&convert::entry(&attributes, valid)))
            }
            Err(Error::NotFound) => Ok(Body::of(&convert::absence(valid))),
            Ok(_) => Err(Errno::EIO as i32),
            Err(error) => Err(errno(error)),
        }
    }

    async fn attributes(&self, inode: Inode) -> Answer {
        self.writes.quiet(inode).await;
        let attributes = self.ask.attributes(inode).await.map_err(errno)?;
        let valid = self.validity(&Query::Attributes { inode });
        Ok(Body::of(&convert::attributes_for(&attributes, valid)))
    }

    /// Whether the leader has promised to say when the answer is true no longer.
    fn validity(&self, query: &Query) -> Duration {
        if self.ask.recall(query).is_some() {
            PROMISED
        } else {
            UNPROMISED
        }
    }

    async fn read_link(&self, inode: Inode) -> Answer {
        match self.ask.query(Query::ReadLink { inode }).await {
            Ok(Reply::Target(target)) => Ok(Body::data(target.into())),
            Ok(_) => Err(Errno::EIO as i32),
            Err(error) => Err(errno(error)),
        }
    }

    async fn open(&self, header: &InHeader, of: &abi::OpenIn) -> Answer {
        let inode = Inode(header.node);
        // Whoever opens sees what was closed before; what is open here is seen by all of this node anyway.
        self.writes.quiet(inode).await;
        let attributes = self.ask.attributes(inode).await.map_err(errno)?;
        if !self.opens.open(inode) {
            return Err(Errno::ENFILE as i32);
        }
        let flags = of.flags.cast_signed();
        Ok(Body::of(&self.opened(header, &attributes, flags)))
    }

    /// The answer to an open. The kernel keeps its pages if they are of this version; where it appends, it must not, for it does not
    /// know the end. Who only reads has nothing to tell at close.
    fn opened(&self, header: &InHeader, attributes: &Attributes, flags: i32) -> abi::OpenOut {
        let is_reading = flags & libc::O_ACCMODE == libc::O_RDONLY;
        let is_appending = flags & libc::O_APPEND != 0 && !is_reading;
        let mut handle = (header.unique & !abi::RESENT) << HANDLE_FLAGS;
        let mut open_flags = 0;
        if self.pages.open(attributes) {
            open_flags |= abi::open::KEEP_CACHE;
        }
        if is_appending {
            open_flags |= abi::open::DIRECT_IO;
            handle |= APPENDS;
        }
        if is_reading {
            open_flags |= abi::open::NO_FLUSH;
            handle |= IS_UNFLUSHED;
        }
        abi::OpenOut {
            handle,
            open_flags,
            padding: 0,
        }
    }

    async fn create(&self, header: &InHeader, name: Vec<u8>, of: &abi::CreateIn) -> Answer {
        let attributes = names::create(self, header, name, of).await.map_err(errno)?;
        if !self.opens.open(attributes.inode) {
            return Err(Errno::ENFILE as i32);
        }
        let open = self.opened(header, &attributes, of.flags.cast_signed());
        Ok(Body::two(&convert::entry(&attributes, PROMISED), &open))
    }

    async fn read(&self, inode: Inode, of: &abi::ReadIn) -> Answer {
        self.writes.quiet(inode).await;
        let query = Query::Read {
            inode,
            offset: of.offset,
            count: of.size,
        };
        match self.ask.query(query).await {
            Ok(Reply::Data { data, .. }) => Ok(Body::data(data)),
            Ok(_) => Err(Errno::EIO as i32),
            Err(error) => Err(errno(error)),
        }
    }

    async fn space(&self, inode: Inode) -> Answer {
        let Ok(Reply::Space(space)) = self.ask.query(Query::Space { inode }).await else {
            return Err(Errno::EIO as i32);
        };
        let block = 4096;
        Ok(Body::of(&abi::StatFsOut {
            blocks: space.total_bytes / u64::from(block),
            free: space.free_bytes / u64::from(block),
            available: space.free_bytes / u64::from(block),
            files: space.total_inodes,
            free_files: space.free_inodes,
            block_size: block,
            name_max: 255,
            fragment_size: block,
            ..abi::StatFsOut::default()
        }))
    }

    /// Nobody waits for this answer.
    fn release(self: &Arc<Self>, inode: Inode, of: &abi::ReleaseIn) -> Answer {
        if of.release_flags & abi::RELEASE_FLOCK != 0 {
            self.locks.release_flock(inode, of.lock_owner);
        }
        self.writes.hurry(inode);
        self.locks.release_unflushed(inode, of.handle);
        self.close(inode);
        Ok(Body::default())
    }

    fn close(&self, inode: Inode) {
        if self.opens.close(inode) {
            let ask = self.ask.clone();
            self.scope
                .spawn(async move { ask.change(ask.fresh(), Mutation::Close { inode }).await });
        }
    }

    async fn flush(&self, header: &InHeader, of: &abi::FlushIn) -> Answer {
        let inode = Inode(header.node);
        let written = self.writes.settle(inode).await.map_err(errno);
        if self.locks.has_fcntl(inode, of.lock_owner) {
            let number = Number::of(header.unique);
            self.locks.release_fcntl(number, inode, of.lock_owner).await?;
        }
        written.map(|()| Body::default())
    }

    async fn test_lock(&self, inode: Inode, of: &abi::LockIn) -> Answer {
        let out = match self.locks.test(inode, lock(of)).await? {
            None => abi::LockOut {
                kind: libc::F_UNLCK.cast_unsigned(),
                ..abi::LockOut::default()
            },
            Some(holder) => abi::LockOut {
                start: holder.start,
                end: convert::last_byte(holder.end),
                kind: if holder.is_exclusive {
                    libc::F_WRLCK
                } else {
                    libc::F_RDLCK
                }
                .cast_unsigned(),
                pid: holder.pid,
            },
        };
        Ok(Body::of(&out))
    }

    async fn lock(&self, header: &InHeader, of: &abi::LockIn, waits: bool) -> Answer {
        let (inode, unique) = (Inode(header.node), header.unique);
        let lock = lock(of);
        if lock.family == LockFamily::Fcntl && of.handle & IS_UNFLUSHED != 0 {
            self.locks.note_unflushed(of.handle, lock.owner);
        }
        let done = if of.kind == libc::F_UNLCK.cast_unsigned() {
            self.locks.unlock(unique, inode, lock).await
        } else {
            let wanted = Wanted {
                unique,
                inode,
                lock,
                waits,
            };
            self.locks.lock(wanted).await
        };
        done.map(|()| Body::default())
    }

    /// What was promised is true no longer. Returns when the kernel has forgotten it, or will soon.
    pub async fn recalled(self: &Arc<Self>, recalls: &Recalls) {
        for inode in &recalls.inodes {
            self.notifier.attributes(*inode);
            self.look(*inode);
        }
        if recalls.all {
            self.pages.forget_all();
            self.opens.all().into_iter().for_each(|inode| self.look(inode));
        }
        for inode in &recalls.locks {
            self.locks.look_again(*inode);
        }
        let forgotten = async {
            for (folder, name) in &recalls.names {
                self.notifier.name(*folder, name).await;
            }
        };
        let _ = tokio::time::timeout(FORGET, forgotten).await;
    }

    /// A file changed of which the kernel may have pages, or which is open here: pages of an older version go, the leader hears of an
    /// open file that has no name any more, and promises again to say what becomes of it.
    fn look(self: &Arc<Self>, inode: Inode) {
        if !self.opens.is_open(inode) && !self.pages.is_known(inode) {
            return;
        }
        let door = self.clone();
        self.scope.spawn(async move {
            loop {
                let Ok(attributes) = door.ask.attributes(inode).await else {
                    return;
                };
                if door.pages.are_old(&attributes) {
                    door.notifier.pages(inode).await;
                    door.pages.are(&attributes);
                }
                if attributes.links == 0 && door.opens.tell(inode) {
                    let _ = door.ask.change(door.ask.fresh(), Mutation::Open { inode }).await;
                }
                let is_promised = door.ask.recall(&Query::Attributes { inode }).is_some();
                if is_promised || attributes.links == 0 || !door.opens.is_open(inode) {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        });
    }
}

/// What an answer has opened.
#[derive(Clone, Copy)]
enum Opened {
    Nothing,
    Node(u64),
    /// The answer says what.
    Created,
}

impl Opened {
    fn inode(self, answer: &Answer) -> Option<Inode> {
        let body = answer.as_ref().ok()?;
        match self {
            Opened::Nothing => None,
            Opened::Node(node) => Some(Inode(node)),
            Opened::Created => {
                let (entry, _) = abi::EntryOut::read_from_prefix(&body.head).ok()?;
                Some(Inode(entry.node))
            }
        }
    }
}

fn patience(ask: &Ask) -> Patience {
    match ask {
        Ask::Lookup(_)
        | Ask::Attributes
        | Ask::ReadLink
        | Ask::Open(_)
        | Ask::Read(_)
        | Ask::Space
        | Ask::List { .. }
        | Ask::TestLock(_) => Patience::None,
        Ask::Lock { of, .. } if of.kind != libc::F_UNLCK.cast_unsigned() => Patience::None,
        _ => Patience::UntilDeath,
    }
}

fn lock(of: &abi::LockIn) -> Lock {
    let family = match of.flags & abi::LOCK_FLOCK {
        0 => LockFamily::Fcntl,
        _ => LockFamily::Flock,
    };
    let (start, end) = match family {
        LockFamily::Flock => (0, u64::MAX),
        LockFamily::Fcntl => convert::range(of.start, of.end),
    };
    Lock {
        family,
        owner: of.owner,
        is_exclusive: of.kind == libc::F_WRLCK.cast_unsigned(),
        start,
        end,
        pid: of.pid,
    }
}
