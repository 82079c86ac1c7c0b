//! Opens files below the document root, and never above it. Blocking: callers are on the blocking pool.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// The root itself is opened anew this often, so that a root that was replaced or mounted again is noticed.
const REOPEN: Duration = Duration::from_secs(1);

/// `openat2` fails with EAGAIN when something on the path is renamed meanwhile (openat2(2)).
const ATTEMPTS: usize = 5;

/// Never blocks on a FIFO, never takes a terminal.
fn flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY
}

pub struct Root {
    path: PathBuf,
    follow_symlinks: bool,
    held: Mutex<(Arc<OwnedFd>, Instant)>,
}

impl Root {
    /// Fails when the folder cannot be opened, or the kernel lacks `openat2` (before Linux 5.6).
    pub fn open(path: &Path, follow_symlinks: bool) -> io::Result<Root> {
        let root = Root {
            path: path.to_path_buf(),
            follow_symlinks,
            held: Mutex::new((Arc::new(folder(path)?), Instant::now())),
        };
        root.file(".").map(|_| root)
    }

    /// Opens what lies at this relative path. Symbolic links are followed within the root;
    /// one that leaves it fails with EXDEV unless `follow_symlinks`.
    pub fn file(&self, relative: &str) -> io::Result<File> {
        if self.follow_symlinks {
            let mut options = OpenOptions::new();
            return options
                .read(true)
                .custom_flags(flags().bits())
                .open(self.path.join(relative));
        }
        let root = self.folder()?;
        let how = OpenHow::new()
            .flags(flags())
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        for _ in 1..ATTEMPTS {
            match openat2(&*root, relative, how) {
                Err(Errno::EAGAIN) => {}
                opened => return Ok(File::from(opened?)),
            }
        }
        Ok(File::from(openat2(&*root, relative, how)?))
    }

    fn folder(&self) -> io::Result<Arc<OwnedFd>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.1.elapsed() >= REOPEN {
            *held = (Arc::new(folder(&self.path)?), Instant::now());
        }
        Ok(held.0.clone())
    }
}

fn folder(path: &Path) -> io::Result<OwnedFd> {
    let mut options = OpenOptions::new();
    let flags = OFlag::O_DIRECTORY | OFlag::O_PATH;
    options
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .map(OwnedFd::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_above_the_root_is_opened() {
        let folder = tempfile::tempdir().expect("temp dir");
        let inside = folder.path().join("root");
        fs::create_dir_all(inside.join("a")).expect("made");
        fs::write(folder.path().join("secret"), "secret").expect("written");
        fs::write(inside.join("a/file"), "file").expect("written");
        symlink("../secret", inside.join("up")).expect("linked");
        symlink(folder.path().join("secret"), inside.join("absolute")).expect("linked");
        symlink("a/file", inside.join("within")).expect("linked");
        symlink("..", inside.join("a/parent")).expect("linked");
        let root = Root::open(&inside, false).expect("opened");
        for name in ["a/file", "within", "a/parent/a/file"] {
            assert!(root.file(name).is_ok(), "{name}");
        }
        for name in [
            "up",
            "absolute",
            "../secret",
            "/etc/passwd",
            "a/parent/../secret",
            "/proc/self/root/etc/passwd",
        ] {
            let error = root.file(name).expect_err("refused");
            assert!(
                matches!(error.raw_os_error(), Some(nix::libc::EXDEV)),
                "{name}: {error}"
            );
        }
        let open = Root::open(&inside, true).expect("opened");
        assert!(open.file("up").is_ok() && open.file("absolute").is_ok());
    }
}
