//! From the configuration to the files that the registry lies on.

use std::path::PathBuf;
use std::sync::Arc;

use super::files::{Failure, Files};
use super::nfs_files::NfsFiles;
use super::nfs_server::{Server, Transport};
use super::path_files::PathFiles;
use super::record::is_name;
use crate::config::{Config, Engine, External};
use crate::host::facts;
use crate::host::mount::{Space, Table};

/// The storage's export that only its unix socket shows.
const EXPORT: &str = "/registry";
/// In an external export or path.
const FOLDER: &str = "registry";

/// The name under which this node signs; fails when it is not fit for names of files.
pub fn author(config: &Config) -> Result<String, Failure> {
    let name = match config.node.name.is_empty() {
        true => facts::host_name(),
        false => config.node.name.clone(),
    };
    match is_name(&name) {
        true => Ok(name),
        false => Err(Failure(format!(
            "{name:?} cannot be a node's name in the registry; set node.name to letters, digits, dots and dashes"
        ))),
    }
}

/// The folder on a mounted path, where that is where the registry lies. The agent makes it, as its own.
pub fn folder(config: &Config) -> Option<PathBuf> {
    match config.storage.external() {
        Some(External::Path(path)) if config.storage.engine == Engine::External => Some(path.join(FOLDER)),
        _ => None,
    }
}

/// A registry is begun on a mounted path only. `None`: nothing keeps files for several nodes, so there is no registry. `boot`: random, of this start of the program.
pub async fn files(config: &Config, boot: u64) -> Result<Option<Arc<dyn Files>>, Failure> {
    if let Some(folder) = folder(config) {
        let is_mounted = Table::read(Space::Own).is_ok_and(|table| table.is_apart(&folder, &config.node.data_dir));
        return Ok(Some(Arc::new(match is_mounted {
            true => PathFiles::open(&folder).await?,
            false => PathFiles::open_existing(&folder).await?,
        })));
    }
    let server = match config.storage.engine {
        Engine::None => return Ok(None),
        Engine::Replicated => Server {
            transport: Transport::Unix(config.nfs_socket()),
            export: EXPORT.to_string(),
            folder: String::new(),
        },
        Engine::External => match config.storage.external() {
            Some(External::Server {
                host,
                export,
                nfs,
                mount,
            }) => Server {
                transport: Transport::Tcp { host, nfs, mount },
                export,
                folder: FOLDER.to_string(),
            },
            _ => return Err(Failure("storage.external names no server and no path".into())),
        },
    };
    let machine = format!("{}.{boot:016x}", author(config)?);
    Ok(Some(Arc::new(NfsFiles::new(server, machine))))
}
