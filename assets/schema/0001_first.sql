-- The first tables of the registry. Numbers of 64 bits lie as INTEGER with the same bits; times are milliseconds since 1970, for people.

-- "BXNR": tells what the file is. user_version holds the image's checksum.
PRAGMA application_id = 1113083474;

-- One row. lineage: random, made with version 1; floor: versions below it may be removed.
CREATE TABLE registry (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    schema INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    floor INTEGER NOT NULL,
    lineage INTEGER NOT NULL
);
CREATE TABLE cluster (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    name TEXT NOT NULL,
    certificate TEXT NOT NULL
);
CREATE TABLE node (
    name TEXT PRIMARY KEY,
    address TEXT NOT NULL,
    state TEXT NOT NULL,
    labels TEXT NOT NULL,
    version TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE role (
    role TEXT NOT NULL,
    seat TEXT NOT NULL,
    holder TEXT,
    epoch INTEGER NOT NULL,
    PRIMARY KEY (role, seat)
) WITHOUT ROWID;
CREATE TABLE token (
    id TEXT PRIMARY KEY,
    hash BLOB NOT NULL,
    expires INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE setting (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
-- Rings: the oldest rows go.
CREATE TABLE event (
    number INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL,
    time INTEGER NOT NULL,
    node TEXT NOT NULL,
    text TEXT NOT NULL
);
CREATE TABLE history (
    revision INTEGER PRIMARY KEY,
    attempt INTEGER NOT NULL,
    time INTEGER NOT NULL,
    author TEXT NOT NULL,
    summary TEXT NOT NULL
);
