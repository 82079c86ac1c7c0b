//! The descriptor of /dev/fuse. All who serve a mount after one another share it.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use zerocopy::IntoBytes;

use super::wire::Answer;
use super::wire::answer::head;

/// Clones are the same.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    descriptor: OwnedFd,
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
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        // Readers wait in the kernel, which wakes one of them for each request.
        let flags = OFlag::from_bits_retain(fcntl(&descriptor, FcntlArg::F_GETFL)?);
        fcntl(&descriptor, FcntlArg::F_SETFL(flags & !OFlag::O_NONBLOCK))?;
        Ok(Device(Arc::new(Inner {
            descriptor,
            is_closed: AtomicBool::new(false),
        })))
    }

    /// Waits for the next request, with the whole thread, and puts it into `room`.
    pub fn read(&self, room: &mut [u8]) -> Result<(), Nothing> {
        match nix::unistd::read(&self.0.descriptor, room) {
            Ok(0) => Err(Nothing::Gone),
            Ok(_) => Ok(()),
            // ENOENT: its caller was interrupted before it was read.
            Err(Errno::EINTR | Errno::EAGAIN | Errno::ENOENT) => Err(Nothing::Now),
            Err(Errno::EPERM) => Err(Nothing::NotMounted),
            Err(_) => Err(Nothing::Gone),
        }
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
        let parts = [header.as_bytes(), &body.head, &body.data].map(IoSlice::new);
        match nix::sys::uio::writev(&self.0.descriptor, &parts) {
            Ok(_) => Given::Taken,
            Err(errno) => {
                // ENOENT: it was answered before, or its mount is gone. Nobody else can be told.
                if errno != Errno::ENOENT {
                    tracing::debug!(%errno, unique, "an answer was not taken");
                }
                Given::Unknown
            }
        }
    }

    /// May wait for locks of the kernel, with the whole thread; which ones depends on what is told.
    pub fn notify(&self, notification: &[u8]) -> Result<(), Errno> {
        nix::unistd::write(&self.0.descriptor, notification).map(drop)
    }
}
