//! The newest version that this machine has seen, on its own disk: what it goes on with while the registry cannot be reached.
//! The image itself, so it carries its version, schema and checksum.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::view::View;
use super::{Error, image};
use crate::base::file::{self, Access};

const NAME: &str = "last.db";

pub struct LastSeen {
    file: PathBuf,
}

impl LastSeen {
    /// In a folder that is there already.
    pub fn new(folder: &Path) -> Self {
        LastSeen {
            file: folder.join(NAME),
        }
    }

    /// Marked as last seen. `None`: this machine has seen none yet.
    pub async fn load(&self) -> Result<Option<Arc<View>>, Error> {
        let file = self.file.clone();
        let name = file.display().to_string();
        let load = move || match std::fs::read(file) {
            Ok(bytes) => image::view(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::Unreachable(error.to_string())),
        };
        let loaded = tokio::task::spawn_blocking(load).await;
        let view = loaded.map_err(|error| Error::Damaged(format!("{name}: {error}")))??;
        Ok(view.map(|mut view| {
            view.is_last_seen = true;
            Arc::new(view)
        }))
    }

    /// Replaces what is there, whole or not at all.
    pub async fn save(&self, image: bytes::Bytes) -> io::Result<()> {
        let file = self.file.clone();
        let save = move || file::replace(&file, &image, Access::mode(0o600));
        tokio::task::spawn_blocking(save).await.map_err(io::Error::other)?
    }
}
