//! A disk in memory that fails on cue and forgets what was not synced: after a power cut the names are as of any moment
//! since the last sync, and of each file any of the changes since then have reached the disk.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

use crate::storage::call::Space;
use crate::storage::state::disk::{Content, Disk, FileSystem, Found, FoundKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This call finds the disk full.
    Full,
    /// This call fails.
    Broken,
    /// This call and all later ones fail: the process is about to die.
    Dead,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    File(u64),
    Folder,
    Link(Vec<u8>),
}

#[derive(Clone, Debug)]
enum NameChange {
    Put(PathBuf, Node),
    Gone(PathBuf),
    Move(PathBuf, PathBuf),
}

#[derive(Clone, Debug)]
enum ContentChange {
    Write(usize, Vec<u8>),
    Length(usize),
}

type Names = BTreeMap<PathBuf, Node>;
type Files = BTreeMap<u64, Vec<u8>>;

#[derive(Default)]
struct State {
    names: Names,
    files: Files,
    durable_names: Names,
    durable_files: Files,
    name_changes: Vec<NameChange>,
    content_changes: BTreeMap<u64, Vec<ContentChange>>,
    next_file: u64,
    /// Files with a bad sector, and where it is.
    bad: BTreeMap<u64, usize>,
    /// Files of which a change was not written back, and what the disk has of them.
    lost: Files,
    /// How often that happened, and whether anybody was told of the last time.
    losses: u64,
    is_told: bool,
    calls: u64,
    fault: Option<(u64, Fault)>,
}

#[derive(Default)]
pub struct FaultyDisk(Arc<Mutex<State>>);

/// As the kernel keeps it (errseq): who opens the disk after somebody was told of a loss is not told again.
struct OpenDisk {
    disk: Arc<Mutex<State>>,
    told: Mutex<u64>,
}

/// A file of the disk that is open.
struct OpenFile {
    disk: Arc<Mutex<State>>,
    file: u64,
}

fn error(kind: ErrorKind) -> io::Error {
    io::Error::new(kind, "made up")
}

fn change_names(names: &mut Names, change: &NameChange) {
    match change {
        NameChange::Put(path, node) => {
            names.insert(path.clone(), node.clone());
        }
        NameChange::Gone(path) => {
            names.remove(path);
        }
        NameChange::Move(from, to) => {
            names.remove(to);
            let moved: Vec<_> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
            for path in moved {
                let node = names.remove(&path).unwrap();
                let rest = path.strip_prefix(from).unwrap();
                let target = if rest.as_os_str().is_empty() {
                    to.clone()
                } else {
                    to.join(rest)
                };
                names.insert(target, node);
            }
        }
    }
}

fn change_content(content: &mut Vec<u8>, change: &ContentChange) {
    match change {
        ContentChange::Write(offset, data) => {
            let end = offset + data.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*offset..end].copy_from_slice(data);
        }
        ContentChange::Length(length) => content.resize(*length, 0),
    }
}

impl FaultyDisk {
    /// Calls so far that change something.
    pub fn calls(&self) -> u64 {
        self.0.lock().unwrap().calls
    }

    /// The call number `at`, counted from the next one as 0, meets `fault`.
    pub fn fail(&self, at: u64, fault: Fault) {
        let mut state = self.0.lock().unwrap();
        state.fault = Some((state.calls + at, fault));
    }

    pub fn heal(&self) {
        self.0.lock().unwrap().fault = None;
    }

    /// The process dies: what it wrote stays.
    pub fn kill(&self) {
        self.heal();
    }

    /// The power is cut: of what was not synced a part is left, chosen by `seed`.
    pub fn cut_power(&self, seed: u64) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut below = |bound: usize| random.next_u64() as usize % bound;
        let mut state = self.0.lock().unwrap();
        state.fault = None;
        state.lost.clear();
        let mut names = state.durable_names.clone();
        let kept = below(state.name_changes.len() + 1);
        for change in &state.name_changes[..kept] {
            change_names(&mut names, change);
        }
        let mut files = state.durable_files.clone();
        for (file, changes) in &state.content_changes {
            let content = files.entry(*file).or_default();
            let odds = below(3);
            for change in changes {
                if odds == 0 || odds == 1 && below(2) == 0 {
                    change_content(content, change);
                }
            }
        }
        state.names = names;
        state.files = files;
        state.settle();
    }

    /// Puts a file where none belongs, as a stranger would.
    pub fn litter(&self, path: &Path, content: &[u8]) {
        let mut state = self.0.lock().unwrap();
        state.next_file += 1;
        let file = state.next_file;
        state.files.insert(file, content.to_vec());
        state.rename(NameChange::Put(path.to_owned(), Node::File(file)));
    }

    /// From now on byte `at` of this file cannot be read. A file that takes its place can be.
    pub fn spoil(&self, path: &Path, at: usize) {
        let mut state = self.0.lock().unwrap();
        let file = state.file(path).unwrap();
        state.bad.insert(file, at);
    }

    /// The kernel fails to write back what was not synced: it stays readable as long as the power is on.
    pub fn lose_writes(&self) {
        let mut state = self.0.lock().unwrap();
        let changes = std::mem::take(&mut state.content_changes);
        for file in changes.into_keys() {
            let content = state.durable_files.get(&file).cloned().unwrap_or_default();
            state.lost.insert(file, content);
        }
        state.losses += 1;
        state.is_told = false;
    }

    fn locked<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.lock().unwrap();
        state.tick()?;
        work(&mut state)
    }
}

