//! A `Disk` in memory that behaves like the worst real one: a power cut keeps any part of what was not synced, in any
//! order and torn at sectors; a failed sync leaves data readable that will never reach the disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Disk, DiskFile};

/// Writes tear at these.
const SECTOR: usize = 512;

/// A small seeded generator (xorshift64*): the tests need reproducible bits, not good ones.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Size(usize),
}

#[derive(Clone)]
enum Rename {
    Link(String, usize),
    Unlink(String),
}

#[derive(Default)]
struct Content {
    cached: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Default)]
struct State {
    contents: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<Rename>,
    /// Changes and syncs so far.
    steps: u64,
    power_cut_at: Option<u64>,
    fail_sync_at: Option<u64>,
    capacity: Option<usize>,
}

/// Clones are the same disk.
#[derive(Clone, Default)]
pub struct FaultyDisk(Arc<Mutex<State>>);

struct FaultyFile {
    disk: FaultyDisk,
    number: usize,
}

impl FaultyDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Changes and syncs that have happened.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// From this step on everything fails, until `restart`.
    pub fn cut_power_at(&self, step: u64) {
        self.state().power_cut_at = Some(step);
    }

    /// The first sync at or after this step fails once.
    pub fn fail_sync_at(&self, step: u64) {
        self.state().fail_sync_at = Some(step);
    }

    /// No file may grow when all together are this long.
    pub fn limit(&self, capacity: usize) {
        self.state().capacity = Some(capacity);
    }

    /// The power is back: what was synced is there, of the rest whatever `random` kept.
    pub fn restart(&self, random: &mut Random) {
        let mut state = self.state();
        let pending = std::mem::take(&mut state.pending_names);
        for change in pending {
            if random.below(2) == 0 {
                rename(&mut state.durable_names, &change);
            }
        }
        for content in &mut state.contents {
            for change in std::mem::take(&mut content.pending) {
                tear(&mut content.durable, &change, random);
            }
            content.cached = content.durable.clone();
        }
        state.names = state.durable_names.clone();
        state.power_cut_at = None;
        state.fail_sync_at = None;
    }

    /// What another disk would hold that lost its power now, with nothing kept that was not synced.
    pub fn as_synced(&self) -> FaultyDisk {
        let state = self.state();
        let content = |content: &Content| Content {
            cached: content.durable.clone(),
            durable: content.durable.clone(),
            pending: Vec::new(),
        };
        FaultyDisk(Arc::new(Mutex::new(State {
            contents: state.contents.iter().map(content).collect(),
            names: state.durable_names.clone(),
            durable_names: state.durable_names.clone(),
            ..State::default()
        })))
    }

    /// Whether a file holds these bytes also after a power cut.
    pub fn has_synced(&self, bytes: &[u8]) -> bool {
        let state = self.state();
        let mut durable = state
            .durable_names
            .values()
            .map(|number| &state.contents[*number].durable);
        durable.any(|content| content.windows(bytes.len()).any(|window| window == bytes))
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.contents[state.names[name]].cached.clone()
    }

    /// Changes a file behind the log's back, on the disk itself.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let number = state.names[name];
        let content = &mut state.contents[number];
        change(&mut content.cached);
        content.durable = content.cached.clone();
    }
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        self.steps += 1;
        match self.power_cut_at {
            Some(at) if self.steps > at => Err(io::Error::other("the power is off")),
            _ => Ok(()),
        }
    }

    fn sync_step(&mut self) -> io::Result<bool> {
        self.step()?;
        Ok(self.fail_sync_at.take_if(|at| self.steps >= *at).is_none())
    }

    fn grow(&self, by: usize) -> io::Result<()> {
        let used: usize = self
            .names
            .values()
            .map(|number| self.contents[*number].cached.len())
            .sum();
        match self.capacity {
            Some(capacity) if by > 0 && used + by > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn change(&mut self, number: usize, change: Change) -> io::Result<()> {
        self.step()?;
        let old = self.contents[number].cached.len();
        let new = match &change {
            Change::Write(offset, data) => offset + data.len(),
            Change::Size(size) => *size,
        };
        self.grow(new.saturating_sub(old))?;
        let content = &mut self.contents[number];
        apply(&mut content.cached, &change);
        content.pending.push(change);
        Ok(())
    }

    fn rename(&mut self, change: Rename) {
        rename(&mut self.names, &change);
        self.pending_names.push(change);
    }
}

fn rename(names: &mut BTreeMap<String, usize>, change: &Rename) {
    match change {
        Rename::Link(name, number) => drop(names.insert(name.clone(), *number)),
        Rename::Unlink(name) => drop(names.remove(name)),
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, data) => {
            if bytes.len() < offset + data.len() {
                bytes.resize(offset + data.len(), 0);
            }
            bytes[*offset..offset + data.len()].copy_from_slice(data);
        }
        Change::Size(size) => bytes.resize(*size, 0),
    }
}

/// Applies a change as a power cut would leave it: whole, not at all, or some of its sectors.
fn tear(bytes: &mut Vec<u8>, change: &Change, random: &mut Random) {
    match (random.below(3), change) {
        (0, _) => {}
        (1, Change::Write(offset, data)) => {
            let mut start = *offset;
            let end = offset + data.len();
            while start < end {
                let stop = ((start / SECTOR + 1) * SECTOR).min(end);
                if random.below(2) == 0 {
                    apply(
                        bytes,
                        &Change::Write(start, data[start - offset..stop - offset].to_vec()),
                    );
                }
                start = stop;
            }
        }
        _ => apply(bytes, change),
    }
}

impl Disk for FaultyDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.step()?;
        state.contents.push(Content::default());
        let number = state.contents.len() - 1;
        state.rename(Rename::Link(name.into(), number));
        drop(state);
        Ok(Arc::new(FaultyFile {
            disk: self.clone(),
            number,
        }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let number = *self.state().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(FaultyFile {
            disk: self.clone(),
            number,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let number = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.rename(Rename::Link(to.into(), number));
        state.rename(Rename::Unlink(from.into()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.rename(Rename::Unlink(name.into()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        if !state.sync_step()? {
            // Names are in the journal: they stay pending, unlike pages.
            return Err(io::Error::other("input/output error"));
        }
        for change in std::mem::take(&mut state.pending_names) {
            rename(&mut state.durable_names, &change);
        }
        Ok(())
    }

    fn blocks(&self) -> bool {
        false
    }
}

impl DiskFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state().contents[self.number].cached.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.state();
        let bytes = &state.contents[self.number].cached;
        let start = offset as usize;
        let found = bytes.get(start..start + buffer.len());
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let change = Change::Write(offset as usize, data.to_vec());
        self.disk.state().change(self.number, change)
    }

    fn write_blocks(&self, blocks: &[u8], offset: u64) -> io::Result<()> {
        self.write_at(blocks, offset)
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        match self.size()? < size {
            true => self.disk.state().change(self.number, Change::Size(size as usize)),
            false => Ok(()),
        }
    }

    fn cut(&self, size: u64) -> io::Result<()> {
        self.disk.state().change(self.number, Change::Size(size as usize))?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let worked = state.sync_step()?;
        let content = &mut state.contents[self.number];
        let pending = std::mem::take(&mut content.pending);
        if !worked {
            // The pages are clean now and stay readable, but their content never reached the disk.
            return Err(io::Error::other("input/output error"));
        }
        pending.iter().for_each(|change| apply(&mut content.durable, change));
        Ok(())
    }
}
