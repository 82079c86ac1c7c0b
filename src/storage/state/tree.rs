//! The mirror `tree/`: the portal's tree under its real names, as hard links of the contents, so that an admin can always read
//! and rescue the files with `cp`. Symbolic links are symbolic links; pipes, sockets, devices and paths that are too long for the
//! host are left out.
//!
//! It follows the commits. Between crashes it is exact and each action is one or two system calls. After a crash it may be
//! ahead of the metadata, but only in names that the log will touch again, so each action brings its name to the state that
//! it had at that point of the log, and a folder that is put or moved is compared with the metadata as a whole: when the
//! log has been played again, the mirror is exact. A failure here never fails a call: the mirror is marked broken and rebuilt
//! at the next start.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;

use super::contents::{Contents, ensure_folder};
use super::disk::{Disk, FoundKind};
use super::inode::Record;
use super::{Failure, entry, inode};
use crate::storage::call::{Inode, Kind, PORTAL};

/// Names of a folder looked at in one go while it is compared.
const PAGE: usize = 1000;

/// A change of one name, paths relative to the mirror's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    File {
        path: PathBuf,
        inode: Inode,
    },
    Link {
        path: PathBuf,
        target: Vec<u8>,
    },
    Folder {
        path: PathBuf,
        folder: Inode,
    },
    Gone {
        path: PathBuf,
    },
    /// A folder with all that it holds.
    Move {
        from: PathBuf,
        to: PathBuf,
        folder: Inode,
    },
}

impl Action {
    /// Has `path` show the object, or nothing.
    pub fn put(path: PathBuf, object: Option<&Record>) -> Action {
        let Some(object) = object else {
            return Action::Gone { path };
        };
        match (object.attributes.kind, &object.target) {
            (Kind::File, _) => Action::File {
                path,
                inode: object.id(),
            },
            (Kind::Folder, _) => Action::Folder {
                path,
                folder: object.id(),
            },
            (Kind::Link, Some(target)) => Action::Link {
                path,
                target: target.clone(),
            },
            _ => Action::Gone { path },
        }
    }
}

pub struct Tree {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    contents: Arc<Contents>,
    /// It may be ahead of the metadata: folders are compared as a whole.
    is_doubtful: bool,
    is_broken: bool,
}

impl Tree {
    pub fn open(root: PathBuf, disk: Arc<dyn Disk>, contents: Arc<Contents>, is_exact: bool) -> Result<Self, Failure> {
        ensure_folder(disk.as_ref(), &root)?;
        Ok(Tree {
            disk,
            root,
            contents,
            is_doubtful: !is_exact,
            is_broken: false,
        })
    }

    /// Something could not be shown: only a rebuild makes it exact again.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Follows a batch that has committed.
    pub fn follow(&mut self, rows: &Connection, actions: &[Action]) {
        for action in actions {
            if let Err(failure) = self.perform(rows, action) {
                if !self.is_broken {
                    tracing::warn!(%failure, "the mirror of the files could not follow; it is rebuilt at the next start");
                }
                self.is_broken = true;
                self.is_doubtful = true;
            }
        }
    }

    /// Compares everything with the metadata and mends what differs.
    pub fn rebuild(&mut self, rows: &Connection) -> Result<(), Failure> {
        self.compare(rows, PORTAL, self.root.clone())?;
        self.is_broken = false;
        Ok(())
    }

    /// Shows a content anew under all its names, after another file took its place.
    pub fn relink(&mut self, rows: &Connection, inode: Inode) -> Result<(), Failure> {
        for (folder, name) in entry::names_of(rows, inode)? {
            if let Some(path) = path_of(rows, folder, name)? {
                self.follow(rows, &[Action::File { path, inode }]);
            }
        }
        Ok(())
    }

    fn perform(&self, rows: &Connection, action: &Action) -> Result<(), Failure> {
        let done = match action {
            Action::File { path, inode } => self.put_file(&self.root.join(path), *inode),
            Action::Link { path, target } => self.put_link(&self.root.join(path), target),
            Action::Gone { path } => self.clear(&self.root.join(path)),
            Action::Folder { path, folder } => return self.put_folder(rows, self.root.join(path), *folder),
            Action::Move { from, to, folder } => {
                return self.move_folder(rows, &self.root.join(from), self.root.join(to), *folder);
            }
        };
        self.excuse(done)
    }

