//! `storage import` and `storage export`: tar archives, with a bar on a terminal.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use indicatif::{ProgressBar, ProgressStyle};

use super::Connection;
use crate::base::Scope;
use crate::config::Config;
use crate::host::facts;
use crate::net::mesh::{self, Phase};
use crate::storage::Client;
use crate::storage::archive::{self, Progress};
use crate::storage::call::{Caller, Inode, PORTAL, Query, Reply};
use crate::storage::door::Calls;
use crate::storage::mesh::ToSocket;
use crate::storage::operation::Place;

pub async fn import(config: &Config, archive: &Path, into: &Path) -> anyhow::Result<()> {
    let source = source(archive)?;
    let session = Session::open(config).await?;
    let progress = Arc::new(Progress::default());
    let folder = session.folder(into).await?;
    let calls = session.calls();
    let work = archive::import(calls, source, folder, progress.clone(), &session.scope);
    let done = watched(work, &progress, &session.connection.caller).await;
    session.close().await;
    done.with_context(|| format!("import {}", archive.display()))?;
    eprintln!("{} files, {} MiB", progress.files(), progress.bytes() >> 20);
    Ok(())
}

pub async fn export(config: &Config, archive: &Path, from: &Path) -> anyhow::Result<()> {
    let target = target(archive)?;
    let session = Session::open(config).await?;
    let progress = Arc::new(Progress::default());
    let folder = session.folder(from).await?;
    let work = archive::export(session.calls(), folder, target, progress.clone());
    let done = watched(work, &progress, &session.connection.caller).await;
    session.close().await;
    done.with_context(|| format!("export to {}", archive.display()))?;
    eprintln!("{} files, {} MiB", progress.files(), progress.bytes() >> 20);
    Ok(())
}

/// This command's own session with the leader.
pub struct Session {
    connection: Connection,
    client: Client,
    scope: Scope,
}

impl Session {
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let connection = Connection::open(config).await?;
        let scope = Scope::new();
        let way = Arc::new(ToSocket::new(connection.caller.clone()));
        let place = Place(format!("{}/command-{}", facts::node_name(config), std::process::id()));
        let client = Client::start(way, place, false, &scope);
        Ok(Session {
            connection,
            client,
            scope,
        })
    }

    fn calls(&self) -> Arc<dyn Calls> {
        Arc::new(self.client.clone())
    }

    /// A folder of the portal's tree.
    async fn folder(&self, path: &Path) -> anyhow::Result<Inode> {
        let root = Caller {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
        };
        let mut folder = PORTAL;
        for part in path.components() {
            let name = match part {
                Component::RootDir | Component::CurDir => continue,
                Component::Normal(name) => name.as_bytes().to_vec(),
                _ => bail!("{}: name it from the tree's root", path.display()),
            };
            let found = self.client.query(&root, Query::Lookup { folder, name }).await;
            folder = match found.with_context(|| format!("folder {}", path.display()))? {
                Reply::Object { attributes, .. } => attributes.inode,
                other => bail!("unexpected answer {other:?}"),
            };
        }
        Ok(folder)
    }

    /// The whole tree into `archive`.
    pub async fn export(&self, archive: impl Write + Send + 'static) -> anyhow::Result<()> {
        let progress = Arc::new(Progress::default());
        let work = archive::export(self.calls(), PORTAL, archive, progress.clone());
        watched(work, &progress, &self.connection.caller).await
    }

    /// The whole of `archive` into the tree.
    pub async fn import(&self, archive: impl Read + Send + 'static) -> anyhow::Result<()> {
        let progress = Arc::new(Progress::default());
        let work = archive::import(self.calls(), archive, PORTAL, progress.clone(), &self.scope);
        watched(work, &progress, &self.connection.caller).await
    }

    pub async fn close(self) {
        self.client.end().await;
        self.scope.stop(Duration::ZERO).await;
        self.connection.close().await;
    }
}

/// Shows how far the work is, where somebody looks. Ends with the connection too: the session would wait for ever.
async fn watched(
    work: impl Future<Output = Result<(), archive::Failure>>,
    progress: &Progress,
    caller: &mesh::Caller,
) -> anyhow::Result<()> {
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}").expect("the template is right");
    // Hidden by itself where standard error is no terminal.
    let bar = ProgressBar::new_spinner().with_style(style);
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let mut phase = caller.phase();
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => {
                bar.finish_and_clear();
                return Ok(done?);
            }
            _ = phase.wait_for(|phase| matches!(phase, Phase::Ended(_))) => {
                bar.finish_and_clear();
                bail!("the storage of this node ended meanwhile; run the command again");
            }
            _ = tick.tick() => {
                bar.set_message(format!("{} files, {} MiB", progress.files(), progress.bytes() >> 20));
                bar.tick();
            }
        }
    }
}

fn is_packed(path: &Path) -> bool {
    matches!(path.extension().map(OsStr::as_bytes), Some(b"gz" | b"tgz"))
}

fn source(path: &Path) -> anyhow::Result<Box<dyn Read + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    let file = BufReader::new(File::open(path).with_context(|| path.display().to_string())?);
    Ok(match is_packed(path) {
        true => Box::new(MultiGzDecoder::new(file)),
        false => Box::new(file),
    })
}

fn target(path: &Path) -> anyhow::Result<Box<dyn Write + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdout()));
    }
    ensure!(!path.exists(), "{} is there already", path.display());
    let file = BufWriter::new(File::create(path).with_context(|| path.display().to_string())?);
    Ok(match is_packed(path) {
        true => Box::new(GzEncoder::new(file, Compression::fast())),
        false => Box::new(file),
    })
}
