//! Transfers between two machines over a pipe: what is sent and what is linked, writes that go on, cuts, crashes at every
//! effect. A replica must always end equal to the log.

mod crash;
mod group;
mod reuse;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use super::{Counts, Holds, Local, Progress, receive, send};
use crate::base::Scope;
use crate::storage::replica::blocking;
use crate::storage::state::disk::{Disk, SystemDisk};
use crate::storage::state::tests::random::Script;
use crate::storage::state::tests::world::{assert_same_files, assert_same_state, temporary};
use crate::storage::state::{Failure, Incoming, Machine, Shared, admit_incoming};
use crate::storage::types::Checkpoint;

/// A machine that follows a script, and what outlives its process.
struct Replica {
    folder: TempDir,
    disk: Arc<dyn Disk>,
    machine: Option<Shared>,
}

impl Replica {
    fn new(disk: Arc<dyn Disk>) -> Self {
        let mut replica = Replica {
            folder: temporary(),
            disk,
            machine: None,
        };
        replica.open(None).unwrap();
        replica
    }

    fn real() -> Self {
        Replica::new(Arc::new(SystemDisk))
    }

    /// As a start does; `purged` is what the log lacks.
    fn open(&mut self, purged: Option<u64>) -> Result<(), Failure> {
        self.machine = None;
        admit_incoming(self.folder.path(), self.disk.as_ref(), purged)?;
        let machine = Machine::open(self.folder.path(), self.disk.clone())?;
        self.machine = Some(Shared::new(machine));
        Ok(())
    }

    fn machine(&self) -> &Shared {
        self.machine.as_ref().unwrap()
    }

    /// Applies the entries that it has not before `end`.
    fn follow(&self, script: &Script, end: usize) -> Result<(), Failure> {
        let machine = self.machine().get();
        let first = machine.applied().map_or(0, |applied| applied as usize + 1);
        for at in first..end {
            machine.apply(at as u64, &script.entries[at])?;
        }
        Ok(())
    }

    fn assert_done(&self, script: &Script) {
        assert_same_state(&self.machine().get(), &mut script.model(), script.highest);
        assert_same_files(self.disk.as_ref(), self.folder.path(), &script.model());
    }

    fn place(&self) -> Checkpoint {
        let folder = Incoming::of(self.folder.path()).folder;
        Checkpoint { folder }
    }

    fn local(&self, leftover: Option<PathBuf>) -> Local {
        Local {
            machine: self.machine().clone(),
            disk: self.disk.clone(),
            leftover,
        }
    }
}

/// Sends the state of one machine to the other and installs it there. `called` learns when Raft would have been asked.
async fn transfer(
    source: &Shared,
    target: &Replica,
    leftover: Option<PathBuf>,
    called: impl FnOnce() + Send + 'static,
) -> (std::io::Result<Bytes>, Counts) {
    let (one, other) = tokio::io::duplex(64 * 1024);
    let (progress, scope) = (Arc::new(Progress::default()), Scope::new());
    let machine = target.machine().clone();
    let install = |header: Bytes, _place| async move {
        assert_eq!(header, "header");
        called();
        match blocking(move || Ok(machine.install())).await {
            Ok(Ok(())) => Bytes::from_static(b"installed"),
            other => Bytes::from(format!("{other:?}")),
        }
    };
    let receiving = receive(
        one,
        target.place(),
        target.local(leftover),
        &scope,
        progress.clone(),
        install,
    );
    let sent = Arc::new(Progress::default());
    let header = Bytes::from_static(b"header");
    let holds = Holds::default();
    let sending = send(other, header, source, &holds, &sent);
    let (received, sent) = tokio::join!(receiving, sending);
    assert_eq!(holds.floor(), None);
    let answer = received.and(sent);
    (answer, progress.counts())
}
