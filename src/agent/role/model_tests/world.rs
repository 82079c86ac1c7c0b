//! The model's world: the registry, the nodes and their supervisors, and every step that it can take.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::agent::role::Seen;
use crate::agent::role::decide::{Act, decide};
use crate::agent::role::memory::Memory;
use crate::cluster::{ADDRESSES, Fit, Member, Place, Role, Seat, Snapshot, Standing};
use crate::registry::{Beat, Pulse, holds_until};

pub const ADDRESS: &str = "10.0.0.10/24";
pub const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// After the last fault, seats must be held within so many seconds.
pub const BOUND: u64 = 10;

/// What is done wrong on purpose: the search must find it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// A tenure that ran out is prolonged.
    Resumes,
    /// The heartbeats are read before the view.
    HeartsFirst,
    /// Silence is counted up to the answer of a look.
    ByAnswer,
    /// The other may be taken for silent a little too early.
    Hasty,
}

/// What a node has to do in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    Beat,
    Look,
    Commit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next duty, by all nodes that are undisturbed in it.
    InTurn(Duty),
    /// A fault: from now on its steps come one by one, at any time.
    Loosen(Duty, usize),
    /// The next step of a loose duty.
    Loose(Duty, usize),
    FailLook(usize),
    Forget(usize),
    Ghost(usize),
    /// A fault.
    Die(usize),
    Tick,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub now: u64,
    pub faults: u8,
    /// Only commits can be disturbed from now on.
    pub is_narrow: bool,
    /// Something was done in this second.
    pub is_begun: bool,
    /// No fault yet: without one, a second is like the other.
    pub is_calm: bool,
    pub seats: Vec<Seat>,
    /// The heartbeats as they can be read.
    pub hearts: [u64; 3],
    pub nodes: [Arc<Node>; 3],
}

#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Node {
    pub memory: Memory,
    pub pulses: BTreeMap<usize, Pulse>,
    pub beat: Progress,
    /// Number of the heartbeat, and when it was sent.
    pub beats: (u64, u64),
    pub acknowledged: Option<u64>,
    pub look: Progress,
    pub view: (u64, Vec<Seat>),
    pub sample: (u64, [u64; 3]),
    pub commit: Option<(Claim, Progress)>,
    /// A commit whose author does not wait for it any more.
    pub ghost: Option<Claim>,
    /// The supervisor's: epoch and end, by seat.
    pub acting: BTreeMap<Place, (u64, u64)>,
}

/// Of a duty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Progress {
    pub stage: u8,
    pub is_loose: bool,
}

/// A guarded change of one seat.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Claim {
    pub old: Option<Seat>,
    pub new: Seat,
    pub until: u64,
    pub has_won: Option<bool>,
}

pub const DONE: Progress = Progress {
    stage: u8::MAX,
    is_loose: false,
};

pub fn seconds(duration: Duration) -> u64 {
    duration.as_secs()
}

impl World {
    /// All is calm: n1 has the address, n2 the jobs.
    pub fn calm(faults: u8) -> Self {
        let seat = |place: &Place, holder: &str| Seat {
            role: place.role,
            seat: place.seat.clone(),
            holder: Some(holder.into()),
            epoch: 1,
        };
        let places = [Place::new(Role::Edge, ADDRESS), Place::new(Role::Cron, "")];
        let mut world = World {
            now: 10,
            faults,
            is_narrow: false,
            is_begun: false,
            is_calm: true,
            seats: places
                .iter()
                .zip(NODES)
                .map(|(place, node)| seat(place, node))
                .collect(),
            hearts: [5; 3],
            nodes: std::array::from_fn(|_| Arc::default()),
        };
        let seats = world.seats.clone();
        for (index, node) in world.nodes.iter_mut().map(Arc::make_mut).enumerate() {
            node.view = (9, seats.clone());
            node.beats = (5, 9);
            node.acknowledged = Some(9);
            for other in (0..3).filter(|other| *other != index) {
                let mut pulse = Pulse::default();
                pulse.saw(beat(5), Duration::from_secs(9), Duration::from_secs(9));
                node.pulses.insert(other, pulse);
            }
            if let Some(place) = places.get(index) {
                let until = holds_until(Duration::from_secs(9));
                node.memory.claimed(place, 1, Duration::from_secs(5), until);
                node.acting.insert(place.clone(), (1, seconds(until)));
            }
            node.begin(10);
        }
        world
    }

