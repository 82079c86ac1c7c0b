//! `Log`: a hub's copy of the cluster's messages: those that it has delivered, and those that came after and must wait until all hubs have
//! them. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::origins::Origins;
use crate::cluster::council::Epoch;
use crate::net::mesh::Name;
use crate::push::entry::Entry;
use crate::push::history::History;
use crate::push::mid::{Era, Mid};

/// An orderer's time. The name tells two apart who chose the same era, because neither had heard of the other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reign {
    pub era: Era,
    pub by: Name,
}

/// Part of a log, without a gap.
#[derive(Clone, Debug, Default)]
pub struct Portion {
    /// It holds all that comes after this …
    pub after: Mid,
    /// … up to this.
    pub upto: Mid,
    /// In their order; how long each one lasts from now.
    pub entries: Vec<(Arc<Entry>, Duration)>,
}

/// What an orderer tells each hub.
#[derive(Clone, Debug)]
pub struct Append {
    pub reign: Reign,
    /// Of its table.
    pub chain: Epoch,
    /// End of the log with which the reign began: who has all up to there has all of the past.
    pub base: Mid,
    /// The reign that was before in its log: who was whole in that one has the same log, as far as both go.
    pub former: Option<Reign>,
    pub portion: Portion,
    /// All hubs have everything up to this: it may be delivered.
    pub commit: Mid,
    /// To hubs that were not there.
    pub origins: Origins,
}

/// How far a log is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The newest that was heard of.
    pub reign: Option<Reign>,
    /// The newest whose past is here as a whole.
    pub whole: Option<Reign>,
    pub position: Mid,
    pub delivered: Mid,
}

pub struct Log {
    history: History,
    tail: VecDeque<(Arc<Entry>, Duration)>,
    tail_bytes: usize,
    delivered: Mid,
    position: Mid,
    reign: Option<Reign>,
    whole: Option<Reign>,
    /// Of the table under which it became whole.
    chain: Option<Epoch>,
    /// Of what was delivered.
    origins: Origins,
}

impl Log {
    pub fn new(history: History) -> Self {
        Log {
            history,
            tail: VecDeque::new(),
            tail_bytes: 0,
            delivered: Mid::default(),
            position: Mid::default(),
            reign: None,
            whole: None,
            chain: None,
            origins: Origins::default(),
        }
    }

    /// The first one to order, with nothing before: ids come after this.
    pub fn start(&mut self, at: Mid) {
        (self.position, self.delivered) = (at, at);
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    pub fn history_mut(&mut self) -> &mut History {
        &mut self.history
    }

    pub fn delivered(&self) -> Mid {
        self.delivered
    }

    /// Up to here it has all of the orderer's log.
    pub fn position(&self) -> Mid {
        self.position
    }

    /// It has all that came before the reign that it is in.
    pub fn is_whole(&self) -> bool {
        self.whole.is_some() && self.whole == self.reign
    }

    /// Of the table under which it became whole.
    pub fn chain(&self) -> Option<Epoch> {
        self.chain
    }

    /// Bytes that wait to be delivered.
    pub fn waiting(&self) -> usize {
        self.tail_bytes
    }

    pub fn report(&self) -> Report {
        Report {
            reign: self.reign.clone(),
            whole: self.whole.clone(),
            position: self.position,
            delivered: self.delivered,
        }
    }

    /// Of what was delivered.
    pub fn settled(&self) -> &Origins {
        &self.origins
    }

    /// Of all that is here.
    pub fn origins(&self) -> Origins {
        let mut origins = self.origins.clone();
        let tail = self.tail.iter();
        tail.for_each(|(entry, _)| origins.note(entry.origin, entry.mid()));
        origins
    }

    /// What comes after `position`, about so many bytes of it, and at least one entry.
    pub fn portion(&self, after: Mid, bytes: usize, now: Instant) -> Portion {
        let kept = self.history.after(after);
        let kept = kept.map(|(entry, until)| (entry, until.saturating_duration_since(now)));
        let tail = self.tail.iter().map(|(entry, lasts)| (entry, *lasts));
        let mut portion = Portion {
            after,
            upto: self.position.max(after),
            entries: Vec::new(),
        };
        let mut sum = 0;
        for (entry, lasts) in kept.chain(tail.filter(|(entry, _)| entry.mid() > after)) {
            if sum > bytes {
                portion.upto = portion.entries.last().map_or(after, |(entry, _)| entry.mid());
                break;
            }
            sum += entry.cost();
            portion.entries.push((entry.clone(), lasts));
        }
        portion
    }

    /// Lays in what comes next; what is here already is passed over, and what comes after a gap is left.
    pub fn lay(&mut self, portion: Portion) {
        if portion.after > self.position {
            return;
        }
        for (entry, lasts) in portion.entries {
            if entry.mid() > self.position && entry.mid() <= portion.upto {
                self.position = entry.mid();
                self.tail_bytes += entry.cost();
                self.tail.push_back((entry, lasts));
            }
        }
        self.position = self.position.max(portion.upto);
    }

    /// Forgets what has not been delivered and comes after `end`: it may not be what others have.
    pub fn shorten(&mut self, end: Mid) {
        while let Some((entry, _)) = self.tail.pop_back_if(|(entry, _)| entry.mid() > end) {
            self.tail_bytes -= entry.cost();
        }
        self.position = self.position.min(end).max(self.delivered);
    }

    /// What an orderer tells; what may be delivered now. An error names a newer reign.
    pub fn take(&mut self, append: Append, now: Instant) -> Result<Vec<Arc<Entry>>, Reign> {
        match &self.reign {
            Some(known) if *known > append.reign => return Err(known.clone()),
            Some(known) if *known == append.reign => {}
            _ => {
                let is_same = self.is_whole() && self.whole == append.former;
                self.shorten(if is_same { append.base } else { self.delivered });
                self.reign = Some(append.reign.clone());
            }
        }
        self.origins.merge(&append.origins);
        self.lay(append.portion);
        if self.position >= append.base && !self.is_whole() {
            self.whole = Some(append.reign);
            self.chain = Some(append.chain);
        }
        Ok(self.deliver(append.commit, now))
    }

    /// This hub begins to order, from what it has.
    pub fn begin(&mut self, reign: Reign, chain: Epoch) {
        (self.reign, self.whole) = (Some(reign.clone()), Some(reign));
        self.chain = Some(chain);
    }

    /// It has now all that another hub had.
    pub fn adopt(&mut self, whole: Option<Reign>, origins: &Origins) {
        self.whole = whole;
        self.origins.merge(origins);
    }

    /// Up to `commit`, as far as it is here.
    pub fn deliver(&mut self, commit: Mid, now: Instant) -> Vec<Arc<Entry>> {
        let mut delivered = Vec::new();
        while let Some((entry, lasts)) = self.tail.pop_front_if(|(entry, _)| entry.mid() <= commit) {
            self.tail_bytes -= entry.cost();
            self.origins.note(entry.origin, entry.mid());
            self.history.keep(entry.clone(), now + lasts);
            delivered.push(entry);
        }
        self.delivered = self.delivered.max(commit.min(self.position));
        delivered
    }
}
