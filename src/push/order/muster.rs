//! `Muster`: before a hub orders it asks the others how far they are, takes what it lacks, and begins an era above all that were. Pure.
//!
//! Where the council's table goes on, each hub of it has all that was acknowledged: the longest log saves what was under way. Where the
//! table begins anew, because voters forgot, any member may have what is wanted, and is waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::log::{Reign, Report};
use crate::net::mesh::Name;
use crate::push::mid::{Era, Mid};

/// How long a hub without a past waits for members that are not in the table. They need a moment to reach it.
pub const HOPE: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub struct Muster {
    since: Instant,
    reports: BTreeMap<Name, Report>,
    /// The newest that somebody told of.
    floor: Option<Reign>,
}

/// Whom to hear.
pub struct Scene<'a> {
    pub own: &'a Report,
    /// Hubs of the table, but this one.
    pub others: &'a BTreeSet<Name>,
    /// Further ones that may have a past, where the table has none.
    pub hoped: &'a BTreeSet<Name>,
    pub now: Instant,
    /// Since 1970.
    pub unix: Duration,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// These have not said how far they are.
    Ask(Vec<Name>),
    /// It has more.
    Fetch(Name),
    Begin(Era),
}

impl Muster {
    pub fn new(floor: Option<Reign>, now: Instant) -> Self {
        Muster {
            since: now,
            reports: BTreeMap::new(),
            floor,
        }
    }

    pub fn hear(&mut self, from: &Name, report: Report) {
        self.floor = self.floor.take().max(report.reign.clone());
        self.reports.insert(from.clone(), report);
    }

    /// It is asked again: what it said does not hold any more.
    pub fn forget(&mut self, name: &Name) {
        self.reports.remove(name);
    }

    /// The log that another one said to be whole.
    pub fn whole(&self, of: &Name) -> Option<&Reign> {
        self.reports.get(of)?.whole.as_ref()
    }

    /// How far it said to be.
    pub fn position(&self, of: &Name) -> Mid {
        self.reports.get(of).map(|report| report.position).unwrap_or_default()
    }

    /// Until when others are hoped for.
    pub fn end(&self) -> Instant {
        self.since + HOPE
    }

    pub fn step(&self, scene: &Scene<'_>) -> Step {
        let hoped = scene.hoped.iter().filter(|_| scene.now < self.end());
        let missing: Vec<Name> = scene.others.iter().chain(hoped).cloned().collect();
        let missing: Vec<Name> = missing
            .into_iter()
            .filter(|name| !self.reports.contains_key(name))
            .collect();
        if !missing.is_empty() {
            return Step::Ask(missing);
        }
        let known = |name: &&Name| scene.others.contains(*name) || scene.hoped.contains(*name);
        let heard = self.reports.keys().filter(known);
        let best = heard.max_by_key(|name| length(&self.reports[*name]));
        match best.filter(|name| length(&self.reports[*name]) > length(scene.own)) {
            Some(best) => Step::Fetch(best.clone()),
            None => {
                let floor = self.floor.as_ref().max(scene.own.reign.as_ref());
                let above = floor.map(|reign| reign.era.next()).unwrap_or_default();
                // Who delivered without a reign did so in an era, too.
                let delivered = scene.own.position.era().next();
                Step::Begin(Era::at(scene.unix).max(above).max(delivered))
            }
        }
    }
}

/// A log that is whole in a later reign has all that one of an earlier reign has.
fn length(report: &Report) -> (Option<&Reign>, Mid) {
    (report.whole.as_ref(), report.position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::council::fixture::name;
    use crate::push::mid::Mids;

    fn reign(era: u64, by: &str) -> Option<Reign> {
        let (era, by) = (Era::at(Duration::from_secs(era)), name(by));
        Some(Reign { era, by })
    }

    fn report(heard: Option<Reign>, whole: Option<Reign>, count: usize) -> Report {
        let mut mids = Mids::of(
            whole.as_ref().map(|reign| reign.era).unwrap_or_default(),
            Duration::ZERO,
        );
        (0..count).for_each(|_| _ = mids.take());
        Report {
            reign: heard,
            whole,
            position: mids.last(),
            ..Report::default()
        }
    }

    fn step(muster: &Muster, own: &Report, others: &[&str], hoped: &[&str], later: u64) -> Step {
        let names = |names: &[&str]| names.iter().map(|text| name(text)).collect::<BTreeSet<Name>>();
        muster.step(&Scene {
            own,
            others: &names(others),
            hoped: &names(hoped),
            now: muster.since + Duration::from_secs(later),
            unix: Duration::from_secs(500),
        })
    }

    #[test]
    fn all_of_the_table_are_heard_and_the_longest_log_of_the_latest_reign_is_taken() {
        let mut muster = Muster::new(None, Instant::now());
        let own = report(reign(7, "n2"), reign(7, "n2"), 5);
        let both = ["n2", "n3"];
        assert_eq!(step(&muster, &own, &both, &[], 9), Step::Ask(both.map(name).into()));
        muster.hear(&name("n2"), report(reign(7, "n2"), reign(7, "n2"), 6));
        assert_eq!(step(&muster, &own, &both, &[], 9), Step::Ask(vec![name("n3")]));
        // It has heard of a later one, but has not its past.
        muster.hear(&name("n3"), report(reign(900, "n9"), reign(6, "n2"), 100));
        assert_eq!(step(&muster, &own, &both, &[], 9), Step::Fetch(name("n2")));
        assert_eq!(
            step(&muster, &own, &["n3"], &[], 9),
            Step::Begin(Era::at(Duration::from_secs(901)))
        );
        muster.hear(&name("n2"), report(reign(7, "n2"), reign(7, "n2"), 5));
        assert_eq!(
            step(&muster, &own, &both, &[], 9),
            Step::Begin(Era::at(Duration::from_secs(901)))
        );
    }

    #[test]
    fn an_era_is_above_the_clock_and_above_all_that_is_known() {
        let muster = Muster::new(None, Instant::now());
        let era = |seconds| Step::Begin(Era::at(Duration::from_secs(seconds)));
        assert_eq!(step(&muster, &Report::default(), &[], &[], 0), era(500));
        let own = report(None, reign(800, "n1"), 3);
        assert_eq!(step(&muster, &own, &[], &[], 0), era(801));
        let muster = Muster::new(reign(900, "n3"), Instant::now());
        assert_eq!(step(&muster, &own, &[], &[], 0), era(901));
    }

    #[test]
    fn members_outside_the_table_are_hoped_for_and_not_for_ever() {
        let mut muster = Muster::new(None, Instant::now());
        let own = Report::default();
        assert_eq!(step(&muster, &own, &[], &["n2"], 2), Step::Ask(vec![name("n2")]));
        assert_eq!(
            step(&muster, &own, &[], &["n2"], 3),
            Step::Begin(Era::at(Duration::from_secs(500)))
        );
        muster.hear(&name("n2"), report(reign(7, "n2"), reign(7, "n2"), 6));
        assert_eq!(step(&muster, &own, &[], &["n2"], 2), Step::Fetch(name("n2")));
        muster.forget(&name("n2"));
        assert_eq!(step(&muster, &own, &[], &["n2"], 2), Step::Ask(vec![name("n2")]));
    }
}