    pub fn progress(&self, duty: Duty, index: usize) -> Progress {
        let node = &self.nodes[index];
        match duty {
            Duty::Beat => node.beat,
            Duty::Look => node.look,
            Duty::Commit => node.commit.as_ref().map_or(DONE, |(_, progress)| *progress),
        }
    }

    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut turn = None;
        for duty in [Duty::Beat, Duty::Look, Duty::Commit] {
            for index in 0..3 {
                let progress = self.progress(duty, index);
                if progress == DONE {
                    continue;
                }
                if progress.is_loose {
                    steps.push(Step::Loose(duty, index));
                    match duty {
                        Duty::Look if progress.stage == 0 => steps.push(Step::FailLook(index)),
                        Duty::Commit if self.nodes[index].ghost.is_none() => steps.push(Step::Forget(index)),
                        _ => {}
                    }
                    continue;
                }
                turn = turn.or(Some(Step::InTurn(duty)));
                let may = duty == Duty::Commit || !(self.is_begun || self.is_narrow);
                if self.faults > 0 && may {
                    steps.push(Step::Loosen(duty, index));
                }
            }
        }
        for (index, node) in self.nodes.iter().enumerate() {
            if node.ghost.is_some() {
                steps.push(Step::Ghost(index));
            }
            if self.faults > 0 && !self.is_begun && !self.is_narrow && node.memory != Memory::default() {
                steps.push(Step::Die(index));
            }
        }
        if !self.is_calm {
            steps.push(turn.unwrap_or(Step::Tick));
        }
        steps
    }

    pub fn take(&mut self, step: Step, flaw: Flaw) {
        match step {
            Step::InTurn(duty) => {
                self.is_begun = true;
                for index in 0..3 {
                    while self.progress(duty, index) != DONE && !self.progress(duty, index).is_loose {
                        self.advance(duty, index, flaw);
                    }
                }
            }
            Step::Loose(duty, index) => self.advance(duty, index, flaw),
            Step::Loosen(duty, index) => {
                self.fault();
                let node = self.node(index);
                match (duty, &mut node.commit) {
                    (Duty::Beat, _) => node.beat.is_loose = true,
                    (Duty::Look, _) => node.look.is_loose = true,
                    (Duty::Commit, Some((_, progress))) => progress.is_loose = true,
                    (Duty::Commit, None) => {}
                }
            }
            Step::FailLook(index) => {
                self.node(index).pulses.values_mut().for_each(Pulse::saw_nothing);
                self.decide(index, flaw);
            }
            Step::Forget(index) => {
                let node = self.node(index);
                let forgotten = node.commit.take().map(|(claim, _)| claim);
                node.ghost = forgotten.filter(|claim| claim.has_won.is_none());
            }
            Step::Ghost(index) => {
                if let Some(claim) = self.node(index).ghost.take() {
                    self.apply(&claim);
                }
            }
            Step::Die(index) => {
                self.fault();
                self.node(index).die();
            }
            Step::Tick => {
                self.now += 1;
                self.is_begun = false;
                let now = self.now;
                self.nodes.iter_mut().for_each(|node| Arc::make_mut(node).begin(now));
            }
        }
    }

    pub fn node(&mut self, index: usize) -> &mut Node {
        Arc::make_mut(&mut self.nodes[index])
    }

    pub fn fault(&mut self) {
        self.faults -= 1;
        self.is_calm = false;
    }

    pub fn advance(&mut self, duty: Duty, index: usize, flaw: Flaw) {
        let stage = self.progress(duty, index).stage;
        let is_hearts = (stage == 1) != (flaw == Flaw::HeartsFirst);
        match (duty, stage) {
            (Duty::Beat, 0) => {
                let node = self.node(index);
                node.beat.stage = 1;
                self.hearts[index] = node.beats.0;
            }
            (Duty::Beat, _) => {
                let node = self.node(index);
                node.beat = DONE;
                node.acknowledged = Some(node.beats.1);
            }
            (Duty::Look, 0 | 1) => self.look(index, is_hearts),
            (Duty::Look, _) => {
                self.hear(index, flaw);
                self.decide(index, flaw);
            }
            (Duty::Commit, _) => self.commit(index),
        }
    }

    /// Applied, then answered.
    pub fn commit(&mut self, index: usize) {
        let Some((mut claim, mut progress)) = self.node(index).commit.take() else {
            return;
        };
        match claim.has_won {
            None => {
                claim.has_won = Some(self.apply(&claim));
                progress.stage = 1;
                self.node(index).commit = Some((claim, progress));
            }
            Some(true) if claim.new.holder.is_some() => {
                let now = self.now;
                self.node(index).claimed(&claim, now);
            }
            Some(_) => {}
        }
    }

    pub fn look(&mut self, index: usize, is_hearts: bool) {
        let (now, seats, hearts) = (self.now, self.seats.clone(), self.hearts);
        let node = self.node(index);
        node.look.stage += 1;
        match is_hearts {
            true => node.sample = (now, hearts),
            false => node.view = (now, seats),
        }
    }

    pub fn hear(&mut self, index: usize, flaw: Flaw) {
        let (time, node) = (Duration::from_secs(self.now), self.node(index));
        let (asked, hearts) = node.sample;
        let asked = if flaw == Flaw::ByAnswer {
            time
        } else {
            Duration::from_secs(asked)
        };
        let asked = if flaw == Flaw::Hasty {
            asked + Duration::from_secs(2)
        } else {
            asked
        };
        for (other, pulse) in &mut node.pulses {
            pulse.saw(beat(hearts[*other]), asked, time);
        }
        // A new agent hears the others for the first time.
        for other in (0..3).filter(|other| *other != index) {
            let pulse = node.pulses.entry(other).or_default();
            if pulse.fit() == 0 {
                pulse.saw(beat(hearts[other]), asked, time);
            }
        }
    }

    /// By what it knows, new or old.
    pub fn decide(&mut self, index: usize, flaw: Flaw) {
        let (time, node) = (Duration::from_secs(self.now), self.node(index));
        node.look = DONE;
        let seen = node.seen(index);
        node.memory.observe(&seen, time);
        let sent = node.acknowledged.map(|sent| sent.min(node.view.0));
        let until = sent.map(|sent| holds_until(Duration::from_secs(sent)));
        if flaw == Flaw::Resumes {
            node.resume(until.unwrap_or_default());
        }
        for act in decide(&seen, &node.memory, time, until) {
            node.act(act, time, until.map_or(0, seconds), NODES[index]);
        }
    }

    /// The registry's part: whether the guard holds, and what then is.
    pub fn apply(&mut self, claim: &Claim) -> bool {
        let place = |seat: &Seat| (seat.role, seat.seat.clone());
        let at = self.seats.iter().position(|seat| place(seat) == place(&claim.new));
        let known = at.map(|at| self.seats[at].clone());
        if known != claim.old {
            return false;
        }
        let Some(at) = at else { return false };
        assert!(claim.new.epoch >= self.seats[at].epoch, "an epoch fell");
        let is_new = claim.new.holder.is_some();
        assert!(
            !is_new || claim.new.epoch > self.seats[at].epoch,
            "a holder without a new epoch"
        );
        self.seats[at] = claim.new.clone();
        true
    }

    /// The seats in which two act now.
    pub fn broken(&self) -> Option<String> {
        let holders = |seat: &Seat| {
            let place = Place::new(seat.role, seat.seat.clone());
            let acting = NODES
                .iter()
                .zip(&self.nodes)
                .filter(|(_, node)| node.acts(&place, self.now));
            acting.map(|(name, _)| *name).collect::<Vec<_>>()
        };
        let broken = self.seats.iter().find(|seat| holders(seat).len() > 1)?;
        Some(format!(
            "{} {} is held by {:?}",
            broken.role,
            broken.seat,
            holders(broken)
        ))
    }

    /// No more faults: everything comes to its end in each second. Within the bound each seat is held.
    pub fn settles(mut self) -> Result<(), String> {
        self.faults = 0;
        let end = self.now + BOUND;
        while self.now < end {
            let step = self.steps()[0];
            self.take(step, Flaw::None);
            if let Some(broken) = self.broken() {
                return Err(broken);
            }
        }
        for seat in &self.seats {
            let place = Place::new(seat.role, seat.seat.clone());
            let holder = NODES.iter().position(|name| seat.holder.as_deref() == Some(name));
            if holder.is_none_or(|holder| !self.nodes[holder].acts(&place, self.now)) {
                return Err(format!("{place} is not held {BOUND} s after the last fault"));
            }
        }
        Ok(())
    }

    pub fn mark(&self) -> u128 {
        let mut hasher = SipHasher13::new();
        self.hash(&mut hasher);
        hasher.finish128().as_u128()
    }
}

