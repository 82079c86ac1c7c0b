//! A version of the registry as a SQLite database in memory: read it, or make the next one out of it in one transaction.
//! Blocking work of milliseconds: not for a thread that serves.

use std::collections::BTreeMap;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::change::{Change, Key, Write};
use super::record::{Cluster, Node, NodeState, Record, Role, Setting, Token, invalid};
use super::view::{Commit, Event, Stamp, View};
use super::{Error, schema, seal};

/// Beyond this a commit is refused. Much more and every commit costs a noticeable time on every node.
pub const IMAGE_MAX: usize = 1 << 20;

/// Reads an image. It must be whole and of a schema that is known.
pub fn view(image: &[u8]) -> Result<View, Error> {
    load(&open(image)?)
}

/// The next version's image, and what it reads as. `base`: the image of `view`, none for the first version.
pub fn next(base: Option<&[u8]>, view: &View, change: &Change, stamp: &Stamp) -> Result<(Bytes, View), Error> {
    let wanted = view.apply(change, stamp)?;
    let mut rows = match base {
        Some(image) => open(image)?,
        None => Connection::open_in_memory()?,
    };
    // What was removed, tokens say, shall not lie on in free pages.
    rows.pragma_update(None, "secure_delete", true)?;
    let transaction = rows.transaction()?;
    migrate(&transaction)?;
    for write in &change.writes {
        match write {
            Write::Put(record) => put(&transaction, record)?,
            Write::Remove(key) => remove(&transaction, key)?,
            // With the rings, below.
            Write::Event(_) => {}
        }
    }
    account(&transaction, &wanted)?;
    transaction.commit()?;
    let mut image = rows.serialize("main")?.to_vec();
    seal::seal(&mut image);
    if image.len() > IMAGE_MAX {
        return Err(invalid(format!(
            "the registry would have {} bytes; at most {IMAGE_MAX}",
            image.len()
        )));
    }
    // Nobody publishes what does not read back as it was meant.
    let made = self::view(&image)?;
    match made == wanted {
        true => Ok((image.into(), made)),
        false => Err(Error::Damaged(format!(
            "version {} does not read back",
            wanted.revision
        ))),
    }
}

fn open(image: &[u8]) -> Result<Connection, Error> {
    if !seal::is_sealed(image) {
        return Err(Error::Damaged("its checksum is wrong".into()));
    }
    let mut rows = Connection::open_in_memory()?;
    rows.deserialize_read_exact("main", image, image.len(), false)?;
    let found: u32 = rows.query_row("SELECT schema FROM registry", [], |row| row.get(0))?;
    match schema::wanted(found) {
        Some(_) => Ok(rows),
        None => Err(Error::Newer {
            found,
            known: schema::VERSION,
        }),
    }
}

/// Brings the tables up to this program's schema.
fn migrate(rows: &Connection) -> Result<(), Error> {
    let has_tables: bool = rows.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'registry')",
        [],
        |row| row.get(0),
    )?;
    let version = match has_tables {
        true => rows.query_row("SELECT schema FROM registry", [], |row| row.get(0))?,
        false => 0,
    };
    for migration in schema::wanted(version).unwrap_or_default() {
        rows.execute_batch(migration)?;
    }
    Ok(())
}

fn put(rows: &Connection, record: &Record) -> Result<(), Error> {
    match record {
        Record::Cluster(cluster) => rows.execute(
            "INSERT OR REPLACE INTO cluster (id, name, certificate) VALUES (1, ?1, ?2)",
            params![cluster.name, cluster.certificate],
        ),
        Record::Node(node) => rows.execute(
            "INSERT OR REPLACE INTO node (name, address, state, labels, version) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                node.name,
                node.address,
                node.state.name(),
                serde_json::to_string(&node.labels).expect("texts alone"),
                node.version
            ],
        ),
        Record::Role(role) => rows.execute(
            "INSERT OR REPLACE INTO role (role, seat, holder, epoch) VALUES (?1, ?2, ?3, ?4)",
            params![role.role, role.seat, role.holder, role.epoch.cast_signed()],
        ),
        Record::Token(token) => rows.execute(
            "INSERT OR REPLACE INTO token (id, hash, expires) VALUES (?1, ?2, ?3)",
            params![token.id, token.hash, token.expires.cast_signed()],
        ),
        Record::Setting(setting) => rows.execute(
            "INSERT OR REPLACE INTO setting (key, value) VALUES (?1, ?2)",
            params![setting.key, setting.value],
        ),
    }?;
    Ok(())
}

