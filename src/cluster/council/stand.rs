//! How a node comes to lead: it asks the others, first on trial and then in earnest.
//!
//! On trial nobody promises anything, so a node that only cannot hear its leader, or was frozen, disturbs nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use super::campaign::{Ballot, Mandate, Verdict, judge};
use super::lead::Lead;
use super::machine::Council;
use super::message::{Ask, Message, Vote};
use super::table::Term;
use crate::net::mesh::Name;

pub(super) struct Campaign {
    /// Default: not begun.
    term: Term,
    is_trial: bool,
    since: Duration,
    ask_at: Duration,
    ballots: BTreeMap<Name, Ballot>,
}

impl Campaign {
    pub fn new(is_trial: bool, now: Duration) -> Self {
        Campaign {
            term: Term::default(),
            is_trial,
            since: now,
            ask_at: now,
            ballots: BTreeMap::new(),
        }
    }
}

impl Council {
    /// Those that want to lead begin one after the other.
    pub(super) fn delay(&self) -> Duration {
        let peers = self.peers();
        let rank = peers.iter().filter(|peer| **peer < self.own).count();
        let rank = u32::try_from(rank).unwrap_or(u32::MAX);
        let count = u32::try_from(peers.len()).unwrap_or(u32::MAX);
        self.timing.spread * rank / count.saturating_add(1)
    }

    /// Whether it has a vote itself, as far as it knows.
    fn is_voter(&self) -> bool {
        let memory = self.member.memory();
        let mut tables = memory.tables().peekable();
        match tables.peek() {
            Some(_) => tables.all(|table| table.voters.contains(&self.own)),
            None => self.view.as_ref().is_some_and(|view| view.voters.contains(&self.own)),
        }
    }

    pub(super) fn stand(&mut self, now: Duration) {
        if self.campaign.is_none() {
            let is_voter = self.is_voter();
            if is_voter && self.peers().is_empty() {
                self.voter.end_silence();
            }
            let is_time = now >= self.candidate_at && now >= self.voter.free_at(&self.own) + self.delay();
            if self.lead.is_some() || self.is_leaving() || !is_voter || !is_time {
                return;
            }
            self.campaign = Some(Campaign::new(true, now));
        }
        self.ask(now);
        self.count(now);
    }

    /// Asks all, again and again.
    fn ask(&mut self, now: Duration) {
        let Some(mut campaign) = self.campaign.take() else {
            return;
        };
        if now > campaign.since + self.timing.lease * 5 / 4 {
            // Others have promised themselves to somebody else, or to themselves.
            self.candidate_at = now + self.delay();
            return;
        }
        if campaign.term == Term::default() {
            campaign.term = Term {
                number: self.voter.seen.number + 1,
                mark: self.mark,
            };
        }
        let may = match campaign.is_trial {
            true => self.voter.would(&self.own, now),
            false => self.voter.vote(campaign.term, &self.own, now),
        };
        if !may {
            return;
        }
        let ballot = Ballot {
            sent: now,
            last: self.voter.last_before(campaign.term),
            memory: self.member.memory(),
        };
        campaign.ballots.insert(self.own.clone(), ballot);
        // A vote binds the voter for no longer than a lease from when it was asked for.
        let lease = self.timing.lease;
        campaign.ballots.retain(|_, ballot| now < ballot.sent + lease);
        if now >= campaign.ask_at {
            campaign.ask_at = now + self.timing.ping / 4;
            let ask = Ask {
                term: campaign.term,
                sent: now,
                is_trial: campaign.is_trial,
            };
            self.peers()
                .iter()
                .for_each(|peer| self.send(peer, Message::Ask(ask.clone())));
        }
        self.campaign = Some(campaign);
    }

    pub(super) fn on_ask(&mut self, from: &Name, ask: &Ask, now: Duration) {
        // Who leads has outlived its promise to itself if it was frozen, and may lead all the same.
        let is_granted = self.lead.is_none()
            && match ask.is_trial {
                true => self.voter.would(from, now),
                false => self.voter.vote(ask.term, from, now),
            };
        if is_granted {
            self.give_way(from, ask.is_trial, now);
        }
        let vote = Vote {
            term: ask.term,
            sent: ask.sent,
            is_trial: ask.is_trial,
            is_granted,
            seen: self.voter.seen,
            last: self.voter.last_before(ask.term),
            memory: self.member.memory(),
        };
        self.send(from, Message::Vote(vote));
    }

    /// One at a time: of two that ask on trial, the earlier name. Only for a while, for a node that does not hear the answers asks for ever.
    fn give_way(&mut self, to: &Name, is_trial: bool, now: Duration) {
        let since = *self.asked.entry(to.clone()).or_insert(now);
        if is_trial && now > since + self.timing.spread {
            return;
        }
        let yields = self
            .campaign
            .as_ref()
            .is_some_and(|own| own.is_trial && (!is_trial || *to < self.own));
        if yields {
            self.campaign = None;
        }
        self.candidate_at = self.candidate_at.max(now + self.timing.spread);
    }

    pub(super) fn on_vote(&mut self, from: &Name, vote: Vote, now: Duration) {
        self.voter.observe(vote.seen);
        let tables = vote.memory.tables().map(|table| table.epoch.term).max();
        self.voter.observe(tables.unwrap_or_default());
        let is_asked = |campaign: &&mut Campaign| campaign.term == vote.term && campaign.is_trial == vote.is_trial;
        let Some(campaign) = self.campaign.as_mut().filter(is_asked) else {
            return;
        };
        if vote.is_granted {
            let ballot = Ballot {
                sent: vote.sent,
                last: vote.last,
                memory: vote.memory,
            };
            let is_newer = campaign.ballots.get(from).is_none_or(|known| known.sent < vote.sent);
            if is_newer {
                campaign.ballots.insert(from.clone(), ballot);
            }
        } else if !campaign.is_trial && self.voter.seen > campaign.term {
            self.campaign = None;
            self.candidate_at = now + self.delay();
        }
        self.count(now);
    }

    fn count(&mut self, now: Duration) {
        let Some(campaign) = &self.campaign else { return };
        let mandate = match judge(&campaign.ballots, campaign.term, self.view.as_ref()) {
            Verdict::NotYet => return,
            // Somebody else may remember.
            Verdict::Forgetful(_) if now < campaign.since + self.timing.lease / 2 => return,
            Verdict::Forgetful(mandate) | Verdict::Elected(mandate) => mandate,
        };
        match campaign.is_trial {
            true => {
                self.campaign = Some(Campaign::new(false, now));
                self.ask(now);
                // It may be the only voter.
                self.count(now);
            }
            false => self.win(mandate, now),
        }
    }

    fn win(&mut self, mandate: Mandate, now: Duration) {
        let Some(campaign) = self.campaign.take() else { return };
        let is_highest = mandate.base.epoch.term <= campaign.term && self.voter.term() == campaign.term;
        let parts = (self.timing, now);
        let lead = Lead::new(self.own.clone(), campaign.term, mandate, &campaign.ballots, parts);
        if !is_highest || now >= lead.until(now) {
            self.candidate_at = now + self.delay();
            return;
        }
        self.lead = Some(lead);
        self.lead_self(now);
        let order = self.lead.as_ref().map(|lead| lead.order(now));
        for peer in self.peers() {
            order
                .iter()
                .for_each(|order| self.send(&peer, Message::Order(order.clone())));
        }
    }
}
