//! The simulated folder: names that lead to files, and what becomes of the calls of one author.
//!
//! Authors act at instants of their own (milliseconds of one remainder each), so that the order of all acts is a seed's alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};

use super::ledger::Ledger;
use crate::base::BoxFuture;
use crate::base::seeded::Random;
use crate::registry::{Failure, File, FileId, Files, Found, Link};

/// A caller hears of no answer after this.
const GIVEN_UP: Duration = Duration::from_secs(5);
/// A call that was given up may be carried out until then.
const LATE: u64 = 60_000;
/// A machine sleeps at most so long.
const SLEEP: u64 = 60_000;

/// What the folder does wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// A link takes the place of what has the name.
    LinkReplaces,
    /// All files seem to be one.
    SameFile,
    /// A listing may leave out the newest names.
    ShortListing,
}

/// A file's own number; never given again, unlike its `FileId`.
type Serial = u64;

struct Content {
    bytes: Bytes,
    id: u64,
    names: u32,
}

/// A call that changes something, as it travels.
#[derive(Clone, Debug)]
enum Act {
    Create(String, Bytes),
    Link(Serial, String),
    Remove(String),
    Rename(String, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Created(Serial, u64),
    Linked(Link),
    /// A name is elsewhere, or nowhere.
    Moved,
}

struct State {
    names: BTreeMap<String, Serial>,
    contents: BTreeMap<Serial, Content>,
    /// Calls that were given up and are carried out yet, in their order.
    late: BTreeMap<(Instant, u64, u64), Act>,
    given: u64,
    flaw: Flaw,
    ledger: Ledger,
}

/// Clones are the same folder.
#[derive(Clone)]
pub struct Folder(Arc<Mutex<State>>);

/// One author's way to the folder.
pub struct Door {
    pub folder: Folder,
    pub clock: Clock,
    pub random: Arc<Mutex<Random>>,
}

/// When an author acts.
#[derive(Clone, Copy)]
pub struct Clock {
    pub start: Instant,
    /// Which of how many.
    pub author: u64,
    pub authors: u64,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    /// Carried out; nobody hears of it.
    Unheard,
    Lost,
    /// Carried out after it was given up.
    Late,
}

impl Clock {
    /// The author's first instant after `delay`.
    pub fn after(&self, delay: Duration) -> Instant {
        self.instant(delay, self.author * 2)
    }

    /// As `after`, but none at which anybody acts.
    pub fn between(&self, delay: Duration) -> Instant {
        self.instant(delay, self.author * 2 + 1)
    }

    fn instant(&self, delay: Duration, remainder: u64) -> Instant {
        let now = u64::try_from((self.start.elapsed() + delay).as_millis()).unwrap();
        let period = self.authors * 2;
        let wait = (remainder + period - now % period) % period;
        self.start + Duration::from_millis(now + wait)
    }
}

impl Folder {
    pub fn new(flaw: Flaw, ledger: Ledger) -> Self {
        Folder(Arc::new(Mutex::new(State {
            names: BTreeMap::new(),
            contents: BTreeMap::new(),
            late: BTreeMap::new(),
            given: 0,
            flaw,
            ledger,
        })))
    }

    /// As it is at this instant.
    fn now(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap();
        while let Some(first) = state.late.first_entry()
            && first.key().0 <= Instant::now()
        {
            let act = first.remove();
            state.perform(act);
        }
        state
    }
}

impl State {
    fn perform(&mut self, act: Act) -> Done {
        match act {
            Act::Create(name, bytes) => {
                self.given += 1;
                let serial = self.given;
                // The smallest that is free: numbers come again as soon as they can.
                let id = (1..).find(|id| self.contents.values().all(|content| content.id != *id));
                let id = id.unwrap();
                self.contents.insert(serial, Content { bytes, id, names: 0 });
                self.name(name, serial);
                Done::Created(serial, id)
            }
            Act::Link(serial, name) => Done::Linked(self.link(serial, name)),
            Act::Remove(name) => {
                self.unname(&name);
                Done::Moved
            }
            Act::Rename(from, to) => {
                if let Some(serial) = self.names.get(&from).copied() {
                    self.name(to, serial);
                    self.unname(&from);
                }
                Done::Moved
            }
        }
    }

    fn link(&mut self, serial: Serial, name: String) -> Link {
        let Some(content) = self.contents.get(&serial) else {
            return Link::Gone;
        };
        let bytes = content.bytes.clone();
        if self.names.contains_key(&name) && self.flaw != Flaw::LinkReplaces {
            return Link::Exists;
        }
        self.ledger.published(&name, &bytes);
        self.name(name, serial);
        Link::Made
    }

    fn name(&mut self, name: String, serial: Serial) {
        self.unname(&name);
        self.names.insert(name, serial);
        self.contents.get_mut(&serial).unwrap().names += 1;
    }

    fn unname(&mut self, name: &str) {
        let Some(serial) = self.names.remove(name) else { return };
        self.ledger.removed(name);
        let content = self.contents.get_mut(&serial).unwrap();
        content.names -= 1;
        if content.names == 0 {
            self.contents.remove(&serial);
        }
    }