impl Node {
    /// A second begins: what was done must be done again.
    pub fn begin(&mut self, now: u64) {
        if self.beat == DONE {
            self.beat = Progress::default();
            self.beats = (self.beats.0 + 1, now);
        }
        if self.look == DONE {
            self.look = Progress::default();
        }
        self.acting.retain(|_, (_, until)| *until > now);
    }

    /// What its supervisor does goes on, and what it sent is on its way.
    pub fn die(&mut self) {
        let sent = self.commit.take().map(|(claim, _)| claim);
        *self = Node {
            acting: std::mem::take(&mut self.acting),
            ghost: self.ghost.take().or(sent.filter(|claim| claim.has_won.is_none())),
            beats: self.beats,
            beat: DONE,
            look: DONE,
            ..Node::default()
        };
    }

    pub fn acts(&self, place: &Place, now: u64) -> bool {
        self.acting.get(place).is_some_and(|(_, until)| *until > now)
    }

    pub fn seen(&self, own: usize) -> Seen {
        let is_silent = |index: usize| self.pulses.get(&index).is_some_and(Pulse::is_silent);
        let member = |(index, name): (usize, &&str)| Member {
            name: name.to_string(),
            address: None,
            standing: Standing::Member,
            is_live: index == own || self.pulses.contains_key(&index) && !is_silent(index),
            fit: Fit::EDGE.with(Fit::CRON),
        };
        Seen {
            snapshot: Snapshot {
                own: NODES[own].into(),
                nodes: NODES.iter().enumerate().map(member).collect(),
                seats: self.view.1.clone(),
                settings: [(ADDRESSES.into(), ADDRESS.into())].into(),
                ..Snapshot::default()
            },
            silent: (0..3)
                .filter(|index| is_silent(*index))
                .map(|index| NODES[index].into())
                .collect(),
            ..Seen::default()
        }
    }

