//! The metadata database: tables, and how its connections are opened.
//!
//! The main file is always the state of the last checkpoint and the write-ahead log is everything since. So SQLite must never
//! carry the log over by itself: no automatic checkpoint, none at close.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::Failure;

/// Raised with every change of the tables; an unknown one is refused.
pub const VERSION: i64 = 4;

/// Page caches: the writer touches the folders and inodes of a batch again and again; a reader is a few look-ups.
const WRITER_CACHE_KIB: i64 = 16 * 1024;
const READER_CACHE_KIB: i64 = 2 * 1024;
/// Statements kept prepared; about forty exist.
const STATEMENTS: usize = 64;
/// Only for the moments in which SQLite guards its shared index: nobody holds the file for long.
const BUSY: Duration = Duration::from_secs(10);

/// Numbers of 64 bits lie as i64 with the same bits. `machine` has one row; `inode` says what a record is; names lie in the
/// order in which they are listed; two sessions of `opened` are none (`sessions::GRACE_NEW`).
pub const TABLES: &str = "
CREATE TABLE machine (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL,
    applied INTEGER,
    highest_inode INTEGER NOT NULL,
    note BLOB NOT NULL
);
CREATE TABLE inode (
    id INTEGER PRIMARY KEY,
    record BLOB NOT NULL
);
CREATE TABLE entry (
    folder INTEGER NOT NULL,
    cookie INTEGER NOT NULL,
    name BLOB NOT NULL,
    inode INTEGER NOT NULL,
    PRIMARY KEY (folder, cookie)
) WITHOUT ROWID;
CREATE UNIQUE INDEX entry_by_name ON entry (folder, name);
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    place TEXT NOT NULL UNIQUE,
    adopts INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL,
    forgotten INTEGER NOT NULL
);
CREATE TABLE reply (
    session INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    client INTEGER,
    xid INTEGER,
    checksum INTEGER,
    reply BLOB NOT NULL,
    PRIMARY KEY (session, sequence)
) WITHOUT ROWID;
CREATE INDEX reply_by_request ON reply (client, xid) WHERE client IS NOT NULL;
CREATE TABLE opened (
    inode INTEGER NOT NULL,
    session INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (inode, session)
) WITHOUT ROWID;
CREATE INDEX opened_by_session ON opened (session);
CREATE TABLE lock (
    inode INTEGER NOT NULL,
    family INTEGER NOT NULL,
    session INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    is_exclusive INTEGER NOT NULL,
    start INTEGER NOT NULL,
    end INTEGER NOT NULL,
    pid INTEGER NOT NULL
);
CREATE INDEX lock_by_inode ON lock (inode, family);
CREATE INDEX lock_by_session ON lock (session);
";

/// The connection that changes things.
pub fn writer(path: &Path) -> Result<Connection, Failure> {
    let rows = Connection::open(path)?;
    configure(&rows, WRITER_CACHE_KIB)?;
    rows.pragma_update(None, "journal_mode", "WAL")?;
    Ok(rows)
}

/// A connection that only looks. The file is there and in WAL mode.
pub fn reader(path: &Path) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let rows = Connection::open_with_flags(path, flags)?;
    configure(&rows, READER_CACHE_KIB)?;
    Ok(rows)
}

fn configure(rows: &Connection, cache_kib: i64) -> Result<(), Failure> {
    rows.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // A prepared statement stays as it is whatever is bound; else some are compiled at each use.
    rows.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    rows.set_prepared_statement_cache_capacity(STATEMENTS);
    rows.busy_timeout(BUSY)?;
    rows.pragma_update(None, "cache_size", -cache_kib)?;
    rows.pragma_update(None, "synchronous", "NORMAL")?;
    rows.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(())
}

/// A u64 as SQLite keeps it.
pub fn stored(number: u64) -> i64 {
    number.cast_signed()
}

/// A u64 back from SQLite.
pub fn loaded(number: i64) -> u64 {
    number.cast_unsigned()
}
