//! A FUSE mount as it is handed from the supervisor, which keeps it, to the storage processes that serve it one after another.
//!
//! One pair of sockets for all of them, made once: a storage process says hello, and gets what is mounted now and whatever is
//! mounted later. One message each way: a byte up, the mount's number with two descriptors down. Formats of one executable: no
//! version is needed.
//!
//! The ends are inherited and outlive the processes, so a message may wait there for a process that is gone. What waits keeps a
//! device open, and with it the callers of a mount that nobody serves: whenever something else holds, the queue is emptied first.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::sync::watch;
use tracing::warn;

use super::pipe::Pipe;
use crate::host::pair::{End, pair};

const HELLO: [u8; 1] = [1];
/// One for each thread that reads requests, and one for long answers.
pub const PIPES: usize = 3;
/// Device and memory; then both ends of each pipe, where there are pipes.
const DESCRIPTORS: usize = 2 + 2 * PIPES;

/// One mount, as the supervisor hands it to the storage.
#[derive(Debug)]
pub struct Handed {
    /// The open `/dev/fuse`, not blocking. Reads fail with EPERM until it is mounted, and with ENODEV for ever when it is mounted
    /// no more. Shared: the connection ends when nobody has it open.
    pub device: OwnedFd,
    /// What outlives the processes: a memfd, empty at first.
    pub memory: OwnedFd,
    /// What is on its way between the kernel and a process; `PIPES`, or none.
    pub pipes: Vec<Pipe>,
    /// Random, one per mount(2).
    pub mount: u64,
}

/// The storage's end of the pair, handed down as "fuse".
pub struct Heir {
    socket: End,
    has_asked: AtomicBool,
}

impl Heir {
    /// Must be called inside a runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Heir {
            socket: End::new(socket)?,
            has_asked: AtomicBool::new(false),
        })
    }

    /// The next mount; the first call asks for the one that is there. Of several the newest, for the others are mounted no more.
    /// Cancel safe. Fails when the supervisor is gone.
    pub async fn handed(&self) -> io::Result<Handed> {
        if !self.has_asked.load(Ordering::Relaxed) {
            self.socket.act(Interest::WRITABLE, hello).await?;
            self.has_asked.store(true, Ordering::Relaxed);
        }
        self.socket.act(Interest::READABLE, newest).await
    }
}

/// What is there to be handed over now.
pub type Estate = Option<Arc<Handed>>;

/// The supervisor's end.
pub struct Trustee {
    ours: End,
    /// To take back what waits there.
    theirs: OwnedFd,
    estate: watch::Receiver<Estate>,
    /// Somebody has asked.
    has_heir: bool,
}

impl Trustee {
    /// Returns the storage's end, too. Must be called inside a runtime.
    pub fn new(estate: watch::Receiver<Estate>) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = pair()?;
        let trustee = Trustee {
            ours: End::new(ours)?,
            theirs: theirs.try_clone()?,
            estate,
            has_heir: false,
        };
        Ok((trustee, theirs))
    }

    /// Goes on with a pair whose storage may have asked already. Must be called inside a runtime.
    pub fn adopt(ours: OwnedFd, theirs: OwnedFd, estate: watch::Receiver<Estate>) -> io::Result<Self> {
        Ok(Trustee {
            ours: End::new(ours)?,
            theirs,
            estate,
            has_heir: true,
        })
    }

    /// Copies of both ends, for who goes on with them.
    pub fn ends(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        Ok((self.ours.as_fd().try_clone_to_owned()?, self.theirs.try_clone()?))
    }

    /// Hands over to whoever asks, and again when something else is there. Keeps the last one open until it is dropped, also
    /// when there is nobody any more who says what is there.
    pub async fn run(mut self) {
        let mut is_told = true;
        loop {
            tokio::select! {
                heard = self.ours.act(Interest::READABLE, hear) => match heard {
                    Ok(()) => self.has_heir = true,
                    Err(error) => {
                        warn!(%error, "the storage is handed no mount any more");
                        return std::future::pending().await;
                    }
                },
                changed = self.estate.changed(), if is_told => is_told = changed.is_ok(),
            }
            if self.has_heir
                && let Err(error) = self.give()
            {
                warn!(%error, "the mount cannot be handed to the storage");
            }
        }
    }

    fn give(&mut self) -> io::Result<()> {
        while take(self.theirs.as_fd()).is_ok() {}
        let estate = self.estate.borrow_and_update().clone();
        estate.map_or(Ok(()), |handed| give(self.ours.as_fd(), &handed))
    }
}

