//! A process that locks itself in (Landlock, landlock(7)): from then on it opens what it named before and nothing else, whatever it is
//! made to do. It cannot be undone, and holds for threads that are started later, so it is done before there are any.
//!
//! What is open stays open, and sockets are reached by name as before. A path stands for the folder or file that is there at the time,
//! with what lies beneath it then and later; one that takes its place, or is mounted on it, is another one and stays shut
//! (`is_shut`). So of a file that is replaced by renaming the folder is named. Where the kernel cannot do all of it (before
//! Linux 6.10), as much as it can is done.
//!
//! By the crate `landlock` (MIT or Apache-2.0, by the kernel's maintainer of it).

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, path_beneath_rules,
};
use nix::fcntl::OFlag;

/// Rights of files as of Linux 6.10; an older kernel knows fewer.
const RIGHTS: ABI = ABI::V5;

/// What every module reads: names, what the machine has, and chance (a static executable does not find the C library's getrandom(3)).
const COMMON: [&str; 7] = [
    "/dev/random",
    "/dev/urandom",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/proc/meminfo",
    "/proc/self",
    "/sys/fs/cgroup",
];

/// What a process may open from now on. Paths that are not there are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grounds {
    read: Vec<PathBuf>,
    /// To be read, written, made and removed in.
    write: Vec<PathBuf>,
}

/// How much of it the kernel enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confinement {
    Full,
    /// Not what came with later kernels.
    Partial,
    None,
}

impl Grounds {
    /// A folder and what lies beneath, or one file as it is now.
    pub fn read(mut self, path: impl Into<PathBuf>) -> Self {
        self.read.push(path.into());
        self
    }

    /// A file that is replaced by renaming: its folder, and that of the file to which a link leads. A folder as common as `/etc` is not
    /// opened for it.
    pub fn replaced(mut self, path: &Path) -> Self {
        let led = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        for path in [path, &led] {
            let folder = path.parent().filter(|folder| folder.components().count() > 2);
            let opened = folder.unwrap_or(path).to_path_buf();
            if !self.read.contains(&opened) {
                self.read.push(opened);
            }
        }
        self
    }

    pub fn write(mut self, path: impl Into<PathBuf>) -> Self {
        self.write.push(path.into());
        self
    }

    /// What of it can be read now, or is not there yet. Before `confine`: if one of these is shut later, it is another one than it was.
    pub fn reachable(&self) -> Vec<PathBuf> {
        let common = COMMON.iter().map(PathBuf::from);
        let mut all: Vec<PathBuf> = common.chain(self.read.iter().cloned()).collect();
        all.retain(|path| open(path).map_or_else(|error| error.kind() == ErrorKind::NotFound, |_| true));
        all
    }
}

/// Whether a path is there and may not be opened. May hang where the path is on a mount that does.
pub fn is_shut(path: &Path) -> bool {
    open(path).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

/// Locks this thread in, and those that it starts.
pub fn confine(grounds: &Grounds) -> Result<Confinement, RulesetError> {
    let execute = BitFlags::from(AccessFs::Execute);
    let (read, write) = (
        AccessFs::from_read(RIGHTS) & !execute,
        AccessFs::from_all(RIGHTS) & !execute,
    );
    let common = COMMON.iter().map(PathBuf::from);
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RIGHTS))?
        .create()?
        .add_rules(path_beneath_rules(common.chain(grounds.read.iter().cloned()), read))?
        .add_rules(path_beneath_rules(&grounds.write, write))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Confinement::Full,
        RulesetStatus::PartiallyEnforced => Confinement::Partial,
        RulesetStatus::NotEnforced => Confinement::None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;
    use std::os::unix::fs::symlink;

    fn is_denied<T>(result: std::io::Result<T>) -> bool {
        result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    }

    #[test]
    fn nothing_else_can_be_opened() {
        let folder = tempfile::tempdir().expect("temp dir");
        let at = |name: &str| folder.path().join(name).join("file");
        for name in ["read", "write", "other", "replaced"] {
            fs::create_dir(folder.path().join(name)).expect("made");
            fs::write(at(name), name).expect("written");
        }
        symlink(at("other"), folder.path().join("read/link")).expect("linked");
        let grounds = Grounds::default()
            .read(folder.path().join("read"))
            .read(folder.path().join("replaced"))
            .write(folder.path().join("write"))
            .read("/no/such/path");
        // It holds for one thread alone.
        let confined = || {
            let done = confine(&grounds).expect("a valid ruleset");
            assert!(!grounds.reachable().is_empty());
            assert!(fs::read(at("read")).is_ok() && fs::read("/etc/hosts").is_ok());
            assert!(fs::write(at("write"), "again").is_ok());
            let new = folder.path().join("write/new");
            assert!(fs::write(&new, "new").is_ok() && fs::remove_file(new).is_ok());
            let denied = [
                is_denied(fs::read(at("other"))),
                is_denied(fs::read(folder.path().join("read/link"))),
                is_denied(fs::write(at("read"), "changed")),
                is_denied(fs::read("/etc/passwd")),
                is_denied(fs::read_dir("/")),
                is_denied(fs::remove_file(at("other"))),
            ];
            (done, denied)
        };
        let (done, denied) = std::thread::scope(|scope| scope.spawn(confined).join().expect("no panic"));
        if done != Confinement::None {
            assert_eq!(denied, [true; 6]);
        }
        assert!(fs::read(at("other")).is_ok(), "other threads are free");
    }

    #[test]
    fn what_takes_a_folders_place_is_shut() {
        let folder = tempfile::tempdir().expect("temp dir");
        let (root, old) = (folder.path().join("root"), folder.path().join("old"));
        fs::create_dir(&root).expect("made");
        let grounds = Grounds::default().read(&root);
        let (locked, is_locked) = std::sync::mpsc::channel();
        let (replaced, is_replaced) = std::sync::mpsc::channel::<()>();
        let path = root.as_path();
        let confined = move || {
            let done = confine(&grounds).expect("a valid ruleset");
            let before = is_shut(path);
            locked.send(()).expect("heard");
            is_replaced.recv().expect("said");
            (done, before, is_shut(path))
        };
        let (done, before, after) = std::thread::scope(|scope| {
            let confined = scope.spawn(confined);
            is_locked.recv().expect("said");
            fs::rename(&root, &old).expect("moved");
            fs::create_dir(&root).expect("made");
            replaced.send(()).expect("heard");
            confined.join().expect("no panic")
        });
        assert!(!before);
        assert_eq!(after, done != Confinement::None);
        assert!(!is_shut(&root), "other threads are free");
    }

    #[test]
    fn of_a_file_that_is_replaced_the_folders_are_named() {
        let folder = tempfile::tempdir().expect("temp dir");
        let (live, archive) = (folder.path().join("live"), folder.path().join("archive"));
        fs::create_dir_all(&live).expect("made");
        fs::create_dir_all(&archive).expect("made");
        fs::write(archive.join("1.pem"), "").expect("written");
        symlink(archive.join("1.pem"), live.join("chain.pem")).expect("linked");
        let grounds = Grounds::default().replaced(&live.join("chain.pem"));
        let archive = archive.canonicalize().expect("there");
        assert_eq!(grounds, Grounds::default().read(live).read(archive));
        let common = Grounds::default().replaced(Path::new("/etc/hosts"));
        assert_eq!(common, Grounds::default().read("/etc/hosts"));
    }
}
