//! The simulated world: machines with real councils and real parts, lines between them, subscribers, and what must hold.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::client::Client;
use super::machine::{Machine, Process};
use crate::base::seeded::Random;
use crate::cluster::council::{Act as Ruling, Council, Event, Message as Word, State, Timing, Told, View};
use crate::net::mesh::Name;
use crate::push::history::History;
use crate::push::mid::Mid;
use crate::push::order::log::Log;
use crate::push::order::part::Part;

pub const MS: Duration = Duration::from_millis(1);
/// Addresses of subscribers.
pub const ADDRESSES: u64 = 6;

/// A rule that is left out on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// Who orders believes in a lease that is over.
    NoLease,
    /// It does not wait for the other hubs.
    NoCopies,
    /// A hub listens to older reigns, too.
    NoReign,
    /// Publishes that are asked for again get a number anew.
    NoOrigin,
    /// A hub that was away keeps what it had not delivered.
    NoShortening,
}

impl Flaw {
    pub const ALL: [Flaw; 5] = [
        Flaw::NoLease,
        Flaw::NoCopies,
        Flaw::NoReign,
        Flaw::NoOrigin,
        Flaw::NoShortening,
    ];
}

pub(super) enum Happening {
    Word {
        from: usize,
        to: usize,
        word: Word,
    },
    Told {
        to: usize,
        life: u64,
        told: Told,
    },
    CouncilTick {
        to: usize,
        life: u64,
        tick: u64,
    },
    View {
        to: usize,
        life: u64,
        view: View,
    },
    /// The data path comes to the next of what the council said.
    Ruling {
        to: usize,
        life: u64,
    },
    Time {
        to: usize,
        life: u64,
        at: Duration,
    },
    Call {
        from: usize,
        to: usize,
        number: u64,
        bytes: Vec<u8>,
    },
    Reply {
        to: usize,
        life: u64,
        number: u64,
        bytes: Option<Vec<u8>>,
    },
    Thaw {
        to: usize,
    },
    Publish {
        at: usize,
    },
    Wander,
}

/// Between two machines, one way.
#[derive(Clone, Copy, Default)]
pub struct Line {
    pub is_cut: bool,
    /// Of a hundred messages.
    pub loses: u64,
}

pub struct World {
    pub now: Duration,
    pub random: Random,
    pub machines: Vec<Machine>,
    pub lines: Vec<Vec<Line>>,
    pub view: View,
    pub faults: Vec<String>,
    pub clients: Vec<Client>,
    /// Publishes that were acknowledged, and for whom they were.
    pub acknowledged: BTreeMap<u64, u64>,
    /// What has each id, as the first hub delivered it.
    pub known: BTreeMap<Mid, u64>,
    pub flaw: Flaw,
    /// Nobody publishes any more.
    pub is_quiet: bool,
    pub(super) base: Instant,
    pub(super) story: Vec<String>,
    pub(super) queue: BinaryHeap<Reverse<(Duration, u64)>>,
    pub(super) happenings: BTreeMap<u64, Happening>,
    pub(super) count: u64,
    pub(super) held: Vec<Vec<Happening>>,
    /// Of each publish at its process: what it says, and for whom. Not of those for present ones: who comes back is not told these.
    pub(super) receivers: BTreeMap<(u64, u64), (u64, u64)>,
}

impl World {
    pub fn new(seed: u64, count: usize, flaw: Flaw) -> Self {
        let mut random = Random(seed);
        let names: Vec<Name> = (1..=count)
            .map(|number| format!("n{number}").parse().unwrap())
            .collect();
        let machine = |name: &Name| {
            let rate = 0.9925 + random.below(1500) as f64 * 0.00001;
            Machine::new(name.clone(), (Duration::from_secs(random.below(100_000)), rate))
        };
        let machines: Vec<Machine> = names.iter().map(machine).collect();
        let mut world = World {
            now: Duration::ZERO,
            random,
            machines,
            lines: vec![vec![Line::default(); count]; count],
            view: View {
                version: 1,
                voters: if count == 2 { names[..1].to_vec() } else { names.clone() },
                members: names,
            },
            faults: Vec::new(),
            clients: Vec::new(),
            acknowledged: BTreeMap::new(),
            known: BTreeMap::new(),
            flaw,
            is_quiet: false,
            base: Instant::now(),
            story: Vec::new(),
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            count: 0,
            held: (0..count).map(|_| Vec::new()).collect(),
            receivers: BTreeMap::new(),
        };
        for at in 0..count {
            world.start(at);
            world.plan(MS * 1500, Happening::Publish { at });
        }
        world.clients = (0..ADDRESSES * 2).map(Client::new).collect();
        world.plan(MS * 1500, Happening::Wander);
        world
    }

