//! The simulated world: time, lines, registry, and what must hold.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use super::machine::{Machine, Process};
use crate::base::seeded::Random;
use crate::cluster::council::table::Table;
use crate::cluster::council::{Act, Council, Event, Message, Node, SHARDS, Shard, Stage, State, Timing, Told, View};
use crate::net::mesh::Name;

pub const MS: Duration = Duration::from_millis(1);
/// A rule that is left out on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// A voter may vote for another at once.
    NoPromise,
    /// A process that has just started votes at once.
    NoSilence,
    /// The leader does not wait for leases to end.
    NoGrace,
    /// A node counts its lease from when the answer came.
    LeaseFromReception,
    /// Voters that forgot count as if they knew that there was nothing.
    NoMemory,
    /// A node does not forget its data when it was left out.
    NoEmptying,
}

impl Flaw {
    pub const ALL: [Flaw; 6] = [
        Flaw::NoPromise,
        Flaw::NoSilence,
        Flaw::NoGrace,
        Flaw::LeaseFromReception,
        Flaw::NoMemory,
        Flaw::NoEmptying,
    ];

    fn timing(self) -> Timing {
        let whole = Timing::default();
        match self {
            Flaw::NoPromise => Timing {
                promise: Duration::ZERO,
                ..whole
            },
            Flaw::NoSilence => Timing {
                silence: Duration::ZERO,
                ..whole
            },
            Flaw::NoGrace => Timing {
                grace: Duration::ZERO,
                ..whole
            },
            _ => whole,
        }
    }
}

/// What happens at some time.
pub(super) enum Happening {
    Message {
        from: usize,
        to: usize,
        message: Message,
    },
    Told {
        to: usize,
        life: u64,
        told: Told,
    },
    Tick {
        to: usize,
        life: u64,
        tick: u64,
    },
    View {
        to: usize,
        life: u64,
        view: View,
    },
    Thaw {
        to: usize,
    },
    /// A client's write somewhere, and a round of filling.
    Work,
}

/// Between two machines, one way.
#[derive(Clone, Copy, Default)]
pub struct Line {
    pub is_cut: bool,
    /// Of a hundred messages.
    pub loses: u64,
    pub delays: Duration,
}

pub struct World {
    pub now: Duration,
    pub random: Random,
    pub machines: Vec<Machine>,
    pub lines: Vec<Vec<Line>>,
    pub view: View,
    pub faults: Vec<String>,
    pub acknowledged: u64,
    /// Acknowledged numbers that nobody has any more.
    pub lost: u64,
    story: Vec<String>,
    flaw: Flaw,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    pub(super) count: u64,
    /// The newest number of each shard that was acknowledged.
    pub(super) newest: BTreeMap<Shard, u64>,
    /// What a frozen machine will do first.
    held: Vec<Vec<Happening>>,
}

