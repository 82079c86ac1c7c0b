//! What the kernel is told to forget. Telling it may wait for the kernel's own locks, and those for an answer of ours; so threads of
//! their own do it: one for names (a folder's lock), one for pages (locks of pages that are being read).
//!
//! Such a wait cannot be killed. When this process is, the answer must come from the next one, which needs our files, sockets and
//! locks free: so these threads share no descriptors with the rest, and the supervisor does not wait for them.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use nix::sched::{CloneFlags, unshare};

use tokio::sync::oneshot;

use super::device::Device;
use super::wire::answer::{invalid_entry, invalid_inode};
use crate::storage::call::Inode;

/// Notices that wait; more are dropped, and the kernel forgets by itself soon (`convert::PROMISED`).
const WAITING: usize = 4096;

type Notice = (Vec<u8>, oneshot::Sender<()>);

pub struct Notifier {
    device: Device,
    names: SyncSender<Notice>,
    pages: SyncSender<Notice>,
}

impl Notifier {
    pub fn start(device: Device) -> io::Result<Self> {
        Ok(Notifier {
            names: teller("fuse-names", &device)?,
            pages: teller("fuse-pages", &device)?,
            device,
        })
    }

    /// The kernel asks for the attributes again. Waits for nothing.
    pub fn attributes(&self, inode: Inode) {
        // ENOENT: it does not know the inode.
        let _ = self.device.notify(&invalid_inode(inode.0, false));
    }

    /// Resolves when the kernel has no page of the inode, or too much waits already.
    pub async fn pages(&self, inode: Inode) {
        forget(&self.pages, invalid_inode(inode.0, true)).await;
    }

    /// Resolves when the kernel does not know the name, or too much waits already.
    pub async fn name(&self, folder: Inode, name: &[u8]) {
        forget(&self.names, invalid_entry(folder.0, name)).await;
    }
}

async fn forget(sender: &SyncSender<Notice>, notice: Vec<u8>) {
    let (done, told) = oneshot::channel();
    if sender.try_send((notice, done)).is_ok() {
        let _ = told.await;
    }
}

/// Starts a thread that tells the kernel, one notice after another.
fn teller(name: &str, device: &Device) -> io::Result<SyncSender<Notice>> {
    let (sender, notices) = sync_channel(WAITING);
    let (done, started) = sync_channel(1);
    let shared = device.clone();
    thread::Builder::new().name(name.into()).spawn(move || {
        let own = alone_with(&shared);
        // Handed back: were it closed here, it would stay open among the descriptors of the rest.
        let own = match own {
            Ok(own) => done.send(Ok(shared)).map(|()| own).ok(),
            Err(error) => done.send(Err(error)).ok().and(None),
        };
        if let Some(own) = own {
            tell(&own, &notices);
        }
    })?;
    started.recv().map_err(io::Error::other)??;
    Ok(sender)
}

/// Where it is said why this process ends.
const STDERR: RawFd = 2;

/// From here on this thread has a table of descriptors of its own: the device, and what the runtime wakes others by.
fn alone_with(device: &Device) -> io::Result<OwnedFd> {
    unshare(CloneFlags::CLONE_FILES)?;
    let own = device.as_fd().try_clone_to_owned()?;
    let open: Vec<RawFd> = fs::read_dir("/proc/thread-self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for number in open {
        // Events hold nothing that others wait for. The descriptor of the listing is closed already.
        let of = fs::read_link(format!("/proc/thread-self/fd/{number}")).unwrap_or_default();
        let is_kept =
            [STDERR, own.as_raw_fd()].contains(&number) || of.as_os_str().as_bytes().starts_with(b"anon_inode:");
        if !is_kept {
            let _ = nix::unistd::close(number);
        }
    }
    Ok(own)
}

fn tell(device: &OwnedFd, notices: &Receiver<Notice>) {
    for (notice, done) in notices {
        // ENOENT: the kernel knows nothing of it.
        let _ = nix::unistd::write(device, &notice);
        let _ = done.send(());
    }
}
