//! Byte-range locks of one inode and one family, as fcntl and NLMv4 have them. Pure.
//!
//! The locks of one owner never overlap: a new one takes the place of what it covers, with splits at its edges, and neighbours
//! of the same mode become one. An flock is the range of the whole file, so the same rules give its upgrade and downgrade.

use crate::storage::call::Lock;
use crate::storage::operation::Session;

/// A granted lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub session: Session,
    pub lock: Lock,
}

impl Held {
    fn is_of(&self, session: Session, owner: u64) -> bool {
        self.session == session && self.lock.owner == owner
    }

    /// Stands in the way of all that the other does.
    fn covers(&self, other: &Held) -> bool {
        let (now, before) = (&self.lock, &other.lock);
        now.start <= before.start && before.end <= now.end && (now.is_exclusive || !before.is_exclusive)
    }

    fn overlaps(&self, other: &Lock) -> bool {
        self.lock.start < other.end && other.start < self.lock.end
    }
}

/// The first lock that stands in the way of `wanted`.
pub fn conflict<'a>(held: &'a [Held], session: Session, wanted: &Lock) -> Option<&'a Held> {
    held.iter()
        .filter(|other| !other.is_of(session, wanted.owner) && other.overlaps(wanted))
        .filter(|other| other.lock.is_exclusive || wanted.is_exclusive)
        .min_by_key(|other| (other.lock.start, other.session, other.lock.owner))
}

/// The sessions of all that stand in the way of `wanted`, but for its own.
pub fn holders(held: &[Held], session: Session, wanted: &Lock) -> Vec<Session> {
    let in_the_way = held
        .iter()
        .filter(|other| other.session != session && other.overlaps(wanted));
    let mut holders: Vec<_> = in_the_way
        .filter(|other| other.lock.is_exclusive || wanted.is_exclusive)
        .map(|other| other.session)
        .collect();
    holders.sort_unstable();
    holders.dedup();
    holders
}

/// Whether something that stood in others' way may do so no longer, now that the owner's locks became `own`.
pub fn is_freed(held: &[Held], (session, owner): (Session, u64), own: &[Held]) -> bool {
    let mut before = held.iter().filter(|each| each.is_of(session, owner));
    before.any(|each| !own.iter().any(|now| now.covers(each)))
}

/// The owner's locks after `wanted` was granted.
pub fn with(held: &[Held], session: Session, wanted: &Lock) -> Vec<Held> {
    let mut own = without(held, session, wanted);
    own.push(Held {
        session,
        lock: wanted.clone(),
    });
    own.sort_by_key(|each| each.lock.start);
    let mut merged: Vec<Held> = Vec::with_capacity(own.len());
    for next in own {
        match merged.last_mut() {
            Some(last) if last.lock.end == next.lock.start && last.lock.is_exclusive == next.lock.is_exclusive => {
                last.lock.end = next.lock.end;
                last.lock.pid = wanted.pid;
            }
            _ => merged.push(next),
        }
    }
    merged
}

/// The owner's locks after the range of `given_up` was unlocked.
pub fn without(held: &[Held], session: Session, given_up: &Lock) -> Vec<Held> {
    let mut rest = Vec::new();
    for each in held.iter().filter(|each| each.is_of(session, given_up.owner)) {
        if !each.overlaps(given_up) {
            rest.push(each.clone());
            continue;
        }
        for (start, end) in [(each.lock.start, given_up.start), (given_up.end, each.lock.end)] {
            if start < end {
                let mut part = each.clone();
                part.lock.start = start;
                part.lock.end = end;
                rest.push(part);
            }
        }
    }
    rest
}
