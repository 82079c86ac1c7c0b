//! A simulated machine: its clock, its process, and the data path that does what the council asks for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::council::{Council, Epoch, Shard, ShardSet, State};
use crate::net::mesh::Name;

pub struct Machine {
    pub name: Name,
    /// What its clock shows at the start of the world, and how fast it goes.
    clock: (Duration, f64),
    pub process: Option<Process>,
    /// Number of the process; what was meant for an earlier one does not reach a later one.
    pub life: u64,
    pub is_frozen: bool,
    /// It has said that it is about to stop.
    pub is_leaving: bool,
    /// Its data path takes so much longer.
    pub hang: Duration,
}

pub struct Process {
    pub council: Council,
    pub state: Option<Arc<State>>,
    pub lease: Duration,
    /// The newest number of each shard that it has.
    pub data: BTreeMap<Shard, u64>,
    /// Nodes that it said are filled, under which table.
    pub filled: Vec<(Name, Epoch)>,
    /// Its tick that counts.
    pub tick: u64,
}

impl Machine {
    pub fn new(name: Name, clock: (Duration, f64)) -> Self {
        Machine {
            name,
            clock,
            process: None,
            life: 0,
            is_frozen: false,
            is_leaving: false,
            hang: Duration::ZERO,
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

    /// What it may serve; also while it is frozen, for it goes on where it stood.
    pub fn serves(&self, now: Duration) -> ShardSet {
        let Some(process) = &self.process else {
            return ShardSet::EMPTY;
        };
        let state = process.state.as_ref().filter(|state| !state.is_alone());
        let is_leased = self.time(now) < process.lease;
        state
            .filter(|_| is_leased)
            .map_or(ShardSet::EMPTY, |state| state.served())
    }

    pub fn runs(&self) -> bool {
        self.process.is_some() && !self.is_frozen
    }

    pub fn state(&self) -> Option<Arc<State>> {
        self.process.as_ref()?.state.clone()
    }
}
