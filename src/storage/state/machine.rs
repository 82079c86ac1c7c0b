//! The machine: opening it, applying entries, checkpoints and snapshots. Every call blocks; async callers use `spawn_blocking`.
//!
//! One writer at a time. Queries run beside it on connections of their own.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use rusqlite::Connection;

use super::apply::{Effects, execute};
use super::checkpoint::{Marker, Phase};
use super::contents::Contents;
use super::disk::{Disk, FileSystem};
use super::install;
use super::layout::Layout;
use super::progress::Progress;
use super::recall::{Recall, Traces};
use super::transaction::Batch;
use super::tree::Tree;
use super::{Failure, HELD, schema, sessions};
use crate::base::file;
use crate::storage::call::{Error, Inode, Reply};
use crate::storage::operation::{Operation, Session};

/// Read connections kept for the next query; more are opened and closed as needed.
const READERS_KEPT: usize = 4;
/// SQLite's log at which a checkpoint is wanted: 16 000 pages, which a reader's index takes without pain.
const WAL_WANTED: u64 = 64 << 20;
/// At this size the machine makes the checkpoint itself, while the next entry waits: the disk must not fill up.
const WAL_LIMIT: u64 = 256 << 20;

/// One entry of the log.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Greater than that of the entry before.
    pub index: u64,
    pub operations: &'a [Operation],
    /// What the owner wants to find again with the applied index (Raft's log id and membership); `None` leaves it.
    pub note: Option<&'a [u8]>,
}

/// Entries that were applied.
pub struct Done {
    /// To all their operations, in order.
    pub answers: Vec<Result<Reply, Error>>,
    /// What differs.
    pub touched: Traces,
}

struct Writer {
    rows: Connection,
    tree: Tree,
    /// Inodes that are gone and whose contents are still to be removed.
    freed: Vec<Inode>,
    /// A checkpoint was begun and has not come to its end: nothing may be applied.
    is_unsettled: bool,
}

/// The state of one replica.
pub struct Machine {
    pub(super) folder: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    /// Held open since before anything was written. May be locked by who holds `writer`, never the other way round.
    file_system: Mutex<Box<dyn FileSystem>>,
    pub(super) contents: Arc<Contents>,
    writer: Mutex<Writer>,
    readers: Mutex<Vec<Connection>>,
    pub(super) recall: Recall,
    /// Held by each query, and exclusively while SQLite's log is carried over, which no reader may look at then.
    /// Who holds it waits neither for `writer` nor for a turn of the contents.
    gate: RwLock<()>,
    progress: Mutex<Progress>,
    /// Inodes whose content a failed entry has changed, and the index up to which it is to be applied again.
    torn: Mutex<BTreeMap<Inode, u64>>,
    is_stopped: AtomicBool,
    /// As it was opened.
    was_closed: bool,
    /// Gone once another machine has its place.
    in_use: Mutex<Option<File>>,
}

impl Machine {
    /// Opens the state in `folder`, or makes an empty one with the two roots. It stands at the last checkpoint then. A received
    /// state that was accepted takes its place first.
    pub fn open(folder: &Path, disk: Arc<dyn Disk>) -> Result<Machine, Failure> {
        let in_use = lock(folder)?;
        Machine::open_locked(folder, disk, in_use)
    }

    pub(super) fn open_locked(folder: &Path, disk: Arc<dyn Disk>, in_use: File) -> Result<Machine, Failure> {
        let file_system = Mutex::new(disk.file_system(folder)?);
        install::finish(folder, disk.as_ref())?;
        let place = Layout::of(folder);
        let marker = place.prepare(disk.as_ref())?;
        let rows = schema::writer(&place.meta)?;
        let progress = Progress::load(&rows)?;
        if progress.applied != marker.index {
            return Err(Failure::Damaged(format!(
                "meta.db stands at {:?}, the last checkpoint at {:?}; has another program opened it?",
                progress.applied, marker.index
            )));
        }
        let contents = Arc::new(Contents::open(place.data.clone(), disk.clone())?);
        let is_exact = marker.phase == Phase::Closed && !marker.is_mirror_broken;
        let tree = Tree::open(place.tree, disk.clone(), contents.clone(), is_exact)?;
        let machine = Machine {
            folder: folder.to_owned(),
            disk,
            file_system,
            contents,
            writer: Mutex::new(Writer {
                rows,
                tree,
                freed: Vec::new(),
                is_unsettled: marker.phase == Phase::Settling,
            }),
            readers: Mutex::new(Vec::new()),
            recall: Recall::default(),
            gate: RwLock::new(()),
            progress: Mutex::new(progress),
            torn: Mutex::new(BTreeMap::new()),
            is_stopped: AtomicBool::new(false),
            was_closed: marker.phase == Phase::Closed,
            in_use: Mutex::new(Some(in_use)),
        };
        machine.start(marker)?;
        Ok(machine)
    }