impl State {
    fn tick(&mut self) -> io::Result<()> {
        let call = self.calls;
        self.calls += 1;
        match self.fault {
            Some((at, Fault::Full)) if at == call => Err(error(ErrorKind::StorageFull)),
            Some((at, Fault::Broken)) if at == call => Err(io::Error::from_raw_os_error(5)),
            Some((at, Fault::Dead)) if at <= call => Err(io::Error::from_raw_os_error(5)),
            _ => Ok(()),
        }
    }

    fn settle(&mut self) {
        self.durable_names = self.names.clone();
        self.durable_files = self.files.clone();
        self.durable_files.extend(self.lost.clone());
        self.name_changes.clear();
        self.content_changes.clear();
    }

    fn rename(&mut self, change: NameChange) {
        change_names(&mut self.names, &change);
        self.name_changes.push(change);
    }

    fn content(&mut self, file: u64, change: ContentChange) {
        self.lost.remove(&file);
        change_content(self.files.entry(file).or_default(), &change);
        self.content_changes.entry(file).or_default().push(change);
    }

    fn need_parent(&self, path: &Path) -> io::Result<()> {
        match path.parent().and_then(|parent| self.names.get(parent)) {
            Some(Node::Folder) => Ok(()),
            Some(_) => Err(error(ErrorKind::NotADirectory)),
            None => self.above_outside(path),
        }
    }

    /// The machine's own folder is not made through this disk.
    fn above_outside(&self, path: &Path) -> io::Result<()> {
        let has_known_above = path.ancestors().skip(1).any(|above| self.names.contains_key(above));
        if has_known_above {
            Err(error(ErrorKind::NotFound))
        } else {
            Ok(())
        }
    }

    fn need_free(&self, path: &Path) -> io::Result<()> {
        self.need_parent(path)?;
        if self.names.contains_key(path) {
            return Err(error(ErrorKind::AlreadyExists));
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> io::Result<u64> {
        self.need_parent(path)?;
        match self.names.get(path) {
            Some(Node::File(file)) => Ok(*file),
            Some(_) => Err(error(ErrorKind::IsADirectory)),
            None => {
                self.next_file += 1;
                let file = self.next_file;
                self.files.insert(file, Vec::new());
                self.rename(NameChange::Put(path.to_owned(), Node::File(file)));
                Ok(file)
            }
        }
    }

    fn existing(&self, path: &Path) -> io::Result<&Node> {
        self.need_parent(path)?;
        self.names.get(path).ok_or_else(|| error(ErrorKind::NotFound))
    }

    fn has_names_in(&self, path: &Path) -> bool {
        self.names.keys().any(|other| other != path && other.starts_with(path))
    }
}

fn found(path: &Path, node: &Node) -> Found {
    let (kind, host_inode) = match node {
        Node::File(file) => (FoundKind::File, *file),
        Node::Folder => (FoundKind::Folder, path.as_os_str().len() as u64),
        Node::Link(_) => (FoundKind::Link, 0),
    };
    Found { kind, host_inode }
}

impl FileSystem for OpenDisk {
    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock().unwrap();
        match state.tick() {
            // Room is missed when it is taken.
            Err(error) if error.kind() == ErrorKind::StorageFull => state.fault = Some((state.calls, Fault::Full)),
            ticked => ticked?,
        }
        state.settle();
        let mut told = self.told.lock().unwrap();
        if *told < state.losses {
            *told = state.losses;
            state.is_told = true;
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }
}

impl Content for OpenFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bad = self.disk.lock().unwrap().bad.get(&self.file).copied();
        let start = usize::try_from(offset).unwrap();
        match bad.is_some_and(|at| (start..start + buffer.len()).contains(&at)) {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(self.read_ready(offset, buffer)),
        }
    }

