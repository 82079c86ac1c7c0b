//! The rescue export: the mirror `tree/` of one replica, read-only, over NFSv3 on loopback. For a cluster without a majority, or a copy of
//! its files from a backup. The storage may run or not: the mirror is files of the host, and what changes is seen.
//!
//! Served by the crate `nfs3_server`, whose released core is not fit for the data path (no bounds on what a client may ask at once, a
//! client that resets its connection as it opens ends the accept loop): so no other address than loopback, and the loop is begun again.
//! Owners, modes and times are those of the host's files, not those in the metadata.

use std::collections::HashMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nfs3_server::nfs3_types::nfs3::{fattr3, filename3, ftype3, nfspath3, nfsstat3, nfstime3, specdata3};
use nfs3_server::tcp::{NFSTcp, NFSTcpListener};
use nfs3_server::vfs::adapters::ReadOnlyAdapter;
use nfs3_server::vfs::{DirEntryPlus, FileHandleU64, NextResult, NfsReadFileSystem, ReadDirPlusIterator};

use super::replica::blocking;
use crate::base::Scope;

const ROOT: u64 = 1;
/// Objects that clients may have seen in one run; each takes about 100 bytes.
const KNOWN_MAX: usize = 4_000_000;
/// Longest read.
const READ_MAX: u32 = 1 << 20;

/// A running export.
pub struct Rescue {
    pub address: SocketAddr,
    listener: Arc<NFSTcpListener<ReadOnlyAdapter<Mirror>>>,
}

impl Rescue {
    /// Opens `folder` for clients at `address`, which must be of loopback; port 0 takes any.
    pub async fn bind(folder: &Path, address: SocketAddr) -> io::Result<Rescue> {
        if !address.ip().is_loopback() || !address.is_ipv4() {
            let why = format!("{address} is not an IPv4 address of loopback; copy from there by other means");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let mirror = Mirror::new(folder)?;
        let listener = NFSTcpListener::bind_ro(&address.to_string(), mirror).await?;
        Ok(Rescue {
            address: SocketAddr::new(listener.get_listen_ip(), listener.get_listen_port()),
            listener: Arc::new(listener),
        })
    }

    /// Serves until the scope drains. The crate's own tasks end with the runtime.
    pub async fn run(self, scope: &Scope) -> io::Result<()> {
        loop {
            let listener = self.listener.clone();
            let served = scope.child().spawn(async move { listener.handle_forever().await });
            tokio::select! {
                served = served => match served {
                    Ok(Some(Err(error))) => return Err(error),
                    Ok(_) => return Ok(()),
                    Err(_) => tracing::warn!("a client broke the export's accept loop; it is begun again"),
                },
                () = scope.draining() => return Ok(()),
            }
        }
    }
}

/// Names below the folder that were seen, by number. Numbers are given in the order in which they are seen, and serve as cookies too.
struct Known {
    /// Parent and name; of number 1, the root, nothing.
    places: Vec<(u64, Vec<u8>)>,
    numbers: HashMap<(u64, Vec<u8>), u64>,
}

impl Known {
    fn number(&mut self, parent: u64, name: Vec<u8>) -> Result<u64, nfsstat3> {
        let place = (parent, name);
        if let Some(number) = self.numbers.get(&place) {
            return Ok(*number);
        }
        if self.places.len() >= KNOWN_MAX {
            return Err(nfsstat3::NFS3ERR_SERVERFAULT);
        }
        self.places.push(place.clone());
        let number = self.places.len() as u64 + ROOT;
        self.numbers.insert(place, number);
        Ok(number)
    }

