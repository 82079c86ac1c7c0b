//! A small disk of a machine, which a test can fill.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;

/// A file system in memory with a limit; gone with this.
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts it on `folder`.
    pub fn mount(folder: &Path, megabytes: u64) -> Self {
        let options = format!("size={megabytes}m");
        mount(
            Some("tmpfs"),
            folder,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .unwrap();
        Disk(folder.to_owned())
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    pub fn free(&self) -> u64 {
        let found = statvfs(&self.0).unwrap();
        found.blocks_available() * found.fragment_size()
    }

    /// Leaves so many bytes.
    pub fn fill(&self, rest: u64) {
        let file = File::create(self.filler()).unwrap();
        // Others may take room meanwhile.
        for _ in 0..100 {
            let length = file.metadata().unwrap().len();
            let more = self.free().saturating_sub(rest);
            if more == 0 {
                return;
            }
            let _ = fallocate(&file, FallocateFlags::empty(), length as i64, more as i64);
        }
        panic!("{} does not get full", self.0.display());
    }

    pub fn clear(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Unmounts what dead runs left under folders that begin with `prefix` and their process's number.
pub fn sweep(prefix: &str) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for place in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        let Some(rest) = place.strip_prefix("/tmp/").and_then(|rest| rest.strip_prefix(prefix)) else {
            continue;
        };
        let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
        if !Path::new("/proc").join(&number).exists() {
            let _ = umount2(Path::new(place), MntFlags::MNT_DETACH);
        }
    }
}
