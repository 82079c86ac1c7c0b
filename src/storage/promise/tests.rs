//! A leader and three doors in simulated time: messages are late, overtake one another and get lost, doors sleep, leaders change.
//! Whatever happens, no door answers with what was before a change that was acknowledged to anybody.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::table::Owed;
use super::{Kept, Promises, Recalls, Thing};
use crate::storage::call::{Attributes, Caller, Error, Inode, Kind, Query, Reply, Time};
use crate::storage::operation::Session;
use crate::storage::request::Answer;

const DOORS: usize = 3;
const FILES: u64 = 5;
const FOLDER: Inode = Inode(1);
const CALLER: Caller = Caller {
    uid: 33,
    gid: 33,
    groups: Vec::new(),
};

enum Event {
    /// A program asks at a door.
    Ask(usize),
    /// A program changes something through a door.
    Change(usize),
    /// A door sends its `Listen` of that number, unless a later one is under way.
    Listen(usize, u64),
    /// When it was sent, the epoch, and what is confirmed.
    Listens(usize, Duration, (u64, u64)),
    /// The leader answers a `Listen`: when it was sent and when it arrived, and the epoch.
    Lend(usize, Duration, Duration, u64),
    Listened(usize, Recalls, Duration),
    /// The door's own clients have heeded what it listened to.
    Heeded(usize, Recalls, Duration),
    Read(usize, Query, u64),
    Promise(usize, Query, Answer, u64, u64),
    Keep(usize, Query, Answer, u64, u64),
    Touch(usize, Vec<Part>, Versions),
    Settle(usize, Vec<Owed>, Versions),
    Changed(usize, Option<Recalls>, Versions),
    Stop,
    Elect,
}

/// What has a version.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Attributes(Inode),
    Access,
    Name(u8),
}

/// What a change has made of what it changed.
type Versions = Vec<(Part, u64)>;

struct Door {
    kept: Kept,
    /// Its clock is ahead by this.
    offset: Duration,
    asleep_until: Duration,
    listen: u64,
    /// What it may not be behind.
    required: HashMap<Part, u64>,
}

