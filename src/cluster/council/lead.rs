//! `Lead`: what a leader knows of each node, and when it may change the table. Without I/O and without a clock of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::View;
use super::campaign::{Ballot, Mandate};
use super::message::{Order, Ping, Wish};
use super::plan::{Peer, Scene, plan};
use super::table::{Epoch, Node, Table, Term, majority};
use super::timing::Timing;
use crate::net::mesh::Name;

pub struct Lead {
    own: Name,
    timing: Timing,
    pub term: Term,
    elected: Duration,
    base: Arc<Table>,
    is_committed: bool,
    /// A table of this leader is in force.
    has_decided: bool,
    is_inherited: bool,
    next: Option<Pending>,
    numbers: u64,
    electorate: Vec<Vec<Name>>,
    suspects: BTreeSet<Name>,
    /// To when each voter has promised, as the time of the order or question that it answered.
    promised: BTreeMap<Name, Duration>,
    contacts: BTreeMap<Name, Contact>,
}

struct Pending {
    table: Arc<Table>,
    since: Duration,
}

struct Contact {
    ping: Ping,
    /// When it came.
    at: Duration,
    /// Since when it pings without a break.
    since: Duration,
    /// When the newest order that it has heard was sent.
    heard: Option<Duration>,
    /// When the last ping came that was answered with a lease.
    leased: Option<Duration>,
}

impl Lead {
    pub fn new(
        own: Name,
        term: Term,
        mandate: Mandate,
        ballots: &BTreeMap<Name, Ballot>,
        (timing, now): (Timing, Duration),
    ) -> Self {
        Lead {
            own,
            timing,
            term,
            elected: now,
            base: mandate.base,
            is_committed: mandate.is_committed,
            has_decided: false,
            is_inherited: mandate.is_inherited,
            next: None,
            numbers: 0,
            electorate: mandate.electorate,
            suspects: mandate.suspects,
            promised: ballots
                .iter()
                .map(|(voter, ballot)| (voter.clone(), ballot.sent))
                .collect(),
            contacts: BTreeMap::new(),
        }
    }

    /// Until when it leads; then it must stop at once. `Duration::MAX`: nobody else could be elected.
    pub fn until(&self, now: Duration) -> Duration {
        let next = self.next.as_ref().map(|next| &next.table.voters);
        let sets = self.electorate.iter().chain(next);
        sets.map(|voters| self.until_by(voters, now)).min().unwrap_or_default()
    }

    /// A majority of these voters has promised so long.
    fn until_by(&self, voters: &[Name], now: Duration) -> Duration {
        if *voters == [self.own.clone()] {
            return Duration::MAX;
        }
        let promise = |voter: &Name| match *voter == self.own {
            true => Some(now),
            false => self.promised.get(voter).copied(),
        };
        let mut promises: Vec<Duration> = voters.iter().filter_map(promise).collect();
        promises.sort_by(|one, other| other.cmp(one));
        let decisive = promises.get(majority(voters.len()) - 1);
        decisive.map_or(Duration::ZERO, |sent| *sent + self.timing.lease)
    }

    pub fn hear(&mut self, from: &Name, ping: Ping, now: Duration) {
        let known = self.contacts.get(from);
        let is_same_process = known.is_some_and(|known| known.ping.incarnation >> 32 == ping.incarnation >> 32);
        if is_same_process && known.is_some_and(|known| known.ping.sent > ping.sent) {
            return;
        }
        let heard = ping.heard.filter(|_| ping.term == self.term);
        if let Some(sent) = heard.filter(|_| ping.is_promise) {
            let promised = self.promised.entry(from.clone()).or_default();
            *promised = sent.max(*promised);
        }
        let unbroken = known.filter(|known| now.saturating_sub(known.at) <= self.timing.lease);
        let contact = Contact {
            since: unbroken.map_or(now, |known| known.since),
            heard: heard.max(known.and_then(|known| known.heard)),
            leased: known.and_then(|known| known.leased),
            at: now,
            ping,
        };
        self.contacts.insert(from.clone(), contact);
    }