    fn start(&self, marker: Marker) -> Result<(), Failure> {
        let mut writer = self.writer()?;
        if marker.is_mirror_broken {
            let Writer { rows, tree, .. } = &mut *writer;
            match tree.rebuild(rows) {
                // The mirror is a convenience; the files are served without it.
                Err(failure @ (Failure::Io(_) | Failure::NoSpace)) => {
                    tracing::warn!(%failure, "the mirror of the files could not be rebuilt");
                }
                other => other?,
            }
        }
        match marker.phase {
            Phase::Settling => self.settle(&mut writer, Phase::Settled)?,
            // From now on the mirror may be ahead.
            Phase::Closed => self.mark(&writer, Phase::Settled)?,
            Phase::Settled => {}
        }
        let mut progress = self.progress();
        progress.durable = progress.applied;
        Ok(())
    }

    /// Applies one entry and keeps the note as it is.
    pub fn apply(&self, index: u64, operations: &[Operation]) -> Result<Vec<Result<Reply, Error>>, Failure> {
        let note = None;
        self.apply_all(&[Entry {
            index,
            operations,
            note,
        }])
        .map(|done| done.answers)
    }

    /// Applies entries in one transaction. On a failure none is applied (`applied` says where the machine stands), and the
    /// same ones are to come again.
    pub fn apply_all(&self, entries: &[Entry<'_>]) -> Result<Done, Failure> {
        let mut writer = self.writer()?;
        let mut next = self.progress().clone();
        for entry in entries {
            next.advance(entry)?;
        }
        if writer.is_unsettled {
            self.settle(&mut writer, Phase::Settled)?;
        }
        let done = self.guard(self.run(&mut writer, entries, next))?;
        if self.wal_size() > WAL_LIMIT {
            // The entries are applied; the next ones will hear of a failure.
            let _ = self.settle(&mut writer, Phase::Settled);
        }
        Ok(done)
    }

    fn run(&self, writer: &mut Writer, entries: &[Entry<'_>], next: Progress) -> Result<Done, Failure> {
        let transaction = Batch::begin(&writer.rows)?;
        let mut effects = Effects::new(self.contents.changing());
        let executed = execute_all(&writer.rows, &mut effects, entries);
        let Effects {
            contents,
            freed,
            mirror,
            mut touched,
            ..
        } = effects;
        let traces = touched.traces();
        let changing = self.recall.change(touched);
        let committed = executed.and_then(|answers| {
            next.save(&writer.rows)?;
            transaction.commit()?;
            Ok(answers)
        });
        match &committed {
            Ok(_) => changing.done(),
            Err(_) => drop(changing),
        }
        let mut torn = self.torn.lock().expect(HELD);
        match &committed {
            Ok(_) => torn.retain(|_, until| Some(*until) > next.applied),
            Err(_) => torn.extend(contents.changed().zip(std::iter::repeat(next.applied.unwrap_or(0)))),
        }
        drop(torn);
        drop(contents);
        let answers = committed?;
        *self.progress() = next;
        writer.tree.follow(&writer.rows, &mirror);
        writer.freed.extend(freed);
        // The batch has been applied all the same; what is left over is tried again after the next.
        let _ = self.remove_freed(writer);
        Ok(Done {
            answers,
            touched: traces,
        })
    }

    fn remove_freed(&self, writer: &mut Writer) -> Result<(), Failure> {
        while let Some(inode) = writer.freed.last() {
            self.guard(self.contents.remove(*inode).map_err(Failure::from))?;
            writer.freed.pop();
        }
        Ok(())
    }

    /// Index of the last entry applied; `None` before the first.
    pub fn applied(&self) -> Option<u64> {
        self.progress().applied
    }

    /// Index of the last checkpoint: where the machine stands after a crash.
    pub fn durable(&self) -> Option<u64> {
        self.progress().durable
    }

    /// The note that was given with the entries.
    pub fn note(&self) -> Vec<u8> {
        self.progress().note.clone()
    }

    /// Highest number that an entry brought for a new inode; a leader goes on above it.
    pub fn highest_inode(&self) -> Inode {
        Inode(self.progress().highest_inode)
    }

    /// All sessions, for the leader that ends the silent ones.
    pub fn sessions(&self) -> Result<Vec<Session>, Failure> {
        self.look(sessions::all)
    }

    pub fn has_session(&self, session: Session) -> Result<bool, Failure> {
        self.look(|rows| sessions::is_known(rows, session))
    }

    /// Whether inodes are in grace since before the last `Reap`, and since then.
    pub fn has_grace(&self) -> Result<(bool, bool), Failure> {
        self.look(|rows| {
            let old = sessions::has_opens(rows, sessions::GRACE_OLD)?;
            Ok((old, sessions::has_opens(rows, sessions::GRACE_NEW)?))
        })
    }

    /// Would the owner do well to make a checkpoint, whatever the age of the last?
    pub fn wants_checkpoint(&self) -> bool {
        self.wal_size() > WAL_WANTED
    }

    /// Makes all that was applied survive a power cut; returns its index. Entries wait meanwhile, queries almost not.
    pub fn checkpoint(&self) -> Result<Option<u64>, Failure> {
        // Most of what is dirty goes out before anybody has to wait.
        self.sync()?;
        let mut writer = self.writer()?;
        self.settle(&mut writer, Phase::Settled)?;
        Ok(self.durable())
    }

    /// Whether it was opened as `close` left it: its contents were those of its rows, and still are.
    pub fn was_closed(&self) -> bool {
        self.was_closed
    }

    /// Whatever was written into the machine's folder so far survives a power cut. What the kernel could not write back it tells once, and
    /// forgets: so all who sync contents do it here, and after an error of any kind the machine is stopped and none of them hears
    /// that all is well.
    pub fn sync(&self) -> Result<(), Failure> {
        let file_system = self.file_system.lock().expect(HELD);
        if self.is_stopped() {
            return Err(Failure::Stopped);
        }
        file_system.sync().map_err(|error| {
            self.stop();
            Failure::Io(error)
        })
    }

    /// A last checkpoint, and the machine is done: after it the mirror needs no second look. Only for who knows that no content is ahead of
    /// its rows.
    pub fn close(&self) -> Result<Option<u64>, Failure> {
        let mut writer = self.writer()?;
        self.settle(&mut writer, Phase::Closed)?;
        self.stop();
        drop(writer);
        Ok(self.durable())
    }

    /// Copies the metadata as they are now to the new file `to`, durably. With the contents, copied afterwards, and the log
    /// from its applied index on it makes a replica (`install`).
    pub fn snapshot_meta(&self, to: &Path) -> Result<(), Failure> {
        use std::os::unix::ffi::OsStrExt;
        self.look(|rows| {
            rows.execute("VACUUM INTO CAST(?1 AS TEXT)", [to.as_os_str().as_bytes()])?;
            Ok(())
        })?;
        let parent = to.parent().unwrap_or(Path::new("."));
        File::open(to)?.sync_all()?;
        Ok(File::open(parent)?.sync_all()?)
    }

    /// Rebuilds the mirror if it could not follow at some time; says whether it did.
    pub fn mend_tree(&self) -> Result<bool, Failure> {
        let is_broken = self.writer()?.tree.is_broken();
        if is_broken {
            self.rebuild_tree()?;
        }
        Ok(is_broken)
    }

    /// Compares the mirror with the metadata and mends it. Entries wait meanwhile.
    pub fn rebuild_tree(&self) -> Result<(), Failure> {
        let mut writer = self.writer()?;
        let Writer { rows, tree, .. } = &mut *writer;
        tree.rebuild(rows)
    }

    /// Ends this machine for another in its place, which gets the lock: whoever still holds it is refused from now on, and
    /// nothing of the folder is open any more. `None`: that has happened before.
    pub(super) fn retire(&self) -> Result<Option<File>, Failure> {
        let mut writer = self.writer.lock().expect(HELD);
        self.stop();
        let _turns = self.contents.all_turns();
        let _closed = self.gate.write().expect(HELD);
        let in_use = self.in_use.lock().expect(HELD).take();
        self.readers.lock().expect(HELD).clear();
        self.contents.close();
        writer.rows = Connection::open_in_memory()?;
        Ok(in_use)
    }

    pub(super) fn is_retired(&self) -> bool {
        self.in_use.lock().expect(HELD).is_none()
    }

    /// Does `work`, which puts another file in the place of a content, while nothing is applied and nobody reads it. When it
    /// says that it has, the mirror follows.
    pub(super) fn exchange(&self, inode: Inode, work: impl FnOnce() -> Result<bool, Failure>) -> Result<bool, Failure> {
        let mut writer = self.writer()?;
        let turn = self.contents.turn_alone(inode);
        let is_exchanged = work()?;
        drop(turn);
        if is_exchanged {
            let Writer { rows, tree, .. } = &mut *writer;
            tree.relink(rows, inode)?;
        }
        Ok(is_exchanged)
    }

    /// Runs `work` on a connection that sees one committed state throughout.
    pub(super) fn look<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Failure>) -> Result<T, Failure> {
        let _open = self.gate.read().expect(HELD);
        if self.is_retired() {
            return Err(Failure::Stopped);
        }
        let kept = self.readers.lock().expect(HELD).pop();
        let rows = match kept {
            Some(rows) => rows,
            None => schema::reader(&self.layout().meta)?,
        };
        let found = work(&rows)?;
        let mut readers = self.readers.lock().expect(HELD);
        if readers.len() < READERS_KEPT {
            readers.push(rows);
        }
        Ok(found)
    }

    pub(super) fn is_torn(&self, inode: Inode) -> bool {
        self.torn.lock().expect(HELD).contains_key(&inode)
    }

    /// Brings a checkpoint to its end, from whatever step it stopped at.
    fn settle(&self, writer: &mut Writer, phase: Phase) -> Result<(), Failure> {
        writer.is_unsettled = true;
        self.remove_freed(writer)?;
        self.guard(self.carry_over(writer, phase))?;
        writer.is_unsettled = false;
        let mut progress = self.progress();
        progress.durable = progress.applied;
        Ok(())
    }

    fn carry_over(&self, writer: &Writer, phase: Phase) -> Result<(), Failure> {
        self.sync()?;
        self.mark(writer, Phase::Settling)?;
        let closed = self.gate.write().expect(HELD);
        let is_busy: bool = writer
            .rows
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        drop(closed);
        if is_busy {
            return Err(Failure::Damaged("another program has meta.db open".into()));
        }
        self.mark(writer, phase)
    }

    fn mark(&self, writer: &Writer, phase: Phase) -> Result<(), Failure> {
        let marker = Marker {
            phase,
            index: self.applied(),
            is_mirror_broken: writer.tree.is_broken(),
        };
        marker.write(self.disk.as_ref(), &self.layout().marker)
    }

    fn writer(&self) -> Result<MutexGuard<'_, Writer>, Failure> {
        let writer = self.writer.lock().expect(HELD);
        if self.is_stopped() {
            return Err(Failure::Stopped);
        }
        Ok(writer)
    }

