//! Whether what is in a database can live in a Galera cluster, and is as the portal wants it: each fault with the statement that mends
//! it. `judge` finds them, pure; `look` reads what it needs, and mends.
//!
//! Galera replicates InnoDB alone: rows of other engines are on one node only, without a word. Rows without a primary key have no name
//! on the other nodes. A mixture of collations makes the portal's joins fail or miss their indexes.

mod judge;
pub mod look;

use serde::Serialize;

pub use judge::inspect;

/// Of `information_schema`, without the server's own databases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub databases: Vec<Database>,
    pub tables: Vec<Table>,
    /// Global settings of the server, by name.
    pub settings: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    pub name: String,
    pub collation: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub database: String,
    pub name: String,
    pub engine: String,
    pub collation: String,
    pub has_primary: bool,
    /// Columns of an index that tells rows apart as well as a primary key: unique, and never null.
    pub unique: Vec<String>,
    /// The column that counts by itself: a table has one at most.
    pub counter: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The table, the database, or the setting.
    pub object: String,
    pub fault: String,
    pub statement: String,
    /// No row and no text changes by it. The others are for whoever knows the data.
    pub is_safe: bool,
}
