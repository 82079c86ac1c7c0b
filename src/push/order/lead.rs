//! `Lead`: the hub that orders. It gives ids, tells each hub what it lacks, and says up to where all have everything. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::log::{Append, Log, Portion, Reign};
use super::origins::Origins;
use crate::cluster::council::{Epoch, Filled, Placement, Stage};
use crate::net::mesh::Name;
use crate::push::entry::{Entry, Origin};
use crate::push::message::Publication;
use crate::push::mid::{Mid, Mids};

/// Bytes of entries in one call, but for the first entry.
pub(super) const PORTION: usize = 512 << 10;

pub struct Lead {
    pub reign: Reign,
    pub chain: Epoch,
    former: Option<Reign>,
    base: Mid,
    mids: Mids,
    /// Of all that is in the log.
    origins: Origins,
    peers: BTreeMap<Name, Peer>,
    /// Hubs of the table that must have a message before it is delivered.
    must: BTreeSet<Name>,
    /// Those that come back and have all, under the table of this epoch.
    filled: (Epoch, BTreeSet<Name>),
    /// Epochs of the tables that `must` is by.
    seated: Option<(Epoch, Option<Epoch>)>,
}

/// Another hub.
#[derive(Debug, Default)]
struct Peer {
    /// How far it is, by what it answered last.
    position: Option<Mid>,
    is_whole: bool,
    /// What it was told to deliver, and has answered.
    told: Mid,
}

impl Lead {
    /// With the log as it is. `unix`: time since 1970.
    pub fn new(reign: Reign, chain: Epoch, log: &mut Log, unix: Duration) -> Self {
        let former = log.report().whole;
        log.begin(reign.clone(), chain);
        Lead {
            mids: Mids::of(reign.era, unix),
            reign,
            chain,
            former,
            base: log.position(),
            origins: log.origins(),
            peers: BTreeMap::new(),
            must: BTreeSet::new(),
            filled: (Epoch::default(), BTreeSet::new()),
            seated: None,
        }
    }

    /// Of a node without others.
    pub fn alone(mids: Mids, own: &Name, log: &mut Log) -> Self {
        let reign = Reign {
            era: mids.last().era(),
            by: own.clone(),
        };
        Lead {
            mids,
            ..Lead::new(reign, Epoch::default(), log, Duration::ZERO)
        }
    }

    /// Follows the tables that may be in force. What is said of who has all holds under one table alone.
    pub fn seat(&mut self, own: &Name, base: &Placement, next: Option<&Placement>) {
        let seated = (base.epoch(), next.map(Placement::epoch));
        if self.seated.replace(seated) == Some(seated) {
            return;
        }
        if self.filled.0 != base.epoch() {
            self.filled = (base.epoch(), BTreeSet::new());
        }
        let nodes = |placement: &Placement, stage: Option<Stage>| {
            let nodes = placement.table().nodes.iter();
            let nodes = nodes.filter(|node| node.name != *own && stage.is_none_or(|stage| node.stage == stage));
            nodes.map(|node| node.name.clone()).collect::<BTreeSet<Name>>()
        };
        let of_both = |stage| {
            let mut found = nodes(base, stage);
            found.extend(next.map(|next| nodes(next, stage)).unwrap_or_default());
            found
        };
        self.must = of_both(Some(Stage::Serving));
        let all = of_both(None);
        self.peers.retain(|name, _| all.contains(name));
        for name in all {
            self.peers.entry(name).or_default();
        }
    }

    /// Lays a publish in, unless it is there. Returns the id up to which all must be delivered before it is.
    pub fn order(&mut self, log: &mut Log, publication: &Publication, origin: Origin, created: Duration) -> Mid {
        if let Some(mid) = self.origins.find(origin) {
            return mid;
        }
        let entry = Entry::new(self.mids.take(), created, publication, origin);
        let (after, mid, lasts) = (log.position(), entry.mid(), entry.lasts());
        log.lay(Portion {
            after,
            upto: mid,
            entries: vec![(Arc::new(entry), lasts)],
        });
        self.origins.note(origin, mid);
        mid
    }

    pub fn peers(&self) -> impl Iterator<Item = &Name> {
        self.peers.keys()
    }

    /// What it must be told now.
    pub fn next(&self, name: &Name, log: &Log, now: Instant) -> Option<Append> {
        let peer = self.peers.get(name)?;
        let is_behind = peer.position.is_none_or(|position| position < log.position());
        if !is_behind && peer.told >= log.delivered() {
            return None;
        }
        // Who has not said where it is gets nothing yet: it may have nearly all.
        let portion = match peer.position {
            Some(position) => log.portion(position, PORTION, now),
            None => Portion::default(),
        };
        Some(Append {
            reign: self.reign.clone(),
            chain: self.chain,
            base: self.base,
            former: self.former.clone(),
            portion,
            commit: log.delivered(),
            origins: match peer.is_whole {
                true => Origins::default(),
                false => log.settled().clone(),
            },
        })
    }

    /// What it answered: how far it is, and what it was told.
    pub fn hear(&mut self, name: &Name, (position, is_whole): (Mid, bool), told: Mid) {
        if let Some(peer) = self.peers.get_mut(name) {
            *peer = Peer {
                position: Some(position),
                is_whole,
                told: told.min(position),
            };
        }
    }

    /// All who must have it have everything up to this.
    pub fn common(&self, log: &Log) -> Mid {
        let of = |name: &Name| {
            let peer = self.peers.get(name).and_then(|peer| peer.position);
            peer.unwrap_or_default()
        };
        let must = self.must.iter().chain(&self.filled.1).map(of);
        must.min().unwrap_or(log.position()).min(log.position())
    }

    /// Hubs of the table that come back and have now all that was delivered. From here on nothing is delivered without them.
    pub fn fill(&mut self, base: &Placement, log: &Log) -> Vec<Filled> {
        let nodes = base.table().nodes.iter();
        let filling = nodes.filter(|node| node.stage == Stage::Filling && !self.filled.1.contains(&node.name));
        let has_all = |name: &Name| {
            let peer = self.peers.get(name);
            peer.is_some_and(|peer| peer.is_whole && peer.position >= Some(log.delivered()))
        };
        let filled = filling.filter(|node| has_all(&node.name)).map(|node| Filled {
            node: node.name.clone(),
            incarnation: node.incarnation,
            epoch: base.epoch(),
        });
        let filled: Vec<Filled> = filled.collect();
        self.filled.1.extend(filled.iter().map(|filled| filled.node.clone()));
        filled
    }
}
