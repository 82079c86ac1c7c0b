//! `Files`: looks at paths and serves what lies there, from memory where it can.

use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{IF_MATCH, RANGE};
use http::{Method, Response, StatusCode};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tracing::warn;

use super::entry::{self, Node, Opened, Stamp, Text, Version, Versions};
use super::handles::Handles;
use super::packed::Packer;
use super::reply::{self, Plan};
use super::root::{Links, Root};
use crate::base::Scope;
use crate::proxy::compress::Compression;
use crate::proxy::conditional;
use crate::proxy::content_type::is_php;
use crate::proxy::error::{Error, Kind};
use crate::proxy::exchange::{Body, Exchange};
use crate::proxy::path::Path;

/// Entries that the memory tier is laid out for; not a limit.
const ENTRIES: usize = 8192;

/// The files of a portal.
pub struct Files {
    root: Arc<Root>,
    known: Arc<Cache<Box<str>, Arc<Node>, Weight>>,
    handles: Handles,
    packer: Packer,
    /// Zero of the clock by which entries are compared with the disk.
    pub(super) opened: Instant,
}

/// How files are served.
#[derive(Clone)]
pub struct Manner {
    pub follow_symlinks: bool,
    /// Budget of the memory tier, in bytes. When full, what is asked for least gives way.
    pub memory: u64,
    pub compression: Compression,
}

/// What lies at a path.
pub enum Found {
    File(Entry),
    Folder,
    Missing,
}

/// A regular file, as it was when it was looked at.
#[derive(Clone)]
pub struct Entry {
    file: Arc<Versions>,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Box<str>, Arc<Node>> for Weight {
    fn weight(&self, _path: &Box<str>, node: &Arc<Node>) -> u64 {
        node.weight()
    }
}

impl Files {
    /// Opens the document root. Fails when it is no folder, or on Linux before 5.6. `scope` owns what closes idle descriptors and compresses.
    pub fn open(root: &FilePath, manner: Manner, scope: Scope) -> io::Result<Files> {
        let links = if manner.follow_symlinks {
            Links::Anywhere
        } else {
            Links::Within
        };
        Ok(Files::of(Root::open(root, links)?, manner, scope))
    }

    /// A document root that may come later, whose links may lead into these folders.
    pub fn of_site(root: &FilePath, folders: Vec<PathBuf>, manner: Manner, scope: Scope) -> Files {
        let links = if manner.follow_symlinks {
            Links::Anywhere
        } else {
            Links::Into(folders)
        };
        Files::of(Root::new(root, links), manner, scope)
    }

    fn of(root: Root, manner: Manner, scope: Scope) -> Files {
        Files {
            root: Arc::new(root),
            known: Arc::new(Cache::with_weighter(ENTRIES, manner.memory, Weight)),
            handles: Handles::new(scope.clone()),
            packer: Packer::new(manner.compression, scope),
            opened: Instant::now(),
        }
    }

    /// Says what lies at a path. `Forbidden`: it may not be read, leaves the root, or is neither file nor folder.
    pub async fn look(&self, path: &Path) -> Result<Found, Error> {
        let now = self.now();
        let known = self.known.get(path.as_str());
        let node = match known {
            Some(node) if !node.is_due(now) => Some(node),
            known => self.probe(path, known, now).await?,
        };
        Ok(node.as_deref().map_or(Found::Missing, found))
    }

    /// Answers GET or HEAD with a file. `NotFound`: it went meanwhile.
    pub async fn serve(&self, exchange: &Exchange, entry: Entry) -> Result<Response<Body>, Error> {
        let Entry { file } = entry;
        if !matches!(exchange.request.method, Method::GET | Method::HEAD) {
            return Err(Error::new(Kind::Method, "files take GET and HEAD only"));
        }
        if is_php(&file.extension) && !file.is_users {
            return Err(Error::new(Kind::Forbidden, "the source of a script is not served"));
        }
        let headers = &exchange.request.headers;
        let coding = conditional::choose(headers, file.copies.iter().filter_map(|copy| copy.coding));
        if coding.is_none()
            && let Some(answer) = self.serve_packed(exchange, &file).await?
        {
            return Ok(answer);
        }
        let copy = file.copies.iter().find(|copy| copy.coding == coding);
        match copy {
            Some(copy) => match self.serve_version(exchange, &file, copy).await {
                // The copy went; what it is a copy of need not.
                Err(error) if error.kind == Kind::NotFound => self.serve_version(exchange, &file, &file.plain).await,
                served => served,
            },
            None => self.serve_version(exchange, &file, &file.plain).await,
        }
    }

    async fn serve_version(
        &self,
        exchange: &Exchange,
        file: &Versions,
        version: &Version,
    ) -> Result<Response<Body>, Error> {
        let plan = Plan::decide(exchange, version)?;
        match (&plan, &version.content) {
            (Plan::Bodiless(status), _) => Ok(reply::without_body(file, version, *status)),
            (_, Some(content)) => Ok(reply::from_memory(exchange, file, version, &plan, content)),
            (_, None) => self.serve_opened(exchange, file, version).await,
        }
    }

