//! The files of the machine's folder, and how they are brought back to the last checkpoint.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::Failure;
use super::checkpoint::{Marker, Phase};
use super::disk::Disk;
use super::inode::{self, FIRST_COOKIE, Record};
use super::progress::Progress;
use super::schema::{self, stored};
use crate::storage::call::{Attributes, Inode, Kind, PORTAL, REGISTRY, Time};

/// The portal's root belongs to whom root gives it; PHP cannot reach the registry's, and others need not.
const PORTAL_MODE: u32 = 0o755;
const REGISTRY_MODE: u32 = 0o700;

pub struct Layout {
    pub folder: PathBuf,
    pub meta: PathBuf,
    pub data: PathBuf,
    pub tree: PathBuf,
    pub marker: PathBuf,
}

impl Layout {
    pub fn of(folder: &Path) -> Self {
        Layout {
            folder: folder.to_owned(),
            meta: folder.join("meta.db"),
            data: folder.join("data"),
            tree: folder.join("tree"),
            marker: folder.join("checkpoint"),
        }
    }

    pub fn wal(&self) -> PathBuf {
        self.folder.join("meta.db-wal")
    }

    pub fn shm(&self) -> PathBuf {
        self.folder.join("meta.db-shm")
    }

    /// Brings meta.db to the last checkpoint, or makes the first one.
    pub fn prepare(&self, disk: &dyn Disk) -> Result<Marker, Failure> {
        let Some(marker) = Marker::read(disk, &self.marker)? else {
            return self.create(disk);
        };
        // While settling it holds nothing that is not durable, and the main file may need it.
        if marker.phase != Phase::Settling {
            remove_if_there(&self.wal())?;
            remove_if_there(&self.shm())?;
        }
        if !self.meta.exists() {
            return Err(Failure::Damaged("meta.db is missing".into()));
        }
        Ok(marker)
    }

    /// Makes an empty state. A crash on the way leaves no marker and perhaps an empty meta.db, which is taken; one in which
    /// something was applied is never overwritten.
    fn create(&self, disk: &dyn Disk) -> Result<Marker, Failure> {
        if !self.meta.exists() {
            let new = self.folder.join("meta.db.new");
            remove_if_there(&new)?;
            make_tables(&new)?;
            fs::rename(&new, &self.meta)?;
            File::open(&self.folder)?.sync_all()?;
        }
        if Progress::load(&schema::writer(&self.meta)?)?.applied.is_some() {
            return Err(Failure::Damaged("the checkpoint file is missing".into()));
        }
        let marker = Marker {
            phase: Phase::Settled,
            index: None,
            is_mirror_broken: false,
        };
        marker.write(disk, &self.marker)?;
        Ok(marker)
    }
}

pub fn remove_if_there(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn make_tables(path: &Path) -> Result<(), Failure> {
    let mut rows = Connection::open(path)?;
    let transaction = rows.transaction()?;
    transaction.execute_batch(schema::TABLES)?;
    transaction.execute(
        "INSERT INTO machine (id, version, applied, highest_inode, note) VALUES (1, ?1, NULL, ?2, x'')",
        params![schema::VERSION, stored(REGISTRY.0)],
    )?;
    inode::save(&transaction, &root(PORTAL, PORTAL_MODE))?;
    inode::save(&transaction, &root(REGISTRY, REGISTRY_MODE))?;
    Ok(transaction.commit()?)
}

/// Equal on every replica: no clock, no account of this machine.
fn root(inode: Inode, mode: u32) -> Record {
    Record {
        attributes: Attributes {
            inode,
            generation: 1,
            kind: Kind::Folder,
            mode,
            links: 2,
            uid: 0,
            gid: 0,
            size: 0,
            used: 0,
            device: (0, 0),
            accessed: Time::default(),
            modified: Time::default(),
            changed: Time::default(),
        },
        tree: inode,
        place: None,
        entries: 0,
        next_cookie: FIRST_COOKIE,
        verifier: None,
        target: None,
        content_index: 0,
    }
}
