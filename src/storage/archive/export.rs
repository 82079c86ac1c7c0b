//! From the tree into a tar archive. The archive is written by a thread of its own; a file is read while the one before it is
//! written. Not a snapshot: files that change meanwhile are as they are when they are read.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::{Failure, Progress, Root};
use crate::storage::call::{Attributes, DATA_MAX, Entry, Error, Inode, Kind, Query, Reply};
use crate::storage::door::Calls;

/// Names asked for at once.
const PAGE: u32 = 1000;

enum Item {
    Object(PathBuf, Attributes, Option<Vec<u8>>),
    HardLink(PathBuf, Attributes, PathBuf),
    File(PathBuf, Attributes, mpsc::Receiver<Bytes>),
}

/// Writes everything below `folder` into `archive`.
pub async fn export(
    calls: Arc<dyn Calls>,
    folder: Inode,
    archive: impl Write + Send + 'static,
    progress: Arc<Progress>,
) -> Result<(), Failure> {
    let (items, receiver) = mpsc::channel(16);
    let writer = tokio::task::spawn_blocking(move || write(archive, receiver));
    let walk = Walk {
        root: Root::new(calls),
        items,
        progress,
        links: HashMap::new(),
    };
    let walked = walk.all(folder).await;
    // What the writer says is the cause, if it ended first.
    writer.await.map_err(io::Error::other)??;
    walked
}

struct Walk {
    root: Root,
    items: mpsc::Sender<Item>,
    progress: Arc<Progress>,
    /// First path of files with several names.
    links: HashMap<Inode, PathBuf>,
}

impl Walk {
    async fn all(mut self, folder: Inode) -> Result<(), Failure> {
        let mut folders = VecDeque::from([(PathBuf::new(), folder)]);
        while let Some((path, folder)) = folders.pop_front() {
            let mut cookie = 0;
            loop {
                let list = Query::List {
                    folder,
                    cookie,
                    limit: PAGE,
                };
                let (entries, is_end) = match self.root.query(list).await {
                    Ok(Reply::List { entries, is_end, .. }) => (entries, is_end),
                    // Removed meanwhile.
                    Err(Error::Stale) => break,
                    other => return Err(at(&path, other)),
                };
                cookie = entries.last().map_or(cookie, |entry| entry.cookie);
                for entry in entries {
                    let path = path.join(OsStr::from_bytes(&entry.name));
                    if entry.attributes.kind == Kind::Folder {
                        folders.push_back((path.clone(), entry.inode));
                    }
                    self.put(path, entry).await?;
                }
                if is_end {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn put(&mut self, path: PathBuf, entry: Entry) -> Result<(), Failure> {
        let attributes = entry.attributes;
        match attributes.kind {
            Kind::File if attributes.links > 1 && self.links.contains_key(&entry.inode) => {
                let first = self.links.get(&entry.inode).cloned().unwrap_or_default();
                self.send(Item::HardLink(path, attributes, first)).await?;
            }
            Kind::File => {
                if attributes.links > 1 {
                    self.links.insert(entry.inode, path.clone());
                }
                self.file(path, attributes).await?;
            }
            Kind::Link => {
                let inode = entry.inode;
                match self.root.query(Query::ReadLink { inode }).await {
                    Ok(Reply::Target(target)) => self.send(Item::Object(path, attributes, Some(target))).await?,
                    Err(Error::Stale) => return Ok(()),
                    other => return Err(at(&path, other)),
                }
            }
            Kind::Folder => self.send(Item::Object(path, attributes, None)).await?,
            // Pipes, sockets and devices are no files of a portal.
            _ => return Ok(()),
        }
        self.progress.add_file();
        Ok(())
    }

    async fn file(&self, path: PathBuf, attributes: Attributes) -> Result<(), Failure> {
        let (sender, parts) = mpsc::channel(4);
        let (inode, size) = (attributes.inode, attributes.size);
        self.send(Item::File(path.clone(), attributes, parts)).await?;
        let mut offset = 0;
        while offset < size {
            let read = Query::Read {
                inode,
                offset,
                count: u32::try_from((size - offset).min(DATA_MAX as u64)).expect("at most DATA_MAX"),
            };
            let data = match self.root.query(read).await {
                Ok(Reply::Data { data, .. }) => data,
                Err(Error::Stale) => Bytes::new(),
                other => return Err(at(&path, other)),
            };
            if data.is_empty() {
                // Cut or removed meanwhile: the archive says how long it was, zeros make it so.
                return Ok(());
            }
            offset += data.len() as u64;
            self.progress.add_bytes(data.len());
            if sender.send(data).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn send(&self, item: Item) -> Result<(), Failure> {
        let sent = self.items.send(item).await;
        sent.map_err(|_| Failure::Archive(io::ErrorKind::BrokenPipe.into()))
    }
}

fn at(path: &std::path::Path, answer: Result<Reply, Error>) -> Failure {
    Failure::Call {
        path: path.display().to_string(),
        error: answer.err().unwrap_or(Error::Io),
    }
}

/// Writes what comes until the walk ends. Blocks.
fn write(archive: impl Write, mut items: mpsc::Receiver<Item>) -> io::Result<()> {
    let mut archive = tar::Builder::new(archive);
    while let Some(item) = items.blocking_recv() {
        match item {
            Item::Object(path, attributes, None) => {
                let mut header = header(&attributes, tar::EntryType::Directory);
                archive.append_data(&mut header, path, io::empty())?;
            }
            Item::Object(path, attributes, Some(target)) => {
                let mut header = header(&attributes, tar::EntryType::Symlink);
                header.set_size(0);
                archive.append_link(&mut header, path, OsStr::from_bytes(&target))?;
            }
            Item::HardLink(path, attributes, first) => {
                let mut header = header(&attributes, tar::EntryType::Link);
                header.set_size(0);
                archive.append_link(&mut header, path, first)?;
            }
            Item::File(path, attributes, parts) => {
                let mut header = header(&attributes, tar::EntryType::Regular);
                let content = Parts {
                    parts,
                    part: Bytes::new(),
                };
                let whole = content.chain(io::repeat(0)).take(attributes.size);
                archive.append_data(&mut header, path, whole)?;
            }
        }
    }
    archive.into_inner()?.flush()
}

fn header(attributes: &Attributes, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(attributes.mode);
    header.set_uid(attributes.uid.into());
    header.set_gid(attributes.gid.into());
    header.set_mtime(attributes.modified.seconds.max(0).cast_unsigned());
    header.set_size(if kind == tar::EntryType::Regular {
        attributes.size
    } else {
        0
    });
    header
}

/// A content that comes in parts.
struct Parts {
    parts: mpsc::Receiver<Bytes>,
    part: Bytes,
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.part.is_empty() {
            match self.parts.blocking_recv() {
                Some(part) => self.part = part,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.part.len());
        self.part.copy_to_slice(buffer.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}
