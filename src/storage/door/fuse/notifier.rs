//! What the kernel is told to forget. Telling it may wait for the kernel's own locks, and those for an answer of ours; so threads of
//! their own do it: one for names (a folder's lock), one for pages (locks of pages that are being read).
//!
//! Such a wait cannot be killed. When this process is, the answer must come from the next one, which needs our files, sockets and
//! locks free: so these threads share no descriptors with the rest, and the supervisor does not wait for them.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use nix::sched::{CloneFlags, unshare};

use tokio::sync::oneshot;

use super::device::Device;
use super::told::Name;
use super::wire::answer::{expired_entry, invalid_entry, invalid_inode};
use super::wire::init::Agreed;
use crate::storage::call::Inode;

/// Recalls whose notices wait; more are dropped, and the kernel forgets by itself soon (`convert::PROMISED`).
const WAITING: usize = 4096;

/// Told one after another; then the sender is.
type Notices = (Vec<Vec<u8>>, oneshot::Sender<()>);

pub struct Notifier {
    device: Device,
    names: SyncSender<Notices>,
    pages: SyncSender<Notices>,
    /// Whether this kernel takes it that a name is to be asked for again, and no more.
    expires: AtomicBool,
}

impl Notifier {
    pub fn start(device: Device) -> io::Result<Self> {
        Ok(Notifier {
            names: teller("fuse-names", &device)?,
            pages: teller("fuse-pages", &device)?,
            expires: AtomicBool::new(false),
            device,
        })
    }

    pub fn heed(&self, agreed: Agreed) {
        self.expires.store(agreed.expires(), Ordering::Relaxed);
    }

    /// The kernel asks for the attributes again. Waits for nothing.
    pub fn attributes(&self, inode: Inode) {
        // ENOENT: it does not know the inode.
        let _ = self.device.notify(&invalid_inode(inode.0, false));
    }

    /// Resolves when the kernel has no page of the inode, or too much waits already.
    pub async fn pages(&self, inode: Inode) {
        forget(&self.pages, vec![invalid_inode(inode.0, true)]).await;
    }

    /// Resolves when the kernel answers nothing of these names by itself, or too much waits already: `changed` it does not know then,
    /// of the `old` ones, which may mean a folder, it asks again. A kernel that can only be told not to know them has its folders
    /// longer: who stands in one would not be anywhere.
    pub async fn names(&self, changed: &[Name], old: &[(Name, bool)]) {
        let expires = self.expires.load(Ordering::Relaxed);
        let old = old.iter().filter(|(_, is_folder)| expires || !is_folder);
        let old = old.map(|((folder, name), _)| match expires {
            true => expired_entry(folder.0, name),
            false => invalid_entry(folder.0, name),
        });
        let changed = changed.iter().map(|(folder, name)| invalid_entry(folder.0, name));
        forget(&self.names, changed.chain(old).collect()).await;
    }
}

/// Also when there is none: what was to be told before is told then.
async fn forget(sender: &SyncSender<Notices>, notices: Vec<Vec<u8>>) {
    let (done, told) = oneshot::channel();
    if sender.try_send((notices, done)).is_ok() {
        let _ = told.await;
    }
}

/// Starts a thread that tells the kernel, one notice after another.
fn teller(name: &str, device: &Device) -> io::Result<SyncSender<Notices>> {
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

fn tell(device: &OwnedFd, notices: &Receiver<Notices>) {
    for (notices, done) in notices {
        for notice in notices {
            // ENOENT: the kernel knows nothing of it.
            let _ = nix::unistd::write(device, &notice);
        }
        let _ = done.send(());
    }
}