    fn path(&self, number: u64) -> Option<PathBuf> {
        let (mut at, mut names) = (number, Vec::new());
        while at != ROOT {
            let index = usize::try_from(at.checked_sub(ROOT + 1)?).ok()?;
            let (parent, name) = self.places.get(index)?;
            names.push(name);
            at = *parent;
        }
        Some(
            names
                .iter()
                .rev()
                .map(|name| std::ffi::OsStr::from_bytes(name))
                .collect(),
        )
    }
}

/// The folder as `nfs3_server` wants it. Clones are the same.
#[derive(Clone)]
struct Mirror {
    root: PathBuf,
    known: Arc<Mutex<Known>>,
}

type Answer<T> = Result<T, nfsstat3>;

impl Mirror {
    fn new(folder: &Path) -> io::Result<Self> {
        let root = fs::canonicalize(folder)?;
        if !root.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let known = Known {
            places: Vec::new(),
            numbers: HashMap::new(),
        };
        Ok(Mirror {
            root,
            known: Arc::new(Mutex::new(known)),
        })
    }

    /// Runs `work`, which blocks, with the path of an object.
    async fn at<T: Send + 'static>(
        &self,
        handle: &FileHandleU64,
        work: impl FnOnce(&Mirror, &Path) -> io::Result<Answer<T>> + Send + 'static,
    ) -> Answer<T> {
        let (mirror, number) = (self.clone(), handle.as_u64());
        let path = self.known().path(number).ok_or(nfsstat3::NFS3ERR_STALE)?;
        let full = self.root.join(path);
        let done = blocking(move || {
            // Names come from listings of real folders; a folder that became a link must lead nowhere.
            let parent = full.parent().filter(|_| number != ROOT);
            if parent.is_some_and(|parent| fs::canonicalize(parent).is_ok_and(|real| real != parent)) {
                return Ok(Err(nfsstat3::NFS3ERR_STALE));
            }
            work(&mirror, &full)
        });
        done.await.unwrap_or_else(|error| Err(status(&error)))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("no holder of this lock panics")
    }

    fn entry(&self, folder: &Path, number: u64, name: Vec<u8>) -> io::Result<DirEntryPlus<FileHandleU64>> {
        let metadata = fs::symlink_metadata(folder.join(std::ffi::OsStr::from_bytes(&name)))?;
        Ok(DirEntryPlus {
            fileid: metadata.ino(),
            name: filename3::from(name),
            cookie: number,
            name_attributes: Some(attributes(&metadata)),
            name_handle: Some(FileHandleU64::new(number)),
        })
    }
}

fn status(error: &io::Error) -> nfsstat3 {
    // The last name is a link.
    if error.raw_os_error() == Some(nix::libc::ELOOP) {
        return nfsstat3::NFS3ERR_INVAL;
    }
    match error.kind() {
        io::ErrorKind::NotFound => nfsstat3::NFS3ERR_NOENT,
        io::ErrorKind::NotADirectory => nfsstat3::NFS3ERR_NOTDIR,
        io::ErrorKind::PermissionDenied => nfsstat3::NFS3ERR_ACCES,
        io::ErrorKind::InvalidFilename => nfsstat3::NFS3ERR_NAMETOOLONG,
        _ => nfsstat3::NFS3ERR_IO,
    }
}

fn attributes(of: &Metadata) -> fattr3 {
    let kind = of.file_type();
    let time = |seconds: i64, nanoseconds: i64| nfstime3 {
        seconds: u32::try_from(seconds).unwrap_or(0),
        nseconds: u32::try_from(nanoseconds).unwrap_or(0),
    };
    fattr3 {
        type_: if kind.is_dir() {
            ftype3::NF3DIR
        } else if kind.is_symlink() {
            ftype3::NF3LNK
        } else if kind.is_fifo() {
            ftype3::NF3FIFO
        } else if kind.is_socket() {
            ftype3::NF3SOCK
        } else {
            ftype3::NF3REG
        },
        mode: of.mode() & 0o7777,
        nlink: u32::try_from(of.nlink()).unwrap_or(u32::MAX),
        uid: of.uid(),
        gid: of.gid(),
        size: of.len(),
        used: of.blocks().saturating_mul(512),
        rdev: specdata3 {
            specdata1: 0,
            specdata2: 0,
        },
        fsid: of.dev(),
        fileid: of.ino(),
        atime: time(of.atime(), of.atime_nsec()),
        mtime: time(of.mtime(), of.mtime_nsec()),
        ctime: time(of.ctime(), of.ctime_nsec()),
    }
}

