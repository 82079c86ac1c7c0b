//! `Disk`: one folder of files with explicit syncs, as the log needs it; `Folder` is the real one.
//! Nothing is on the disk before the sync that covers it has returned: `sync` of a file for its content,
//! `sync` of the folder for names made, moved or removed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};

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
    /// As `write_at`, for whole blocks of 4 KiB in memory that is aligned to them: past the page cache where that can be, for
    /// what is not read again soon.
    fn write_blocks(&self, blocks: &[u8], offset: u64) -> io::Result<()>;
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
        let path = self.path.join(name);
        Ok(Arc::new(Opened::new(options.open(&path)?, &path)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path.join(name);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Arc::new(Opened::new(file, &path)))
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

/// A file, and the same one past the page cache where the file system has that. The kernel keeps both views the same.
struct Opened {
    file: File,
    direct: Option<File>,
}

impl Opened {
    fn new(file: File, path: &Path) -> Self {
        let direct = OpenOptions::new()
            .write(true)
            .custom_flags(OFlag::O_DIRECT.bits())
            .open(path);
        let direct = direct.ok();
        Opened { file, direct }
    }
}

impl DiskFile for Opened {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn write_blocks(&self, blocks: &[u8], offset: u64) -> io::Result<()> {
        match &self.direct {
            Some(direct) => match direct.write_all_at(blocks, offset) {
                // The disk wants more than blocks of this size.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.write_at(blocks, offset),
                other => other,
            },
            None => self.write_at(blocks, offset),
        }
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        if self.size()? >= size {
            return Ok(());
        }
        let length = i64::try_from(size).map_err(io::Error::other)?;
        match fallocate(&self.file, FallocateFlags::empty(), 0, length) {
            // Not every file system can reserve; the log is right without it, only slower.
            Err(Errno::EOPNOTSUPP) => self.file.set_len(size),
            other => Ok(other?),
        }
    }

    fn cut(&self, size: u64) -> io::Result<()> {
        self.file.set_len(size)?;
        self.file.sync_all()
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
