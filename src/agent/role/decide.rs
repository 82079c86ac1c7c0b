//! What this node does about the seats now. Pure: the same on every node, each from its own look.
//!
//! A live, fit holder keeps its seat. It gives one up when the operator wants it elsewhere, when the seat is no longer wanted, and when it
//! drains or has been unfit for a while and another node can do better. Nobody takes a seat from a holder that can be heard, unless the
//! database's group has let its server go.

use std::time::Duration;

use super::Seen;
use super::memory::{Known, Memory};
use super::prefer::{self, Load};
use crate::cluster::{Member, PINS, Place, Role, Seat, Standing, TRANSFERS, places};

/// Who is further down the order of preference waits so long for each place above it; the guard decides, this only saves attempts.
const STAGGER: Duration = Duration::from_millis(150);
/// Others leave a seat so long to the node that the operator wants there.
const DIRECTED: Duration = Duration::from_secs(3);
/// A seat that nobody has taken so long is taken in spite of a cool-down.
const LONELY: Duration = Duration::from_secs(4);
/// A holder may be unfit so long before it looks for another one: a module that restarts is no reason.
const UNFIT: Duration = Duration::from_secs(2);
/// A database that is none comes back by joining the others; they are there at once.
const UNFIT_DB: Duration = Duration::from_millis(100);
/// A disk may be full so long: what is copied there for a moment is no reason.
const FULL: Duration = Duration::from_secs(2);
/// A pinned node asks for its seat when it has been fit, and the holder has had it, so long.
const SETTLED: Duration = Duration::from_secs(10);

/// Between two attempts at the same commit: a registry that is slow must not get more to do by it.
const AGAIN: Duration = Duration::from_secs(1);
/// A claim must leave so much of the tenure that it begins, or it is claimed in vain.
const WORTH: Duration = Duration::from_millis(700);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Write this node down as the holder, one epoch on. `old`: the record that this derives from.
    Claim {
        place: Place,
        old: Option<Seat>,
        why: Grounds,
    },
    /// End the task, then write down that nobody holds the seat.
    GiveUp { place: Place, old: Seat, why: Cause },
    /// Act, or go on acting, until then.
    Hold { place: Place, epoch: u64, until: Duration },
    /// End the task: the seat is another one's.
    Stop { place: Place },
    /// Ask the holder for the seat that is pinned here.
    Ask { place: Place },
}

/// Why a seat can be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grounds {
    /// Nobody has it.
    Free,
    /// Its holder is silent.
    Silent,
    /// It is this node's from before a pause.
    Again,
}

/// Why a seat is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    Unwanted,
    /// This node has left the cluster.
    Left,
    Transfer(String),
    Drain,
    Unfit,
    /// Its disk is full, and another one's is not.
    Full,
    /// The database here is the one that is written to, and copies are made of another one.
    Writes,
    /// It waits before it tries again.
    Cooling,
    /// The node stops.
    Ending,
}

/// `now`: since boot. `until`: how long this node may act by its last acknowledged heartbeat and its last look; `None`: not at all.
pub fn decide(seen: &Seen, memory: &Memory, now: Duration, until: Option<Duration>) -> Vec<Act> {
    if seen.snapshot.is_stale {
        return Vec::new();
    }
    let mut decision = Decision {
        seen,
        memory,
        now,
        until: until.filter(|until| *until > now),
        load: prefer::load(&seen.snapshot),
    };
    let wanted = places(&seen.snapshot.settings);
    let mut acts = decision.dropped(&wanted);
    acts.extend(wanted.iter().filter_map(|place| decision.of(place)));
    acts
}

struct Decision<'a> {
    seen: &'a Seen,
    memory: &'a Memory,
    now: Duration,
    until: Option<Duration>,
    load: Load,
}

