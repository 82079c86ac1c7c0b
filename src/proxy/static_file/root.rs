//! Opens files below the document root, and never above it. Blocking: callers are on the blocking pool.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc::EXDEV;

/// The root itself is opened anew this often, so that a root that was replaced or mounted again is noticed.
const REOPEN: Duration = Duration::from_secs(1);

/// `openat2` fails with EAGAIN when something on the path is renamed meanwhile (openat2(2)).
const ATTEMPTS: usize = 5;

/// Never blocks on a FIFO, never takes a terminal.
fn flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY
}

/// Where symbolic links may lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Links {
    /// Within the root.
    Within,
    /// There, and into these folders.
    Into(Vec<PathBuf>),
    /// As far as the process can see.
    Anywhere,
}

pub struct Root {
    path: PathBuf,
    links: Links,
    held: Mutex<Option<(Held, Instant)>>,
}

#[derive(Clone)]
struct Held {
    root: Arc<OwnedFd>,
    /// Folders of `Links::Into` that are there, without links in their paths.
    others: Arc<[PathBuf]>,
}

impl Root {
    /// The folder is opened when it is needed.
    pub fn new(path: &Path, links: Links) -> Root {
        Root {
            path: path.to_path_buf(),
            links,
            held: Mutex::new(None),
        }
    }

    /// Fails when the folder cannot be opened, or the kernel lacks `openat2` (before Linux 5.6).
    pub fn open(path: &Path, links: Links) -> io::Result<Root> {
        let root = Root::new(path, links);
        root.folder()?;
        root.file(".").map(|_| root)
    }

    /// Opens what lies at this relative path. Symbolic links are followed within the root; one that leads to where it may not
    /// fails with EXDEV.
    pub fn file(&self, relative: &str) -> io::Result<File> {
        if self.links == Links::Anywhere {
            return self.any(relative);
        }
        let held = self.folder()?;
        match beneath(&held.root, relative) {
            Err(error) if error.raw_os_error() == Some(EXDEV) && !held.others.is_empty() => {
                let file = self.any(relative)?;
                // Asked of what is open, so that a link that changes meanwhile makes no difference.
                let place = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
                let is_let = held.others.iter().any(|folder| place.starts_with(folder));
                is_let.then_some(file).ok_or(error)
            }
            opened => opened,
        }
    }

    fn any(&self, relative: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(flags().bits());
        options.open(self.path.join(relative))
    }

    fn folder(&self) -> io::Result<Held> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((held, since)) = held.as_ref()
            && since.elapsed() < REOPEN
        {
            return Ok(held.clone());
        }
        let others = match &self.links {
            Links::Into(folders) => folders.iter().filter_map(|folder| folder.canonicalize().ok()).collect(),
            Links::Within | Links::Anywhere => Vec::new(),
        };
        let fresh = Held {
            root: Arc::new(folder(&self.path)?),
            others: others.into(),
        };
        *held = Some((fresh.clone(), Instant::now()));
        Ok(fresh)
    }
}

fn beneath(root: &OwnedFd, relative: &str) -> io::Result<File> {
    let how = OpenHow::new()
        .flags(flags())
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    for _ in 1..ATTEMPTS {
        match openat2(root, relative, how) {
            Err(Errno::EAGAIN) => {}
            opened => return Ok(File::from(opened?)),
        }
    }
    Ok(File::from(openat2(root, relative, how)?))
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
        let root = Root::open(&inside, Links::Within).expect("opened");
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
        let open = Root::open(&inside, Links::Anywhere).expect("opened");
        assert!(open.file("up").is_ok() && open.file("absolute").is_ok());
    }

    #[test]
    fn links_of_a_site_lead_into_named_folders_alone() {
        let folder = tempfile::tempdir().expect("temp dir");
        let at = |name: &str| folder.path().join(name);
        for name in ["site", "portal/upload", "other"] {
            fs::create_dir_all(at(name)).expect("made");
        }
        symlink(at("portal"), at("led")).expect("linked");
        let root = Root::new(&at("site"), Links::Into(vec![at("led"), at("missing")]));
        for name in ["portal/upload/file", "portal/secret", "other/file", "portal-not/file"] {
            fs::create_dir_all(at(name).parent().expect("a folder")).expect("made");
            fs::write(at(name), "file").expect("written");
        }
        for (name, target) in [
            ("upload", at("portal/upload")),
            ("relative", "../portal/upload".into()),
            ("other", at("other")),
            ("near", at("portal-not")),
            ("back", at("portal/upload/back")),
        ] {
            symlink(target, at("site").join(name)).expect("linked");
        }
        symlink(at("other"), at("portal/upload/back")).expect("linked");
        for name in ["upload/file", "relative/file"] {
            assert!(root.file(name).is_ok(), "{name}");
        }
        for name in ["other/file", "near/file", "back/file", "../other/file"] {
            let error = root.file(name).expect_err("refused");
            assert_eq!(error.raw_os_error(), Some(EXDEV), "{name}: {error}");
        }
        fs::remove_dir_all(at("site")).expect("removed");
        assert!(Root::open(&at("site"), Links::Within).is_err());
    }
}