    fn found(&self, name: &str) -> Option<&Content> {
        self.contents.get(self.names.get(name)?)
    }
}

impl Door {
    fn random(&self) -> MutexGuard<'_, Random> {
        self.random.lock().unwrap()
    }

    fn is_calm(&self) -> bool {
        self.folder.0.lock().unwrap().ledger.is_calm()
    }

    fn fate(&self) -> Fate {
        let mut random = self.random();
        match random.below(150) {
            _ if self.is_calm() => Fate::Answered,
            0 => Fate::Lost,
            1 => Fate::Unheard,
            2 => Fate::Late,
            _ => Fate::Answered,
        }
    }

    /// On the way there or back: mostly short; at times the machine falls asleep.
    async fn way(&self) {
        let delay = {
            let mut random = self.random();
            match random.is_one_of(500) && !self.is_calm() {
                true => random.below(SLEEP),
                false => random.below(8),
            }
        };
        sleep_until(self.clock.after(Duration::from_millis(delay))).await;
    }

    async fn call(&self, act: Act) -> Result<Done, Failure> {
        let fate = self.fate();
        self.way().await;
        let done = match fate {
            Fate::Answered | Fate::Unheard => Some(self.folder.now().perform(act)),
            Fate::Lost => None,
            Fate::Late => {
                let delay = Duration::from_millis(self.random().below(LATE));
                let mut state = self.folder.now();
                let number = state.late.len() as u64;
                let at = self.clock.after(delay);
                state.late.insert((at, self.clock.author, number), act);
                None
            }
        };
        self.answer(fate, done).await
    }

    async fn answer<T>(&self, fate: Fate, done: Option<T>) -> Result<T, Failure> {
        match done {
            Some(done) if fate == Fate::Answered => {
                self.way().await;
                Ok(done)
            }
            _ => {
                sleep(GIVEN_UP).await;
                Err(Failure("no answer".into()))
            }
        }
    }

    /// A call that changes nothing.
    async fn ask<T>(&self, look: impl FnOnce(&State) -> T) -> Result<T, Failure> {
        let fate = self.fate();
        self.way().await;
        let seen = look(&self.folder.now());
        self.answer(fate, Some(seen)).await
    }

    /// Names that come or go while it is listed may be in it or not.
    async fn names(&self) -> Result<Vec<String>, Failure> {
        let first = self.ask(|state| state.names.clone()).await?;
        self.way().await;
        let state = self.folder.now();
        let mut random = self.random();
        let both = state.names.keys().chain(first.keys());
        let all: std::collections::BTreeSet<&String> = both.collect();
        let mut names: Vec<String> = all
            .into_iter()
            .filter(|name| (state.names.contains_key(*name) && first.contains_key(*name)) || random.is_one_of(2))
            .cloned()
            .collect();
        if state.flaw == Flaw::ShortListing && random.is_one_of(4) {
            names.retain(|name| !name.starts_with('v') || random.is_one_of(2));
        }
        Ok(names)
    }
}

impl Files for Door {
    fn create<'a>(&'a self, name: &'a str, content: Bytes) -> BoxFuture<'a, Result<File, Failure>> {
        Box::pin(async move {
            match self.call(Act::Create(name.into(), content)).await? {
                Done::Created(serial, file) => Ok(File {
                    name: name.into(),
                    id: FileId { filesystem: 1, file },
                    handle: serial.to_le_bytes().to_vec(),
                }),
                other => Err(Failure(format!("{other:?}"))),
            }
        })
    }

    fn link<'a>(&'a self, file: &'a File, name: &'a str) -> BoxFuture<'a, Result<Link, Failure>> {
        Box::pin(async move {
            let serial = Serial::from_le_bytes(*file.handle.first_chunk().unwrap());
            match self.call(Act::Link(serial, name.into())).await? {
                Done::Linked(link) => Ok(link),
                other => Err(Failure(format!("{other:?}"))),
            }
        })
    }

    fn look<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Found>, Failure>> {
        Box::pin(self.ask(move |state| {
            let content = state.found(name)?;
            let file = if state.flaw == Flaw::SameFile { 1 } else { content.id };
            Some(Found {
                id: FileId { filesystem: 1, file },
                size: content.bytes.len() as u64,
            })
        }))
    }

    fn read<'a>(&'a self, name: &'a str, most: usize) -> BoxFuture<'a, Result<Option<Bytes>, Failure>> {
        Box::pin(self.ask(move |state| {
            let bytes = &state.found(name)?.bytes;
            Some(bytes.slice(..bytes.len().min(most)))
        }))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Failure>> {
        Box::pin(self.names())
    }

    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move { self.call(Act::Remove(name.into())).await.map(drop) })
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move { self.call(Act::Rename(from.into(), to.into())).await.map(drop) })
    }

    fn overwrite<'a>(&'a self, name: &'a str, content: Bytes) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move { self.call(Act::Create(name.into(), content)).await.map(drop) })
    }
}
