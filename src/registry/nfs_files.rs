//! `Files` over NFSv3, spoken here in user space: the kernel's caches have no part in it.
//!
//! Replies may leave out attributes and handles (RFC 1813 makes both optional); they are asked for then.
//! Images are written FILE_SYNC: no server may lose them after its reply. Heartbeats need not last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::files::{Failure, File, FileId, Files, Found, Link};
use super::names::HEARTS;
use super::nfs_client::Client;
use super::nfs_server::Server;
use crate::base::BoxFuture;
use bytes::Bytes;
use nfs3_types::nfs3::*;
use nfs3_types::xdr_codec::Opaque;

/// Bytes of one READ or WRITE: most images whole. A server that likes less takes and gives less.
const CHUNK: usize = 256 << 10;
/// Bytes of one READDIR reply: the whole folder as it should be.
const LISTING: u32 = 64 << 10;
/// Pages of a listing: more is no registry's folder.
const PAGES: usize = 64;
/// Attempts to write over a file that somebody removes.
const REWRITES: usize = 3;

pub struct NfsFiles {
    client: Client,
    server: Server,
    /// Handles outlive the server's restart; when they do not, the export is mounted again.
    folders: Mutex<Option<Arc<Folders>>>,
    /// Files that are written over again and again, by name.
    overwritten: Mutex<HashMap<String, nfs_fh3>>,
}

struct Folders {
    root: nfs_fh3,
    hearts: nfs_fh3,
}

impl NfsFiles {
    /// Connects when it is first used. `machine`: this machine's name and something of this boot of it.
    pub fn new(server: Server, machine: String) -> Self {
        NfsFiles {
            client: Client::new(server.transport.clone(), machine),
            server,
            folders: Mutex::default(),
            overwritten: Mutex::default(),
        }
    }

    /// Mounts when it must, and makes the folders that are not there.
    async fn folders(&self) -> Result<Arc<Folders>, Failure> {
        if let Some(folders) = lock(&self.folders).clone() {
            return Ok(folders);
        }
        let mut root = self.client.mount(&self.server.export).await?;
        if !self.server.folder.is_empty() {
            root = self.folder(&root, &self.server.folder).await?;
        }
        let hearts = self.folder(&root, HEARTS).await?;
        let folders = Arc::new(Folders { root, hearts });
        *lock(&self.folders) = Some(folders.clone());
        Ok(folders)
    }

    async fn folder(&self, parent: &nfs_fh3, name: &str) -> Result<nfs_fh3, Failure> {
        let attributes = sattr3 {
            mode: Nfs3Option::Some(0o700),
            ..sattr3::default()
        };
        let arguments = MKDIR3args {
            where_: at(parent, name),
            attributes,
        };
        let made = self
            .client
            .call::<_, MKDIR3resok, MKDIR3resfail>(NFS_PROGRAM::NFSPROC3_MKDIR, &arguments);
        match made.await? {
            Ok(_) | Err(nfsstat3::NFS3ERR_EXIST) => {}
            Err(status) => return Err(self.refused("make the folder", name, status)),
        }
        let found = self.lookup(parent, name).await?;
        let (handle, _) = found.ok_or_else(|| self.refused("find the folder", name, nfsstat3::NFS3ERR_NOENT))?;
        Ok(handle)
    }