    pub fn act(&mut self, act: Act, now: Duration, until: u64, own: &str) {
        match act {
            Act::Hold { place, epoch, until } => {
                self.memory.held(&place, epoch, until);
                self.acting.insert(place, (epoch, seconds(until)));
            }
            Act::Stop { place } => {
                self.acting.remove(&place);
                self.memory.lost(&place, now);
            }
            // One at a time, as the registry takes them.
            Act::Claim { .. } | Act::GiveUp { .. } if self.commit.is_some() => {}
            Act::Claim { place, old, .. } => {
                let epoch = old.as_ref().map_or(0, |old| old.epoch) + 1;
                self.memory.claims(&place, now);
                self.propose(old, &place, Some(own), epoch, until);
            }
            Act::GiveUp { place, old, .. } => {
                self.acting.remove(&place);
                self.memory.leaves(&place, now);
                let epoch = old.epoch;
                self.propose(Some(old), &place, None, epoch, until);
            }
            Act::Ask { .. } => {}
        }
    }

    pub fn propose(&mut self, old: Option<Seat>, place: &Place, holder: Option<&str>, epoch: u64, until: u64) {
        let new = Seat {
            role: place.role,
            seat: place.seat.clone(),
            holder: holder.map(str::to_string),
            epoch,
        };
        let has_won = None;
        let claim = Claim {
            old,
            new,
            until,
            has_won,
        };
        self.commit = Some((claim, Progress::default()));
    }

    pub fn claimed(&mut self, claim: &Claim, now: u64) {
        let place = Place::new(claim.new.role, claim.new.seat.clone());
        if claim.until > now {
            let (now, until) = (Duration::from_secs(now), Duration::from_secs(claim.until));
            self.memory.claimed(&place, claim.new.epoch, now, until);
            self.acting.insert(place, (claim.new.epoch, claim.until));
        }
    }

    /// The flaw.
    pub fn resume(&mut self, until: Duration) {
        let tenures: Vec<_> = self
            .memory
            .tenures()
            .map(|(place, tenure)| (place.clone(), tenure))
            .collect();
        for (place, tenure) in tenures {
            self.memory.held(&place, tenure.epoch, until - Duration::from_millis(1));
        }
    }
}

pub fn beat(count: u64) -> Option<Beat> {
    let fit = 1;
    Some(Beat { boot: 1, count, fit })
}
