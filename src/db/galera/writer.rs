//! The fence at the server: it takes writes while this node holds the role, and is shut before the hold ends. Root's, by the socket.
//!
//! The door comes first, in and out: sessions of PHP begin only where the mark is (`db::module`). Then what is under way is cut,
//! and the server set to read-only; what comes from the other nodes is applied all the same. A server that hangs can do neither: it
//! acknowledges nothing meanwhile, and what it was doing the group has not agreed to.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tracing::warn;

use crate::base::file::{Access, replace};
use crate::db::root::connect;

/// A server that is well answers at once.
const ANSWER: Duration = Duration::from_secs(1);
/// Shutting it takes less, unless it hangs; then it is the group's to let it go.
const CLOSE: Duration = Duration::from_millis(1300);
/// What is under way when the role goes to another node in order: a statement takes less.
const FINISH: Duration = Duration::from_millis(300);
/// Between two looks at the sessions that are being cut.
const LOOK: Duration = Duration::from_millis(20);
/// How often they are looked at.
const LOOKS: u32 = 40;

/// Not among these: our own, replication's, and the system's user that copies data to other nodes.
const SESSIONS: &str =
    "SELECT ID, COMMAND FROM information_schema.PROCESSLIST WHERE USER NOT IN ('root', 'mysql', 'system user')";

/// The server here, open for writing.
pub struct Writer {
    connection: Conn,
}

impl Writer {
    /// Sets the mark when the server takes writes. Fails where it is not in the Primary component.
    pub async fn open(socket: &Path, mark: &Path) -> anyhow::Result<Self> {
        let work = async {
            let mut connection = connect(socket).await?;
            ensure!(
                is_ready(&mut connection).await?,
                "the database here is not in the Primary component"
            );
            connection.query_drop("SET GLOBAL read_only = OFF").await?;
            Ok(Writer { connection })
        };
        let writer = tokio::time::timeout(ANSWER, work)
            .await
            .context("the database here does not answer")??;
        replace(mark, b"", Access::mode(0o644)).context("open the way to the database")?;
        Ok(writer)
    }

    /// Whether it still is there, and in the Primary component.
    pub async fn is_there(&mut self) -> bool {
        matches!(
            tokio::time::timeout(ANSWER, is_ready(&mut self.connection)).await,
            Ok(Ok(true))
        )
    }
}

async fn is_ready(connection: &mut Conn) -> Result<bool, mysql_async::Error> {
    let ready: Option<(String, String)> = connection.query_first("SHOW STATUS LIKE 'wsrep_ready'").await?;
    Ok(ready.is_some_and(|(_, value)| value == "ON"))
}

/// Shuts the door, cuts the sessions, sets the server to read-only; as far as the server lets that happen in time.
/// `is_orderly`: a statement under way may come to its end.
pub async fn close(socket: &Path, mark: &Path, is_orderly: bool) {
    if let Err(error) = shut(mark) {
        warn!(%error, "the way to the database cannot be shut");
    }
    let work = async {
        let mut connection = connect(socket).await?;
        cut(&mut connection, is_orderly).await?;
        // It waits for what commits, and pauses replication for a moment; outside of the Primary component it does nothing, without a word.
        connection
            .query_drop("SET STATEMENT max_statement_time = 1 FOR SET GLOBAL read_only = ON")
            .await?;
        let is_shut: Option<bool> = connection.query_first("SELECT @@GLOBAL.read_only").await?;
        ensure!(is_shut == Some(true), "the server does not take it");
        Ok(())
    };
    let ended: anyhow::Result<()> = match tokio::time::timeout(CLOSE, work).await {
        Ok(ended) => ended,
        Err(_) => Err(anyhow::anyhow!("the database here does not answer")),
    };
    if let Err(error) = ended {
        warn!(
            error = format!("{error:#}"),
            "the database is not set to read-only; the way to it is shut"
        );
    }
}

/// Nobody comes in any more.
pub fn shut(mark: &Path) -> io::Result<()> {
    match fs::remove_file(mark) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The server reads its certificates anew; connections that there are go on.
pub async fn renew(socket: &Path) -> anyhow::Result<()> {
    let work = async {
        let mut connection = connect(socket).await?;
        connection
            .query_drop("SET GLOBAL wsrep_provider_options = 'socket.ssl_reload=1'")
            .await?;
        Ok(())
    };
    tokio::time::timeout(2 * ANSWER, work)
        .await
        .context("the database here does not answer")?
}

/// Returns when they are gone, or hang in what they were doing.
async fn cut(connection: &mut Conn, is_orderly: bool) -> anyhow::Result<()> {
    let patience = FINISH.as_millis().div_ceil(LOOK.as_millis());
    for look in 0..LOOKS {
        let sessions: Vec<(u64, String)> = connection.query(SESSIONS).await?;
        if sessions.is_empty() {
            return Ok(());
        }
        for (id, command) in sessions {
            let may_finish = is_orderly && u128::from(look) < patience && command == "Query";
            if !may_finish && command != "Killed" {
                // It may have ended by itself.
                let _ = connection.query_drop(format!("KILL HARD CONNECTION {id}")).await;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