/// The rest of a folder, one object at a time.
struct Listing {
    mirror: Mirror,
    folder: PathBuf,
    names: std::vec::IntoIter<(u64, Vec<u8>)>,
}

impl ReadDirPlusIterator<FileHandleU64> for Listing {
    async fn next(&mut self) -> NextResult<DirEntryPlus<FileHandleU64>> {
        for (number, name) in self.names.by_ref() {
            let (mirror, folder) = (self.mirror.clone(), self.folder.clone());
            match blocking(move || mirror.entry(&folder, number, name)).await {
                Ok(entry) => return NextResult::Ok(entry),
                // Removed in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return NextResult::Err(status(&error)),
            }
        }
        NextResult::Eof
    }
}

impl NfsReadFileSystem for Mirror {
    type Handle = FileHandleU64;

    fn root_dir(&self) -> FileHandleU64 {
        FileHandleU64::new(ROOT)
    }

    async fn lookup(&self, folder: &FileHandleU64, name: &filename3<'_>) -> Answer<FileHandleU64> {
        let (parent, name) = (folder.as_u64(), name.0.as_ref().to_vec());
        match name.as_slice() {
            b"." => return Ok(*folder),
            b".." => {
                let above = parent.checked_sub(ROOT + 1).and_then(|index| {
                    let known = self.known();
                    known.places.get(usize::try_from(index).ok()?).map(|(above, _)| *above)
                });
                return Ok(FileHandleU64::new(above.unwrap_or(ROOT)));
            }
            name if name.is_empty() || name.contains(&b'/') || name.contains(&0) => {
                return Err(nfsstat3::NFS3ERR_INVAL);
            }
            _ => {}
        }
        self.at(folder, move |mirror, path| {
            fs::symlink_metadata(path.join(std::ffi::OsStr::from_bytes(&name)))?;
            Ok(mirror.known().number(parent, name).map(FileHandleU64::new))
        })
        .await
    }

    async fn getattr(&self, object: &FileHandleU64) -> Answer<fattr3> {
        self.at(object, |_, path| Ok(Ok(attributes(&fs::symlink_metadata(path)?))))
            .await
    }

    async fn read(&self, file: &FileHandleU64, offset: u64, count: u32) -> Answer<(Vec<u8>, bool)> {
        self.at(file, move |_, path| {
            let file = open(path)?;
            let mut data = vec![0; count.min(READ_MAX) as usize];
            let found = file.read_at(&mut data, offset)?;
            data.truncate(found);
            let is_end = offset.saturating_add(found as u64) >= file.metadata()?.len();
            Ok(Ok((data, is_end)))
        })
        .await
    }

    async fn readdirplus(
        &self,
        folder: &FileHandleU64,
        cookie: u64,
    ) -> Answer<impl ReadDirPlusIterator<FileHandleU64>> {
        let parent = folder.as_u64();
        self.at(folder, move |mirror, path| {
            let names: io::Result<Vec<Vec<u8>>> = fs::read_dir(path)?
                .map(|entry| Ok(entry?.file_name().into_vec()))
                .collect();
            let mut known = mirror.known();
            let numbered: Answer<Vec<_>> = names?
                .into_iter()
                .map(|name| Ok((known.number(parent, name.clone())?, name)))
                .collect();
            drop(known);
            let mut numbered = match numbered {
                Ok(numbered) => numbered,
                Err(status) => return Ok(Err(status)),
            };
            numbered.retain(|(number, _)| *number > cookie);
            numbered.sort_unstable();
            Ok(Ok(Listing {
                mirror: mirror.clone(),
                folder: path.to_owned(),
                names: numbered.into_iter(),
            }))
        })
        .await
    }

    async fn readlink(&self, link: &FileHandleU64) -> Answer<nfspath3<'_>> {
        self.at(link, |_, path| {
            let target = fs::read_link(path)?;
            Ok(Ok(nfspath3::from(target.into_os_string().into_vec())))
        })
        .await
    }
}

/// Never follows a link, and never waits for the other end of a pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}