    /// The folder and the name in it.
    async fn place<'a>(&self, name: &'a str) -> Result<(nfs_fh3, &'a str), Failure> {
        let folders = self.folders().await?;
        let in_hearts = name.strip_prefix(HEARTS).and_then(|rest| rest.strip_prefix('/'));
        Ok(match in_hearts {
            Some(name) => (folders.hearts.clone(), name),
            None => (folders.root.clone(), name),
        })
    }

    fn refused(&self, what: &str, name: &str, status: nfsstat3) -> Failure {
        if matches!(status, nfsstat3::NFS3ERR_STALE | nfsstat3::NFS3ERR_BADHANDLE) {
            *lock(&self.folders) = None;
        }
        Failure(format!("{what} {name}: {status}"))
    }

    async fn lookup(&self, folder: &nfs_fh3, name: &str) -> Result<Option<(nfs_fh3, Found)>, Failure> {
        let arguments = LOOKUP3args { what: at(folder, name) };
        let found = self
            .client
            .call::<_, LOOKUP3resok, LOOKUP3resfail>(NFS_PROGRAM::NFSPROC3_LOOKUP, &arguments);
        let found = match found.await? {
            Ok(found) => found,
            Err(nfsstat3::NFS3ERR_NOENT) => return Ok(None),
            Err(status) => return Err(self.refused("look up", name, status)),
        };
        let attributes = match found.obj_attributes {
            Nfs3Option::Some(attributes) => Some(attributes),
            Nfs3Option::None => self.attributes(&found.object, name).await?,
        };
        Ok(attributes.map(|attributes| (found.object, described(&attributes))))
    }

    /// `None`: it is gone.
    async fn attributes(&self, file: &nfs_fh3, name: &str) -> Result<Option<fattr3>, Failure> {
        let arguments = GETATTR3args { object: file.clone() };
        let found = self
            .client
            .call::<_, GETATTR3resok, nfs3_types::xdr_codec::Void>(NFS_PROGRAM::NFSPROC3_GETATTR, &arguments);
        match found.await? {
            Ok(found) => Ok(Some(found.obj_attributes)),
            Err(status) if is_gone(status) => Ok(None),
            Err(status) => Err(self.refused("look at", name, status)),
        }
    }

    /// Makes the file, or finds the one that an earlier attempt made.
    async fn make(&self, folder: &nfs_fh3, name: &str) -> Result<(nfs_fh3, Found), Failure> {
        let attributes = sattr3 {
            mode: Nfs3Option::Some(0o600),
            ..sattr3::default()
        };
        let arguments = CREATE3args {
            where_: at(folder, name),
            how: createhow3::UNCHECKED(attributes),
        };
        let made = self
            .client
            .call::<_, CREATE3resok, CREATE3resfail>(NFS_PROGRAM::NFSPROC3_CREATE, &arguments);
        match made.await? {
            Ok(CREATE3resok {
                obj: Nfs3Option::Some(handle),
                obj_attributes: Nfs3Option::Some(attributes),
                ..
            }) => Ok((handle, described(&attributes))),
            Ok(_) => {
                let found = self.lookup(folder, name).await?;
                found.ok_or_else(|| self.refused("find again", name, nfsstat3::NFS3ERR_NOENT))
            }
            Err(status) => Err(self.refused("make", name, status)),
        }
    }

    /// Writes all of it from the start; `false`: the file is gone.
    async fn write(&self, file: &nfs_fh3, name: &str, content: &[u8], stable: stable_how) -> Result<bool, Failure> {
        let mut offset = 0;
        while let Some(chunk) = content.get(offset..).filter(|rest| !rest.is_empty()) {
            let chunk = chunk.get(..CHUNK).unwrap_or(chunk);
            let arguments = WRITE3args {
                file: file.clone(),
                offset: offset as u64,
                count: u32::try_from(chunk.len()).expect("a chunk is small"),
                stable,
                data: Opaque::borrowed(chunk),
            };
            let written = self
                .client
                .call::<_, WRITE3resok, WRITE3resfail>(NFS_PROGRAM::NFSPROC3_WRITE, &arguments);
            let written = match written.await? {
                Ok(written) => written,
                Err(status) if is_gone(status) => return Ok(false),
                Err(status) => return Err(self.refused("write", name, status)),
            };
            if stable == stable_how::FILE_SYNC && written.committed != stable_how::FILE_SYNC {
                return Err(Failure(format!("write {name}: the server does not write durably")));
            }
            match written.count as usize {
                0 => return Err(Failure(format!("write {name}: the server takes nothing"))),
                count => offset += count.min(chunk.len()),
            }
        }
        Ok(true)
    }

    async fn create_file(&self, name: &str, content: &[u8]) -> Result<File, Failure> {
        let (folder, name) = self.place(name).await?;
        let (handle, found) = self.make(&folder, name).await?;
        match self.write(&handle, name, content, stable_how::FILE_SYNC).await? {
            true => Ok(File {
                name: name.to_string(),
                id: found.id,
                handle: handle.data.into_owned(),
            }),
            false => Err(Failure(format!("write {name}: somebody removed it"))),
        }
    }

    async fn link_file(&self, file: &File, name: &str) -> Result<Link, Failure> {
        let (folder, name) = self.place(name).await?;
        let arguments = LINK3args {
            file: nfs_fh3 {
                data: Opaque::owned(file.handle.clone()),
            },
            link: at(&folder, name),
        };
        let linked = self
            .client
            .call::<_, LINK3resok, LINK3resfail>(NFS_PROGRAM::NFSPROC3_LINK, &arguments);
        match linked.await? {
            Ok(_) => Ok(Link::Made),
            Err(nfsstat3::NFS3ERR_EXIST) => Ok(Link::Exists),
            Err(status) if is_gone(status) => Ok(Link::Gone),
            Err(status) => Err(self.refused("link", name, status)),
        }
    }

    async fn read_file(&self, name: &str, most: usize) -> Result<Option<Bytes>, Failure> {
        let (folder, name) = self.place(name).await?;
        let Some((file, _)) = self.lookup(&folder, name).await? else {
            return Ok(None);
        };
        let mut content = Vec::new();
        while content.len() < most {
            let arguments = READ3args {
                file: file.clone(),
                offset: content.len() as u64,
                count: u32::try_from(CHUNK.min(most - content.len())).expect("a chunk is small"),
            };
            let read = self
                .client
                .call::<_, READ3resok<'static>, READ3resfail>(NFS_PROGRAM::NFSPROC3_READ, &arguments);
            match read.await? {
                Ok(read) => {
                    content.extend_from_slice(&read.data.0);
                    if read.eof || read.data.is_empty() {
                        break;
                    }
                }
                Err(status) if is_gone(status) => return Ok(None),
                Err(status) => return Err(self.refused("read", name, status)),
            }
        }
        content.truncate(most);
        Ok(Some(content.into()))
    }

    async fn names(&self) -> Result<Vec<String>, Failure> {
        let root = &self.folders().await?.root;
        let (mut names, mut cookie, mut verifier) = (Vec::new(), 0, cookieverf3::default());
        for _ in 0..PAGES {
            let arguments = READDIR3args {
                dir: root.clone(),
                cookie,
                cookieverf: verifier,
                count: LISTING,
            };
            let page = self
                .client
                .call::<_, READDIR3resok<'static>, READDIR3resfail>(NFS_PROGRAM::NFSPROC3_READDIR, &arguments);
            let page = match page.await? {
                Ok(page) => page,
                // From the start: a page of another listing says nothing of this one. NOENT is a name that went away while
                // it was listed (nfs-ganesha says so); a folder that is gone is stale.
                Err(nfsstat3::NFS3ERR_BAD_COOKIE | nfsstat3::NFS3ERR_NOENT) => {
                    (cookie, verifier) = (0, cookieverf3::default());
                    names.clear();
                    continue;
                }
                Err(status) => return Err(self.refused("list", &self.server.export, status)),
            };
            verifier = page.cookieverf;
            let entries = page.reply.entries.into_inner();
            let is_end = page.reply.eof || entries.is_empty();
            for entry in entries {
                cookie = entry.cookie;
                names.extend(String::from_utf8(entry.name.0.into_owned()));
            }
            if is_end {
                return Ok(names);
            }
        }
        let export = &self.server.export;
        Err(Failure(format!(
            "{export} has too many names, or changes faster than it can be listed"
        )))
    }

    async fn write_over(&self, name: &str, content: &[u8]) -> Result<(), Failure> {
        for _ in 0..REWRITES {
            let known = lock(&self.overwritten).get(name).cloned();
            let file = match known {
                Some(file) => file,
                None => {
                    let (folder, last) = self.place(name).await?;
                    self.make(&folder, last).await?.0
                }
            };
            if self.write(&file, name, content, stable_how::UNSTABLE).await? {
                lock(&self.overwritten).insert(name.to_string(), file);
                return Ok(());
            }
            // Somebody removed it.
            lock(&self.overwritten).remove(name);
        }
        Err(Failure(format!("write {name}: it goes away again and again")))
    }
}