fn remove(rows: &Connection, key: &Key) -> Result<(), Error> {
    match key {
        Key::Cluster => rows.execute("DELETE FROM cluster", []),
        Key::Node(name) => rows.execute("DELETE FROM node WHERE name = ?1", [name]),
        Key::Role(role, seat) => rows.execute("DELETE FROM role WHERE role = ?1 AND seat = ?2", [role, seat]),
        Key::Token(id) => rows.execute("DELETE FROM token WHERE id = ?1", [id]),
        Key::Setting(key) => rows.execute("DELETE FROM setting WHERE key = ?1", [key]),
    }?;
    Ok(())
}

/// The registry's own row and the rings, as `view` has them.
fn account(rows: &Connection, view: &View) -> Result<(), Error> {
    rows.execute(
        "INSERT OR REPLACE INTO registry (id, schema, revision, floor, lineage) VALUES (1, ?1, ?2, ?3, ?4)",
        params![
            schema::VERSION,
            view.revision.cast_signed(),
            view.floor.cast_signed(),
            view.lineage.cast_signed()
        ],
    )?;
    for event in view.events.iter().filter(|event| event.revision == view.revision) {
        rows.execute(
            "INSERT INTO event (number, revision, time, node, text) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                event.number.cast_signed(),
                event.revision.cast_signed(),
                event.time.cast_signed(),
                event.node,
                event.text
            ],
        )?;
    }
    for commit in view.history.iter().filter(|commit| commit.revision == view.revision) {
        rows.execute(
            "INSERT INTO history (revision, attempt, time, author, summary) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                commit.revision.cast_signed(),
                commit.attempt.cast_signed(),
                commit.time.cast_signed(),
                commit.author,
                commit.summary
            ],
        )?;
    }
    let first_event = view.events.first().map_or(0, |event| event.number);
    let first_commit = view.history.first().map_or(0, |commit| commit.revision);
    rows.execute("DELETE FROM event WHERE number < ?1", [first_event.cast_signed()])?;
    rows.execute("DELETE FROM history WHERE revision < ?1", [first_commit.cast_signed()])?;
    Ok(())
}

fn load(rows: &Connection) -> Result<View, Error> {
    let mut view = View::from_records(records(rows)?);
    let row = rows.query_row(
        "SELECT revision, floor, lineage FROM registry WHERE id = 1",
        [],
        |row| Ok((number(row, 0)?, number(row, 1)?, number(row, 2)?)),
    );
    (view.revision, view.floor, view.lineage) = row?;
    let events = "SELECT number, revision, time, node, text FROM event ORDER BY number";
    view.events = all(rows, events, |row| {
        Ok(Event {
            number: number(row, 0)?,
            revision: number(row, 1)?,
            time: number(row, 2)?,
            node: row.get(3)?,
            text: row.get(4)?,
        })
    })?;
    let history = "SELECT revision, attempt, time, author, summary FROM history ORDER BY revision";
    view.history = all(rows, history, |row| {
        Ok(Commit {
            revision: number(row, 0)?,
            attempt: number(row, 1)?,
            time: number(row, 2)?,
            author: row.get(3)?,
            summary: row.get(4)?,
        })
    })?;
    Ok(view)
}

fn records(rows: &Connection) -> Result<Vec<Record>, Error> {
    let cluster = rows.query_row("SELECT name, certificate FROM cluster", [], |row| {
        Ok(Cluster {
            name: row.get(0)?,
            certificate: row.get(1)?,
        })
    });
    let mut records: Vec<Record> = cluster.optional()?.map(Record::Cluster).into_iter().collect();
    records.extend(nodes(rows)?.into_iter().map(Record::Node));
    let roles = all(rows, "SELECT role, seat, holder, epoch FROM role", |row| {
        Ok(Role {
            role: row.get(0)?,
            seat: row.get(1)?,
            holder: row.get(2)?,
            epoch: number(row, 3)?,
        })
    })?;
    records.extend(roles.into_iter().map(Record::Role));
    let tokens = all(rows, "SELECT id, hash, expires FROM token", |row| {
        Ok(Token {
            id: row.get(0)?,
            hash: row.get(1)?,
            expires: number(row, 2)?,
        })
    })?;
    records.extend(tokens.into_iter().map(Record::Token));
    let settings = all(rows, "SELECT key, value FROM setting", |row| {
        Ok(Setting {
            key: row.get(0)?,
            value: row.get(1)?,
        })
    })?;
    records.extend(settings.into_iter().map(Record::Setting));
    Ok(records)
}

