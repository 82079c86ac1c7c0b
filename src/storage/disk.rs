//! `Disk`: one folder of files with explicit syncs, as the log needs it; `Folder` is the real one.
//! Nothing is on the disk before the sync that covers it has returned: `sync` of a file for its content,
//! `sync` of the folder for names made, moved or removed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

/// A folder. Names hold no slash.
pub trait Disk: Send + Sync + 'static {
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes an empty file, or empties an existing one.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Replaces `to`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
    /// Whether its calls may take long, so that a task must make them elsewhere.
    fn blocks(&self) -> bool {
        true
    }
}

/// An open file. Calls block.
pub trait DiskFile: Send + Sync {
    fn size(&self) -> io::Result<u64>;
    /// Fills the buffer or fails.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the file at least that long, with room reserved and zeros in it.
    fn allocate(&self, size: u64) -> io::Result<()>;
    /// Makes the file exactly that long; content and length are on the disk on return.
    fn cut(&self, size: u64) -> io::Result<()>;
    /// fdatasync.
    fn sync(&self) -> io::Result<()>;
}

/// A folder of the file system.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder must exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Folder { path: path.into() }
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.path)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        Ok(Arc::new(options.open(self.path.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        if DiskFile::size(self)? >= size {
            return Ok(());
        }
        let length = i64::try_from(size).map_err(io::Error::other)?;
        match fallocate(self, FallocateFlags::empty(), 0, length) {
            // Not every file system can reserve; the log is right without it, only slower.
            Err(Errno::EOPNOTSUPP) => self.set_len(size),
            other => Ok(other?),
        }
    }

    fn cut(&self, size: u64) -> io::Result<()> {
        self.set_len(size)?;
        self.sync_all()
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
