//! The transaction of a batch. As rusqlite's own, but its statements stay prepared: a batch may be one small change.

use rusqlite::Connection;

use super::Failure;

/// Rolled back unless committed.
pub struct Batch<'a> {
    rows: &'a Connection,
    is_open: bool,
}

impl<'a> Batch<'a> {
    pub fn begin(rows: &'a Connection) -> Result<Self, Failure> {
        run(rows, "BEGIN IMMEDIATE")?;
        Ok(Batch { rows, is_open: true })
    }

    pub fn commit(mut self) -> Result<(), Failure> {
        run(self.rows, "COMMIT")?;
        self.is_open = false;
        Ok(())
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        // SQLite may have rolled back by itself.
        if self.is_open
            && !self.rows.is_autocommit()
            && let Err(failure) = run(self.rows, "ROLLBACK")
        {
            tracing::error!(%failure, "a transaction could not be rolled back");
        }
    }
}

fn run(rows: &Connection, sql: &str) -> Result<(), Failure> {
    rows.prepare_cached(sql)?.execute([])?;
    Ok(())
}
