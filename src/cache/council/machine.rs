//! `Council`: one node's part in it, without I/O and without a clock: it is given messages and the time, and answers with acts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::View;
use super::event::{Event, Told};
use super::lead::Lead;
use super::link::Links;
use super::member::Member;
use super::message::{Filled, Message, Order, Ping, Wish};
use super::stand::Campaign;
use super::standing::State;
use super::table::{NODES_MAX, Term};
use super::timing::Timing;
use super::voter::Voter;
use crate::net::mesh::Name;

/// What must be done, in this order.
#[derive(Clone, Debug)]
pub enum Act {
    /// `StandingWriter::put`. Comes before everything that it makes true.
    Put(Arc<State>),
    /// `StandingWriter::put_lease`.
    Lease(Duration),
    /// For the data path.
    Tell(Event),
    Send(Name, Message),
}

/// The leader that this node follows.
pub(super) struct Following {
    pub leader: Name,
    pub term: Term,
    /// When its newest order was sent, and when it came.
    pub heard: Duration,
    pub at: Duration,
}

pub struct Council {
    pub(super) own: Name,
    pub(super) timing: Timing,
    keeps_cache: bool,
    /// It can keep items now.
    is_able: bool,
    wish: Wish,
    /// Incarnation that this process began with; marks its terms.
    pub(super) mark: u64,
    pub(super) view: Option<View>,
    pub(super) voter: Voter,
    pub(super) member: Member,
    links: Links,
    pub(super) following: Option<Following>,
    pub(super) lead: Option<Lead>,
    pub(super) campaign: Option<Campaign>,
    filled: Vec<Filled>,
    ping_at: Duration,
    tick_at: Duration,
    /// Not before this does it want to lead.
    pub(super) candidate_at: Duration,
    /// Who else wants to, since when; while nobody leads.
    pub(super) asked: BTreeMap<Name, Duration>,
    /// When a leader was last heard.
    heard_at: Duration,
    is_alone: bool,
    put: (Option<Arc<State>>, Duration),
    acts: Vec<Act>,
}

impl Council {
    /// `incarnation`: its upper half is of this process and never used again, its lower half zero. `keeps_cache`: otherwise it only votes.
    pub fn new(own: Name, incarnation: u64, keeps_cache: bool, (timing, now): (Timing, Duration)) -> Self {
        Council {
            member: Member::new(own.clone(), incarnation),
            own,
            keeps_cache,
            is_able: true,
            wish: if keeps_cache { Wish::Serve } else { Wish::Vote },
            mark: incarnation,
            view: None,
            voter: Voter::new(timing, now),
            links: Links::default(),
            following: None,
            lead: None,
            campaign: None,
            filled: Vec::new(),
            ping_at: now,
            tick_at: now,
            candidate_at: now,
            asked: BTreeMap::new(),
            heard_at: now,
            is_alone: false,
            put: (None, Duration::ZERO),
            acts: Vec::new(),
            timing,
        }
    }

    pub fn is_leader(&self) -> bool {
        self.lead.is_some()
    }

    /// The registry names other members or voters. Only what it says itself counts: no view that may be out of date.
    pub fn on_view(&mut self, view: View, now: Duration) -> Vec<Act> {
        if self.view.as_ref().is_none_or(|known| known.version < view.version) {
            self.view = Some(view);
        }
        self.finish(now)
    }

    pub fn on_told(&mut self, told: Told, now: Duration) -> Vec<Act> {
        self.expire(now);
        match told {
            Told::Stopped(epoch) if !self.member.stopped(epoch) => {}
            Told::Stopped(_) => self.ping(now),
            Told::Lost => {
                self.is_able = false;
                let event = self.member.lose();
                self.tell(event);
                self.ping(now);
            }
            Told::Able => {
                self.is_able = true;
                self.ping(now);
            }
            Told::Emptied { incarnation } => {
                self.member.emptied(incarnation);
                self.ping(now);
            }
            Told::Filled(filled) => {
                self.filled
                    .retain(|known| known.epoch == filled.epoch && known.node != filled.node);
                self.filled.truncate(NODES_MAX - 1);
                self.filled.push(filled);
                self.ping(now);
            }
        }
        self.finish(now)
    }

    /// The node is about to stop: others take over at once, without waiting for its lease.
    pub fn leave(&mut self, now: Duration) -> Vec<Act> {
        self.expire(now);
        self.wish = Wish::Vote;
        self.ping(now);
        self.finish(now)
    }

    /// Whether a table without this node is in force.
    pub fn is_out(&self) -> bool {
        self.member.is_out()
    }

