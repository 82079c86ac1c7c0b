//! Reads what `inspect` judges from the server here, and mends what it found. Root's, by the socket.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::super::root::connect;
use super::{Database, Facts, Finding, Table};

/// A portal has a thousand tables; a cold disk takes its time for them.
const LOOK: Duration = Duration::from_secs(300);
/// A large table is written anew.
const CHANGE: Duration = Duration::from_secs(24 * 3600);

/// The server's own, which it keeps as it wants.
const OTHERS: &str = "NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys')";

/// A connection to the server here.
pub struct Look {
    connection: Conn,
}

impl Look {
    pub async fn open(socket: &Path) -> anyhow::Result<Self> {
        let connected = tokio::time::timeout(LOOK, connect(socket)).await;
        let connection = connected.context("MariaDB does not answer")??;
        Ok(Look { connection })
    }

    pub async fn facts(&mut self) -> anyhow::Result<Facts> {
        let connection = &mut self.connection;
        let work = async {
            anyhow::Ok(Facts {
                databases: databases(connection).await.context("read the databases")?,
                tables: tables(connection).await.context("read the tables")?,
                settings: settings(connection).await.context("read the settings")?,
            })
        };
        tokio::time::timeout(LOOK, work)
            .await
            .context("MariaDB does not answer")?
    }

    /// Fails where this server is one of several and not the one that is written to.
    pub async fn may_mend(&mut self) -> anyhow::Result<()> {
        let is_shut: Option<bool> = self.connection.query_first("SELECT @@GLOBAL.read_only").await?;
        ensure!(
            is_shut == Some(false),
            "the database here is not the one that is written to; `bitrix-node db status` says which is"
        );
        Ok(())
    }

    /// Carries one statement out. Not cancel safe: whether it happened stays open.
    pub async fn mend(&mut self, finding: &Finding) -> anyhow::Result<()> {
        let done = tokio::time::timeout(CHANGE, self.connection.query_drop(&finding.statement)).await;
        done.context("MariaDB does not answer")?.map_err(Into::into)
    }
}

async fn databases(connection: &mut Conn) -> mysql_async::Result<Vec<Database>> {
    let query = format!(
        "SELECT SCHEMA_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME {OTHERS} ORDER BY 1"
    );
    let row = |(name, collation)| Database { name, collation };
    connection.query_map(query, row).await
}

async fn tables(connection: &mut Conn) -> mysql_async::Result<Vec<Table>> {
    // Views and sequences are none; a table whose engine is not there has no name for it.
    let query = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, IFNULL(ENGINE, 'unknown'), IFNULL(TABLE_COLLATION, '') FROM information_schema.TABLES
         WHERE TABLE_TYPE = 'BASE TABLE' AND TABLE_SCHEMA {OTHERS} ORDER BY 1, 2"
    );
    let row = |(database, name, engine, collation)| Table {
        database,
        name,
        engine,
        collation,
        ..Table::default()
    };
    let mut tables = connection.query_map(query, row).await?;
    let query = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, NULLABLE = 'YES' OR SUB_PART IS NOT NULL
         FROM information_schema.STATISTICS WHERE NON_UNIQUE = 0 AND TABLE_SCHEMA {OTHERS} ORDER BY 1, 2, 3, SEQ_IN_INDEX"
    );
    let parts: Vec<Part> = connection.query(query).await?;
    let query = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMNS
         WHERE EXTRA LIKE '%auto_increment%' AND TABLE_SCHEMA {OTHERS}"
    );
    let counters: Vec<(String, String, String)> = connection.query(query).await?;
    for table in &mut tables {
        let is_its = |database: &str, name: &str| table.database == database && table.name == name;
        let own: Vec<&Part> = parts.iter().filter(|part| is_its(&part.0, &part.1)).collect();
        let counter = counters.iter().find(|(database, name, _)| is_its(database, name));
        table.counter = counter.map(|(_, _, column)| column.clone());
        table.has_primary = own.iter().any(|part| part.2 == "PRIMARY");
        table.unique = unique(&own);
    }
    Ok(tables)
}

/// Database, table, index, column, and whether the column is not enough: it may be null, or only its beginning counts.
type Part = (String, String, String, String, bool);

/// The shortest index that tells all rows apart.
fn unique(parts: &[&Part]) -> Vec<String> {
    let mut indexes: Vec<(&str, Vec<String>, bool)> = Vec::new();
    for (_, _, index, column, is_weak) in parts {
        match indexes.last_mut().filter(|(name, ..)| name == index) {
            Some((_, columns, weak)) => {
                columns.push(column.clone());
                *weak |= is_weak;
            }
            None => indexes.push((index, vec![column.clone()], *is_weak)),
        }
    }
    let whole = indexes.into_iter().filter(|(_, _, is_weak)| !is_weak);
    let shortest = whole.min_by_key(|(_, columns, _)| columns.len());
    shortest.map(|(_, columns, _)| columns).unwrap_or_default()
}

async fn settings(connection: &mut Conn) -> mysql_async::Result<Vec<(String, String)>> {
    let query = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('sql_mode', 'innodb_strict_mode', 'tx_isolation', 'character_set_server')";
    connection.query(query).await
}
