//! The descriptor of /dev/fuse. All who serve a mount after one another share it.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice, vmsplice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use zerocopy::IntoBytes;

use super::memory::PAGE;
use super::wire::Answer;
use super::wire::answer::head;
use crate::host::mount::Pipe;

/// Clones are the same.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    descriptor: OwnedFd,
    /// For long answers, and its room.
    pipe: Option<(Mutex<Pipe>, usize)>,
    /// The pipes are used, where there are pipes.
    is_spliced: AtomicBool,
    is_closed: AtomicBool,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    Taken,
    /// Nobody waits for it.
    Unknown,
    /// This process answers no more; the next one will.
    Left,
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.descriptor.as_fd()
    }
}

fn got(length: nix::Result<usize>) -> Result<usize, Nothing> {
    match length {
        Ok(0) => Err(Nothing::Gone),
        Ok(length) => Ok(length),
        // ENOENT: its caller was interrupted before it was read. ENOMEM: nothing was read.
        Err(Errno::EINTR | Errno::EAGAIN | Errno::ENOENT | Errno::ENOMEM) => Err(Nothing::Now),
        Err(Errno::EPERM) => Err(Nothing::NotMounted),
        Err(_) => Err(Nothing::Gone),
    }
}

/// An answer that lies in one page.
#[repr(align(4096))]
struct Short([u8; PAGE]);

thread_local! {
    static SHORT: RefCell<Short> = const { RefCell::new(Short([0; PAGE])) };
}

/// Why there is no request.
#[derive(Debug, PartialEq, Eq)]
pub enum Nothing {
    /// Try again at once.
    Now,
    /// It is not mounted yet.
    NotMounted,
    /// It is mounted no more, or was aborted.
    Gone,
}

impl Device {
    /// `pipe`: what the process before left in it was no answer yet.
    pub fn new(descriptor: OwnedFd, pipe: Option<Pipe>) -> io::Result<Self> {
        let pipe = match pipe {
            None => None,
            Some(pipe) => {
                pipe.empty()?;
                let room = pipe.room()?;
                Some((Mutex::new(pipe), room))
            }
        };
        // Readers wait in the kernel, which wakes one of them for each request.
        let flags = OFlag::from_bits_retain(fcntl(&descriptor, FcntlArg::F_GETFL)?);
        fcntl(&descriptor, FcntlArg::F_SETFL(flags & !OFlag::O_NONBLOCK))?;
        Ok(Device(Arc::new(Inner {
            descriptor,
            pipe,
            is_spliced: AtomicBool::new(true),
            is_closed: AtomicBool::new(false),
        })))
    }

    /// From here on without pipes (`landing` says why).
    pub fn unsplice(&self) {
        self.0.is_spliced.store(false, Ordering::Relaxed);
    }

    pub fn is_spliced(&self) -> bool {
        self.0.is_spliced.load(Ordering::Relaxed)
    }

    /// Waits for the next request, with the whole thread, and puts it into `room`.
    pub fn read(&self, room: &mut [u8]) -> Result<(), Nothing> {
        got(nix::unistd::read(&self.0.descriptor, room)).map(drop)
    }

    /// The same into a pipe that is empty; how long it is.
    pub fn splice(&self, pipe: &Pipe, most: usize) -> Result<usize, Nothing> {
        let [_, into] = pipe.ends();
        got(splice(
            &self.0.descriptor,
            None,
            into,
            None,
            most,
            SpliceFFlags::empty(),
        ))
    }

    /// Whether a read would not wait, also because there is nothing more to come.
    pub fn has_request(&self) -> bool {
        let mut looked_at = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        poll(&mut looked_at, PollTimeout::ZERO) != Ok(0)
    }

    /// Nothing is answered from here on: what this process could say now is only that it ends.
    pub fn close(&self) {
        self.0.is_closed.store(true, Ordering::SeqCst);
    }

    pub fn is_closed(&self) -> bool {
        self.0.is_closed.load(Ordering::SeqCst)
    }

    pub fn answer(&self, unique: u64, answer: &Answer) -> Given {
        if self.is_closed() {
            return Given::Left;
        }
        let header = head(unique, answer);
        let empty = Default::default();
        let body = answer.as_ref().unwrap_or(&empty);
        match self.write([header.as_bytes(), &body.head, &body.data]) {
            Ok(()) => Given::Taken,
            Err(errno) => {
                // ENOENT: it was answered before, or its mount is gone. Nobody else can be told.
                if errno != Errno::ENOENT {
                    tracing::debug!(%errno, unique, "an answer was not taken");
                }
                Given::Unknown
            }
        }
    }

    /// The kernel finds the request by the answer's head, and ends it with EIO where it cannot copy the rest: of a process that is
    /// being killed it may not look for another page. So a short answer lies in one page, and a long one in pages that the kernel
    /// has already.
    fn write(&self, parts: [&[u8]; 3]) -> Result<(), Errno> {
        let length = parts.iter().map(|part| part.len()).sum();
        if length <= PAGE {
            return SHORT.with_borrow_mut(|Short(page)| {
                let mut at = 0;
                for part in parts {
                    page[at..at + part.len()].copy_from_slice(part);
                    at += part.len();
                }
                nix::unistd::write(&self.0.descriptor, &page[..length]).map(drop)
            });
        }
        let parts = parts.map(IoSlice::new);
        if let Some((pipe, room)) = &self.0.pipe
            && self.is_spliced()
            && length + parts.len() * PAGE <= *room
        {
            let pipe = pipe.lock().expect("no holder of this lock panics");
            let [out, into] = pipe.ends();
            if vmsplice(into, &parts, SpliceFFlags::empty()) == Ok(length) {
                let given = splice(out, None, &self.0.descriptor, None, length, SpliceFFlags::empty());
                return given.map(drop).or_else(|errno| pipe.empty().and(Err(errno)));
            }
            pipe.empty()?;
        }
        nix::sys::uio::writev(&self.0.descriptor, &parts).map(drop)
    }

    /// May wait for locks of the kernel, with the whole thread; which ones depends on what is told.
    pub fn notify(&self, notification: &[u8]) -> Result<(), Errno> {
        nix::unistd::write(&self.0.descriptor, notification).map(drop)
    }
}
