//! One target: how much it does, how it did, and what is said of it. Shared by all requests.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::Instant;
use tracing::{info, warn};

use super::choose::{Candidate, Tier};
use super::health::{Failure, Health};
use super::hop::Load;
use super::roster::Said;
use crate::base::error::chain;
use crate::net::mesh::Peer;
use crate::proxy::error::{Error, Kind, Side};
use crate::proxy::metrics::OfTarget;

/// Pulses missed in a row after which a node counts as silent: with one a second, before the mesh gives its connection up.
const MISSED: u32 = 2;

/// How a request gets there.
pub enum Way {
    Local,
    Peer(Peer),
}

pub struct Target {
    pub name: String,
    pub way: Way,
    numbers: OfTarget,
    state: Mutex<State>,
}

struct State {
    said: Said,
    health: Health,
    pulse: Pulse,
}

/// What is known of a target's load, and when it last said so.
struct Pulse {
    missed: u32,
    is_ready: bool,
    capacity: usize,
    /// Requests under way there that are not ours.
    others: usize,
}

/// A request under way; counts until it is dropped.
pub struct Flight(Arc<Target>);

impl Target {
    /// `capacity` holds until it says its own. `since`: when it came, if that was after the others.
    pub fn new(
        name: &str,
        way: Way,
        said: Said,
        capacity: usize,
        since: Option<Instant>,
        numbers: OfTarget,
    ) -> Arc<Self> {
        let pulse = Pulse {
            missed: 0,
            is_ready: true,
            capacity,
            others: 0,
        };
        Arc::new(Target {
            name: name.to_string(),
            way,
            numbers,
            state: Mutex::new(State {
                said,
                health: Health::new(since),
                pulse,
            }),
        })
    }

    pub fn is_local(&self) -> bool {
        matches!(self.way, Way::Local)
    }

    pub fn candidate(&self, now: Instant) -> Candidate {
        let state = self.state();
        Candidate {
            is_local: self.is_local(),
            tier: self.tier(&state, now),
            in_flight: self.in_flight() + state.pulse.others,
            capacity: state.pulse.capacity,
            share: state.health.share(now),
        }
    }

    /// Failed lately.
    pub fn is_suspect(&self) -> bool {
        self.state().health.is_suspect()
    }

    /// Nobody says that it is unfit.
    pub fn is_said_fit(&self) -> bool {
        self.state().said.is_fit
    }

    /// How this very node's PHP does, for other fronts.
    pub fn load(&self) -> Load {
        let state = self.state();
        Load {
            in_flight: self.in_flight(),
            capacity: state.pulse.capacity,
            is_ready: state.said.is_fit && !state.health.is_ejected(Instant::now()),
        }
    }

    /// Begins a request.
    pub fn enter(self: &Arc<Self>) -> Flight {
        self.numbers.requests.inc();
        self.numbers.in_flight.inc();
        Flight(self.clone())
    }

    /// It gave a proper answer.
    pub fn succeeded(&self) {
        self.state().health.succeeded(Instant::now());
    }

    /// It failed, if that is what the error says.
    pub fn failed(&self, error: &Error) {
        if error.side() != Side::Upstream {
            return;
        }
        self.numbers.failures.inc();
        let failure = match error.kind == Kind::Unavailable && error.is_unsent {
            true => Failure::Unreachable,
            false => Failure::Broken,
        };
        if self.state().health.failed(failure, Instant::now()) {
            self.numbers.ejections.inc();
            warn!(target = %self.name, cause = chain(error), "a target is left alone for a while");
        }
    }

    /// Its node's front told how it does.
    pub fn reported(&self, load: Load) {
        let mine = self.in_flight();
        let mut state = self.state();
        let is_back = load.is_ready && (state.pulse.missed >= MISSED || !state.pulse.is_ready);
        state.pulse = Pulse {
            missed: 0,
            is_ready: load.is_ready,
            capacity: load.capacity,
            others: load.in_flight.saturating_sub(mine),
        };
        if is_back {
            state.health.came_back(Instant::now());
            drop(state);
            info!(target = %self.name, "a target is back");
        }
    }

