//! What this node knows by itself of each seat: its own tenure, how long things have been as they are, and for how long it leaves a
//! seat to others. All times since boot. Nothing of it survives the process: a new agent claims what its node held anew.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Seen;
use crate::cluster::{Place, places};

/// Cool-down after the first loss; doubles with each further one.
const COOL: Duration = Duration::from_secs(1);
const COOL_MAX: Duration = Duration::from_secs(64);
/// A tenure of this length shows that the seat is in good hands: the next cool-down is the first again.
const STEADY: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Memory {
    places: BTreeMap<Place, Known>,
}

/// Of one seat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Known {
    pub tenure: Option<Tenure>,
    /// Since when it can be claimed: nobody holds it, or its holder is silent, or it is this node's from an earlier tenure.
    pub free_since: Option<Duration>,
    /// The epoch that was seen last, and since when.
    pub seen: Option<(u64, Duration)>,
    /// Since when this node is fit for it, or is not.
    pub fit_since: Option<Duration>,
    pub unfit_since: Option<Duration>,
    /// Since when this node has no room for it.
    pub full_since: Option<Duration>,
    pub cooling: Cooling,
    /// When this node last tried to claim the seat, and to give it up.
    pub claim_tried: Option<Duration>,
    pub leave_tried: Option<Duration>,
}

/// This node acts under that epoch until then, unless it is prolonged before. Once it has run out it is over for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tenure {
    pub epoch: u64,
    pub since: Duration,
    pub until: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cooling {
    pub until: Duration,
    level: u32,
    /// The means were refused to this node, as for an address that somebody else uses: to try sooner is of no use.
    pub is_refused: bool,
}

impl Memory {
    pub fn known(&self, place: &Place) -> Known {
        self.places.get(place).cloned().unwrap_or_default()
    }

    /// The epoch under which this node acts now.
    pub fn epoch(&self, place: &Place, now: Duration) -> Option<u64> {
        let tenure = self.places.get(place)?.tenure?;
        (now < tenure.until).then_some(tenure.epoch)
    }

    /// Seats for which the supervisor may have a task.
    pub fn tenures(&self) -> impl Iterator<Item = (&Place, Tenure)> {
        self.places
            .iter()
            .filter_map(|(place, known)| Some((place, known.tenure?)))
    }

    /// Takes note of how things are.
    pub fn observe(&mut self, seen: &Seen, now: Duration) {
        let snapshot = &seen.snapshot;
        let wanted = places(&snapshot.settings);
        self.places
            .retain(|place, known| known.tenure.is_some() || wanted.contains(place));
        for place in wanted {
            let own = snapshot.node(&snapshot.own);
            let is_fit = own.is_some_and(|own| own.takes(place.role.needs()));
            let is_full = own.is_some_and(|own| !own.has_room(place.role));
            let record = seen.record(&place);
            let holder = record.and_then(|record| record.holder.as_deref());
            let epoch = record.map_or(0, |record| record.epoch);
            let known = self.places.entry(place.clone()).or_default();
            if known.seen.is_none_or(|(last, _)| last != epoch) {
                known.seen = Some((epoch, now));
            }
            let is_lost = |holder| seen.is_lost(&place, holder, known.seen.map(|(_, since)| since));
            let is_free = holder.is_none_or(|holder| holder == snapshot.own || is_lost(holder))
                && known
                    .tenure
                    .is_none_or(|tenure| now >= tenure.until || tenure.epoch != epoch);
            since(&mut known.free_since, is_free, now);
            since(&mut known.fit_since, is_fit, now);
            since(&mut known.unfit_since, !is_fit, now);
            since(&mut known.full_since, is_full, now);
        }
    }

    /// A commit begins that claims the seat.
    pub fn claims(&mut self, place: &Place, now: Duration) {
        self.places.entry(place.clone()).or_default().claim_tried = Some(now);
    }

    /// The registry has this node as the holder from now on. `until`: by a heartbeat that was acknowledged before that.
    pub fn claimed(&mut self, place: &Place, epoch: u64, now: Duration, until: Duration) {
        let known = self.places.entry(place.clone()).or_default();
        known.tenure = Some(Tenure {
            epoch,
            since: now,
            until,
        });
        known.free_since = None;
    }

    /// The supervisor was told.
    pub fn held(&mut self, place: &Place, epoch: u64, until: Duration) {
        if let Some(tenure) = self.places.get_mut(place).and_then(|known| known.tenure.as_mut())
            && tenure.epoch == epoch
        {
            tenure.until = tenure.until.max(until);
        }
    }

    /// This node does not act any more, and did not want to stop.
    pub fn lost(&mut self, place: &Place, now: Duration) {
        self.cool(place, now, false);
    }

    /// The supervisor would not.
    pub fn refused(&mut self, place: &Place, now: Duration) {
        self.cool(place, now, true);
    }

    /// This node lets go of its own will.
    pub fn leaves(&mut self, place: &Place, now: Duration) {
        let known = self.places.entry(place.clone()).or_default();
        known.tenure = None;
        known.leave_tried = Some(now);
    }

    fn cool(&mut self, place: &Place, now: Duration, is_refused: bool) {
        let known = self.places.entry(place.clone()).or_default();
        let tenure = known.tenure.take();
        let was_steady = tenure.is_some_and(|tenure| tenure.until.saturating_sub(tenure.since) >= STEADY);
        let level = if was_steady { 0 } else { known.cooling.level };
        let pause = COOL.saturating_mul(1 << level.min(16)).min(COOL_MAX);
        known.cooling = Cooling {
            until: now.saturating_add(pause),
            level: level.saturating_add(1),
            is_refused,
        };
    }
}

fn since(at: &mut Option<Duration>, is_so: bool, now: Duration) {
    *at = match is_so {
        true => at.or(Some(now)),
        false => None,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Role;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn each_loss_cools_longer_until_a_tenure_was_steady() {
        let (mut memory, place) = (Memory::default(), Place::new(Role::Cron, ""));
        let mut now = seconds(100);
        for pause in [1, 2, 4, 8, 16, 32, 64, 64] {
            memory.claimed(&place, 1, now, now + seconds(3));
            memory.lost(&place, now);
            assert_eq!(memory.known(&place).cooling.until, now + seconds(pause));
            now += seconds(100);
        }
        memory.claimed(&place, 1, now, now + seconds(3));
        memory.held(&place, 1, now + STEADY);
        memory.lost(&place, now + STEADY);
        assert_eq!(memory.known(&place).cooling.until, now + STEADY + seconds(1));
    }

    #[test]
    fn a_tenure_is_prolonged_only_under_its_own_epoch() {
        let (mut memory, place) = (Memory::default(), Place::new(Role::Cron, ""));
        memory.claimed(&place, 4, seconds(1), seconds(3));
        memory.held(&place, 3, seconds(9));
        assert_eq!(memory.epoch(&place, seconds(2)), Some(4));
        assert_eq!(memory.epoch(&place, seconds(3)), None);
        memory.held(&place, 4, seconds(9));
        assert_eq!(memory.epoch(&place, seconds(8)), Some(4));
    }
}
