//! The tables of a schema: how many rows they have, and whether the server can read them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::{connect, quoted};

/// Larger tables are not counted: it takes a second for some million rows, and disturbs the portal.
const COUNTED: u64 = 2_000_000;

/// Rows of each table; `None`: too many to be counted.
pub type Counts = BTreeMap<String, Option<u64>>;

pub async fn count(socket: &Path, schema: &str) -> anyhow::Result<Counts> {
    let mut connection = connect(socket).await?;
    let mut counts = Counts::new();
    for (table, about) in list(&mut connection, schema).await? {
        let rows = match about.unwrap_or_default() <= COUNTED {
            true => rows(&mut connection, schema, &table).await?,
            false => None,
        };
        counts.insert(table, rows);
    }
    connection.disconnect().await?;
    Ok(counts)
}

async fn list(connection: &mut Conn, schema: &str) -> anyhow::Result<Vec<(String, Option<u64>)>> {
    let found = connection.exec(
        "SELECT TABLE_NAME, TABLE_ROWS FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_TYPE = 'BASE TABLE'",
        (schema,),
    );
    found.await.with_context(|| format!("list the tables of {schema}"))
}

/// `None`: it was removed meanwhile.
async fn rows(connection: &mut Conn, schema: &str, table: &str) -> anyhow::Result<Option<u64>> {
    /// ER_NO_SUCH_TABLE.
    const GONE: u16 = 1146;
    let counted = connection.query_first(format!("SELECT COUNT(*) FROM {}.{}", quoted(schema), quoted(table)));
    match counted.await {
        Err(mysql_async::Error::Server(error)) if error.code == GONE => Ok(None),
        counted => counted.with_context(|| format!("count the rows of {table}")),
    }
}

/// What the server says of each of these tables that is not in order.
pub async fn check(socket: &Path, schema: &str, tables: impl Iterator<Item = &String>) -> anyhow::Result<Vec<String>> {
    let mut connection = connect(socket).await?;
    let mut faults = Vec::new();
    for table in tables {
        let rows: Vec<(String, String, String, String)> = connection
            .query(format!("CHECK TABLE {}.{}", quoted(schema), quoted(table)))
            .await
            .with_context(|| format!("check {table}"))?;
        let said = rows
            .into_iter()
            .filter(|(_, _, kind, text)| kind != "note" && text != "OK");
        faults.extend(said.map(|(table, _, kind, text)| format!("{table}: {kind}: {text}")));
    }
    connection.disconnect().await?;
    Ok(faults)
}
