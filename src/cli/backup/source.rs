//! Where the parts of a full backup come from, the database apart.

use std::io::{self, PipeReader, Write};
use std::path::Path;

use anyhow::Context;

use crate::backup::tree;
use crate::cli::{registry, storage};
use crate::config::{Config, Engine};
use crate::net::mesh::trust::Trust;
use crate::registry::{Publish, read_image};

/// What a node needs beside its data, below the data folder: what PHP signs and logs in with, the front's certificate, the cluster's authority.
const FOLDERS: [&str; 3] = ["secrets", "tls", "trust"];
/// What it opens lies beside it.
const KEY: &str = "secrets/backup.key";

/// Name of the cluster that this node is of; empty: it is alone.
pub fn cluster(config: &Config) -> String {
    let identity = Trust::new(config.trust()).identity();
    identity.map_or(String::new(), |identity| identity.cluster.to_string())
}

/// The portal's files as a tar archive. The stream must be read to its end beside the future.
pub fn files(config: &Config) -> anyhow::Result<(PipeReader, impl Future<Output = anyhow::Result<()>>)> {
    let (stream, end) = io::pipe()?;
    let (config, is_replicated) = (config.clone(), config.storage.engine == Engine::Replicated);
    let work = async move {
        if is_replicated {
            let session = storage::Session::open(&config).await?;
            let exported = session.export(end).await;
            session.close().await;
            return exported.context("read the replicated files");
        }
        let root = config.portal_root();
        let packed = tokio::task::spawn_blocking(move || {
            tree::pack(&root, end).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", root.display())))
        });
        packed.await?.context("read the portal's files")
    };
    Ok((stream, work))
}

/// The newest version of the registry; `None`: there is none.
pub async fn registry(config: &Config) -> anyhow::Result<Option<Vec<u8>>> {
    if config.storage.engine == Engine::None {
        return Ok(None);
    }
    let publish: Publish = registry::open(config).await?;
    let (_, image) = publish.newest().await.context("read the registry")?;
    // What cannot be read is no backup.
    read_image(&image).context("the registry")?;
    Ok(Some(image.to_vec()))
}

/// Configuration and secrets, as a tar archive. They are small.
pub fn identity(config: &Config, path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    if path.is_file() {
        archive.append_path_with_name(path, "config.toml")?;
    }
    for folder in FOLDERS {
        let place = config.node.data_dir.join(folder);
        let Ok(entries) = std::fs::read_dir(&place) else {
            continue;
        };
        for entry in entries {
            let entry = entry?;
            let name = Path::new(folder).join(entry.file_name());
            if entry.file_type()?.is_file() && name != Path::new(KEY) {
                let named = || entry.path().display().to_string();
                archive.append_path_with_name(entry.path(), &name).with_context(named)?;
            }
        }
    }
    let mut bytes = archive.into_inner()?;
    bytes.flush()?;
    Ok(bytes)
}
