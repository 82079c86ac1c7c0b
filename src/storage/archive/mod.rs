//! Trees of files in and out as tar archives, through the same calls as every door. Many calls are open at once, so that the
//! log takes hundreds of files in one entry.

mod export;
mod import;
mod progress;

pub use export::export;
pub use import::import;
pub use progress::Progress;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::call::{Caller, Error, Inode, Mutation, Query, Reply};
use super::door::{Calls, RequestKey};

/// Files under way at once.
const FILES: usize = 256;
/// Bytes of contents in memory.
const MEMORY: usize = 32 << 20;

/// Why a tree was not carried over whole.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the archive cannot be read or written: {0}")]
    Archive(#[from] std::io::Error),
    #[error("{path}: {error}")]
    Call { path: String, error: Error },
    #[error("{0}: a name in the archive leads out of it")]
    Path(String),
}

/// Root's calls, numbered.
#[derive(Clone)]
struct Root {
    calls: Arc<dyn Calls>,
    client: u64,
    xid: Arc<AtomicU32>,
}

impl Root {
    fn new(calls: Arc<dyn Calls>) -> Self {
        let mut client = [0; 8];
        getrandom::fill(&mut client).expect("the kernel gives random bytes");
        Root {
            calls,
            client: u64::from_be_bytes(client),
            xid: Arc::default(),
        }
    }

    async fn query(&self, query: Query) -> Result<Reply, Error> {
        loop {
            match self.calls.query(&root(), query.clone()).await {
                Err(Error::Unavailable) => {}
                answer => return answer,
            }
        }
    }

    /// Repeats a change until its outcome is known: a fail-over is only a pause.
    async fn mutate(&self, mutation: Mutation) -> Result<Reply, Error> {
        let key = RequestKey {
            client: self.client,
            xid: self.xid.fetch_add(1, Ordering::Relaxed),
            checksum: 0,
        };
        loop {
            match self.calls.mutate(&root(), key, mutation.clone()).await {
                Err(Error::Unavailable) => {}
                answer => return answer,
            }
        }
    }

    /// An object below a folder.
    async fn look_up(&self, folder: Inode, name: &[u8]) -> Result<Inode, Error> {
        let name = name.to_vec();
        match self.query(Query::Lookup { folder, name }).await? {
            Reply::Object { attributes, .. } => Ok(attributes.inode),
            _ => Err(Error::Io),
        }
    }
}

fn root() -> Caller {
    Caller {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
    }
}