fn nodes(rows: &Connection) -> Result<Vec<Node>, Error> {
    let found = all(rows, "SELECT name, address, state, labels, version FROM node", |row| {
        let text = |at: usize| row.get::<_, String>(at);
        Ok((text(0)?, text(1)?, text(2)?, text(3)?, text(4)?))
    })?;
    let nodes = found.into_iter().map(|(name, address, state, labels, version)| {
        let unreadable = |what: &str| Error::Damaged(format!("node {name} has unreadable {what}"));
        let state = NodeState::parse(&state).ok_or_else(|| unreadable("state"))?;
        let labels: BTreeMap<String, String> = serde_json::from_str(&labels).map_err(|_| unreadable("labels"))?;
        Ok(Node {
            name,
            address,
            state,
            labels,
            version,
        })
    });
    nodes.collect()
}

fn all<T>(rows: &Connection, sql: &str, read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>, Error> {
    let mut statement = rows.prepare(sql)?;
    let found = statement.query_map([], read)?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn number(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(at).map(i64::cast_unsigned)
}

/// In memory nothing fails but for what the image says.
impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Error::Damaged(error.to_string())
    }
}

/// The image with another schema number, well sealed: what a newer bitrix-node would leave. For tests of those who must refuse it.
pub fn resealed_with_schema(image: &[u8], version: u32) -> Result<Vec<u8>, Error> {
    let mut rows = open(image)?;
    rows.execute("UPDATE registry SET schema = ?1", [version])?;
    let mut image = rows.serialize("main")?.to_vec();
    seal::seal(&mut image);
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(attempt: u64) -> Stamp {
        Stamp {
            author: "n1".into(),
            time: 5,
            attempt,
            kept: 50,
        }
    }

    fn token() -> Record {
        Record::Token(Token {
            id: "t1".into(),
            hash: *b"0123456789abcdefghijklmnopqrstuv",
            expires: u64::MAX,
        })
    }

    fn first() -> (Bytes, View) {
        next(None, &View::default(), &Change::put(token()), &stamp(1)).unwrap()
    }

    #[test]
    fn sqlite_opens_a_version_as_it_lies() {
        let (image, view) = first();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v1");
        std::fs::write(&path, &image).unwrap();
        let rows = Connection::open(&path).unwrap();
        let check: String = rows.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        let id: String = rows.query_row("SELECT id FROM token", [], |row| row.get(0)).unwrap();
        assert_eq!((check.as_str(), id.as_str(), view.revision), ("ok", "t1", 1));
        assert_eq!(image.get(68..72), Some(&b"BXNR"[..]));
    }

    #[test]
    fn damage_and_edits_in_place_are_refused() {
        let (image, _) = first();
        assert!(matches!(view(&[]), Err(Error::Damaged(_))));
        assert!(matches!(view(&image[..image.len() / 2]), Err(Error::Damaged(_))));
        let mut changed = image.to_vec();
        changed[5000] ^= 1;
        assert!(matches!(view(&changed), Err(Error::Damaged(_))));
        // Well sealed, but no database.
        let mut noise = vec![7; 8192];
        seal::seal(&mut noise);
        assert!(matches!(view(&noise), Err(Error::Damaged(_))));
    }

    #[test]
    fn a_newer_schema_is_refused_with_a_remedy() {
        let newer = resealed_with_schema(&first().0, schema::VERSION + 1).unwrap();
        let error = view(&newer).unwrap_err();
        assert!(matches!(error, Error::Newer { .. }));
        assert!(error.to_string().contains("update bitrix-node"), "{error}");
    }

    #[test]
    fn nothing_of_a_removed_token_stays_in_the_image() {
        let (image, view) = first();
        let contains = |image: &[u8]| {
            image
                .windows(32)
                .any(|bytes| bytes == b"0123456789abcdefghijklmnopqrstuv")
        };
        assert!(contains(&image));
        let remove = Change::default().and(Write::Remove(token().key()));
        let (image, _) = next(Some(&image), &view, &remove, &stamp(2)).unwrap();
        assert!(!contains(&image));
    }

    #[test]
    fn a_registry_that_grows_too_large_is_refused() {
        let setting = |number: u32| {
            Write::Put(Record::Setting(Setting {
                key: format!("k{number}"),
                value: "x".repeat(16 << 10),
            }))
        };
        let change = (0..70).fold(Change::default(), |change, number| change.and(setting(number)));
        let result = next(None, &View::default(), &change, &stamp(1));
        assert!(matches!(result, Err(Error::Invalid(_))), "{result:?}");
    }
}