    /// What a node is told; with a lease if it may have one, in answer to the ping that was just heard.
    pub fn answer(&mut self, to: &Name, now: Duration) -> Order {
        let may = self.may_lease(to, now);
        let order = self.order(now);
        let Some(contact) = self.contacts.get_mut(to) else {
            return order;
        };
        if may {
            contact.leased = Some(contact.at);
        }
        Order {
            echo: Some((contact.ping.incarnation, contact.ping.sent)),
            is_lease: may,
            ..order
        }
    }

    /// What everybody is told.
    pub fn order(&self, now: Duration) -> Order {
        Order {
            term: self.term,
            sent: now,
            echo: None,
            is_lease: false,
            base: self.base.clone(),
            is_committed: self.is_committed,
            next: self.next.as_ref().map(|next| next.table.clone()),
        }
    }

    /// A lease is only given to who hears the answers, or it would be waited for in vain; and only under tables that this leader made.
    fn may_lease(&self, to: &Name, now: Duration) -> bool {
        let Some(contact) = self.contacts.get(to) else {
            return false;
        };
        let is_close = contact
            .heard
            .is_some_and(|heard| now.saturating_sub(heard) <= self.timing.lease / 2);
        let incarnation = contact.ping.incarnation;
        let is_in = match &self.next {
            Some(next) => next.table.holds(to, incarnation) && !self.is_stuck(to, now),
            None => self.base.holds(to, incarnation),
        };
        let is_bound = self.has_decided || self.has_prepared(to);
        contact.ping.term == self.term && (is_close || *to == self.own) && is_in && is_bound
    }

    /// It may be serving under an older table.
    fn is_leased(&self, name: &Name, now: Duration) -> bool {
        if *name == self.own {
            return true;
        }
        let given = self.contacts.get(name).and_then(|contact| contact.leased);
        let by_this = given.is_some_and(|at| now < at + self.timing.grace);
        by_this || (self.suspects.contains(name) && now < self.elected + self.timing.grace)
    }

    fn has_prepared(&self, name: &Name) -> bool {
        let next = self.next.as_ref().map(|next| next.table.epoch);
        next.is_some()
            && self
                .contacts
                .get(name)
                .is_some_and(|contact| contact.ping.prepared == next)
    }

    /// It answers, and does not do what it is told.
    fn is_stuck(&self, name: &Name, now: Duration) -> bool {
        let is_late = |next: &Pending| now > next.since + self.timing.lease && next.table.node(name).is_some();
        self.next.as_ref().is_some_and(is_late) && !self.has_prepared(name)
    }

    fn is_alive(&self, name: &Name, contact: &Contact, now: Duration) -> bool {
        let is_fresh = |at: Duration| now.saturating_sub(at) <= self.timing.lease;
        let is_close = is_fresh(contact.at) && is_fresh(contact.heard.unwrap_or(contact.since));
        (is_close || *name == self.own) && !self.is_stuck(name, now)
    }

    /// Goes on as far as it can; whether there is something new to tell.
    pub fn advance(&mut self, view: Option<&View>, now: Duration) -> bool {
        let Some(next) = &self.next else {
            return self.begin(view, now);
        };
        if self.can_commit(&next.table, now) {
            self.commit();
            return true;
        }
        let table = next.table.clone();
        !self.is_feasible(&table, now) && self.begin(view, now)
    }

    fn begin(&mut self, view: Option<&View>, now: Duration) -> bool {
        // Where nothing is inherited there is nothing to hurry for: all who are there shall begin together.
        let is_gathering = !self.is_inherited && now < self.elected + self.timing.ping * 2;
        if is_gathering && self.base.voters.len() > 1 {
            return false;
        }
        let mut table = self.wanted(view, now);
        let is_same =
            |known: &Table| (&known.nodes, &known.voters, known.view) == (&table.nodes, &table.voters, table.view);
        let is_known = match &self.next {
            Some(next) => is_same(&next.table),
            None => self.has_decided && is_same(&self.base),
        };
        if is_known {
            return false;
        }
        self.numbers += 1;
        table.epoch = Epoch {
            term: self.term,
            number: self.numbers,
        };
        self.next = Some(Pending {
            table: Arc::new(table),
            since: now,
        });
        true
    }