    pub fn note(&mut self, what: String) {
        self.story.push(format!("{:>9.3} {what}", self.now.as_secs_f64()));
    }

    pub fn fault(&mut self, what: String) {
        self.note(format!("FAULT: {what}"));
        self.faults.push(what);
    }

    pub fn tale(&self) -> String {
        self.story[self.story.len().saturating_sub(150)..].join("\n")
    }

    pub fn start(&mut self, to: usize) {
        let machine = &mut self.machines[to];
        machine.life += 1;
        machine.is_frozen = false;
        self.held[to].clear();
        let life = machine.life;
        let unique = u64::try_from(to).unwrap() << 48 | (life ^ 0x5a) << 40;
        let council = Council::new(
            machine.name.clone(),
            unique,
            true,
            (Timing::default(), machine.time(self.now)),
        );
        let part = Part::new(machine.name.clone(), unique | 1, Log::new(History::new(64 << 20)));
        machine.process = Some(Process::new(council, part, unique | 1));
        let view = self.view.clone();
        let soon = self.random.time(MS * 20);
        self.plan(soon, Happening::View { to, life, view });
        self.schedule_tick(to);
    }

    pub fn crash(&mut self, at: usize) {
        self.machines[at].process = None;
        self.machines[at].is_frozen = false;
        self.held[at].clear();
        for client in self.clients.iter_mut().filter(|client| client.hub == Some(at)) {
            client.hub = None;
        }
    }

    pub fn freeze(&mut self, to: usize, within: Duration) {
        self.machines[to].is_frozen = true;
        self.plan(within, Happening::Thaw { to });
    }

    pub fn leader(&self) -> Option<usize> {
        let leads = |machine: &Machine| machine.process.as_ref().is_some_and(|process| process.part.leads());
        self.machines.iter().position(leads)
    }