    fn read_ready(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let state = self.disk.lock().unwrap();
        let content = &state.files[&self.file];
        let rest = content.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        count
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<()> {
        self.set_len(path, 0)
    }

    fn write_at(&self, path: &Path, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let fault = state.tick();
        let offset = usize::try_from(offset).unwrap();
        // A failing write has written a part.
        let written = if fault.is_err() { &data[..data.len() / 2] } else { data };
        let is_dead = matches!(state.fault, Some((at, Fault::Dead)) if at + 1 < state.calls);
        if !is_dead {
            let file = state.file(path)?;
            state.content(file, ContentChange::Write(offset, written.to_vec()));
        }
        fault
    }

    fn set_len(&self, path: &Path, len: u64) -> io::Result<()> {
        self.locked(|state| {
            let file = state.file(path)?;
            state.content(file, ContentChange::Length(usize::try_from(len).unwrap()));
            Ok(())
        })
    }

    fn read_at(&self, path: &Path, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.open(path)?.read_at(offset, buffer)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn Content>> {
        match self.0.lock().unwrap().existing(path)? {
            Node::File(file) => Ok(Arc::new(OpenFile {
                disk: self.0.clone(),
                file: *file,
            })),
            _ => Err(error(ErrorKind::IsADirectory)),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.locked(|state| {
            if *state.existing(path)? == Node::Folder {
                return Err(error(ErrorKind::IsADirectory));
            }
            state.rename(NameChange::Gone(path.to_owned()));
            Ok(())
        })
    }

    fn link(&self, original: &Path, path: &Path) -> io::Result<()> {
        self.locked(|state| {
            let node = state.existing(original)?.clone();
            state.need_free(path)?;
            state.rename(NameChange::Put(path.to_owned(), node));
            Ok(())
        })
    }

    fn symlink(&self, target: &[u8], path: &Path) -> io::Result<()> {
        self.locked(|state| {
            state.need_free(path)?;
            state.rename(NameChange::Put(path.to_owned(), Node::Link(target.to_vec())));
            Ok(())
        })
    }

    fn read_link(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.0.lock().unwrap().existing(path)? {
            Node::Link(target) => Ok(target.clone()),
            _ => Err(error(ErrorKind::InvalidInput)),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.locked(|state| {
            let node = state.existing(from)?.clone();
            state.need_parent(to)?;
            match (state.names.get(to), node) {
                (Some(Node::Folder), Node::Folder) if state.has_names_in(to) => {
                    return Err(error(ErrorKind::DirectoryNotEmpty));
                }
                (Some(Node::Folder), Node::File(_) | Node::Link(_)) => return Err(error(ErrorKind::IsADirectory)),
                (Some(Node::File(_) | Node::Link(_)), Node::Folder) => return Err(error(ErrorKind::NotADirectory)),
                _ => {}
            }
            if to.starts_with(from) && to != from {
                return Err(error(ErrorKind::InvalidInput));
            }
            state.rename(NameChange::Move(from.to_owned(), to.to_owned()));
            Ok(())
        })
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.locked(|state| {
            state.need_free(path)?;
            state.rename(NameChange::Put(path.to_owned(), Node::Folder));
            Ok(())
        })
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.locked(|state| {
            if *state.existing(path)? != Node::Folder {
                return Err(error(ErrorKind::NotADirectory));
            }
            if state.has_names_in(path) {
                return Err(error(ErrorKind::DirectoryNotEmpty));
            }
            state.rename(NameChange::Gone(path.to_owned()));
            Ok(())
        })
    }

    fn look(&self, path: &Path) -> io::Result<Found> {
        let state = self.0.lock().unwrap();
        Ok(found(path, state.existing(path)?))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(Vec<u8>, Found)>> {
        use std::os::unix::ffi::OsStrExt;
        let state = self.0.lock().unwrap();
        if *state.existing(path)? != Node::Folder {
            return Err(error(ErrorKind::NotADirectory));
        }
        let inside = state.names.iter().filter(|(other, _)| other.parent() == Some(path));
        Ok(inside
            .map(|(other, node)| {
                let name = other.file_name().unwrap().as_bytes().to_vec();
                (name, found(other, node))
            })
            .collect())
    }

    fn file_system(&self, _folder: &Path) -> io::Result<Box<dyn FileSystem>> {
        let state = self.0.lock().unwrap();
        let told = match state.is_told {
            true => state.losses,
            false => state.losses.saturating_sub(1),
        };
        Ok(Box::new(OpenDisk {
            disk: self.0.clone(),
            told: Mutex::new(told),
        }))
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.locked(|state| {
            state.next_file += 1;
            let file = state.next_file;
            state.files.insert(file, content.to_vec());
            state.durable_files.insert(file, content.to_vec());
            state.names.insert(path.to_owned(), Node::File(file));
            state.durable_names.insert(path.to_owned(), Node::File(file));
            Ok(())
        })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.0.lock().unwrap();
        match state.names.get(path) {
            Some(Node::File(file)) => Ok(state.files[file].clone()),
            _ => Err(error(ErrorKind::NotFound)),
        }
    }

    fn space(&self, _folder: &Path) -> io::Result<Space> {
        Ok(Space {
            total_bytes: 1 << 40,
            free_bytes: 1 << 39,
            total_inodes: 1 << 20,
            free_inodes: 1 << 19,
        })
    }
}
