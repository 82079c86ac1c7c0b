//! The mount that this node's own storage serves through the kernel's FUSE: what it is called, and what the supervisor keeps of it.

use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;

pub use super::abort::is_over;
use super::handover::{Handed, PIPES};
use super::pipe::Pipe;
use super::table::Entry;

/// As it is asked for: the part behind the point tells ours from other FUSE file systems.
pub const KIND: &str = "fuse.bitrix";
/// As the table of mounts shows it.
pub const SOURCE: &str = "bitrix-node";
/// The device is the worker's standard input. Access is judged by the kernel, from owners and modes, for users of every kind;
/// 1 MiB is the largest request of a FUSE that reads by pages.
pub const OPTIONS: &str = "fd=0,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=1048576";

pub const DEVICE: &str = "/dev/fuse";
const MEMORY: &str = "bitrix-fuse";

pub fn is(entry: &Entry) -> bool {
    entry.kind == KIND && entry.source == SOURCE
}

/// What one mount(2) needs, none of it used yet. Nothing of it is inherited by children. Errors come with their remedy.
pub fn fresh() -> Result<Handed, String> {
    let device = device().map_err(|errno| format!("{DEVICE}: {}; {}", errno.desc(), remedy(errno)))?;
    let memory =
        memfd_create(MEMORY, MFdFlags::MFD_CLOEXEC).map_err(|errno| format!("memory for the mount: {errno}"))?;
    let mut number = [0; 8];
    getrandom::fill(&mut number).map_err(|error| io::Error::other(error.to_string()).to_string())?;
    let mount = u64::from_le_bytes(number);
    Ok(Handed {
        device,
        memory,
        pipes: pipes(),
        mount,
    })
}

/// For a mount that has none yet; none where they may not be so large. A storage does without.
pub fn pipes() -> Vec<Pipe> {
    let made: io::Result<Vec<Pipe>> = (0..PIPES).map(|_| Pipe::new()).collect();
    made.unwrap_or_else(|error| {
        tracing::info!(%error, "the mount has no pipes: fs.pipe-max-size is less than 1 MiB");
        Vec::new()
    })
}

/// Opens the device, which by itself has no effect.
pub fn device() -> Result<OwnedFd, Errno> {
    open(
        DEVICE,
        OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK,
        Mode::empty(),
    )
}

/// What helps where it cannot be opened.
pub fn remedy(errno: Errno) -> String {
    match errno {
        Errno::EPERM | Errno::EACCES => format!("give the container the device: --device {DEVICE}"),
        _ => format!("load the module: modprobe fuse; give a container the device: --device {DEVICE}"),
    }
}

pub fn explain(errno: Errno) -> String {
    match errno {
        Errno::ENODEV => {
            "this kernel has no FUSE (no \"fuse\" in /proc/filesystems): load the module (modprobe fuse)".into()
        }
        Errno::EPERM => {
            "this process may not mount; a container needs CAP_SYS_ADMIN and a profile that allows it".into()
        }
        other => format!("mount of FUSE: {}", other.desc()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_system_in_user_space_is_not_ours() {
        let entry = |kind: &str, source: &str| Entry {
            target: "/srv".into(),
            kind: kind.into(),
            source: source.into(),
            options: "rw,user_id=0,group_id=0,default_permissions,allow_other".into(),
            minor: 30,
        };
        assert!(is(&entry("fuse.bitrix", "bitrix-node")));
        assert!(!is(&entry("fuse.bitrix", "other")));
        assert!(!is(&entry("fuse.glusterfs", "bitrix-node")));
        assert!(!is(&entry("fuse", "bitrix-node")));
    }
}
