//! What the kernel asks of files and folders, answered from what is promised or by the leader.

use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

use super::ask::Number;
use super::convert::{self, PROMISED, UNPROMISED, errno};
use super::door::Door;
use super::locks::Wanted;
use super::names;
use super::wire::abi::{self, InHeader};
use super::wire::{Answer, Ask, Body};
use crate::base::clock;
use crate::storage::call::{Attributes, Error, Inode, Kind, Lock, LockFamily, Mutation, Query, Reply};

/// What a handle says of its open file, beside its number.
pub const APPENDS: u64 = 1 << 0;
const IS_UNFLUSHED: u64 = 1 << 1;
const HANDLE_FLAGS: u32 = 2;

impl Door {
    pub(super) async fn answer(self: &Arc<Self>, header: &InHeader, ask: Ask) -> Answer {
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
            // The kernel keeps no list of a folder: nothing would tell it what another node adds.
            Ask::OpenFolder => Ok(Body::of(&abi::OpenOut {
                handle: header.unique & !abi::RESENT,
                ..abi::OpenOut::default()
            })),
            Ask::ReleaseFolder(of) => {
                self.lister.forget(of.handle);
                Ok(Body::default())
            }
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
        let query = Query::Lookup {
            folder,
            name: name.clone(),
        };
        let answer = self.ask.query(query.clone()).await;
        let valid = self.validity(&query);
        if valid == PROMISED {
            let is_folder = matches!(&answer, Ok(Reply::Object { attributes, .. }) if attributes.kind == Kind::Folder);
            self.told.note((folder, name), is_folder, clock::boot());
        }
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
        Ok(Body::two(&convert::entry(&attributes, UNPROMISED), &open))
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

    pub(super) fn close(self: &Arc<Self>, inode: Inode) {
        let told = self.opens.close(inode);
        if !self.opens.is_open(inode) {
            self.locks.release_closed(inode);
        }
        self.tell_closed(inode, told);
    }

    /// Tells the leader, which may have been told so often that the inode is open.
    pub(super) fn tell_closed(self: &Arc<Self>, inode: Inode, told: u64) {
        if told == 0 {
            return;
        }
        let door = self.clone();
        self.scope.spawn(async move {
            for _ in 0..told {
                let _ = door.ask.change(door.ask.fresh(), Mutation::Close { inode }).await;
            }
            door.opens.closed(inode);
        });
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
