//! Where the machine stands: the row of the table `machine`.

use rusqlite::{Connection, params};

use super::schema::{self, loaded, stored};
use super::{Entry, Failure};
use crate::storage::operation::Operation;

#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub applied: Option<u64>,
    /// Index of the last checkpoint; not a column.
    pub durable: Option<u64>,
    pub highest_inode: u64,
    pub note: Vec<u8>,
}

impl Progress {
    pub fn load(rows: &Connection) -> Result<Progress, Failure> {
        let (version, progress) = rows.query_row(
            "SELECT version, applied, highest_inode, note FROM machine WHERE id = 1",
            [],
            |row| {
                let progress = Progress {
                    applied: row.get::<_, Option<i64>>(1)?.map(loaded),
                    durable: None,
                    highest_inode: loaded(row.get(2)?),
                    note: row.get(3)?,
                };
                Ok((row.get::<_, i64>(0)?, progress))
            },
        )?;
        if version != schema::VERSION {
            return Err(Failure::Damaged(format!("meta.db has the unknown version {version}")));
        }
        Ok(progress)
    }

    pub fn save(&self, rows: &Connection) -> Result<(), Failure> {
        rows.prepare_cached("UPDATE machine SET applied = ?1, highest_inode = ?2, note = ?3 WHERE id = 1")?
            .execute(params![self.applied.map(stored), stored(self.highest_inode), self.note])?;
        Ok(())
    }

    /// After this entry.
    pub fn advance(&mut self, entry: &Entry<'_>) -> Result<(), Failure> {
        if self.applied.is_some_and(|applied| entry.index <= applied) {
            return Err(Failure::Order {
                given: entry.index,
                applied: self.applied,
            });
        }
        self.applied = Some(entry.index);
        if let Some(note) = entry.note {
            self.note = note.to_vec();
        }
        for operation in entry.operations {
            if let Operation::Mutate { fresh, .. } = operation {
                self.highest_inode = self.highest_inode.max(fresh.0);
            }
        }
        Ok(())
    }
}