    /// Its node's front did not answer a pulse.
    pub fn missed(&self) {
        let mut state = self.state();
        state.pulse.missed = state.pulse.missed.saturating_add(1);
        if state.pulse.missed == MISSED {
            drop(state);
            info!(target = %self.name, "a target is silent");
        }
    }

    pub fn say(&self, said: Said) {
        let mut state = self.state();
        if said.is_fit && !state.said.is_fit {
            state.health.came_back(Instant::now());
        }
        state.said = said;
    }

    pub fn set_capacity(&self, capacity: usize) {
        self.state().pulse.capacity = capacity;
    }

    fn in_flight(&self) -> usize {
        usize::try_from(self.numbers.in_flight.get()).unwrap_or_default()
    }

    fn tier(&self, state: &State, now: Instant) -> Tier {
        let is_reached = match &self.way {
            Way::Local => true,
            Way::Peer(peer) => peer.is_up(),
        };
        let is_well = is_reached && state.pulse.is_ready && state.pulse.missed < MISSED;
        match state.said {
            said if !said.is_fit || !is_well || state.health.is_ejected(now) => Tier::Doubtful,
            said if said.is_draining => Tier::Draining,
            _ => Tier::Ready,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }
}

impl Flight {
    pub fn target(&self) -> &Target {
        &self.0
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.numbers.in_flight.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::metrics::Metrics;
    use std::time::Duration;

    fn local() -> Arc<Target> {
        Target::new("n1", Way::Local, Said::UNKNOWN, 4, None, Metrics::new().of_target("n1"))
    }

    fn tier(target: &Target) -> Tier {
        target.candidate(Instant::now()).tier
    }

    fn unreachable() -> Error {
        Error::new(Kind::Unavailable, "refused").unsent()
    }

    #[test]
    fn requests_under_way_are_counted_beside_those_of_others() {
        let target = local();
        let flights: Vec<Flight> = (0..3).map(|_| target.enter()).collect();
        target.reported(Load {
            in_flight: 5,
            capacity: 9,
            is_ready: true,
        });
        let candidate = target.candidate(Instant::now());
        assert_eq!((candidate.in_flight, candidate.capacity), (5, 9));
        drop(flights);
        assert_eq!(target.candidate(Instant::now()).in_flight, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn tiers_follow_failures_pulses_and_what_is_said() {
        let target = local();
        assert_eq!(tier(&target), Tier::Ready);
        target.failed(&Error::new(Kind::ClientGone, ""));
        assert!(!target.is_suspect(), "a client's fault");
        target.failed(&unreachable());
        assert_eq!(tier(&target), Tier::Doubtful);
        assert!(!target.load().is_ready);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(tier(&target), Tier::Ready);
        assert!(target.candidate(Instant::now()).share < 1.0, "warmed up");
        tokio::time::advance(Duration::from_secs(10)).await;

        target.missed();
        assert_eq!(tier(&target), Tier::Ready, "one pulse may be late");
        target.missed();
        assert_eq!(tier(&target), Tier::Doubtful);
        let load = |is_ready| Load {
            in_flight: 0,
            capacity: 4,
            is_ready,
        };
        target.reported(load(true));
        assert_eq!(tier(&target), Tier::Ready);
        assert!(target.candidate(Instant::now()).share < 1.0);
        target.reported(load(false));
        assert_eq!(tier(&target), Tier::Doubtful);
        target.reported(load(true));

        let said = |is_fit, is_draining| Said { is_fit, is_draining };
        target.say(said(true, true));
        assert_eq!(tier(&target), Tier::Draining);
        target.say(said(false, true));
        assert_eq!(tier(&target), Tier::Doubtful);
    }
}
