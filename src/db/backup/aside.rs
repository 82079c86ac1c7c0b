//! A server of a Galera cluster steps aside while its data are copied (`wsrep_desync`): it may fall behind, and does not ask the others
//! to wait for it. That is a setting of the server, not of a session: a mark on this machine says that it is ours to take back, whatever
//! becomes of the process that made it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::connect;
use crate::base::file::{Access, replace};

/// What waits to be applied. With less, the group has nothing to wait for.
const FEW: u64 = 16;
const LOOK: Duration = Duration::from_millis(200);
/// Then it comes back as it is, and the group waits.
const PATIENCE: Duration = Duration::from_secs(600);

/// Whether it did. The one that is written to does not, nor one that is alone, nor one that the operator has put aside.
pub async fn step(socket: &Path, mark: &Path) -> anyhow::Result<bool> {
    let mut connection = connect(socket).await?;
    let is_reader: Option<bool> = connection
        .query_first("SELECT @@GLOBAL.read_only AND NOT @@GLOBAL.wsrep_desync")
        .await?;
    let has_others = status(&mut connection, "wsrep_cluster_size").await? > 1;
    let does = is_reader == Some(true) && has_others;
    if does {
        replace(mark, b"", Access::mode(0o600)).with_context(|| mark.display().to_string())?;
        connection
            .query_drop("SET GLOBAL wsrep_desync = ON")
            .await
            .context("have the database step aside for the copy")?;
    }
    connection.disconnect().await?;
    Ok(does)
}

/// Comes back into step, if `step` went out of it; after it has caught up, as far as that comes to an end.
pub async fn back(socket: &Path, mark: &Path) -> anyhow::Result<()> {
    if !mark.exists() {
        return Ok(());
    }
    let mut connection = connect(socket).await?;
    let end = tokio::time::Instant::now() + PATIENCE;
    while status(&mut connection, "wsrep_local_recv_queue").await? > FEW && tokio::time::Instant::now() < end {
        tokio::time::sleep(LOOK).await;
    }
    connection
        .query_drop("SET GLOBAL wsrep_desync = OFF")
        .await
        .context("have the database come back into step")?;
    connection.disconnect().await?;
    match fs::remove_file(mark) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("forget that it stepped aside"),
        _ => Ok(()),
    }
}

async fn status(connection: &mut Conn, name: &str) -> anyhow::Result<u64> {
    let row: Option<(String, u64)> = connection.query_first(format!("SHOW STATUS LIKE '{name}'")).await?;
    row.map(|(_, value)| value)
        .with_context(|| format!("the server does not say its {name}"))
}