    pub(super) fn plan(&mut self, within: Duration, happening: Happening) {
        self.count += 1;
        self.queue.push(Reverse((self.now + within, self.count)));
        self.happenings.insert(self.count, happening);
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    pub fn run_until(&mut self, most: Duration, is: impl Fn(&World) -> bool) -> bool {
        let end = self.now + most;
        while let Some(Reverse((at, number))) = self.queue.peek().copied() {
            if at > end || is(self) {
                break;
            }
            self.queue.pop();
            self.now = self.now.max(at);
            if let Some(happening) = self.happenings.remove(&number) {
                self.happen(happening);
            }
        }
        if is(self) {
            return true;
        }
        self.now = end;
        false
    }

    fn happen(&mut self, happening: Happening) {
        let to = match &happening {
            Happening::Word { to, .. }
            | Happening::Told { to, .. }
            | Happening::CouncilTick { to, .. }
            | Happening::View { to, .. }
            | Happening::Ruling { to, .. }
            | Happening::Time { to, .. }
            | Happening::Call { to, .. }
            | Happening::Reply { to, .. } => *to,
            Happening::Thaw { to } => return self.thaw(*to),
            Happening::Publish { at } => return self.publish(*at),
            Happening::Wander => return self.wander(),
        };
        if self.machines[to].is_frozen {
            return self.held[to].push(happening);
        }
        let own_life = self.machines[to].life;
        match happening {
            Happening::Word { from, word, .. } => {
                let name = self.machines[from].name.clone();
                self.council(to, |council, now| council.on_message(&name, word, now));
            }
            Happening::Told { life, told, .. } if life == own_life => {
                self.council(to, |council, now| council.on_told(told, now));
            }
            Happening::CouncilTick { life, tick, .. } if life == own_life && self.is_newest_tick(to, tick) => {
                self.council(to, Council::on_tick);
            }
            Happening::View { life, view, .. } if life == own_life => {
                self.council(to, |council, now| council.on_view(view, now));
            }
            Happening::Ruling { life, .. } if life == own_life => self.rule(to),
            Happening::Time { life, at, .. } if life == own_life => self.time(to, at),
            Happening::Call {
                from, number, bytes, ..
            } => self.called(from, to, number, &bytes),
            Happening::Reply {
                life, number, bytes, ..
            } if life == own_life => self.replied(to, number, bytes),
            _ => {}
        }
    }

    fn is_newest_tick(&self, of: usize, tick: u64) -> bool {
        let process = self.machines[of].process.as_ref();
        process.is_some_and(|process| process.tick == tick)
    }

    /// It goes on where it stood, with what came meanwhile in any order.
    fn thaw(&mut self, at: usize) {
        if !std::mem::take(&mut self.machines[at].is_frozen) {
            return;
        }
        self.note(format!("{} goes on", self.machines[at].name));
        let undone = self.machines[at]
            .process
            .as_mut()
            .map(|process| std::mem::take(&mut process.undone));
        undone.into_iter().flatten().for_each(|act| self.act(at, act));
        let mut held = std::mem::take(&mut self.held[at]);
        while !held.is_empty() {
            let next = self.random.index(held.len());
            let happening = held.swap_remove(next);
            self.happen(happening);
        }
    }

    // The council

    fn council(&mut self, to: usize, act: impl FnOnce(&mut Council, Duration) -> Vec<Ruling>) {
        let time = self.machines[to].time(self.now);
        let Some(process) = &mut self.machines[to].process else {
            return;
        };
        let rulings = act(&mut process.council, time);
        for ruling in rulings {
            match ruling {
                Ruling::Send(name, word) => self.word(to, &name, word),
                Ruling::Lease(until) => {
                    if let Some(process) = &mut self.machines[to].process {
                        process.lease = until;
                    }
                }
                Ruling::Put(state) => self.queue_ruling(to, Ok(state)),
                Ruling::Tell(event) => self.queue_ruling(to, Err(event)),
            }
        }
        self.schedule_tick(to);
    }

    fn queue_ruling(&mut self, to: usize, ruling: Result<Arc<State>, Event>) {
        let late = self.random.time(MS * 6);
        let (now, life) = (self.now, self.machines[to].life);
        let Some(process) = &mut self.machines[to].process else {
            return;
        };
        process.rulings.push_back(ruling);
        process.ruled_at = process.ruled_at.max(now + late);
        let within = process.ruled_at - now;
        self.plan(within, Happening::Ruling { to, life });
    }

    /// In their order, whatever the order of the heap.
    fn rule(&mut self, to: usize) {
        let Some(process) = &mut self.machines[to].process else {
            return;
        };
        let Some(ruling) = process.rulings.pop_front() else {
            return;
        };
        self.part(to, |part, moment| match ruling {
            Ok(state) => part.on_state(state, moment),
            Err(event) => part.on_event(&event, moment),
        });
    }

    fn word(&mut self, from: usize, to: &Name, word: Word) {
        let Some(to) = self.place(to) else { return };
        if self.is_lost(from, to) {
            return;
        }
        let delay = self.delay();
        self.plan(delay, Happening::Word { from, to, word });
    }

    pub(super) fn place(&self, name: &Name) -> Option<usize> {
        self.machines.iter().position(|machine| machine.name == *name)
    }

    pub(super) fn is_lost(&mut self, from: usize, to: usize) -> bool {
        let line = self.lines[from][to];
        line.is_cut || self.random.below(100) < line.loses
    }

    pub(super) fn delay(&mut self) -> Duration {
        let delay = MS / 5 + self.random.time(MS * 2);
        match self.random.is_one_of(300) {
            true => delay + self.random.time(MS * 60),
            false => delay,
        }
    }

    fn schedule_tick(&mut self, to: usize) {
        let late = self.random.time(MS * 3);
        let machine = &mut self.machines[to];
        let Some(process) = &mut machine.process else { return };
        let next = process.council.next_tick();
        process.tick += 1;
        let (life, tick) = (machine.life, process.tick);
        let within = machine.when(next).saturating_sub(self.now).max(MS / 10) + late;
        self.plan(within, Happening::CouncilTick { to, life, tick });
    }

    pub fn put_back(&mut self) {
        let count = self.machines.len();
        self.lines = vec![vec![Line::default(); count]; count];
        for at in 0..count {
            if self.machines[at].is_frozen {
                self.thaw(at);
            }
            if self.machines[at].process.is_none() {
                self.start(at);
            }
        }
    }

    /// One orders, and the others are in the table and have all.
    pub fn is_whole(&self) -> bool {
        let is_current = |at: usize| {
            let process = self.machines[at].process.as_ref();
            self.machines[at].runs()
                && process.is_some_and(|process| process.part.is_current(self.moment(at).is_leased))
        };
        self.leader().is_some() && (0..self.machines.len()).all(is_current)
    }

    pub fn seen(&self) -> String {
        let one = |machine: &Machine| {
            let report = machine
                .process
                .as_ref()
                .map(|process| (process.part.leads(), process.part.log().report()));
            format!("{} runs {}: {report:?}", machine.name, machine.runs())
        };
        self.machines.iter().map(one).collect::<Vec<_>>().join("\n")
    }
}
