//! What a worker can be asked, and what it answers: one JSON document each way. Formats of one executable: no version is needed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::config::Export;

/// Whose mounts: a process under systemd's sandbox has a namespace of its own, into which mounts come but not out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Space {
    /// Ours and our children's.
    Own,
    /// That of process 1, which the units of systemd see.
    Init,
}

impl Space {
    /// Its member in /proc.
    pub fn process(self) -> &'static Path {
        Path::new(match self {
            Space::Own => "/proc/self",
            Space::Init => "/proc/1",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Mounts, unless it is mounted there already. An absent folder is made if its parent is there.
    Mount {
        export: Export,
        at: PathBuf,
        space: Space,
        /// What is mounted there of this export is dead: it is let go first.
        renew: bool,
    },
    /// Mounts the FUSE device that is the worker's standard input. What is mounted there of ours has lost its device: it is let go
    /// first. An absent folder is made if its parent is there.
    Fuse { at: PathBuf, space: Space },
    /// Lets go of every mount of ours or of NFS at a folder, at once, whatever hangs on it.
    Detach { at: PathBuf, space: Space },
    /// Lets go of a FUSE mount of ours that nobody serves any more, and of whoever hangs on it.
    Leave { at: PathBuf, space: Space },
    /// Ends the FUSE connection of the device that is the worker's standard input.
    Abort { connection: u32 },
    /// Asks the file system of a folder for its size and the folder's attributes.
    Probe { folder: PathBuf },
    /// Makes a folder for a user, unless something has its name; the parent must be there.
    Folder { path: PathBuf, uid: u32, gid: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Whether it was mounted by this order.
    Mounted(bool),
    /// How many mounts were let go.
    Detached(usize),
    /// Whether there was still a connection.
    Aborted(bool),
    Probed(Room),
    Made,
}

/// What a file system said of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    pub total_bytes: u64,
    /// For users other than root.
    pub free_bytes: u64,
    pub is_read_only: bool,
    /// How long the answer took.
    pub took: Duration,
}

/// Why an act was not done, with its remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub text: String,
    /// What the kernel said.
    pub errno: Option<i32>,
}

impl Refusal {
    pub fn new(text: impl Into<String>) -> Self {
        Refusal {
            text: text.into(),
            errno: None,
        }
    }

    pub fn of(errno: Errno, text: impl Into<String>) -> Self {
        Refusal {
            text: text.into(),
            errno: Some(errno as i32),
        }
    }

    /// The file system will never answer on this mount again; another mount of it might.
    pub fn is_final(&self) -> bool {
        [Errno::ESTALE, Errno::ENOTCONN]
            .map(|errno| Some(errno as i32))
            .contains(&self.errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dead_mount_is_final() {
        assert!(Refusal::of(Errno::ESTALE, "").is_final());
        assert!(Refusal::of(Errno::ENOTCONN, "").is_final());
        assert!(!Refusal::of(Errno::EIO, "").is_final());
        assert!(!Refusal::new("").is_final());
    }
}