    /// The file as we compress it ourselves, once. `None`: it is sent as it is, or compressed on its way.
    async fn serve_packed(&self, exchange: &Exchange, file: &Arc<Versions>) -> Result<Option<Response<Body>>, Error> {
        let headers = &exchange.request.headers;
        let content = file.plain.content.as_ref().filter(|_| file.plain.is_lasting);
        // A range is one of the file, and only the file itself has a tag that such a condition means.
        let is_plain = headers.contains_key(RANGE) || headers.contains_key(IF_MATCH);
        let (Some(content), false) = (content, is_plain) else {
            return Ok(None);
        };
        let Some(coding) = self.packer.coding(headers, file) else {
            return Ok(None);
        };
        let head = file.plain.packed(coding, None);
        if let Plan::Bodiless(StatusCode::NOT_MODIFIED) = Plan::decide(exchange, &head)? {
            return Ok(Some(reply::without_body(file, &head, StatusCode::NOT_MODIFIED)));
        }
        if exchange.request.method == Method::HEAD && file.forms.get(coding).is_none() {
            return Ok(None);
        }
        let form = match file.forms.get(coding) {
            Some(form) => Some(form.clone()),
            None => {
                let (known, file) = (self.known.clone(), file.clone());
                let forms = file.forms.clone();
                // It weighs more then.
                let made = move || known.insert(file.path.clone(), Arc::new(Node::of(file)));
                self.packer.make(&forms, content, coding, made).await
            }
        };
        let Some(form) = form else {
            return Ok(None);
        };
        let version = file.plain.packed(coding, Some(form));
        self.serve_version(exchange, file, &version).await.map(Some)
    }

    /// The whole content of a small file, and the file with it in memory, so that both are served as one. `None`: it is
    /// large, or gone.
    pub async fn load(&self, entry: Entry) -> Result<Option<(Entry, Bytes)>, Error> {
        let Entry { file } = entry;
        if let Some(content) = file.plain.content.clone() {
            return Ok(Some((Entry { file }, content)));
        }
        if file.plain.size() > file.small() {
            return Ok(None);
        }
        let opened = match self.fetch(&file, &file.plain).await {
            Err(error) if error.kind == Kind::NotFound => return Ok(None),
            opened => opened?,
        };
        let content = opened.version.content.clone();
        let file = Arc::new(file.with(opened.version));
        Ok(content.map(|content| (Entry { file }, content)))
    }

    /// A file of settings below the root, if it changed.
    pub async fn text(&self, path: &'static str, known: Option<Stamp>, most: u64) -> Result<Text, Error> {
        let root = self.root.clone();
        blocking(move || Text::read(&root, path, known.as_ref(), most)).await
    }

    /// Opens a version as it is now; keeps its content in memory when it is small and will stay.
    async fn fetch(&self, file: &Versions, version: &Version) -> Result<Opened, Error> {
        let (root, path, asked) = (self.root.clone(), file.path.clone(), version.clone());
        let (place, small) = (file.place(version), file.small());
        let open = self.handles.get(&place);
        let opened = blocking(move || asked.read(&root, &path, open, small)).await;
        let opened = opened.inspect_err(|_| _ = self.known.remove(&*file.path))?;
        if opened.is_same && opened.version.is_lasting {
            let file = Arc::new(file.with(opened.version.clone()));
            self.known.insert(file.path.clone(), Arc::new(Node::of(file)));
        } else if opened.version.content.is_none() {
            self.handles.put(&place, opened.file.clone());
        }
        Ok(opened)
    }

    /// The file is not in memory. It may have changed since it was looked at, so what is opened now decides.
    async fn serve_opened(
        &self,
        exchange: &Exchange,
        file: &Versions,
        version: &Version,
    ) -> Result<Response<Body>, Error> {
        let Opened {
            version, file: handle, ..
        } = self.fetch(file, version).await?;
        let plan = Plan::decide(exchange, &version)?;
        Ok(match (&plan, &version.content) {
            (Plan::Bodiless(status), _) => reply::without_body(file, &version, *status),
            (_, Some(content)) => reply::from_memory(exchange, file, &version, &plan, content),
            (_, None) => reply::from_file(exchange, file, &version, &plan, handle),
        })
    }

    /// Looks at the disk; keeps what is known, content included, if it is still so.
    async fn probe(&self, path: &Path, known: Option<Arc<Node>>, now: u64) -> Result<Option<Arc<Node>>, Error> {
        let (root, name, extension) = (self.root.clone(), path.as_str().to_string(), path.extension());
        let probed = match blocking(move || Node::probe(&root, &name, &extension, now)).await {
            // The file system fails, not the file: what is known goes on being served.
            Err(error) if error.kind == Kind::Internal && known.is_some() => {
                let cause = crate::base::error::chain(&error);
                warn!(
                    path = path.as_str(),
                    cause, "a file could not be compared with the disk"
                );
                return Ok(known);
            }
            probed => probed?,
        };
        Ok(match (probed, known) {
            (Some(node), Some(known)) if known.is_same(&node) => Some(known),
            (Some(node), _) => {
                let node = Arc::new(node);
                self.known.insert(path.as_str().into(), node.clone());
                Some(node)
            }
            (None, _) => {
                self.known.remove(path.as_str());
                None
            }
        })
    }

    #[cfg(test)]
    pub fn open_handles(&self) -> usize {
        self.handles.len()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn found(node: &Node) -> Found {
    match &node.file {
        Some(file) => Found::File(Entry { file: file.clone() }),
        None => Found::Folder,
    }
}

/// Runs file work on the blocking pool.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)
        .flatten();
    done.map_err(|error| {
        use nix::libc::{EACCES, ELOOP, EPERM, EXDEV};
        match error.raw_os_error() {
            Some(EACCES | EPERM | EXDEV | ELOOP) => Error::with(Kind::Forbidden, "the file may not be opened", error),
            _ if entry::is_missing(&error) => Error::with(Kind::NotFound, "the file is gone", error),
            _ if error.kind() == io::ErrorKind::PermissionDenied => {
                Error::with(Kind::Forbidden, "the file may not be served", error)
            }
            _ => Error::with(Kind::Internal, "cannot read a file", error),
        }
    })
}