impl Decision<'_> {
    fn own(&self) -> &str {
        &self.seen.snapshot.own
    }

    fn is_lost(&self, place: &Place, holder: &str, known: &Known) -> bool {
        self.seen.is_lost(place, holder, known.seen.map(|(_, since)| since))
    }

    fn moves(&self, place: &Place) -> bool {
        place.role.moves(&self.seen.snapshot.settings)
    }

    /// Seats that are this node's and that nobody wants any more.
    fn dropped(&self, wanted: &[Place]) -> Vec<Act> {
        let records = self.seen.snapshot.seats.iter();
        let dropped = records.filter_map(|record| {
            let place = Place::new(record.role, record.seat.clone());
            (!wanted.contains(&place)).then_some((place, record))
        });
        let acts = dropped.filter_map(|(place, old)| match old.holder.as_deref() == Some(self.own()) {
            true => Some(give_up(&place, old, Cause::Unwanted)),
            false => {
                let is_acting = self.memory.known(&place).tenure.is_some();
                is_acting.then_some(Act::Stop { place })
            }
        });
        acts.collect()
    }

    fn of(&mut self, place: &Place) -> Option<Act> {
        let record = self.seen.record(place);
        let known = self.memory.known(place);
        let holder = record.and_then(|record| record.holder.as_deref());
        match (holder, record) {
            (Some(holder), Some(record)) if holder == self.own() => self.own_seat(place, record, &known),
            _ if known.tenure.is_some() => Some(Act::Stop { place: place.clone() }),
            (Some(holder), _) if !self.moves(place) || !self.is_lost(place, holder, &known) => {
                self.ask(place, holder, &known)
            }
            (Some(_), _) => self.claim(place, &known, Grounds::Silent),
            (None, _) => self.claim(place, &known, Grounds::Free),
        }
    }

    fn own_seat(&mut self, place: &Place, record: &Seat, known: &Known) -> Option<Act> {
        if !self.moves(place) {
            return None;
        }
        let is_acting = self.memory.epoch(place, self.now) == Some(record.epoch);
        if let Some(cause) = self.cause(place, known) {
            return self.is_time(known.leave_tried).then(|| give_up(place, record, cause));
        }
        if !is_acting {
            return match known.cooling.until > self.now {
                true => self.leave_alone(place, record, known),
                false => self.claim(place, known, Grounds::Again),
            };
        }
        // Once for each heartbeat.
        let until = self
            .until
            .filter(|until| known.tenure.is_some_and(|tenure| *until > tenure.until));
        Some(Act::Hold {
            place: place.clone(),
            epoch: record.epoch,
            until: until?,
        })
    }

    /// It waits before it claims its own seat again: meanwhile another one may, if there is one.
    fn leave_alone(&self, place: &Place, record: &Seat, known: &Known) -> Option<Act> {
        let mut nodes = self.seen.snapshot.nodes.iter();
        let has_others = nodes.any(|node| node.name != self.own() && node.takes(place.role.needs()));
        let shall = has_others && self.is_time(known.leave_tried);
        shall.then(|| give_up(place, record, Cause::Cooling))
    }

    fn is_time(&self, tried: Option<Duration>) -> bool {
        tried.is_none_or(|tried| self.now.saturating_sub(tried) >= AGAIN)
    }

    /// Why this node should give up what it has.
    fn cause(&self, place: &Place, known: &Known) -> Option<Cause> {
        let snapshot = &self.seen.snapshot;
        let Some(own) = snapshot.node(self.own()) else {
            return Some(Cause::Left);
        };
        let needs = place.role.needs();
        let takes = |node: &&Member| node.name != own.name && node.takes(needs);
        let wanted = prefer::direction(snapshot, TRANSFERS, place);
        let takes_it = |node: &&Member| takes(node) && node.has_room(place.role);
        let wanted = wanted.and_then(|node| snapshot.node(&node)).filter(takes_it);
        if let Some(node) = wanted {
            return Some(Cause::Transfer(node.name.clone()));
        }
        // With nobody to do better it stays.
        snapshot.nodes.iter().find(takes)?;
        let patience = if place.role == Role::Db { UNFIT_DB } else { UNFIT };
        let is_directed = prefer::directed(snapshot, place).as_ref() == Some(&own.name);
        let lasts = |since: Option<Duration>, least| since.is_some_and(|at| self.now.saturating_sub(at) >= least);
        match own.standing {
            Standing::Draining => Some(Cause::Drain),
            _ if lasts(known.unfit_since, patience) => Some(Cause::Unfit),
            _ if lasts(known.full_since, FULL) && snapshot.nodes.iter().any(|node| takes_it(&node)) => {
                Some(Cause::Full)
            }
            _ if prefer::writes(snapshot, place, &own.name) && !is_directed => Some(Cause::Writes),
            _ => None,
        }
    }

    /// Claims the seat if it is this node's turn. Whoever's turn it is, the seat counts for the best one from here on, so that two seats
    /// do not go to one node.
    fn claim(&mut self, place: &Place, known: &Known, why: Grounds) -> Option<Act> {
        let snapshot = &self.seen.snapshot;
        let candidates = prefer::candidates(snapshot, place, &self.load);
        let best = candidates.first()?.name.clone();
        let rank = candidates.iter().position(|node| node.name == self.own());
        if why != Grounds::Again && self.moves(place) {
            *self.load.entry(best.clone()).or_default() += 1;
        }
        self.until.filter(|until| until.saturating_sub(self.now) >= WORTH)?;
        let (rank, since) = (u32::try_from(rank?).ok()?, known.free_since?);
        let is_directed = prefer::directed(snapshot, place).as_ref() == Some(&best);
        let wait = match why {
            Grounds::Again => Duration::ZERO,
            _ if is_directed && rank > 0 => DIRECTED + STAGGER * rank,
            _ => STAGGER * rank,
        };
        let free = self.now.saturating_sub(since);
        let cools = known.cooling.until > self.now && (known.cooling.is_refused || free < LONELY);
        let old = self.seen.record(place).cloned();
        (free >= wait && !cools && self.is_time(known.claim_tried)).then(|| Act::Claim {
            place: place.clone(),
            old,
            why,
        })
    }

    /// The seat is another one's: asks for it if it is pinned here.
    fn ask(&self, place: &Place, holder: &str, known: &Known) -> Option<Act> {
        let snapshot = &self.seen.snapshot;
        let since = |at: Option<Duration>| at.map_or(Duration::ZERO, |at| self.now.saturating_sub(at));
        let is_settled = since(known.fit_since) >= SETTLED && since(known.seen.map(|(_, at)| at)) >= SETTLED;
        let is_asked = prefer::direction(snapshot, TRANSFERS, place).is_some();
        let is_pinned = prefer::direction(snapshot, PINS, place).as_deref() == Some(self.own());
        let cools = known.cooling.until > self.now || !self.is_time(known.leave_tried);
        // Else it would give it back at once.
        let has_room = known.full_since.is_none();
        let shall =
            self.moves(place) && has_room && is_pinned && is_settled && !is_asked && !cools && holder != self.own();
        shall.then(|| Act::Ask { place: place.clone() })
    }
}

fn give_up(place: &Place, old: &Seat, why: Cause) -> Act {
    Act::GiveUp {
        place: place.clone(),
        old: old.clone(),
        why,
    }
}