    pub fn on_message(&mut self, from: &Name, message: Message, now: Duration) -> Vec<Act> {
        match message {
            Message::Probe(sent) => return vec![Act::Send(from.clone(), Message::Echo(sent))],
            Message::Echo(sent) => {
                self.links.answered(from, sent);
                return Vec::new();
            }
            _ => self.expire(now),
        }
        match message {
            Message::Ping(ping) => self.on_ping(from, ping, now),
            Message::Order(order) => self.obey(from, order, now),
            Message::Ask(ask) => self.on_ask(from, &ask, now),
            Message::Vote(vote) => self.on_vote(from, vote, now),
            Message::Release(term) => self.on_release(from, term, now),
            Message::Probe(_) | Message::Echo(_) => {}
        }
        self.finish(now)
    }

    /// To be called at `next_tick`, or later.
    pub fn on_tick(&mut self, now: Duration) -> Vec<Act> {
        self.expire(now);
        if now >= self.ping_at {
            self.ping_at = now + self.timing.ping;
            for peer in self.peers() {
                self.send(&peer, Message::Probe(now));
            }
            self.ping(now);
        }
        self.stand(now);
        if !self.is_alone && now >= self.heard_at + self.timing.patience {
            self.is_alone = true;
            self.tell(Event::Alone);
        }
        self.finish(now)
    }

    /// It was told to leave.
    pub(super) fn is_leaving(&self) -> bool {
        self.keeps_cache && self.wish == Wish::Vote
    }

    pub fn next_tick(&self) -> Duration {
        self.tick_at
    }

    pub(super) fn send(&mut self, to: &Name, message: Message) {
        self.acts.push(Act::Send(to.clone(), message));
    }

    fn tell(&mut self, event: Event) {
        match event {
            event if self.keeps_cache => self.acts.push(Act::Tell(event)),
            Event::Stop(next) => drop(self.member.stopped(next.epoch())),
            Event::Empty { incarnation } => self.member.emptied(incarnation),
            Event::Commit(_) | Event::Alone | Event::Rejoined => {}
        }
    }

    /// All others that may have a say or a part.
    pub(super) fn peers(&self) -> Vec<Name> {
        let memory = self.member.memory();
        let nodes = memory
            .tables()
            .flat_map(|table| table.nodes.iter().map(|node| &node.name));
        let voters = memory.tables().flat_map(|table| &table.voters);
        let members = self.view.iter().flat_map(|view| &view.members);
        let known = nodes.chain(voters).chain(members);
        let mut peers: Vec<Name> = known.filter(|name| **name != self.own).cloned().collect();
        peers.sort();
        peers.dedup();
        peers
    }

    /// A leader whose majority is gone leads no more, from the moment that it can tell.
    fn expire(&mut self, now: Duration) {
        if self.lead.as_ref().is_some_and(|lead| now >= lead.until(now)) {
            self.resign(now);
        }
    }

    fn resign(&mut self, now: Duration) {
        self.lead = None;
        self.following.take_if(|following| following.leader == self.own);
        self.voter.release(&self.own);
        self.candidate_at = now + self.delay();
    }

    /// Reports to the leader; to all, while none is heard.
    fn ping(&mut self, now: Duration) {
        if self.lead.is_some() {
            return self.lead_self(now);
        }
        let ping = self.report(now);
        let leader = self.following.as_ref();
        let leader = leader.filter(|leader| now.saturating_sub(leader.at) <= self.timing.lease);
        let to = leader.map_or_else(|| self.peers(), |leader| vec![leader.leader.clone()]);
        to.iter().for_each(|to| self.send(to, Message::Ping(ping.clone())));
    }

    fn report(&self, now: Duration) -> Ping {
        let following = self.following.as_ref();
        let term = following.map(|following| following.term).unwrap_or_default();
        Ping {
            incarnation: self.member.incarnation,
            sent: now,
            seen: self.voter.seen,
            term,
            heard: following.map(|following| following.heard),
            is_promise: !self.voter.is_silent(now) && self.voter.term() == term,
            base: self.member.base().map(|base| base.epoch()),
            prepared: self.member.prepared(),
            wish: match self.wish {
                Wish::Serve if !self.member.is_emptied() || !self.is_able => Wish::Later,
                wish => wish,
            },
            cut: self.links.cut(&self.peers(), now, self.timing.lease),
            filled: self.filled.clone(),
        }
    }

    /// A leader is a node like the others: it reports to itself and does what it says.
    pub(super) fn lead_self(&mut self, now: Duration) {
        let ping = self.report(now);
        let Some(lead) = &mut self.lead else { return };
        lead.hear(&self.own, ping, now);
        let order = lead.answer(&self.own, now);
        let own = self.own.clone();
        self.obey(&own, order, now);
    }

