//! The seam between the state machine and the machine's files. `SystemDisk` is the real one; tests use one that forgets
//! what was not synced and fails on cue. SQLite's own files do not pass here.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, IoSliceMut};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use rustix::io::ReadWriteFlags;

use crate::base::file::{self, Access};
use crate::storage::call::Space;

/// Contents are for the service and root only: they hold the portal's passwords.
const FILE_MODE: u32 = 0o640;
/// Folders, those of the mirror too: an admin may look around.
const FOLDER_MODE: u32 = 0o755;

/// What lies at a path; links are not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub kind: FoundKind,
    /// The host's inode number: the same for all hard links of a file.
    pub host_inode: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundKind {
    File,
    Folder,
    Link,
    Other,
}

/// An open content: the same file, whatever becomes of its name.
pub trait Content: Send + Sync {
    /// As `Disk::read_at`.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Fills `buffer` as far as that needs no waiting for the disk; returns how far.
    fn read_ready(&self, offset: u64, buffer: &mut [u8]) -> usize;
}

/// A file system that is held open.
pub trait FileSystem: Send + Sync {
    /// Everything written so far survives a power cut. What could not be written back since this was opened, or since it was last
    /// asked, is an error here, even when somebody else was told of it; and it is told once.
    fn sync(&self) -> io::Result<()>;
}

/// Files as the state machine needs them. Nothing is durable before `sync`, except what `replace` wrote.
/// Errors are the host's; their kinds matter: `NotFound`, `AlreadyExists`, `StorageFull`, `DirectoryNotEmpty`.
pub trait Disk: Send + Sync + 'static {
    /// Makes an empty file, or empties it.
    fn create(&self, path: &Path) -> io::Result<()>;
    /// Writes all of `data`; makes the file if it is gone.
    fn write_at(&self, path: &Path, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Cuts or extends with a hole; makes the file if it is gone.
    fn set_len(&self, path: &Path, len: u64) -> io::Result<()>;
    /// Fills `buffer` as far as the file goes; returns how far.
    fn read_at(&self, path: &Path, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// For reading.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn Content>>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn link(&self, original: &Path, path: &Path) -> io::Result<()>;
    fn symlink(&self, target: &[u8], path: &Path) -> io::Result<()>;
    fn read_link(&self, path: &Path) -> io::Result<Vec<u8>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// An empty folder only.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    fn look(&self, path: &Path) -> io::Result<Found>;
    fn list(&self, path: &Path) -> io::Result<Vec<(Vec<u8>, Found)>>;
    /// Holds the file system of `folder` open.
    fn file_system(&self, folder: &Path) -> io::Result<Box<dyn FileSystem>>;
    /// Everything written so far on the file system of `folder` survives a power cut, unless somebody was told before that a part of it
    /// could not be written back: good for names, not for contents.
    fn sync(&self, folder: &Path) -> io::Result<()> {
        self.file_system(folder)?.sync()
    }
    /// Replaces a small file durably: old or new, never half.
    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()>;
    /// A small file as a whole.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    fn space(&self, folder: &Path) -> io::Result<Space>;
}

/// Whether what was read is lost on the disk (a bad sector, a checksum that is wrong, a broken map of blocks), so that trying
/// again is of no use. Of damaged data a reader hears EIO; of damaged metadata some file systems say more.
pub fn is_unreadable(error: &io::Error) -> bool {
    const LOST: [Errno; 5] = [
        Errno::EIO,
        Errno::EBADMSG,
        Errno::EUCLEAN,
        Errno::EILSEQ,
        Errno::ENODATA,
    ];
    let errno = error.raw_os_error().map(Errno::from_raw);
    errno.is_some_and(|errno| LOST.contains(&errno))
}

/// The real one.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemDisk;

fn for_writing(path: &Path, truncate: bool) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(truncate)
        .mode(FILE_MODE)
        .open(path)
}

fn found(file_type: fs::FileType, host_inode: u64) -> Found {
    let kind = if file_type.is_file() {
        FoundKind::File
    } else if file_type.is_dir() {
        FoundKind::Folder
    } else if file_type.is_symlink() {
        FoundKind::Link
    } else {
        FoundKind::Other
    };
    Found { kind, host_inode }
}

impl Content for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match FileExt::read_at(self, rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn read_ready(&self, offset: u64, buffer: &mut [u8]) -> usize {
        // A file system that cannot say so counts as one that must wait.
        let read = rustix::io::preadv2(self, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT);
        read.unwrap_or(0)
    }
}

impl FileSystem for File {
    fn sync(&self) -> io::Result<()> {
        Ok(nix::unistd::syncfs(self)?)
    }
}

impl Disk for SystemDisk {
    fn create(&self, path: &Path) -> io::Result<()> {
        for_writing(path, true).map(drop)
    }

    fn write_at(&self, path: &Path, offset: u64, data: &[u8]) -> io::Result<()> {
        for_writing(path, false)?.write_all_at(data, offset)
    }

    fn set_len(&self, path: &Path, len: u64) -> io::Result<()> {
        for_writing(path, false)?.set_len(len)
    }

    fn read_at(&self, path: &Path, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        Content::read_at(&File::open(path)?, offset, buffer)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn Content>> {
        Ok(Arc::new(File::open(path)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn link(&self, original: &Path, path: &Path) -> io::Result<()> {
        fs::hard_link(original, path)
    }

    fn symlink(&self, target: &[u8], path: &Path) -> io::Result<()> {
        symlink(OsStr::from_bytes(target), path)
    }

    fn read_link(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(fs::read_link(path)?.into_os_string().into_vec())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)?;
        fs::set_permissions(path, Permissions::from_mode(FOLDER_MODE))
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn look(&self, path: &Path) -> io::Result<Found> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(found(metadata.file_type(), metadata.ino()))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(Vec<u8>, Found)>> {
        fs::read_dir(path)?
            .map(|entry| {
                let entry = entry?;
                Ok((entry.file_name().into_vec(), found(entry.file_type()?, entry.ino())))
            })
            .collect()
    }

    fn file_system(&self, folder: &Path) -> io::Result<Box<dyn FileSystem>> {
        Ok(Box::new(File::open(folder)?))
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        file::replace(path, content, Access::mode(FILE_MODE))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn space(&self, folder: &Path) -> io::Result<Space> {
        let facts = nix::sys::statvfs::statvfs(folder)?;
        Ok(Space {
            total_bytes: facts.blocks().saturating_mul(facts.fragment_size()),
            free_bytes: facts.blocks_available().saturating_mul(facts.fragment_size()),
            total_inodes: facts.files(),
            free_inodes: facts.files_available(),
        })
    }
}
