//! Answers that a door keeps under its lease. No I/O, no clock.

use std::time::Duration;

use quick_cache::Equivalent;
use quick_cache::unsync::Cache;

use super::thing::{Key as ThingKey, Keys};
use super::touches::Touches;
use super::{Recalls, Thing, rests_on};
use crate::storage::call::{Caller, Query, Reply};
use crate::storage::request::Answer;

/// Answers kept: about 500 bytes each, so 32 MiB when full. A portal has 40 000 files.
const KEPT: usize = 64 << 10;

pub struct Kept {
    keys: Keys,
    touches: Touches,
    epoch: u64,
    until: Duration,
    /// When a leader last answered anything.
    answered: Duration,
    /// Recalls up to this one have arrived.
    last: u64,
    answers: Cache<Key, Entry>,
}

#[derive(PartialEq, Eq, Hash)]
struct Key(Caller, Query);

#[derive(Hash)]
struct KeyRef<'a>(&'a Caller, &'a Query);

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        (self.0, self.1) == (&key.0, &key.1)
    }
}

struct Entry {
    answer: Answer,
    since: u64,
    rests_on: [ThingKey; 3],
}

impl Default for Kept {
    fn default() -> Self {
        Kept {
            keys: Keys::default(),
            touches: Touches::default(),
            epoch: 0,
            until: Duration::ZERO,
            answered: Duration::ZERO,
            last: 0,
            answers: Cache::new(KEPT),
        }
    }
}

impl Kept {
    /// What to listen with: the epoch, and the last recall that arrived.
    pub fn heard(&self) -> (u64, u64) {
        (self.epoch, self.last)
    }

    /// Whether the lease is in force.
    pub fn is_lent(&self, now: Duration) -> bool {
        now < self.until
    }

    /// A leader has answered.
    pub fn answered(&mut self, now: Duration) {
        self.answered = now;
    }

    /// For how long no leader has answered.
    pub fn silence(&self, now: Duration) -> Duration {
        now.saturating_sub(self.answered)
    }

    /// How long the lease still is.
    pub fn left(&self, now: Duration) -> Duration {
        self.until.saturating_sub(now)
    }

    /// Take it before a query is sent.
    pub fn ticket(&self) -> u64 {
        self.touches.now()
    }

    /// Keeps an answer that was promised in `epoch` to a query sent after `ticket`.
    pub fn keep(&mut self, (caller, query): (&Caller, &Query), answer: &Answer, epoch: u64, ticket: u64) {
        let Some(rests_on) = rests_on(query, answer).filter(|_| epoch == self.epoch) else {
            return;
        };
        let entry = Entry {
            answer: lasting(answer.clone()),
            since: ticket,
            rests_on: rests_on.map(|thing| self.keys.of(&thing)),
        };
        if self.is_true(&entry) {
            self.answers.insert(Key(caller.clone(), query.clone()), entry);
        }
    }

    pub fn find(&self, caller: &Caller, query: &Query, now: Duration) -> Option<Answer> {
        if !self.is_lent(now) {
            return None;
        }
        self.find_stale(caller, query)
    }

    /// As `find`, but whether it is true still is not known when the lease is over.
    pub fn find_stale(&self, caller: &Caller, query: &Query) -> Option<Answer> {
        let entry = self.answers.get(&KeyRef(caller, query))?;
        self.is_true(entry).then(|| entry.answer.clone())
    }

    /// The answer to a `Listen` has arrived, with a lease until `until`.
    pub fn listened(&mut self, recalls: &Recalls, until: Duration) {
        if recalls.epoch != self.epoch {
            self.touches.touch_all();
            (self.epoch, self.last) = (recalls.epoch, 0);
        }
        self.recall(recalls);
        self.last = self.last.max(recalls.last);
        self.until = until;
    }

    /// Forgets. They are confirmed by the answer to a `Listen` only: that one may bring more.
    pub fn recall(&mut self, recalls: &Recalls) {
        match recalls.all {
            true => self.touches.touch_all(),
            false => {
                let inodes = recalls.inodes.iter().map(|inode| Thing::Attributes(*inode));
                let access = recalls.access.iter().map(|folder| Thing::Access(*folder));
                let names = recalls.names.iter();
                let names = names.map(|(folder, name)| Thing::Name(*folder, name.as_slice()));
                let mut things = inodes.chain(access).chain(names).peekable();
                if things.peek().is_some() {
                    self.touches.touch(things.map(|thing| self.keys.of(&thing)));
                }
            }
        }
    }

    fn is_true(&self, entry: &Entry) -> bool {
        let is_untouched = |thing: &ThingKey| self.touches.is_untouched(*thing, entry.since);
        entry.rests_on.iter().all(is_untouched)
    }
}

/// The part of an answer that is true until it is recalled: the attributes of the folder that came along change sooner.
fn lasting(answer: Answer) -> Answer {
    answer.map(|reply| match reply {
        Reply::Object { attributes, .. } => Reply::Object {
            attributes,
            folder: None,
        },
        other => other,
    })
}
