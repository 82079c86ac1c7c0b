//! The files of the store, before the replica runs: made where there are none, refused where a part is missing.
//!
//! ```text
//! charter.json  what this replica was made as
//! state/        the state machine; its lock guards all of this
//! log/          the group's log
//! ```

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::Instant;

use super::charter::Charter;
use super::disk::Folder;
use super::log;
use super::replica::blocking;
use super::state::disk::SystemDisk;
use super::state::{self, Failure};
use crate::base::file::{self, Access};

/// How long to wait for an earlier process that is on its way out.
const IN_USE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

/// Makes the folders, and refuses a store of which a part is missing.
pub fn prepare(folder: &Path, witness: bool) -> io::Result<()> {
    // The state is made before the log. A witness has none.
    if !witness && folder.join("log/store").exists() && !folder.join("state/checkpoint").exists() {
        let why = "there is a log but no state; put back storage/state, or restore the storage from a backup";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    // Log and state hold the portal's passwords.
    for folder in [folder, &folder.join("state"), &folder.join("log")] {
        file::ensure_folder(folder, Access::mode(0o700))?;
    }
    Ok(())
}

/// Charters the replica in `folder` as the first of a new group, unless it has a charter. A store without one is not whole.
pub fn found(folder: &Path, owner: Option<(u32, u32)>) -> io::Result<Charter> {
    if let Some(charter) = Charter::load(folder)? {
        return Ok(charter);
    }
    refuse_uncharted(folder)?;
    let charter = Charter::found()?;
    file::ensure_folder(folder, Access { mode: 0o700, owner })?;
    charter.save_for(folder, owner)?;
    Ok(charter)
}

/// With a new charter all file handles that clients hold would be stale.
pub fn refuse_uncharted(folder: &Path) -> io::Result<()> {
    if folder.join("log/store").exists() || folder.join("state/checkpoint").exists() {
        let why = "there are files but no charter.json; put it back, or restore the storage from a backup";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(())
}

/// Opens the state, in whose place a received one may come; an earlier process may still be on its way out.
pub async fn state(folder: &Path) -> anyhow::Result<state::Machine> {
    let started = Instant::now();
    loop {
        let (place, log) = (folder.join("state"), Folder::new(folder.join("log")));
        let opened = blocking(move || {
            let purged = log::purged(&log)?.map(|id| id.index);
            let admitted = state::admit_incoming(&place, &SystemDisk, purged);
            Ok(admitted.and_then(|()| state::Machine::open(&place, Arc::new(SystemDisk))))
        });
        let opened = opened.await?;
        match opened {
            Err(Failure::InUse) if started.elapsed() < IN_USE => tokio::time::sleep(LOOK).await,
            opened => {
                let machine = opened.context("open the state")?;
                let is_whole = machine.applied().is_none() || folder.join("log/store").exists();
                ensure!(
                    is_whole,
                    "there is a state but no log; put back storage/log, or restore the storage from a backup"
                );
                return Ok(machine);
            }
        }
    }
}
