//! Modules one by one: each is followed by one of the executable that is there now.

use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tracing::info;

use crate::agent::Phase;
use crate::node::keeper::State;

/// First those whose fault is found at the least cost; the front last, for it is replaced without a gap.
const ORDER: [&str; 6] = ["agent", "push", "cache", "db", "storage", "proxy"];

/// A module that can be replaced.
pub struct Module {
    pub name: &'static str,
    pub replace: Arc<Notify>,
    pub state: watch::Receiver<State>,
}

/// In the order in which they shall be replaced; those that are not in it come first.
pub fn order(mut places: Vec<Module>) -> Vec<Module> {
    places.sort_by_key(|place| ORDER.iter().position(|name| *name == place.name).map_or(0, |at| at + 1));
    places
}

/// Fails with the first one that is not ready at `end`; the others are left as they are.
pub async fn roll(places: &mut [Module], end: Instant, tell: impl Fn(&str)) -> Result<(), String> {
    for place in places {
        tell(place.name);
        let old = place.state.borrow().pid;
        place.replace.notify_one();
        let is_new = |state: &State| state.phase == Phase::Ready && state.pid.is_some() && state.pid != old;
        let ready = timeout_at(end, place.state.wait_for(is_new)).await;
        if ready.map(|ready| ready.is_ok()) != Ok(true) {
            let state = place.state.borrow();
            let detail = &state.detail;
            return Err(format!("{} is not ready in time: {detail}", place.name));
        }
        info!(name = place.name, pid = place.state.borrow().pid, "replaced");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Scope;
    use std::time::Duration;

    fn place(name: &'static str, pid: u32) -> (Module, watch::Sender<State>) {
        let sender = watch::Sender::new(State {
            phase: Phase::Ready,
            pid: Some(pid),
            ..State::starting()
        });
        let place = Module {
            name,
            replace: Arc::default(),
            state: sender.subscribe(),
        };
        (place, sender)
    }

    #[test]
    fn the_front_is_last_and_a_stranger_first() {
        let names = ["proxy", "storage", "agent", "turn"];
        let places = order(names.into_iter().map(|name| place(name, 1).0).collect());
        let names: Vec<&str> = places.iter().map(|place| place.name).collect();
        assert_eq!(names, ["turn", "agent", "storage", "proxy"]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_come_stops_the_others() {
        let (good, good_state) = place("agent", 1);
        let (bad, bad_state) = place("cache", 2);
        let (untouched, _kept) = place("proxy", 3);
        let replaced = good.replace.clone();
        let scope = Scope::new();
        scope.spawn(async move {
            replaced.notified().await;
            good_state.send_modify(|state| state.pid = Some(11));
            // The one that is ready is still the old one.
            bad_state.send_modify(|state| "crashed".clone_into(&mut state.detail));
            std::future::pending::<()>().await;
            drop((good_state, bad_state));
        });
        let mut places = [good, bad, untouched];
        let rolled = roll(&mut places, Instant::now() + Duration::from_secs(60), |_| {}).await;
        assert_eq!(rolled, Err("cache is not ready in time: crashed".into()));
        let untouched = places[2].replace.notified();
        assert!(tokio::time::timeout(Duration::from_secs(1), untouched).await.is_err());
        scope.stop(Duration::ZERO).await;
    }
}
