//! From a tar archive into the tree. What is there under the same name is replaced, folders are kept. Owners go by number.
//! The archive is read by a thread of its own; folders come before what they hold, as tar writes them. A path may come again, and
//! the last one counts, as where tar has appended to an archive. A file that has other names too is not written into: those keep it.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::sync::{Arc, MutexGuard};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{FILES, Failure, MEMORY, Progress, Root};
use crate::base::Scope;
use crate::storage::call::{Change, Creation, DATA_MAX, Error, Inode, Mutation, Reply, SetTime, Time};
use crate::storage::door::Calls;

const HELD: &str = "no holder of this lock panics";

/// One object of the archive, as its thread read it.
enum Item {
    Folder(Vec<Vec<u8>>, Change),
    Link(Vec<Vec<u8>>, Vec<u8>, Change),
    HardLink(Vec<Vec<u8>>, Vec<Vec<u8>>),
    /// The parts of the content follow in the channel.
    File(Vec<Vec<u8>>, Change, mpsc::Receiver<(Bytes, OwnedSemaphorePermit)>),
    Failed(Failure),
}

/// Puts everything that `archive` holds below `into`. Tasks belong to `scope`. On a failure what was put stays.
pub async fn import(
    calls: Arc<dyn Calls>,
    archive: impl Read + Send + 'static,
    into: Inode,
    progress: Arc<Progress>,
    scope: &Scope,
) -> Result<(), Failure> {
    let (sender, mut items) = mpsc::channel(FILES);
    let memory = Arc::new(Semaphore::new(MEMORY));
    let reader = tokio::task::spawn_blocking(move || read(archive, &sender, &memory));
    let mut import = Import {
        root: Root::new(calls),
        folders: HashMap::from([(Vec::new(), into)]),
        under_way: Arc::default(),
        places: Arc::new(Semaphore::new(FILES)),
        failure: Arc::default(),
        progress,
        scope: scope.clone(),
    };
    while let Some(item) = items.recv().await {
        import.put(item).await?;
    }
    import.settled().await?;
    reader.await.map_err(std::io::Error::other)?;
    Ok(())
}

struct Import {
    root: Root,
    folders: HashMap<Vec<Vec<u8>>, Inode>,
    /// Paths of the files under way.
    under_way: Arc<std::sync::Mutex<HashSet<Vec<Vec<u8>>>>>,
    places: Arc<Semaphore>,
    failure: Arc<std::sync::Mutex<Option<Failure>>>,
    progress: Arc<Progress>,
    scope: Scope,
}

impl Import {
    async fn put(&mut self, item: Item) -> Result<(), Failure> {
        match item {
            Item::Failed(failure) => return Err(failure),
            Item::Folder(path, change) => {
                self.free(&path).await?;
                self.folder(&path, change).await?;
            }
            Item::Link(path, target, change) => {
                self.free(&path).await?;
                self.link(&path, target, change).await?;
            }
            // What it names may still be under way.
            Item::HardLink(path, target) => {
                self.settled().await?;
                self.hard_link(&path, &target).await?;
            }
            Item::File(path, change, parts) => {
                self.free(&path).await?;
                return self.file(path, change, parts).await;
            }
        }
        self.progress.add_file();
        Ok(())
    }

    /// Waits until no file with this path is under way: each is written by a task of its own, in no order.
    async fn free(&self, path: &[Vec<u8>]) -> Result<(), Failure> {
        let is_under_way = self.under_way().contains(path);
        match is_under_way {
            true => self.settled().await,
            false => Ok(()),
        }
    }