    /// While the mirror is ahead, the folder of a path may lie elsewhere already: then the log moves it later and it is compared.
    fn excuse(&self, done: io::Result<()>) -> Result<(), Failure> {
        match done {
            Err(error) if error.kind() == ErrorKind::InvalidFilename => Ok(()),
            Err(error)
                if self.is_doubtful && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                Ok(())
            }
            other => Ok(other?),
        }
    }

    fn put_file(&self, path: &Path, inode: Inode) -> io::Result<()> {
        let original = self.contents.path(inode);
        match self.disk.link(&original, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            other => return other,
        }
        if self.disk.look(path)? == self.disk.look(&original)? {
            return Ok(());
        }
        self.clear(path)?;
        self.disk.link(&original, path)
    }

    fn put_link(&self, path: &Path, target: &[u8]) -> io::Result<()> {
        match self.disk.symlink(target, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            other => return other,
        }
        self.clear(path)?;
        self.disk.symlink(target, path)
    }

    fn put_folder(&self, rows: &Connection, path: PathBuf, folder: Inode) -> Result<(), Failure> {
        let made = match self.disk.make_folder(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                match self.disk.look(&path).map(|found| found.kind) {
                    Ok(FoundKind::Folder) => Ok(()),
                    Ok(_) => self.clear(&path).and_then(|()| self.disk.make_folder(&path)),
                    Err(error) => Err(error),
                }
            }
            other => other,
        };
        if self.is_doubtful && made.is_ok() {
            return self.compare(rows, folder, path);
        }
        self.excuse(made)
    }

    fn move_folder(&self, rows: &Connection, from: &Path, to: PathBuf, folder: Inode) -> Result<(), Failure> {
        let moved = self.disk.rename(from, &to);
        if !self.is_doubtful {
            return Ok(moved?);
        }
        self.excuse(self.clear(from))?;
        self.put_folder(rows, to, folder)
    }

    fn clear(&self, path: &Path) -> io::Result<()> {
        clear(self.disk.as_ref(), path)
    }

    /// Makes the folder at `path`, which is there, and everything below it what the metadata say of `folder`.
    fn compare(&self, rows: &Connection, folder: Inode, path: PathBuf) -> Result<(), Failure> {
        let mut left = vec![(folder, path)];
        while let Some((folder, path)) = left.pop() {
            let mut found: HashMap<_, _> = self.disk.list(&path)?.into_iter().collect();
            let mut cookie = 0;
            loop {
                let names = entry::list(rows, folder, cookie, PAGE)?;
                let Some(last) = names.last() else { break };
                cookie = last.cookie;
                for name in &names {
                    let Some(record) = inode::load(rows, name.inode)? else {
                        return Err(Failure::Damaged(format!("inode {} is missing", name.inode.0)));
                    };
                    let here = path.join(OsStr::from_bytes(&name.name));
                    let known = found.remove(&name.name);
                    let shown = self.show(&record, &here, known.map(|known| known.kind));
                    let is_too_long = matches!(&shown, Err(error) if error.kind() == ErrorKind::InvalidFilename);
                    self.excuse(shown)?;
                    if record.is_folder() && !is_too_long {
                        left.push((name.inode, here));
                    }
                }
            }
            for name in found.keys() {
                self.clear(&path.join(OsStr::from_bytes(name)))?;
            }
        }
        Ok(())
    }

    /// Shows one object at `path`, where an object of kind `known` is now.
    fn show(&self, record: &Record, path: &Path, known: Option<FoundKind>) -> io::Result<()> {
        match (record.attributes.kind, &record.target, known) {
            (Kind::File, ..) => match self.put_file(path, record.id()) {
                // The log removes this file later; its content is gone already.
                Err(error) if error.kind() == ErrorKind::NotFound && self.is_doubtful => self.clear(path),
                other => other,
            },
            (Kind::Folder, _, Some(FoundKind::Folder)) => Ok(()),
            (Kind::Folder, ..) => self.clear(path).and_then(|()| self.disk.make_folder(path)),
            (Kind::Link, Some(target), Some(FoundKind::Link)) if self.disk.read_link(path)? == *target => Ok(()),
            (Kind::Link, Some(target), _) => self.put_link(path, target),
            _ => self.clear(path),
        }
    }
}

/// Leaves nothing at `path`.
pub fn clear(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let mut left = vec![path.to_owned()];
    while let Some(at) = left.last().cloned() {
        let kind = match disk.look(&at) {
            Ok(found) => found.kind,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                left.pop();
                continue;
            }
            Err(error) => return Err(error),
        };
        if kind != FoundKind::Folder {
            disk.remove(&at)?;
            left.pop();
            continue;
        }
        match disk.remove_folder(&at) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                let names = disk.list(&at)?;
                left.extend(names.into_iter().map(|(name, _)| at.join(OsStr::from_bytes(&name))));
            }
            other => {
                other?;
                left.pop();
            }
        }
    }
    Ok(())
}

/// Where a name lies in the mirror; `None`: in another tree.
fn path_of(rows: &Connection, folder: Inode, name: Vec<u8>) -> Result<Option<PathBuf>, Failure> {
    let (mut at, mut names) = (folder, vec![name]);
    while at != PORTAL {
        let Some(place) = inode::place(rows, at)? else {
            return Ok(None);
        };
        names.push(place.name);
        at = place.parent;
    }
    Ok(Some(names.iter().rev().map(|name| OsStr::from_bytes(name)).collect()))
}