impl Files for NfsFiles {
    fn create<'a>(&'a self, name: &'a str, content: Bytes) -> BoxFuture<'a, Result<File, Failure>> {
        Box::pin(async move { self.create_file(name, &content).await })
    }

    fn link<'a>(&'a self, file: &'a File, name: &'a str) -> BoxFuture<'a, Result<Link, Failure>> {
        Box::pin(self.link_file(file, name))
    }

    fn look<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Found>, Failure>> {
        Box::pin(async move {
            let (folder, name) = self.place(name).await?;
            Ok(self.lookup(&folder, name).await?.map(|(_, found)| found))
        })
    }

    fn read<'a>(&'a self, name: &'a str, most: usize) -> BoxFuture<'a, Result<Option<Bytes>, Failure>> {
        Box::pin(self.read_file(name, most))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Failure>> {
        Box::pin(self.names())
    }

    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let (folder, name) = self.place(name).await?;
            let arguments = REMOVE3args {
                object: at(&folder, name),
            };
            let removed = self
                .client
                .call::<_, REMOVE3resok, REMOVE3resfail>(NFS_PROGRAM::NFSPROC3_REMOVE, &arguments);
            match removed.await? {
                Ok(_) | Err(nfsstat3::NFS3ERR_NOENT) => Ok(()),
                Err(status) => Err(self.refused("remove", name, status)),
            }
        })
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let ((folder, from), (_, to)) = (self.place(from).await?, self.place(to).await?);
            let arguments = RENAME3args {
                from: at(&folder, from),
                to: at(&folder, to),
            };
            let renamed = self
                .client
                .call::<_, RENAME3resok, RENAME3resfail>(NFS_PROGRAM::NFSPROC3_RENAME, &arguments);
            let renamed = renamed.await?;
            renamed
                .map(|_| ())
                .map_err(|status| self.refused("rename", from, status))
        })
    }

    fn overwrite<'a>(&'a self, name: &'a str, content: Bytes) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move { self.write_over(name, &content).await })
    }
}

fn at<'a>(folder: &nfs_fh3, name: &'a str) -> diropargs3<'a> {
    diropargs3 {
        dir: folder.clone(),
        name: filename3::from(name.as_bytes()),
    }
}

fn described(attributes: &fattr3) -> Found {
    Found {
        id: FileId {
            filesystem: attributes.fsid,
            file: attributes.fileid,
        },
        size: attributes.size,
    }
}

/// The file that the handle was for is removed.
fn is_gone(status: nfsstat3) -> bool {
    matches!(
        status,
        nfsstat3::NFS3ERR_STALE | nfsstat3::NFS3ERR_NOENT | nfsstat3::NFS3ERR_BADHANDLE
    )
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