    fn under_way(&self) -> MutexGuard<'_, HashSet<Vec<Vec<u8>>>> {
        self.under_way.lock().expect(HELD)
    }

    /// Waits for the files under way; the first failure of them.
    async fn settled(&self) -> Result<(), Failure> {
        let all = self.places.acquire_many(FILES as u32).await;
        drop(all.expect("the semaphore is never closed"));
        match self.failure.lock().expect(HELD).take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// The folder that holds `path`, and the last name.
    async fn parent<'a>(&mut self, path: &'a [Vec<u8>]) -> Result<(Inode, &'a Vec<u8>), Failure> {
        let Some((name, parent)) = path.split_last() else {
            return Err(Failure::Path(String::new()));
        };
        for depth in 1..=parent.len() {
            let part = parent.get(..depth).unwrap_or_default();
            if !self.folders.contains_key(part) {
                Box::pin(self.folder(part, Change::default())).await?;
            }
        }
        let inode = self.folders.get(parent).copied();
        Ok((inode.expect("it was made or found above"), name))
    }

    async fn folder(&mut self, path: &[Vec<u8>], change: Change) -> Result<(), Failure> {
        if path.is_empty() {
            return Ok(());
        }
        let (folder, name) = self.parent(path).await?;
        let make = Mutation::MakeFolder {
            folder,
            name: name.clone(),
            change: change.clone(),
        };
        let made = match self.root.mutate(make).await {
            Ok(Reply::Object { attributes, .. }) => Ok(attributes.inode),
            Err(Error::Exists) => self.existing(folder, name, change).await,
            other => Err(failed(other)),
        };
        let inode = made.map_err(|error| at(path, error))?;
        self.folders.insert(path.to_vec(), inode);
        Ok(())
    }

    async fn existing(&self, folder: Inode, name: &[u8], change: Change) -> Result<Inode, Error> {
        let inode = self.root.look_up(folder, name).await?;
        let set = Mutation::Set {
            inode,
            change,
            guard: None,
        };
        self.root.mutate(set).await.map(|_| inode)
    }

    async fn link(&mut self, path: &[Vec<u8>], target: Vec<u8>, change: Change) -> Result<(), Failure> {
        let (folder, name) = self.parent(path).await?;
        let name = name.clone();
        let make = || Mutation::MakeLink {
            folder,
            name: name.clone(),
            target: target.clone(),
            change: change.clone(),
        };
        let made = match self.root.mutate(make()).await {
            Err(Error::Exists) => {
                let name = name.clone();
                self.root.mutate(Mutation::Remove { folder, name }).await.ok();
                self.root.mutate(make()).await
            }
            made => made,
        };
        made.map(drop).map_err(|error| at(path, error))
    }

    async fn hard_link(&mut self, path: &[Vec<u8>], target: &[Vec<u8>]) -> Result<(), Failure> {
        let (from, old) = self.parent(target).await?;
        let inode = self.root.look_up(from, old).await.map_err(|error| at(target, error))?;
        let (folder, name) = self.parent(path).await?;
        let name = name.clone();
        let link = Mutation::Link {
            inode,
            folder,
            name: name.clone(),
        };
        let linked = match self.root.mutate(link.clone()).await {
            Err(Error::Exists) => self.relink(link, inode, folder, name).await,
            linked => linked.map(drop),
        };
        linked.map_err(|error| at(path, error))
    }

    /// The name is there; it may be another file's.
    async fn relink(&self, link: Mutation, inode: Inode, folder: Inode, name: Vec<u8>) -> Result<(), Error> {
        if self.root.look_up(folder, &name).await? == inode {
            return Ok(());
        }
        remove(&self.root, folder, name).await?;
        self.root.mutate(link).await.map(drop)
    }

    async fn file(
        &mut self,
        path: Vec<Vec<u8>>,
        change: Change,
        parts: mpsc::Receiver<(Bytes, OwnedSemaphorePermit)>,
    ) -> Result<(), Failure> {
        if self.failure.lock().expect(HELD).is_some() {
            return self.settled().await;
        }
        let (folder, name) = self.parent(&path).await?;
        let name = name.clone();
        let place = self.places.clone().acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        let (root, progress, failure) = (self.root.clone(), self.progress.clone(), self.failure.clone());
        let under_way = self.under_way.clone();
        self.under_way().insert(path.clone());
        self.scope.spawn(async move {
            let written = write(&root, (folder, name), change, parts, &progress).await;
            under_way.lock().expect(HELD).remove(&path);
            match written {
                Ok(()) => progress.add_file(),
                Err(error) => {
                    let mut first = failure.lock().expect(HELD);
                    first.get_or_insert(at(&path, error));
                }
            }
            drop(place);
        });
        Ok(())
    }
}

async fn write(
    root: &Root,
    (folder, name): (Inode, Vec<u8>),
    change: Change,
    mut parts: mpsc::Receiver<(Bytes, OwnedSemaphorePermit)>,
    progress: &Progress,
) -> Result<(), Error> {
    let inode = make(root, folder, name, &change).await?;
    let mut offset = 0;
    while let Some((data, memory)) = parts.recv().await {
        let length = data.len();
        root.mutate(Mutation::Write { inode, offset, data }).await?;
        offset += length as u64;
        progress.add_bytes(length);
        drop(memory);
    }
    // Writing has changed the time; and an owner's bits are lost where he was changed.
    let set = Mutation::Set {
        inode,
        change,
        guard: None,
    };
    root.mutate(set).await.map(drop)
}

