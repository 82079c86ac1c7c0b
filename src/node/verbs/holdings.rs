//! Which tasks this node holds, until when, and which epochs were seen. Pure; times are since boot.
//!
//! An epoch only grows with each new holder, so a smaller one is of an agent that knows less than somebody before it (I7). The end
//! of a hold only moves onward, and is never far: whoever asks must ask again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::host::verb::Task;

/// A hold lasts three seconds from a heartbeat; beyond this somebody's clock is wrong.
const FARTHEST: Duration = Duration::from_secs(10);
/// A cluster has a handful of floating addresses.
const MOST: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    epoch: u64,
    /// `None`: not held.
    #[serde(skip)]
    until: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings(BTreeMap<Task, Seen>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Begin,
    Continue { is_new_epoch: bool },
}

impl Holdings {
    /// What a former supervisor of this boot saw; it holds nothing any more.
    pub fn of(epochs: impl IntoIterator<Item = (Task, u64)>) -> Self {
        let seen = |epoch| Seen { epoch, until: None };
        Holdings(epochs.into_iter().map(|(task, epoch)| (task, seen(epoch))).collect())
    }

    /// All that were seen, held or not.
    pub fn epochs(&self) -> impl Iterator<Item = (&Task, u64)> {
        self.0.iter().map(|(task, seen)| (task, seen.epoch))
    }

    /// Takes a hold, or says why not.
    pub fn hold(&mut self, task: &Task, epoch: u64, until: Duration, now: Duration) -> Result<Verdict, String> {
        if until <= now {
            return Err(format!("the hold of {task} has ended {:?} ago", now - until));
        }
        if until > now + FARTHEST {
            return Err(format!("a hold of {task} for {:?} is too long", until - now));
        }
        let known = self.0.get(task).copied();
        match known {
            Some(known) if epoch < known.epoch => {
                return Err(format!("epoch {epoch} of {task} is over: {} was seen", known.epoch));
            }
            None if self.0.len() >= MOST => return Err(format!("more than {MOST} seats are not held")),
            _ => {}
        }
        let held = known.filter(|known| known.until.is_some_and(|until| until > now));
        let end = held.and_then(|held| held.until).map_or(until, |end| end.max(until));
        let until = Some(end);
        self.0.insert(task.clone(), Seen { epoch, until });
        Ok(match held {
            Some(held) => Verdict::Continue {
                is_new_epoch: held.epoch != epoch,
            },
            None => Verdict::Begin,
        })
    }

    /// `None`: it is not held.
    pub fn until(&self, task: &Task) -> Option<Duration> {
        self.0.get(task)?.until
    }

    /// The epoch stays.
    pub fn release(&mut self, task: &Task) {
        if let Some(seen) = self.0.get_mut(task) {
            seen.until = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn address() -> Task {
        Task::Address("10.0.0.10/24".parse().expect("a network"))
    }

    #[test]
    fn a_hold_begins_goes_on_and_ends() {
        let mut holdings = Holdings::default();
        let cron = Task::Cron;
        assert_eq!(holdings.hold(&cron, 1, at(13), at(10)), Ok(Verdict::Begin));
        let on = |is_new_epoch| Ok(Verdict::Continue { is_new_epoch });
        assert_eq!(holdings.hold(&cron, 1, at(14), at(11)), on(false));
        assert_eq!(holdings.hold(&cron, 1, at(13), at(12)), on(false));
        assert_eq!(holdings.until(&cron), Some(at(14)), "its end moves onward only");
        assert_eq!(holdings.hold(&cron, 2, at(16), at(13)), on(true));
        assert_eq!(
            holdings.hold(&cron, 2, at(19), at(16)),
            Ok(Verdict::Begin),
            "at its end it has ended"
        );
        holdings.release(&cron);
        assert_eq!(holdings.until(&cron), None);
        assert_eq!(holdings.until(&address()), None);
    }

    #[test]
    fn what_is_over_or_too_long_is_refused() {
        let mut holdings = Holdings::of([(Task::Cron, 7)]);
        for (epoch, until) in [(6, 13), (8, 10), (8, 9), (8, 21)] {
            assert!(
                holdings.hold(&Task::Cron, epoch, at(until), at(10)).is_err(),
                "{epoch} {until}"
            );
            assert_eq!(holdings.until(&Task::Cron), None);
        }
        assert!(holdings.hold(&Task::Cron, 7, at(20), at(10)).is_ok());
        assert!(
            holdings.hold(&address(), 1, at(20), at(10)).is_ok(),
            "each has its own epochs"
        );
    }

    #[test]
    fn seats_are_bounded() {
        let mut holdings = Holdings::default();
        let all = (0..=MOST).map(|number| Task::Address(format!("fd00::{number:x}/64").parse().expect("a network")));
        let taken = all.filter(|task| holdings.hold(task, 1, at(3), at(1)).is_ok());
        assert_eq!(taken.count(), MOST);
    }

    proptest! {
        /// Whatever is asked in whatever order: no hold of a smaller epoch than was ever seen, and none beyond what was asked.
        #[test]
        fn epochs_only_grow(asked in prop::collection::vec((0u64..5, 0u64..30, prop::bool::ANY), 1..40)) {
            let (mut holdings, mut highest, mut latest) = (Holdings::default(), 0, 0);
            for (now, (epoch, until, is_release)) in (0u64..).zip(asked) {
                if is_release {
                    holdings.release(&Task::Cron);
                    prop_assert_eq!(holdings.until(&Task::Cron), None);
                } else if holdings.hold(&Task::Cron, epoch, at(until), at(now)).is_ok() {
                    prop_assert!(epoch >= highest && until > now && until <= now + FARTHEST.as_secs());
                    (highest, latest) = (epoch, latest.max(until));
                    prop_assert!(holdings.until(&Task::Cron).is_some_and(|end| end >= at(until) && end <= at(latest)));
                }
                prop_assert_eq!(holdings.epochs().map(|(_, epoch)| epoch).max().unwrap_or(0), highest);
            }
        }
    }
}
