//! Ends a FUSE connection whose last user hangs: everybody who waits for an answer is told that there will be none. By fusectl, for
//! the mount may be gone from the table already, and a thread that hangs in the kernel may have the device open for ever.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};

use super::order::{Answer, Refusal};

/// Made by the kernel's FUSE; systemd mounts the list of connections there, others do not.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// `device`: an open one of this connection. While the connection lives, its number is nobody else's.
pub fn abort(device: impl AsFd, connection: u32) -> Result<Answer, Refusal> {
    let refuse = |errno: Errno| {
        Refusal::of(
            errno,
            format!("abort of FUSE connection {connection}: {}", errno.desc()),
        )
    };
    if is_over(device).map_err(refuse)? {
        return Ok(Answer::Aborted(false));
    }
    let place = Path::new(CONNECTIONS).join(connection.to_string()).join("abort");
    if !place.exists() {
        list().map_err(refuse)?;
    }
    let aborted = fs::write(&place, "1");
    aborted.map_err(|error| Refusal::new(format!("{}: {error}", place.display())))?;
    Ok(Answer::Aborted(true))
}

/// Whether nobody can wait for an answer any more.
pub fn is_over(device: impl AsFd) -> Result<bool, Errno> {
    let mut looked_at = [PollFd::new(device.as_fd(), PollFlags::empty())];
    poll(&mut looked_at, PollTimeout::ZERO)?;
    let [seen] = looked_at;
    Ok(seen.revents().is_some_and(|events| events.contains(PollFlags::POLLERR)))
}

/// Mounts the list of connections where only this process sees it.
fn list() -> Result<(), Errno> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("none"), CONNECTIONS, Some("fusectl"), MsFlags::empty(), none)
}
