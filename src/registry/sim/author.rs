//! One author: a node that commits and reads, dies in the middle, and comes again with what it saw last.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::folder::{Clock, Door, Flaw, Folder};
use super::ledger::Ledger;
use crate::base::seeded::Random;
use crate::registry::{Change, Guard, Key, Publish, Record, Registry, Role, Setting, View, Write};

const AUTHORS: u64 = 5;
/// Faults come for this long.
const TROUBLE: Duration = Duration::from_secs(120);
/// Until the last call that was given up is carried out.
const LATE: Duration = Duration::from_secs(130);

struct Author {
    name: String,
    folder: Folder,
    ledger: Ledger,
    clock: Clock,
    random: Arc<Mutex<Random>>,
    publish: Publish,
    boot: u64,
    /// What it saw last, which outlives it.
    seen: Option<Arc<View>>,
    changes: u64,
}

/// Runs one seed; the ledger says what was wrong.
pub async fn simulate(seed: u64, flaw: Flaw) -> Ledger {
    let ledger = Ledger::default();
    let folder = Folder::new(flaw, ledger.clone());
    let start = Instant::now();
    let authors = (0..AUTHORS).map(|number| {
        let clock = Clock {
            start,
            author: number,
            authors: AUTHORS,
        };
        let random = Arc::new(Mutex::new(Random(seed.wrapping_mul(1000) + number)));
        Author::new(&folder, &ledger, clock, random)
    });
    let end = start + TROUBLE;
    let work = authors.map(|mut author| async move {
        author.work(end).await;
        author
    });
    let authors = futures_util::future::join_all(work).await;
    ledger.calm();
    sleep(LATE).await;
    for mut author in authors {
        let before = ledger.begin_read();
        let (name, change) = author.count();
        author.commit(name, change).await;
        author.read().await;
        if ledger.begin_read() == before {
            ledger.fault(format!("{} cannot commit when all is well", author.name));
        }
    }
    ledger.judge();
    ledger
}

impl Author {
    fn new(folder: &Folder, ledger: &Ledger, clock: Clock, random: Arc<Mutex<Random>>) -> Self {
        let name = format!("n{}", clock.author + 1);
        Author {
            publish: publish(folder, clock, &random, &name, 1, None),
            name,
            folder: folder.clone(),
            ledger: ledger.clone(),
            clock,
            random,
            boot: 1,
            seen: None,
            changes: 0,
        }
    }

    fn below(&self, end: u64) -> u64 {
        self.random.lock().unwrap().below(end)
    }

    async fn work(&mut self, end: Instant) {
        while Instant::now() < end {
            sleep_until(self.clock.after(Duration::from_millis(self.below(100)))).await;
            match self.below(12) {
                0..=1 => self.read().await,
                2 => self.die().await,
                _ => {
                    let (name, change) = self.change();
                    self.commit(name, change).await;
                }
            }
        }
    }

    async fn read(&mut self) {
        let least = self.ledger.begin_read();
        let result = self.publish.read().await;
        if let Ok(view) = &result {
            self.seen = Some(view.clone());
        }
        self.ledger.end_read(least, result);
    }

    /// Its number goes up.
    fn count(&mut self) -> (String, Change) {
        self.changes += 1;
        let name = format!("{}/{}", self.name, self.changes);
        let count = Record::Setting(Setting {
            key: self.name.clone(),
            value: self.changes.to_string(),
        });
        let change = Change::put(count).and(Write::Event(name.clone()));
        (name, change)
    }

    /// And perhaps it takes the seat for which all compete.
    fn change(&mut self) -> (String, Change) {
        let (name, change) = self.count();
        match self.below(3) {
            0 => (name, self.claim(change)),
            _ => (name, change),
        }
    }

    /// As roles are claimed: on what was seen last.
    fn claim(&self, change: Change) -> Change {
        let key = Key::Role("cron".into(), String::new());
        let held = self.seen.as_ref().and_then(|view| view.get(&key)).cloned();
        let epoch = match &held {
            Some(Record::Role(role)) => role.epoch,
            _ => 0,
        };
        let taken = Record::Role(Role {
            role: "cron".into(),
            seat: String::new(),
            holder: Some(self.name.clone()),
            epoch: epoch + 1,
        });
        let guard = held.map_or(Guard::Absent(key), Guard::Is);
        change.and(Write::Put(taken)).when(guard)
    }

    async fn commit(&mut self, name: String, change: Change) {
        self.ledger.begins(&name, &change);
        let result = self.publish.commit(change).await;
        if let Ok(view) = &result {
            self.seen = Some(view.clone());
        }
        self.ledger.ended(name, Some(result));
    }

    /// In the middle of a commit, if that takes long enough.
    async fn die(&mut self) {
        let (name, change) = self.change();
        self.ledger.begins(&name, &change);
        let death = self.clock.between(Duration::from_millis(self.below(120)));
        let result = tokio::time::timeout_at(death, self.publish.commit(change)).await;
        self.ledger.ended(name, result.ok());
        self.boot += 1;
        let seen = self.seen.as_deref();
        self.publish = publish(&self.folder, self.clock, &self.random, &self.name, self.boot, seen);
    }
}

fn publish(
    folder: &Folder,
    clock: Clock,
    random: &Arc<Mutex<Random>>,
    name: &str,
    boot: u64,
    seen: Option<&View>,
) -> Publish {
    let door = Door {
        folder: folder.clone(),
        clock,
        random: random.clone(),
    };
    let random = random.clone();
    let numbers = Arc::new(move || Ok(random.lock().unwrap().number().max(1)));
    Publish::with_numbers(Arc::new(door), name, boot, seen, numbers)
}