    fn wanted(&self, view: Option<&View>, now: Duration) -> Table {
        let peers: BTreeMap<Name, Peer> = self
            .contacts
            .iter()
            .map(|(name, contact)| (name.clone(), self.peer(name, contact, now)))
            .collect();
        let is_awaited = |name: &&Name| !peers.contains_key(*name) && self.is_leased(name, now);
        let awaited = self.suspects.iter().filter(is_awaited).cloned().collect();
        plan(&Scene {
            own: &self.own,
            base: &self.base,
            is_committed: self.is_committed,
            peers: &peers,
            awaited: &awaited,
            view,
        })
    }

    fn peer(&self, name: &Name, contact: &Contact, now: Duration) -> Peer {
        Peer {
            incarnation: contact.ping.incarnation,
            wish: contact.ping.wish,
            knows_base: contact.ping.base == Some(self.base.epoch),
            is_alive: self.is_alive(name, contact, now),
            is_leased: self.is_leased(name, now) && *name != self.own,
            cut: contact.ping.cut.clone(),
            filled: contact.ping.filled.clone(),
        }
    }

    /// Whether all that the table needs may still come.
    fn is_feasible(&self, table: &Table, now: Duration) -> bool {
        let is_alive = |name: &Name| {
            let contact = self.contacts.get(name);
            contact.is_some_and(|contact| self.is_alive(name, contact, now))
        };
        let may_come = |node: &Node| match self.contacts.get(&node.name) {
            Some(contact) => {
                let is_same = contact.ping.incarnation == node.incarnation && contact.ping.wish == Wish::Serve;
                is_same && (is_alive(&node.name) || self.is_leased(&node.name, now))
            }
            None => self.is_leased(&node.name, now),
        };
        let may_decide = || {
            let heard = table.voters.iter().filter(|voter| is_alive(voter)).count();
            heard >= majority(table.voters.len()) || table.voters == self.base.voters
        };
        table.nodes.iter().all(may_come) && may_decide()
    }

    /// Nobody serves under an older table what is another one's in this one, and no later leader can miss it.
    fn can_commit(&self, table: &Table, now: Duration) -> bool {
        let others = self.base.nodes.iter().map(|node| &node.name);
        let mut others = others.chain(&self.suspects).chain(self.contacts.keys());
        let has_stopped = |name: &Name| self.has_prepared(name) || !self.is_leased(name, now);
        let is_ready = |node: &Node| {
            let incarnation = self.contacts.get(&node.name).map(|contact| contact.ping.incarnation);
            self.has_prepared(&node.name) && incarnation == Some(node.incarnation)
        };
        let has_majority = |voters: &Vec<Name>| {
            let prepared = voters.iter().filter(|voter| self.has_prepared(voter)).count();
            prepared >= majority(voters.len())
        };
        others.all(has_stopped)
            && table.nodes.iter().all(is_ready)
            && self.electorate.iter().chain([&table.voters]).all(has_majority)
    }

    fn commit(&mut self) {
        let Some(next) = self.next.take() else { return };
        self.electorate = vec![next.table.voters.clone()];
        self.base = next.table;
        (self.is_committed, self.has_decided, self.is_inherited) = (true, true, true);
    }

    /// The table in force.
    pub fn base(&self) -> &Arc<Table> {
        &self.base
    }

    pub fn has_decided(&self) -> bool {
        self.has_decided
    }

    /// Nodes that it hears.
    pub fn audience(&self) -> impl Iterator<Item = &Name> {
        self.contacts.keys()
    }
}
