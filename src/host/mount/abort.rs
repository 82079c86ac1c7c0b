//! Ends a FUSE connection whose last user hangs: everybody who waits for an answer is told that there will be none. By fusectl, for
//! the mount may be gone from the table already, and a thread that hangs in the kernel may have the device open for ever.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
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
    // Never made: what is not there is not in the list.
    let say = || OpenOptions::new().write(true).open(&place)?.write_all(b"1");
    let aborted = match say() {
        // Nobody mounted the list; or all of /sys is read-only for this process, as systemd's ProtectKernelTunables= has it.
        Err(error) if [ErrorKind::NotFound, ErrorKind::ReadOnlyFilesystem].contains(&error.kind()) => {
            list().map_err(refuse)?;
            say()
        }
        said => said,
    };
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

/// Mounts the list of connections, to be written, where only this process sees it.
fn list() -> Result<(), Errno> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    match mount(Some("none"), CONNECTIONS, Some("fusectl"), MsFlags::empty(), none) {
        // It is there, read-only: the kernel mounts it no second time in the same place.
        Err(Errno::EBUSY) => mount(none, CONNECTIONS, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, none),
        mounted => mounted,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::host::mount::{Table, fuse};

    /// The list as systemd shows it to a unit with ProtectKernelTunables=; only for this thread.
    fn protect() {
        let none = None::<&str>;
        list().expect("a list of its own");
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(none, CONNECTIONS, none, flags, none).expect("read-only");
    }

    #[test]
    fn a_connection_is_ended_where_the_list_is_missing_or_read_only() {
        for is_protected in [false, true] {
            // Namespaces and what is mounted in them end with the thread.
            let thread = std::thread::spawn(move || {
                unshare(CloneFlags::CLONE_NEWNS).expect("as root");
                let (folder, none) = (tempfile::tempdir().expect("temp dir"), None::<&str>);
                mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private");
                let device = fuse::device().expect("FUSE");
                let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
                let placed = mount(
                    Some(fuse::SOURCE),
                    folder.path(),
                    Some(fuse::KIND),
                    MsFlags::empty(),
                    Some(options.as_str()),
                );
                placed.expect("mounted");
                let table = Table::parse(&fs::read("/proc/thread-self/mountinfo").expect("there"));
                let connection = table.at(folder.path()).expect("mounted").minor;
                if is_protected {
                    protect();
                    let place = Path::new(CONNECTIONS).join(connection.to_string()).join("abort");
                    let error = fs::write(place, "1").expect_err("read-only");
                    assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
                }
                assert_eq!(abort(&device, connection), Ok(Answer::Aborted(true)));
                assert_eq!(is_over(&device), Ok(true));
                assert_eq!(abort(&device, connection), Ok(Answer::Aborted(false)));
                nix::mount::umount2(folder.path(), nix::mount::MntFlags::MNT_DETACH).expect("gone");
            });
            thread.join().expect("no panic");
        }
    }
}