struct World {
    random: TestRng,
    now: Duration,
    next: u64,
    events: BTreeMap<(Duration, u64), Event>,
    promises: Promises,
    leads: bool,
    /// No other leader before.
    lent_until: Duration,
    versions: HashMap<Part, u64>,
    /// Which file each name means.
    names: HashMap<u8, Option<Inode>>,
    /// The last version of each name in which it meant none, until it means one again: until the end of time while it does not.
    absent: HashMap<u8, Vec<(u64, u64)>>,
    doors: Vec<Door>,
    hits: u64,
    changes: u64,
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let doors = (0..DOORS).map(|_| Door {
            kept: Kept::default(),
            offset: millis(random.random_range(0..100_000)),
            asleep_until: Duration::ZERO,
            listen: 0,
            required: HashMap::new(),
        });
        let doors = doors.collect();
        let mut world = World {
            promises: Promises::new(random.random()),
            random,
            now: Duration::ZERO,
            next: 0,
            events: BTreeMap::new(),
            leads: true,
            lent_until: Duration::ZERO,
            versions: HashMap::new(),
            names: (0..FILES).map(|name| (name as u8, Some(Inode(100 + name)))).collect(),
            absent: HashMap::new(),
            doors,
            hits: 0,
            changes: 0,
        };
        for door in 0..DOORS {
            world.after(0, Event::Listen(door, 0));
            world.after(1, Event::Ask(door));
            world.after(2, Event::Change(door));
        }
        world.after(5000, Event::Stop);
        world
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.random_range(0..bound)
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.next += 1;
        self.events.insert((self.now + millis(delay), self.next), event);
    }

    /// A message on its way: mostly quick, now and then slow or lost.
    fn send(&mut self, event: Event) {
        match self.below(100) {
            0..2 => {}
            2..8 => {
                let delay = self.below(900);
                self.after(delay, event);
            }
            _ => {
                let delay = self.below(4);
                self.after(delay, event);
            }
        }
    }

    fn clock(&self, door: usize) -> Duration {
        self.now + self.doors[door].offset
    }

    fn attributes(&self, inode: Inode) -> Attributes {
        Attributes {
            inode,
            generation: 0,
            kind: Kind::File,
            mode: 0,
            links: 1,
            uid: 0,
            gid: 0,
            size: self.version(Part::Attributes(inode)),
            used: 0,
            device: (0, 0),
            accessed: Time::default(),
            modified: Time::default(),
            changed: Time::default(),
        }
    }

    fn version(&self, part: Part) -> u64 {
        self.versions.get(&part).copied().unwrap_or_default()
    }

    fn read(&self, query: &Query) -> Answer {
        match query {
            Query::Lookup { name, .. } => {
                let mut attributes = self.attributes(self.names[&name[0]].ok_or(Error::NotFound)?);
                attributes.used = self.version(Part::Name(name[0]));
                attributes.device.0 = self.version(Part::Access) as u32;
                Ok(Reply::Object {
                    attributes,
                    folder: None,
                })
            }
            Query::Attributes { inode } => Ok(Reply::Attributes(self.attributes(*inode))),
            other => panic!("{other:?}"),
        }
    }

    /// An answer from memory must not be from before what was acknowledged to this door's programs, or to others.
    fn check(&mut self, door: usize, query: &Query, answer: &Answer) {
        self.hits += 1;
        let required = |part| self.doors[door].required.get(&part).copied().unwrap_or_default();
        let is_true = match (query, answer) {
            (Query::Attributes { .. }, Ok(Reply::Attributes(found))) => {
                found.size >= required(Part::Attributes(found.inode))
            }
            (Query::Lookup { name, .. }, Ok(Reply::Object { attributes: found, .. })) => {
                found.size >= required(Part::Attributes(found.inode))
                    && found.used >= required(Part::Name(name[0]))
                    && u64::from(found.device.0) >= required(Part::Access)
            }
            (Query::Lookup { name, .. }, Err(Error::NotFound)) => {
                let absent = self.absent.get(&name[0]).into_iter().flatten();
                absent
                    .last()
                    .is_some_and(|(_, until)| *until > required(Part::Name(name[0])))
            }
            _ => panic!("{query:?}: {answer:?}"),
        };
        assert!(is_true, "{query:?} at {:?}: {answer:?}", self.now);
    }

    fn ask(&mut self, door: usize) {
        let name = self.below(FILES);
        let query = match self.below(5) {
            0 => Query::Attributes { inode: FOLDER },
            1 | 2 => Query::Attributes {
                inode: Inode(100 + name),
            },
            _ => Query::Lookup {
                folder: FOLDER,
                name: vec![name as u8],
            },
        };
        let now = self.clock(door);
        match self.doors[door].kept.find(&CALLER, &query, now) {
            Some(answer) => self.check(door, &query, &answer),
            None => {
                let ticket = self.doors[door].kept.ticket();
                self.send(Event::Read(door, query, ticket));
            }
        }
        let pause = self.below(10);
        self.after(pause, Event::Ask(door));
        if self.below(2000) == 0 {
            let sleep = self.below(2000);
            self.doors[door].asleep_until = self.now + millis(sleep);
        }
    }

    /// The leader applies a change at once and hears of it a little later.
    fn change(&mut self, door: usize) {
        let pause = self.below(60);
        self.after(pause, Event::Change(door));
        if !self.leads {
            return;
        }
        let (name, file) = (self.below(FILES) as u8, Inode(100 + self.below(FILES)));
        let (folder, named) = (Part::Attributes(FOLDER), Part::Name(name));
        let touched = match self.below(7) {
            0 => vec![Part::Access, folder],
            1 => {
                let other = self.below(FILES) as u8;
                let (one, two) = (self.names[&name], self.names[&other]);
                self.names.extend([(name, two), (other, one)]);
                vec![named, Part::Name(other), folder]
            }
            2 | 3 => {
                let meant = self.names[&name];
                self.names.insert(name, meant.xor(Some(file)));
                vec![named, folder, Part::Attributes(file)]
            }
            _ => vec![Part::Attributes(file)],
        };
        let versions: Versions = touched.iter().map(|part| (*part, self.raise(*part))).collect();
        self.changes += 1;
        let delay = self.below(5);
        self.after(delay, Event::Touch(door, touched, versions));
    }

    fn raise(&mut self, part: Part) -> u64 {
        let version = self.versions.entry(part).or_default();
        *version += 1;
        if let Part::Name(name) = part {
            let absent = self.absent.entry(name).or_default();
            if let Some((_, until)) = absent.last_mut() {
                *until = (*until).min(*version);
            }
            if self.names[&name].is_none() {
                absent.push((*version, u64::MAX));
            }
        }
        *version
    }

    fn listen(&mut self, door: usize, number: u64) {
        if number != self.doors[door].listen {
            return;
        }
        self.doors[door].listen += 1;
        let (sent, heard) = (self.clock(door), self.doors[door].kept.heard());
        self.send(Event::Listens(door, sent, heard));
        // When no answer comes.
        let number = self.doors[door].listen;
        self.after(400, Event::Listen(door, number));
    }

    /// As long as the leader's own lease, which nobody takes from it.
    fn lend(&mut self, (door, sent): (usize, Duration), arrived: Duration, epoch: u64) {
        let until = self.now + millis(425 + self.below(225));
        self.lent_until = self.lent_until.max(until);
        let session = session(door);
        let known = self.promises.lend(session, epoch, until);
        let recalls = known.unwrap_or_else(|| {
            let epoch = self.promises.begin(session).unwrap();
            self.promises.lend(session, epoch, until).unwrap()
        });
        self.send(Event::Listened(door, recalls, sent + (until - arrived)));
    }

    fn settle(&mut self, door: usize, mut owed: Vec<Owed>, versions: Versions) {
        owed.retain(|one| self.promises.outstanding(one, self.now).is_some());
        if !owed.is_empty() {
            return self.after(1, Event::Settle(door, owed, versions));
        }
        // It may be lost, and is done all the same; who hears of it may tell all others at once.
        let recalls = self.promises.recalls(session(door));
        self.send(Event::Changed(door, recalls, versions));
    }

    fn step(&mut self) {
        let ((at, number), event) = self.events.pop_first().unwrap();
        self.now = at;
        if let Some(door) = event.at_door().filter(|door| self.doors[*door].asleep_until > at) {
            let wakes = self.doors[door].asleep_until;
            self.events.insert((wakes, number), event);
            return;
        }
        // What the leader has under way comes to nothing with it.
        if event.at_door().is_none() && !self.leads && !matches!(event, Event::Elect) {
            return;
        }
        match event {
            Event::Ask(door) => self.ask(door),
            Event::Change(door) => self.change(door),
            Event::Listen(door, number) => self.listen(door, number),
            Event::Listens(door, sent, (epoch, confirmed)) => {
                let has_nothing = self.promises.confirm(session(door), epoch, confirmed);
                let hold = if has_nothing { self.below(150) } else { 0 };
                self.after(hold, Event::Lend(door, sent, self.now, epoch));
            }
            Event::Lend(door, sent, arrived, epoch) => self.lend((door, sent), arrived, epoch),
            Event::Listened(door, mut recalls, until) => {
                let kept = &mut self.doors[door].kept;
                recalls.all |= kept.heard().0 != recalls.epoch;
                kept.recall(&recalls);
                let delay = if self.below(4) == 0 { self.below(60) } else { 0 };
                self.after(delay, Event::Heeded(door, recalls, until));
            }
            Event::Heeded(door, recalls, until) => {
                self.doors[door].kept.listened(&recalls, until);
                let number = self.doors[door].listen;
                self.after(0, Event::Listen(door, number));
            }
            Event::Read(door, query, ticket) => {
                let (answer, theirs, delay) = (self.read(&query), self.promises.ticket(), self.below(5));
                self.after(delay, Event::Promise(door, query, answer, ticket, theirs));
            }
            Event::Promise(door, query, answer, ticket, theirs) => {
                let rests_on = super::rests_on(&query, &answer).unwrap();
                if let Some(epoch) = self.promises.promise(session(door), &rests_on, theirs, self.now) {
                    self.send(Event::Keep(door, query, answer, epoch, ticket));
                }
            }
            Event::Keep(door, query, answer, epoch, ticket) => {
                let kept = &mut self.doors[door].kept;
                kept.keep((&CALLER, &query), &answer, epoch, ticket);
            }
            Event::Touch(door, touched, versions) => {
                let names: Vec<[u8; 1]> = (0..FILES as u8).map(|name| [name]).collect();
                let thing = |part: &Part| match part {
                    Part::Attributes(inode) => Thing::Attributes(*inode),
                    Part::Access => Thing::Access(FOLDER),
                    Part::Name(name) => Thing::Name(FOLDER, names[usize::from(*name)].as_slice()),
                };
                self.promises.touch(touched.iter().map(thing));
                let owed = self.promises.owed(session(door));
                self.settle(door, owed, versions);
            }
            Event::Settle(door, owed, versions) => self.settle(door, owed, versions),
            Event::Changed(door, recalls, versions) => {
                if let Some(recalls) = recalls {
                    self.doors[door].kept.recall(&recalls);
                }
                for door in &mut self.doors {
                    for (part, version) in &versions {
                        let required = door.required.entry(*part).or_default();
                        *required = (*version).max(*required);
                    }
                }
            }
            Event::Stop => {
                self.leads = false;
                self.after(0, Event::Elect);
            }
            Event::Elect if self.now < self.lent_until => self.after(1, Event::Elect),
            Event::Elect => {
                self.promises = Promises::new(self.random.random());
                self.leads = true;
                self.after(5000, Event::Stop);
            }
        }
    }
}

impl Event {
    /// The door where it happens; `None`: at the leader.
    fn at_door(&self) -> Option<usize> {
        match self {
            Event::Ask(door) | Event::Change(door) | Event::Listen(door, _) => Some(*door),
            Event::Listened(door, ..) | Event::Heeded(door, ..) => Some(*door),
            Event::Keep(door, ..) | Event::Changed(door, ..) => Some(*door),
            _ => None,
        }
    }
}

fn session(door: usize) -> Session {
    Session(door as u64)
}

#[test]
fn no_door_is_ever_behind_what_was_acknowledged() {
    let (mut hits, mut changes) = (0, 0);
    for seed in 0..4 {
        let mut world = World::new(seed);
        while world.now < millis(30_000) {
            world.step();
        }
        hits += world.hits;
        changes += world.changes;
    }
    assert!(
        hits > 2_000 && changes > 2_000,
        "{hits} answers from memory, {changes} changes"
    );
}
