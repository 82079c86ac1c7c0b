//! Files that are whole or absent: write, fsync, rename, fsync of the folder; and the lock of a data folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

/// Who may read a written file.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    pub mode: u32,
    /// Owner and group ids; `None` leaves the writer's.
    pub owner: Option<(u32, u32)>,
}

impl Access {
    pub const fn mode(mode: u32) -> Self {
        Access { mode, owner: None }
    }

    pub const fn owned(mode: u32, uid: u32, gid: u32) -> Self {
        Access {
            mode,
            owner: Some((uid, gid)),
        }
    }
}

/// Replaces `path` by `content`: a reader sees the old file or the new one, also after a power cut.
/// The file never has wider access than `access`, not even for a moment.
pub fn replace(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let parent = path.parent().ok_or_else(|| io::Error::other("a file needs a folder"))?;
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::other("a file needs a name"))?;
    let mut temporary = name.to_os_string();
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = parent.join(temporary);
    let written = write_new(&temporary, content, access).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    File::open(parent)?.sync_all()
}

/// Like `replace`, but leaves a file alone that already says the same. Returns whether it changed.
pub fn ensure(path: &Path, content: &[u8], access: Access) -> io::Result<bool> {
    match fs::read(path) {
        Ok(current) if current == content => {
            fs::set_permissions(path, fs::Permissions::from_mode(access.mode))?;
            if let Some((uid, gid)) = access.owner {
                std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
            }
            Ok(false)
        }
        _ => replace(path, content, access).map(|()| true),
    }
}

/// Makes a folder with its parents, then sets access of the last one.
pub fn ensure_folder(path: &Path, access: Access) -> io::Result<()> {
    fs::create_dir_all(path)?;
    if let Some((uid, gid)) = access.owner {
        std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(access.mode))
}

fn write_new(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    if let Some((uid, gid)) = access.owner {
        fchown(&file, Some(uid), Some(gid))?;
    }
    file.set_permissions(fs::Permissions::from_mode(access.mode))?;
    file.sync_all()
}

/// Takes the exclusive lock of a file, which lasts as long as the returned handle. `None`: somebody holds it.
pub fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_sets_content_and_mode() {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("secret");
        replace(&path, b"one", Access::mode(0o640)).expect("written");
        replace(&path, b"two", Access::mode(0o600)).expect("replaced");
        assert_eq!(fs::read(&path).expect("readable"), b"two");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(folder.path()).expect("listed").count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn ensure_says_whether_it_changed() {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("file");
        assert!(ensure(&path, b"x", Access::mode(0o644)).expect("written"));
        assert!(!ensure(&path, b"x", Access::mode(0o644)).expect("same"));
    }

    #[test]
    fn second_lock_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("lock");
        let first = try_lock(&path).expect("lockable");
        assert!(first.is_some());
        assert!(try_lock(&path).expect("lockable").is_none());
        drop(first);
        assert!(try_lock(&path).expect("lockable").is_some());
    }
}
