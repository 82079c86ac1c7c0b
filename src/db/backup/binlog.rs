//! The binary logs of a running server. Its folder is the database user's: no link in it is followed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use nix::libc::O_NOFOLLOW;

use super::connect;
use crate::base::clock;

/// The first event with its time and the server's number. In its flags stands whether the file is open, so they do not count.
const HEAD: usize = 252;
const FLAGS: std::ops::Range<usize> = 21..23;

/// What the server has closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    pub folder: PathBuf,
    /// Oldest first.
    pub files: Vec<String>,
    /// All that was acknowledged before is in them, in milliseconds since 1970.
    pub until: u64,
}

/// The folder of the logs; `None`: the server writes none.
pub async fn folder(socket: &Path) -> anyhow::Result<Option<PathBuf>> {
    let mut connection = connect(socket).await?;
    let folder = place(&mut connection).await?;
    connection.disconnect().await?;
    Ok(folder)
}

async fn place(connection: &mut Conn) -> anyhow::Result<Option<PathBuf>> {
    let base: Option<Option<String>> = connection.query_first("SELECT @@log_bin_basename").await?;
    let folder = base.flatten().map(PathBuf::from);
    Ok(folder.and_then(|base| base.parent().map(Path::to_path_buf)))
}

/// Has the server begin another one. `None`: it writes none. `is_galera`: what was acknowledged elsewhere may not be here yet; fails
/// where it cannot come.
pub async fn rotate(socket: &Path, is_galera: bool) -> anyhow::Result<Option<Closed>> {
    let mut connection = connect(socket).await?;
    let Some(folder) = place(&mut connection).await? else {
        return Ok(None);
    };
    let until = clock::unix_millis();
    if is_galera {
        catch_up(&mut connection).await?;
    }
    connection
        .query_drop("FLUSH BINARY LOGS")
        .await
        .context("close the binary log")?;
    let rows: Vec<mysql_async::Row> = connection.query("SHOW BINARY LOGS").await?;
    connection.disconnect().await?;
    let mut files: Vec<String> = rows.iter().filter_map(|row| row.get(0)).collect();
    // The one that it writes now.
    files.pop();
    Ok(Some(Closed { folder, files, until }))
}

/// A read that is answered when all is here that the group had agreed on.
async fn catch_up(connection: &mut Conn) -> anyhow::Result<()> {
    connection.query_drop("SET SESSION wsrep_sync_wait = 1").await?;
    connection
        .query_drop("SELECT node_name FROM mysql.wsrep_cluster_members")
        .await
        .context("wait for what the cluster has committed")?;
    Ok(connection.query_drop("SET SESSION wsrep_sync_wait = 0").await?)
}

/// Lets the server remove those before `file`.
pub async fn purge(socket: &Path, file: &str) -> anyhow::Result<()> {
    let mut connection = connect(socket).await?;
    let file = file.replace(['\'', '\\'], "");
    connection
        .query_drop(format!("PURGE BINARY LOGS TO '{file}'"))
        .await
        .context("remove binary logs that a backup has")?;
    Ok(connection.disconnect().await?)
}

pub fn open(folder: &Path, file: &str) -> io::Result<File> {
    let path = folder.join(file);
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let file = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW).open(&path);
    let file = file.map_err(named)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(named(io::Error::other("is no file"))),
    }
}

/// What tells one log from another of the same name.
pub fn head(folder: &Path, file: &str) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    open(folder, file)?.take(HEAD as u64).read_to_end(&mut head)?;
    if let Some(flags) = head.get_mut(FLAGS) {
        flags.fill(0);
    }
    Ok(head)
}