    /// Every failure but a full disk stops the machine.
    fn guard<T>(&self, done: Result<T, Failure>) -> Result<T, Failure> {
        if matches!(&done, Err(failure) if !matches!(failure, Failure::NoSpace)) {
            self.stop();
        }
        done
    }

    /// Nothing may be answered from memory either.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().expect(HELD)
    }

    /// Lets the database find the disk full at this many pages.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: u32) {
        let writer = self.writer().expect("it runs");
        let limited = writer.rows.pragma_update(None, "max_page_count", pages);
        limited.expect("a number is taken");
    }

    pub(super) fn layout(&self) -> Layout {
        Layout::of(&self.folder)
    }

    fn wal_size(&self) -> u64 {
        std::fs::metadata(self.layout().wal()).map_or(0, |wal| wal.len())
    }
}

/// Keeps other processes out of the folder.
pub(super) fn lock(folder: &Path) -> Result<File, Failure> {
    file::try_lock(&folder.join("lock"))?.ok_or(Failure::InUse)
}

fn execute_all(
    rows: &Connection,
    effects: &mut Effects<'_>,
    entries: &[Entry<'_>],
) -> Result<Vec<Result<Reply, Error>>, Failure> {
    let mut answers = Vec::new();
    for entry in entries {
        for operation in entry.operations {
            answers.push(execute(rows, effects, entry.index, operation)?);
        }
    }
    Ok(answers)
}