impl World {
    pub fn new(seed: u64, count: usize, flaw: Flaw) -> Self {
        let mut random = Random(seed);
        let names: Vec<Name> = (1..=count)
            .map(|number| format!("n{number}").parse().unwrap())
            .collect();
        let machine = |name: &Name| {
            // Fastest to slowest stays below a sixty-fourth.
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
                // As the registry has it: of two, one.
                voters: if count == 2 { names[..1].to_vec() } else { names.clone() },
                members: names,
            },
            faults: Vec::new(),
            acknowledged: 0,
            lost: 0,
            story: Vec::new(),
            flaw,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            count: 0,
            newest: BTreeMap::new(),
            held: (0..count).map(|_| Vec::new()).collect(),
        };
        (0..count).for_each(|machine| world.start(machine));
        world.plan(Duration::ZERO, Happening::Work);
        world
    }

    pub fn note(&mut self, what: String) {
        self.story.push(format!("{:>9.3} {what}", self.now.as_secs_f64()));
    }

    pub fn fault(&mut self, what: String) {
        self.note(format!("FAULT: {what}"));
        self.faults.push(what);
    }

    /// The last of what happened.
    pub fn tale(&self) -> String {
        self.story[self.story.len().saturating_sub(120)..].join("\n")
    }

    pub fn summary(&self) -> String {
        let last = self.story.last().map_or("", |line| line.trim_start());
        let (faults, acknowledged, lost) = (self.faults.len(), self.acknowledged, self.lost);
        format!("{acknowledged} acknowledged, {lost} lost, {faults} faults, {last}")
    }

    pub fn start(&mut self, to: usize) {
        let machine = &mut self.machines[to];
        machine.life += 1;
        (machine.is_frozen, machine.is_leaving) = (false, false);
        self.held[to].clear();
        let life = machine.life;
        // Unique for ever, and in no order.
        let incarnation = (u64::try_from(to).unwrap() << 48 | (life ^ 0x5a) << 40) & !0xffff_ffff;
        let time = machine.time(self.now);
        let council = Council::new(machine.name.clone(), incarnation, true, (self.flaw.timing(), time));
        machine.process = Some(Process {
            council,
            state: None,
            lease: Duration::ZERO,
            data: BTreeMap::new(),
            filled: Vec::new(),
            tick: 0,
        });
        let view = self.view.clone();
        let soon = self.random.time(MS * 20);
        self.plan(soon, Happening::View { to, life, view });
        self.schedule_tick(to);
    }

    pub fn crash(&mut self, machine: usize) {
        self.machines[machine].process = None;
        self.machines[machine].is_frozen = false;
        self.held[machine].clear();
    }

    pub fn freeze(&mut self, to: usize, within: Duration) {
        self.machines[to].is_frozen = true;
        self.plan(within, Happening::Thaw { to });
    }

    /// The registry has other members and voters; each node hears of it in its time.
    pub fn name(&mut self, members: Vec<Name>, voters: Vec<Name>) {
        self.view = View {
            version: self.view.version + 1,
            members,
            voters,
        };
        for to in 0..self.machines.len() {
            let (life, view) = (self.machines[to].life, self.view.clone());
            let soon = self.random.time(MS * 800);
            self.plan(soon, Happening::View { to, life, view });
        }
    }

    pub fn leave(&mut self, machine: usize) {
        if self.machines[machine].runs() {
            self.machines[machine].is_leaving = true;
            self.call(machine, |council, now| council.leave(now));
        }
    }

    pub fn crash_if_leaving(&mut self, machine: usize) {
        if std::mem::take(&mut self.machines[machine].is_leaving) {
            self.crash(machine);
        }
    }

    pub fn is_leader(&self, machine: usize) -> bool {
        let process = self.machines[machine].process.as_ref();
        process.is_some_and(|process| process.council.is_leader())
    }

    pub(super) fn plan(&mut self, within: Duration, happening: Happening) {
        self.count += 1;
        self.queue.push(Reverse((self.now + within, self.count)));
        self.happenings.insert(self.count, happening);
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Until it is so, at most for that time; whether it is.
    pub fn run_until(&mut self, most: Duration, is: impl Fn(&World) -> bool) -> bool {
        let end = self.now + most;
        while let Some(Reverse((at, number))) = self.queue.peek().copied() {
            if is(self) {
                return true;
            }
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = self.now.max(at);
            if let Some(happening) = self.happenings.remove(&number) {
                self.happen(happening);
                self.look();
            }
        }
        self.now = end;
        is(self)
    }

    fn happen(&mut self, happening: Happening) {
        let to = match &happening {
            Happening::Message { to, .. }
            | Happening::Told { to, .. }
            | Happening::Tick { to, .. }
            | Happening::View { to, .. } => *to,
            Happening::Work => return self.work(),
            Happening::Thaw { to } => return self.thaw(*to),
        };
        if self.machines[to].is_frozen {
            return self.held[to].push(happening);
        }
        let own_life = self.machines[to].life;
        match happening {
            Happening::Message { from, message, .. } => {
                let name = self.machines[from].name.clone();
                let message = self.falsify(to, message);
                self.call(to, |council, now| council.on_message(&name, message, now));
            }
            Happening::Told { life, told, .. } if life == own_life => self.told(to, told),
            Happening::Tick { life, tick, .. } if life == own_life && self.is_newest_tick(to, tick) => {
                self.call(to, Council::on_tick);
            }
            Happening::View { life, view, .. } if life == own_life => {
                self.call(to, |council, now| council.on_view(view, now));
            }
            _ => {}
        }
    }

    fn is_newest_tick(&self, of: usize, tick: u64) -> bool {
        let process = self.machines[of].process.as_ref();
        process.is_some_and(|process| process.tick == tick)
    }

    /// It goes on with what came meanwhile, in any order.
    fn thaw(&mut self, machine: usize) {
        if !std::mem::take(&mut self.machines[machine].is_frozen) {
            return;
        }
        self.note(format!("{} goes on", self.machines[machine].name));
        let mut held = std::mem::take(&mut self.held[machine]);
        while !held.is_empty() {
            let next = usize::try_from(self.random.below(u64::try_from(held.len()).unwrap())).unwrap();
            let happening = held.swap_remove(next);
            self.happen(happening);
            self.look();
        }
    }

    pub(super) fn told(&mut self, to: usize, told: Told) {
        if let (Told::Emptied { .. }, Some(process)) = (&told, &mut self.machines[to].process)
            && self.flaw != Flaw::NoEmptying
        {
            process.data.clear();
        }
        self.call(to, |council, now| council.on_told(told, now));
    }

    fn call(&mut self, to: usize, act: impl FnOnce(&mut Council, Duration) -> Vec<Act>) {
        let time = self.machines[to].time(self.now);
        let Some(process) = &mut self.machines[to].process else {
            return;
        };
        let acts = act(&mut process.council, time);
        acts.into_iter().for_each(|act| self.act(to, act));
        self.schedule_tick(to);
    }

    fn schedule_tick(&mut self, to: usize) {
        let late = self.random.time(MS * 3);
        let machine = &mut self.machines[to];
        let Some(process) = &mut machine.process else { return };
        let next = process.council.next_tick();
        process.tick += 1;
        let (life, tick) = (machine.life, process.tick);
        let within = machine.when(next).saturating_sub(self.now).max(MS / 10) + late;
        self.plan(within, Happening::Tick { to, life, tick });
    }

    fn act(&mut self, of: usize, act: Act) {
        match act {
            Act::Put(state) => self.put(of, state),
            Act::Lease(until) => {
                if let Some(process) = &mut self.machines[of].process {
                    process.lease = until;
                }
            }
            Act::Tell(event) => self.tell(of, event),
            Act::Send(to, message) => self.send(of, &to, message),
        }
    }

    fn put(&mut self, of: usize, state: Arc<State>) {
        let show = |table: Option<&Arc<Table>>| {
            let node = |node: &Node| match node.stage {
                Stage::Serving => node.name.to_string(),
                Stage::Filling => format!("+{}", node.name),
            };
            table.map(|table| {
                let nodes: Vec<String> = table.nodes.iter().map(node).collect();
                format!("{} [{}] of {}", table.epoch, nodes.join(" "), table.voters.len())
            })
        };
        let tables = (
            show(state.placement().map(|placement| placement.table())),
            show(state.next().map(|placement| placement.table())),
        );
        let (name, serves) = (self.machines[of].name.clone(), state.served().len());
        let leads = if self.is_leader(of) { " leads" } else { "" };
        self.note(format!(
            "{name}{leads}: {tables:?}, {serves} shards, alone {}",
            state.is_alone()
        ));
        if let Some(process) = &mut self.machines[of].process {
            process.state = Some(state);
        }
    }

    fn tell(&mut self, of: usize, event: Event) {
        let hang = self.machines[of].hang;
        let told = match event {
            Event::Stop(next) => Told::Stopped(next.epoch()),
            Event::Empty { incarnation } => Told::Emptied { incarnation },
            Event::Commit(placement) => {
                let held = placement.held(&self.machines[of].name);
                if let (Some(process), true) = (&mut self.machines[of].process, self.flaw != Flaw::NoEmptying) {
                    process.data.retain(|shard, _| held.has(*shard));
                }
                return;
            }
            Event::Alone | Event::Rejoined => return,
        };
        let within = hang + self.random.time(MS * 8);
        let life = self.machines[of].life;
        self.plan(within, Happening::Told { to: of, life, told });
    }

    fn send(&mut self, from: usize, to: &Name, message: Message) {
        let Some(to) = self.machines.iter().position(|machine| machine.name == *to) else {
            return;
        };
        let line = self.lines[from][to];
        if line.is_cut || self.random.below(100) < line.loses {
            return;
        }
        let mut delay = MS / 5 + self.random.time(MS * 2) + self.random.time(line.delays);
        if self.random.is_one_of(300) {
            delay += self.random.time(MS * 60);
        }
        self.plan(delay, Happening::Message { from, to, message });
    }

    fn falsify(&self, to: usize, message: Message) -> Message {
        let time = self.machines[to].time(self.now);
        match (self.flaw, message) {
            (Flaw::LeaseFromReception, Message::Order(mut order)) => {
                order.echo = order.echo.map(|(incarnation, sent)| (incarnation, sent.max(time)));
                Message::Order(order)
            }
            (Flaw::NoMemory, Message::Vote(mut vote)) if vote.memory.base.is_none() => {
                let nothing = Table {
                    epoch: Default::default(),
                    parent: Default::default(),
                    chain: Default::default(),
                    view: 0,
                    voters: self.view.voters.clone(),
                    nodes: Vec::new(),
                };
                vote.memory.base = Some(Arc::new(nothing));
                Message::Vote(vote)
            }
            (_, message) => message,
        }
    }

    /// Every shard is served by a node that runs.
    pub fn is_served(&self) -> bool {
        let served = self.machines.iter().filter(|machine| machine.runs());
        served.map(|machine| machine.serves(self.now).len()).sum::<usize>() == SHARDS
    }

    /// And all members serve.
    pub fn is_whole(&self) -> bool {
        let is_serving = |machine: &&Machine| machine.runs() && !machine.serves(self.now).is_empty();
        self.is_served() && self.machines.iter().filter(is_serving).count() == self.view.members.len()
    }

    pub fn seen(&self) -> String {
        let one = |machine: &Machine| {
            let serves = machine.serves(self.now).len();
            format!("{} runs {}, {serves} shards", machine.name, machine.runs())
        };
        self.machines.iter().map(one).collect::<Vec<_>>().join("; ")
    }
}