fn hello(socket: BorrowedFd<'_>) -> io::Result<()> {
    rustix::net::send(socket, &HELLO, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn hear(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut byte = [0; 1];
    match rustix::net::recv(socket, &mut byte, RecvFlags::empty())? {
        (_, 0) => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn give(socket: BorrowedFd<'_>, handed: &Handed) -> io::Result<()> {
    let mut descriptors = vec![handed.device.as_fd(), handed.memory.as_fd()];
    descriptors.extend(handed.pipes.iter().flat_map(Pipe::ends));
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let fits = beside.push(SendAncillaryMessage::ScmRights(&descriptors));
    debug_assert!(fits, "the space is made for it");
    let number = handed.mount.to_le_bytes();
    sendmsg(socket, &[IoSlice::new(&number)], &mut beside, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The last of all that wait.
fn newest(socket: BorrowedFd<'_>) -> io::Result<Handed> {
    let mut last = take(socket)?;
    loop {
        match take(socket) {
            Ok(next) => last = next,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(last),
            Err(error) => return Err(error),
        }
    }
}

fn take(socket: BorrowedFd<'_>) -> io::Result<Handed> {
    let mut number = [0; size_of::<u64>()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut place = [IoSliceMut::new(&mut number)];
    let got = recvmsg(socket, &mut place, &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let rights = beside.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let mut descriptors = rights.flatten();
    let cut = ReturnFlags::CTRUNC | ReturnFlags::TRUNC;
    match (descriptors.next(), descriptors.next()) {
        (Some(device), Some(memory)) if got.bytes == size_of::<u64>() && !got.flags.intersects(cut) => Ok(Handed {
            device,
            memory,
            pipes: std::iter::from_fn(|| Some(Pipe::of(descriptors.next()?, descriptors.next()?))).collect(),
            mount: u64::from_le_bytes(number),
        }),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "this is no mount")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Scope;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::time::Duration;

    /// In the place of a device: the other end tells when nobody has it open any more.
    fn handed(mount: u64, text: &str) -> (Estate, File) {
        let (watched, device) = nix::unistd::pipe().expect("made");
        let memory = memfd_create("test", MFdFlags::MFD_CLOEXEC).expect("made");
        File::from(memory.try_clone().expect("copied"))
            .write_all(text.as_bytes())
            .expect("written");
        let pipes = vec![Pipe::new().expect("allowed")];
        let handed = Handed {
            device,
            memory,
            pipes,
            mount,
        };
        (Some(Arc::new(handed)), File::from(watched))
    }

    fn text(handed: &Handed) -> String {
        let mut memory = File::from(handed.memory.try_clone().expect("copied"));
        let mut text = String::new();
        memory.rewind().expect("a file");
        memory.read_to_string(&mut text).expect("read");
        text
    }

    fn heir(end: &OwnedFd) -> Heir {
        Heir::new(end.try_clone().expect("copied")).expect("a socket")
    }

    async fn soon<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(20), future)
            .await
            .expect("in time")
    }

    #[tokio::test]
    async fn each_heir_gets_what_is_mounted_and_what_is_mounted_later() {
        let (estate, receiver) = watch::channel(None);
        let (trustee, end) = Trustee::new(receiver).expect("a pair");
        let scope = Scope::new();
        scope.spawn(trustee.run());
        let first = heir(&end);
        // It asks before there is anything.
        let (waits, sent) = tokio::join!(soon(first.handed()), async {
            tokio::task::yield_now().await;
            estate.send(handed(1, "one").0)
        });
        sent.expect("somebody listens");
        let got = waits.expect("handed");
        assert_eq!((got.mount, text(&got).as_str()), (1, "one"));
        estate.send(handed(2, "two").0).expect("somebody listens");
        assert_eq!(soon(first.handed()).await.expect("handed").mount, 2);
        drop(first);
        let second = heir(&end);
        let got = soon(second.handed()).await.expect("handed");
        assert_eq!((got.mount, text(&got).as_str()), (2, "two"));
        assert_eq!(got.pipes.len(), 1);
        assert_eq!(got.pipes[0].held().expect("a pipe"), 0);
        scope.stop(Duration::ZERO).await;
        // No successor of the supervisor would come through this pair.
        let error = soon(second.handed()).await.expect_err("gone");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn an_heir_is_told_by_who_goes_on_with_the_pair() {
        let (estate, receiver) = watch::channel(None);
        let (trustee, end) = Trustee::new(receiver).expect("a pair");
        estate.send(handed(1, "one").0).expect("somebody listens");
        let (ours, theirs) = trustee.ends().expect("copied");
        let scope = Scope::new();
        scope.spawn(trustee.run());
        let storage = heir(&end);
        assert_eq!(soon(storage.handed()).await.expect("handed").mount, 1);
        scope.stop(Duration::ZERO).await;
        let (estate, receiver) = watch::channel(None);
        let scope = Scope::new();
        scope.spawn(Trustee::adopt(ours, theirs, receiver).expect("adopted").run());
        // What was handed before is not handed again until something else is mounted.
        estate.send(handed(2, "two").0).expect("somebody listens");
        assert_eq!(soon(storage.handed()).await.expect("handed").mount, 2);
        scope.stop(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn what_nobody_took_is_taken_back_when_it_holds_no_more() {
        let (estate, receiver) = watch::channel(None);
        let (mut trustee, end) = Trustee::new(receiver).expect("a pair");
        let (first, mut watched) = handed(1, "");
        estate.send(first).expect("somebody listens");
        // To a storage that asked and died.
        trustee.give().expect("given");
        trustee.give().expect("given");
        estate.send(None).expect("somebody listens");
        trustee.give().expect("taken back");
        assert_eq!(watched.read(&mut [0]).expect("closed everywhere"), 0);
        assert_eq!(
            take(end.as_fd()).expect_err("nothing waits").kind(),
            io::ErrorKind::WouldBlock
        );
    }

    #[tokio::test]
    async fn of_several_the_newest_holds() {
        let (_estate, receiver) = watch::channel(None);
        let (trustee, end) = Trustee::new(receiver).expect("a pair");
        for number in 1..=3 {
            let (estate, _) = handed(number, "");
            give(trustee.ours.as_fd(), &estate.expect("one")).expect("sent");
        }
        assert_eq!(soon(heir(&end).handed()).await.expect("handed").mount, 3);
    }

    #[tokio::test]
    async fn what_is_no_mount_is_refused() {
        let (_estate, receiver) = watch::channel(None);
        let (trustee, end) = Trustee::new(receiver).expect("a pair");
        for bytes in [&[0; 8][..], &[0; 3], &[0; 9]] {
            rustix::net::send(trustee.ours.as_fd(), bytes, SendFlags::empty()).expect("sent");
            let error = take(end.as_fd()).expect_err("no descriptors");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
