//! A simulated machine: its clock, and its process with a council and a part.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::council::{Council, Event, State};
use crate::net::mesh::Name;
use crate::push::order::part::{Act, Part, Sent};

pub struct Machine {
    pub name: Name,
    /// What its clock shows at the start of the world, and how fast it goes.
    clock: (Duration, f64),
    pub process: Option<Process>,
    /// What was meant for an earlier process does not reach a later one.
    pub life: u64,
    pub is_frozen: bool,
    /// It will stand still after its next decision and before it is carried out.
    pub freezes_inside: bool,
}

pub struct Process {
    pub council: Council,
    pub part: Part,
    /// Names its publishes.
    pub number: u64,
    pub lease: Duration,
    /// What the council has said, and its data path has not heard yet.
    pub rulings: VecDeque<Result<Arc<State>, Event>>,
    pub ruled_at: Duration,
    pub tick: u64,
    pub timer: Option<Duration>,
    pub calls: BTreeMap<u64, (Name, Sent)>,
    /// Who waits for an answer: machine, its life, number of the call.
    pub askers: BTreeMap<u64, (usize, u64, u64)>,
    pub publishes: BTreeSet<u64>,
    pub safe: Option<u64>,
    pub undone: Vec<Act>,
}

impl Process {
    pub fn new(council: Council, part: Part, number: u64) -> Self {
        Process {
            council,
            part,
            number,
            lease: Duration::ZERO,
            rulings: VecDeque::new(),
            ruled_at: Duration::ZERO,
            tick: 0,
            timer: None,
            calls: BTreeMap::new(),
            askers: BTreeMap::new(),
            publishes: BTreeSet::new(),
            safe: None,
            undone: Vec::new(),
        }
    }
}

impl Machine {
    pub fn new(name: Name, clock: (Duration, f64)) -> Self {
        Machine {
            name,
            clock,
            process: None,
            life: 0,
            is_frozen: false,
            freezes_inside: false,
        }
    }

    /// What its clock shows.
    pub fn time(&self, now: Duration) -> Duration {
        self.clock.0 + now.mul_f64(self.clock.1)
    }

    /// When its clock will show that.
    pub fn when(&self, time: Duration) -> Duration {
        time.saturating_sub(self.clock.0).div_f64(self.clock.1)
    }

    pub fn runs(&self) -> bool {
        self.process.is_some() && !self.is_frozen
    }
}
