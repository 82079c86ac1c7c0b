//! A pipe that is kept with a FUSE mount. What a storage process that is killed has left in it is there for the next one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe2, read};

/// What is wanted: the kernel counts in pages, makes it a power of two, and a request of a megabyte has a head. Then what everybody may
/// have by default (`fs.pipe-max-size`): requests are a page smaller there.
const ROOM: [i32; 2] = [2 << 20, 1 << 20];

/// Both ends. Neither waits.
#[derive(Debug)]
pub struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
}

impl Pipe {
    /// A new one; more room than `fs.pipe-max-size` is for who has CAP_SYS_RESOURCE.
    pub fn new() -> io::Result<Self> {
        let (out, into) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let make = |room| fcntl(&into, FcntlArg::F_SETPIPE_SZ(room));
        make(ROOM[0]).or_else(|_| make(ROOM[1]))?;
        Ok(Pipe { out, into })
    }

    /// Of the ends of one that was handed over.
    pub fn of(out: OwnedFd, into: OwnedFd) -> Self {
        Pipe { out, into }
    }

    /// Where it is read, and where it is written.
    pub fn ends(&self) -> [BorrowedFd<'_>; 2] {
        [self.out.as_fd(), self.into.as_fd()]
    }

    /// Bytes for which there is room when it is empty and they begin with a page.
    pub fn room(&self) -> io::Result<usize> {
        let room = fcntl(&self.into, FcntlArg::F_GETPIPE_SZ)?;
        usize::try_from(room).map_err(io::Error::other)
    }

    /// Bytes in it. Waits for whoever writes or reads right now.
    pub fn held(&self) -> io::Result<usize> {
        let held = rustix::io::ioctl_fionread(&self.out)?;
        usize::try_from(held).map_err(io::Error::other)
    }

    /// Takes so much of what is in it, or as much as there is room for; `EAGAIN`: it is empty.
    pub fn read(&self, room: &mut [u8]) -> nix::Result<usize> {
        loop {
            match read(&self.out, room) {
                Err(Errno::EINTR) => {}
                done => return done,
            }
        }
    }

    /// Throws away what is in it.
    pub fn empty(&self) -> nix::Result<()> {
        let mut away = [0; 4096];
        loop {
            match self.read(&mut away) {
                Ok(_) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
    }
}
