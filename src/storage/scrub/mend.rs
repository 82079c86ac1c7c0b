//! Mends one content: fetches it from a replica that has it right, checks it, and puts it in the wrong one's place.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::{FETCH, Scrub};
use crate::storage::replica::blocking;
use crate::storage::state::FileFact;
use crate::storage::types::NodeId;

impl Scrub {
    /// Whether the content is right now. Not when nobody gave it, or it changed meanwhile.
    pub(super) async fn mend(&self, fact: &FileFact, right: [u8; 32], from: &[NodeId]) -> io::Result<bool> {
        for node in from {
            let path = self.begin(fact).await?;
            match self.fetch(*node, fact, right, &path).await {
                Ok(true) => return self.exchange(*fact, path).await,
                Ok(false) => tracing::debug!(node, "a replica gave another content than it said"),
                Err(error) if error.kind() == ErrorKind::StorageFull => return Err(error),
                Err(error) => tracing::debug!(node, %error, "a content could not be fetched"),
            }
        }
        Ok(false)
    }

    /// An empty file for what comes.
    async fn begin(&self, fact: &FileFact) -> io::Result<PathBuf> {
        let (disk, folder) = (self.disk.clone(), self.machine.get().mending());
        let path = folder.join(fact.inode.0.to_string());
        let made = path.clone();
        blocking(move || {
            match disk.make_folder(&folder) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            disk.create(&made)
        })
        .await?;
        Ok(path)
    }

    /// Writes what the replica gives to `path`; says whether it is right.
    async fn fetch(&self, node: NodeId, fact: &FileFact, right: [u8; 32], path: &Path) -> io::Result<bool> {
        let (mut hasher, mut at) = (blake3::Hasher::new(), 0);
        while at < fact.size {
            let Some(mut data) = self.replicas.fetch(node, fact.inode, at).await? else {
                return Ok(false);
            };
            // Bytes behind the size are of a later write.
            let most = usize::try_from(fact.size - at).unwrap_or(FETCH).min(FETCH);
            data.truncate(most);
            if data.is_empty() {
                return Ok(false);
            }
            hasher.update(&data);
            let (disk, path, offset) = (self.disk.clone(), path.to_owned(), at);
            at += data.len() as u64;
            blocking(move || disk.write_at(&path, offset, &data)).await?;
        }
        Ok(*hasher.finalize().as_bytes() == right)
    }

    async fn exchange(&self, fact: FileFact, path: PathBuf) -> io::Result<bool> {
        let (disk, machine) = (self.disk.clone(), self.machine.get());
        blocking(move || {
            machine.sync().map_err(io::Error::other)?;
            let exchanged = machine.replace_content(&fact, &path).map_err(io::Error::other)?;
            if !exchanged {
                disk.remove(&path)?;
            }
            Ok(exchanged)
        })
        .await
    }
}