/// An empty file with this name alone, in the place of whatever is no folder.
async fn make(root: &Root, folder: Inode, name: Vec<u8>, change: &Change) -> Result<Inode, Error> {
    let create = Mutation::Create {
        folder,
        name: name.clone(),
        how: Creation::Unchecked,
        // One that is there is not cut before it is known whose content that is.
        change: Change {
            size: None,
            modified: None,
            ..change.clone()
        },
    };
    loop {
        let of = match root.mutate(create.clone()).await {
            Ok(Reply::Object { attributes, .. }) => Some(attributes),
            Ok(_) => return Err(Error::Io),
            Err(Error::Exists) => None,
            Err(error) => return Err(error),
        };
        match of {
            Some(of) if of.links == 1 && of.size == 0 => return Ok(of.inode),
            Some(of) if of.links == 1 => {
                let cut = Mutation::Set {
                    inode: of.inode,
                    change: Change {
                        size: Some(0),
                        ..Change::default()
                    },
                    guard: None,
                };
                return root.mutate(cut).await.map(|_| of.inode);
            }
            // Its other names keep what they have.
            _ => remove(root, folder, name.clone()).await?,
        }
    }
}

/// Gone already is as good.
async fn remove(root: &Root, folder: Inode, name: Vec<u8>) -> Result<(), Error> {
    match root.mutate(Mutation::Remove { folder, name }).await {
        Ok(_) | Err(Error::NotFound) => Ok(()),
        Err(error) => Err(error),
    }
}

fn failed(answer: Result<Reply, Error>) -> Error {
    answer.err().unwrap_or(Error::Io)
}

fn at(path: &[Vec<u8>], error: Error) -> Failure {
    let path = String::from_utf8_lossy(&path.join(&b'/')).into_owned();
    Failure::Call { path, error }
}

/// Reads the archive to its end. Blocks.
fn read(archive: impl Read, items: &mpsc::Sender<Item>, memory: &Arc<Semaphore>) {
    if let Err(failure) = read_all(archive, items, memory) {
        let _ = items.blocking_send(Item::Failed(failure));
    }
}

fn read_all(archive: impl Read, items: &mpsc::Sender<Item>, memory: &Arc<Semaphore>) -> Result<(), Failure> {
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = names(&entry.path()?)?;
        let header = entry.header();
        let time = Time {
            seconds: header.mtime().unwrap_or_default().cast_signed(),
            nanoseconds: 0,
        };
        let number = |id: std::io::Result<u64>| id.ok().and_then(|id| u32::try_from(id).ok());
        let change = Change {
            mode: Some(header.mode()? & 0o7777),
            uid: number(header.uid()),
            gid: number(header.gid()),
            size: None,
            accessed: None,
            modified: Some(SetTime::At(time)),
        };
        let target = || -> Result<_, Failure> { Ok(entry.link_name()?.ok_or_else(|| outside(&path))?.into_owned()) };
        let item = match header.entry_type() {
            tar::EntryType::Directory => Item::Folder(path, change),
            tar::EntryType::Symlink => Item::Link(path.clone(), target()?.as_os_str().as_bytes().to_vec(), change),
            tar::EntryType::Link => Item::HardLink(path.clone(), names(&target()?)?),
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                let (sender, parts) = mpsc::channel(4);
                if items.blocking_send(Item::File(path, change, parts)).is_err() {
                    return Ok(());
                }
                send_parts(&mut entry, &sender, memory)?;
                continue;
            }
            // Devices and the like are no files of a portal.
            _ => continue,
        };
        if items.blocking_send(item).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn send_parts(
    content: &mut impl Read,
    parts: &mpsc::Sender<(Bytes, OwnedSemaphorePermit)>,
    memory: &Arc<Semaphore>,
) -> std::io::Result<()> {
    let handle = tokio::runtime::Handle::current();
    loop {
        let mut data = Vec::new();
        content.by_ref().take(DATA_MAX as u64).read_to_end(&mut data)?;
        if data.is_empty() {
            return Ok(());
        }
        let room = u32::try_from(data.len()).expect("at most DATA_MAX");
        let room = handle.block_on(memory.clone().acquire_many_owned(room));
        let room = room.expect("the semaphore is never closed");
        // Who wrote it has failed; the import says so.
        if parts.blocking_send((data.into(), room)).is_err() {
            std::io::copy(content, &mut std::io::sink())?;
            return Ok(());
        }
    }
}

/// The names on a path below the archive's root.
fn names(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => names.push(name.as_bytes().to_vec()),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(Failure::Path(path.display().to_string())),
        }
    }
    Ok(names)
}

fn outside(path: &[Vec<u8>]) -> Failure {
    Failure::Path(String::from_utf8_lossy(&path.join(&b'/')).into_owned())
}