    fn on_ping(&mut self, from: &Name, ping: Ping, now: Duration) {
        self.voter.observe(ping.seen);
        let Some(lead) = &mut self.lead else { return };
        lead.hear(from, ping, now);
        let order = lead.answer(from, now);
        let is_behind = lead.term < self.voter.seen;
        self.send(from, Message::Order(order));
        if is_behind && self.campaign.is_none() {
            // Somebody promised more: the same leader, in a higher term.
            self.campaign = Some(Campaign::new(false, now));
            self.stand(now);
        }
    }

    /// Its promise to that leader is void.
    fn on_release(&mut self, from: &Name, term: Term, now: Duration) {
        let following = self.following.as_mut();
        if let Some(following) = following.filter(|known| known.leader == *from && known.term == term) {
            // What it ordered last is remembered, for orders that are still on their way.
            following.at = Duration::ZERO;
            self.voter.release(from);
            self.candidate_at = now + self.delay();
        }
    }

    fn obey(&mut self, from: &Name, order: Order, now: Duration) {
        let is_own = *from == self.own;
        let known = self.following.as_ref().filter(|known| known.term == order.term);
        // A late one: it must not bring back what is over, nor bind this node to a leader that has released it.
        if !is_own && known.is_some_and(|known| known.heard >= order.sent) {
            return;
        }
        let is_new = known.is_none();
        if !self.voter.follow(order.term, from, now) {
            // So that it learns of the higher term.
            let ping = self.report(now);
            return self.send(from, Message::Ping(ping));
        }
        self.follow(from, &order, now);
        let is_of_this_process = order
            .echo
            .is_some_and(|(incarnation, _)| incarnation >> 32 == self.mark >> 32);
        // What it forgot may be newer than an order that was long on its way.
        if self.member.base().is_none() && !is_of_this_process {
            return self.ping(now);
        }
        let before = self.member.prepared();
        for event in self.member.take(&order.base, order.is_committed, order.next.as_ref()) {
            self.tell(event);
        }
        let echo = order
            .echo
            .filter(|(incarnation, _)| order.is_lease && *incarnation == self.member.incarnation);
        if let Some((_, sent)) = echo {
            self.member.lease = match &self.lead {
                Some(lead) => lead.until(now),
                None => self.member.lease.max(sent + self.timing.lease),
            };
        }
        if !is_own && (is_new || self.member.prepared() != before) {
            self.ping(now);
        }
    }

    fn follow(&mut self, leader: &Name, order: &Order, now: Duration) {
        if *leader != self.own {
            self.lead = None;
            self.campaign = None;
        }
        self.asked.clear();
        self.following = Some(Following {
            leader: leader.clone(),
            term: order.term,
            heard: order.sent,
            at: now,
        });
        self.heard_at = now;
        if std::mem::take(&mut self.is_alone) {
            self.tell(Event::Rejoined);
        }
    }

    /// Goes on as far as possible, and collects what must be done.
    fn finish(&mut self, now: Duration) -> Vec<Act> {
        self.decide(now);
        let memory = self.member.memory();
        let state = State::new(self.own.clone(), self.member.incarnation)
            .with_tables(self.member.base().cloned(), self.member.next().cloned())
            .serving(self.member.serves)
            .alone(self.is_alone);
        let mut acts = Vec::new();
        if self.put.0.as_ref().is_none_or(|known| !known.is_same(&state)) {
            let state = Arc::new(state);
            self.put.0 = Some(state.clone());
            acts.push(Act::Put(state));
        }
        if self.put.1 != self.member.lease {
            self.put.1 = self.member.lease;
            acts.push(Act::Lease(self.member.lease));
        }
        acts.append(&mut self.acts);
        let newest = memory.tables().last().map(|table| table.epoch);
        self.filled
            .retain(|filled| newest.is_some_and(|newest| filled.epoch <= newest));
        self.tick_at = match self.lead.is_some() || self.campaign.is_some() {
            true => self.ping_at.min(now + self.timing.ping / 4),
            false if self.candidate_at > now => self.ping_at.min(self.candidate_at),
            false => self.ping_at,
        };
        acts
    }

    fn decide(&mut self, now: Duration) {
        // Each step makes the next one possible; a change of table has two.
        for _ in 0..4 {
            let Some(lead) = &mut self.lead else { return };
            if !lead.advance(self.view.as_ref(), now) {
                break;
            }
            let order = lead.order(now);
            let others: Vec<Name> = lead.audience().filter(|name| **name != self.own).cloned().collect();
            others
                .iter()
                .for_each(|name| self.send(name, Message::Order(order.clone())));
            self.lead_self(now);
        }
        let Some(lead) = self.lead.as_ref().filter(|lead| lead.has_decided()) else {
            return;
        };
        if self.is_leaving() && self.member.is_out() || !lead.base().voters.contains(&self.own) {
            let term = lead.term;
            self.resign(now);
            for peer in self.peers() {
                self.send(&peer, Message::Release(term));
            }
        }
    }
}
