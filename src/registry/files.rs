//! `Files`: what the registry needs of a shared folder. One file system, names of one component, heartbeats in a folder below.
//!
//! Every call is bounded in time and may be dropped half-way; then it may have happened, or may yet. After a `Failure` too.
//! All are safe to repeat. What was acknowledged is seen by all other users of the folder from then on.

use bytes::Bytes;

use crate::base::BoxFuture;

/// A file by its identity, whatever names it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    pub filesystem: u64,
    pub file: u64,
}

/// A file that was made.
#[derive(Clone, Debug)]
pub struct File {
    pub name: String,
    pub id: FileId,
    /// The server's own word for it; empty where names are enough.
    pub handle: Vec<u8>,
}

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub id: FileId,
    pub size: u64,
}

/// How a link ended. None of these says whose file the name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Made,
    Exists,
    /// The file to be linked is no longer there.
    Gone,
}

/// No answer in time, or the server refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

pub trait Files: Send + Sync {
    /// Makes a file under a name that nobody else uses, mode 0600; the content is durable when this returns.
    fn create<'a>(&'a self, name: &'a str, content: Bytes) -> BoxFuture<'a, Result<File, Failure>>;

    /// Gives the file a further name, if the name is free; durable.
    fn link<'a>(&'a self, file: &'a File, name: &'a str) -> BoxFuture<'a, Result<Link, Failure>>;

    /// `None`: there is no such name.
    fn look<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Found>, Failure>>;

    /// The content, or as much of it as `most` bytes. `None`: there is no such name, or it went while it was read.
    fn read<'a>(&'a self, name: &'a str, most: usize) -> BoxFuture<'a, Result<Option<Bytes>, Failure>>;

    /// Every name that is there all the time while it is listed.
    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Failure>>;

    /// Also when it is gone already.
    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Failure>>;

    /// Takes the place of what has that name.
    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, Result<(), Failure>>;

    /// Writes over the start of a small file, which is made if it is not there; not durable, but seen by all.
    /// The file stays the same one. `name` may lie in the heartbeats' folder.
    fn overwrite<'a>(&'a self, name: &'a str, content: Bytes) -> BoxFuture<'a, Result<(), Failure>>;
}
