//! `Origins`: which publishes are in a log already. Of each process the last one is enough: it sends them one after the other, and whoever
//! has a later one has the earlier ones, or was not to have them. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::push::entry::Origin;
use crate::push::mid::Mid;

/// Processes that are remembered: nine nodes, each some times over.
const PROCESSES: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origins(BTreeMap<u64, Last>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Last {
    number: u64,
    mid: Mid,
}

impl Origins {
    /// It is in the log, under this id. Beyond the bound the process goes that was silent for the longest time.
    pub fn note(&mut self, origin: Origin, mid: Mid) {
        let number = origin.number;
        let known = self.0.entry(origin.process).or_insert(Last { number, mid });
        if known.number < number {
            *known = Last { number, mid };
        }
        while self.0.len() > PROCESSES {
            let oldest = self.0.iter().min_by_key(|(_, last)| last.mid);
            let Some(process) = oldest.map(|(process, _)| *process) else {
                return;
            };
            self.0.remove(&process);
        }
    }

    /// If it is in the log: the id by which all that this process published up to then is.
    pub fn find(&self, origin: Origin) -> Option<Mid> {
        let last = self.0.get(&origin.process)?;
        (origin.number <= last.number).then_some(last.mid)
    }

    pub fn merge(&mut self, others: &Origins) {
        for (process, last) in &others.0 {
            let (process, number) = (*process, last.number);
            self.note(Origin { process, number }, last.mid);
        }
    }

    /// What a reader may rely on.
    pub fn is_sound(&self) -> bool {
        self.0.len() <= PROCESSES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::mid::{Era, Mids};

    #[test]
    fn a_publish_is_found_with_all_before_it_and_the_silent_are_forgotten() {
        let (mut origins, mut mids) = (Origins::default(), Mids::of(Era::default(), Default::default()));
        let origin = |process, number| Origin { process, number };
        let (first, second) = (mids.take(), mids.take());
        origins.note(origin(7, 1), first);
        origins.note(origin(7, 4), second);
        origins.note(origin(7, 2), first);
        assert_eq!(origins.find(origin(7, 3)), Some(second));
        assert_eq!((origins.find(origin(7, 5)), origins.find(origin(8, 1))), (None, None));
        (0..100).for_each(|process| origins.note(origin(1000 + process, 1), mids.take()));
        assert!(origins.is_sound() && origins.find(origin(7, 1)).is_none());
        let mut other = Origins::default();
        other.note(origin(1099, 9), first);
        origins.merge(&other);
        assert_eq!(origins.find(origin(1099, 9)), Some(first));
    }
}
