//! `Files` in a mounted folder: a clustered file system that shows all nodes the same (CephFS, GlusterFS), or a local disk in tests.
//! Not on a kernel's NFS mount: its caches show names that are gone and hide names that are there; it is refused.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::statfs::{NFS_SUPER_MAGIC, statfs};
use tokio::sync::Semaphore;

use super::files::{Failure, File, FileId, Files, Found, Link};
use super::names::HEARTS;
use crate::base::BoxFuture;

/// Longest wait for a file system that hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// Calls under way; each may hold a thread for as long as the file system hangs. Further ones wait, then fail.
const CALLS: usize = 8;

pub struct PathFiles {
    folder: PathBuf,
    calls: Arc<Semaphore>,
}

impl PathFiles {
    /// Makes the folder if it is not there; its parent must be.
    pub async fn open(folder: &Path) -> Result<Self, Failure> {
        Self::open_after(folder, prepare).await
    }

    /// As `open`, but the folder must be there: on a path where nothing is mounted a new registry would be one that nobody
    /// else sees, and hidden by the mount to come.
    pub async fn open_existing(folder: &Path) -> Result<Self, Failure> {
        Self::open_after(folder, |folder| refuse_absent(folder).and_then(|()| prepare(folder))).await
    }

    async fn open_after(folder: &Path, check: fn(&Path) -> io::Result<()>) -> Result<Self, Failure> {
        let files = PathFiles {
            folder: folder.to_path_buf(),
            calls: Arc::new(Semaphore::new(CALLS)),
        };
        files.call("", move |folder| check(&folder)).await?;
        Ok(files)
    }

    /// Runs file work on the path of `name`, on a thread that may block.
    async fn call<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(PathBuf) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let path = match name {
            "" => self.folder.clone(),
            name => self.folder.join(name),
        };
        let text = path.display().to_string();
        let calls = self.calls.clone();
        let call = async {
            let permit = calls.acquire_owned().await.map_err(io::Error::other)?;
            let work = move || {
                // Held until the thread is free, not until we stop to wait for it.
                let _permit = permit;
                work(path)
            };
            tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
        };
        let result = tokio::time::timeout(PATIENCE, call).await;
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(Failure(format!("{text}: {error}"))),
            Err(_) => Err(Failure(format!("{text}: no answer within {PATIENCE:?}"))),
        }
    }
}

impl Files for PathFiles {
    fn create<'a>(&'a self, name: &'a str, content: Bytes) -> BoxFuture<'a, Result<File, Failure>> {
        let owned = name.to_string();
        Box::pin(self.call(name, move |path| {
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)?;
            file.write_all(&content)?;
            file.sync_all()?;
            Ok(File {
                name: owned,
                id: id(&file.metadata()?),
                handle: Vec::new(),
            })
        }))
    }

    fn link<'a>(&'a self, file: &'a File, name: &'a str) -> BoxFuture<'a, Result<Link, Failure>> {
        let from = self.folder.join(&file.name);
        Box::pin(self.call(name, move |path| match fs::hard_link(from, &path) {
            Ok(()) => sync_parent(&path).map(|()| Link::Made),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Link::Exists),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Link::Gone),
            Err(error) => Err(error),
        }))
    }

    fn look<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Found>, Failure>> {
        Box::pin(self.call(name, |path| {
            let found = if_there(fs::symlink_metadata(path))?;
            Ok(found.map(|metadata| Found {
                id: id(&metadata),
                size: metadata.len(),
            }))
        }))
    }

    fn read<'a>(&'a self, name: &'a str, most: usize) -> BoxFuture<'a, Result<Option<Bytes>, Failure>> {
        Box::pin(self.call(name, move |path| {
            let Some(file) = if_there(fs::File::open(path))? else {
                return Ok(None);
            };
            let mut content = Vec::new();
            file.take(most as u64).read_to_end(&mut content)?;
            Ok(Some(content.into()))
        }))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Failure>> {
        Box::pin(self.call("", |path| {
            let mut names = Vec::new();
            for entry in fs::read_dir(path)? {
                // Names that are no text are none of ours.
                names.extend(entry?.file_name().into_string());
            }
            Ok(names)
        }))
    }

    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.call(name, |path| if_there(fs::remove_file(path)).map(|_| ())))
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        let from = self.folder.join(from);
        Box::pin(self.call(to, move |path| fs::rename(from, path)))
    }

    fn overwrite<'a>(&'a self, name: &'a str, content: Bytes) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.call(name, move |path| {
            let mut options = OpenOptions::new();
            let file = options
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)?;
            file.write_all_at(&content, 0)
        }))
    }
}

fn refuse_absent(folder: &Path) -> io::Result<()> {
    match fs::metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let remedy = "is not there, and nothing is mounted on storage.external; mount it, \
                          or make this folder if the registry is meant to lie on this machine's own disk";
            Err(io::Error::new(error.kind(), remedy))
        }
        other => other.map(drop),
    }
}

fn prepare(folder: &Path) -> io::Result<()> {
    for folder in [folder.to_path_buf(), folder.join(HEARTS)] {
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let kind = statfs(folder)?.filesystem_type();
    if kind == NFS_SUPER_MAGIC {
        let remedy = "is mounted over NFS, whose caches hide what others do; name the server instead: nfs://host/path";
        return Err(io::Error::other(remedy));
    }
    Ok(())
}

fn id(metadata: &fs::Metadata) -> FileId {
    FileId {
        filesystem: metadata.dev(),
        file: metadata.ino(),
    }
}

fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().ok_or_else(|| io::Error::other("a file needs a folder"))?;
    fs::File::open(parent)?.sync_all()
}
