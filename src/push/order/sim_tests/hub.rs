//! What the machines' parts do in the simulated world: calls, publishers, deliveries. And the rules that are left out on purpose.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::world::{ADDRESSES, Flaw, Happening, MS, World};
use crate::net::mesh::Name;
use crate::push::channel::Address;
use crate::push::entry::Entry;
use crate::push::message::{Body, Publication, Sender};
use crate::push::mid::Mid;
use crate::push::order::message::{Reply, Request, decode_reply, decode_request, encode_reply, encode_request};
use crate::push::order::part::{Act, Moment, Part, Sent};

/// A call that is not answered within it has failed.
const CALL: Duration = Duration::from_millis(500);
/// Publishers wait so long.
const PATIENCE: Duration = Duration::from_secs(3);

impl World {
    pub(super) fn moment(&self, of: usize) -> Moment {
        let machine = &self.machines[of];
        let time = machine.time(self.now);
        let is_leased = machine.process.as_ref().is_some_and(|process| time < process.lease);
        Moment {
            now: self.base + time,
            // Clocks of the wall go wrong.
            unix: Duration::from_secs(1_700_000_000 + 40 * of as u64) + self.now,
            is_leased: is_leased || self.flaw == Flaw::NoLease,
        }
    }

    pub(super) fn part<T>(&mut self, of: usize, act: impl FnOnce(&mut Part, Moment) -> T) -> Option<T> {
        let moment = self.moment(of);
        let members: BTreeSet<Name> = self.view.members.iter().cloned().collect();
        let machine = &mut self.machines[of];
        let process = machine.process.as_mut()?;
        process.part.on_members(members);
        let done = act(&mut process.part, moment);
        let acts = process.part.acts();
        // It may stand still between two lines.
        if std::mem::take(&mut machine.freezes_inside) && !acts.is_empty() {
            process.undone = acts;
            let within = MS * 300 + self.random.time(MS * 1500);
            self.note(format!("{} stands still inside", self.machines[of].name));
            self.freeze(of, within);
            return Some(done);
        }
        acts.into_iter().for_each(|act| self.act(of, act));
        self.schedule_time(of);
        Some(done)
    }

    pub(super) fn schedule_time(&mut self, to: usize) {
        let machine = &mut self.machines[to];
        let wake_at = machine.process.as_ref().and_then(|process| process.part.wake_at());
        let Some(at) = wake_at else { return };
        let at = at.saturating_duration_since(self.base);
        let within = machine.when(at).saturating_sub(self.now).max(MS / 10);
        let Some(process) = &mut machine.process else { return };
        let at = self.now + within;
        if process.timer.is_none_or(|timer| timer > at) {
            process.timer = Some(at);
            let life = machine.life;
            self.plan(within, Happening::Time { to, life, at });
        }
    }

    pub(super) fn time(&mut self, to: usize, at: Duration) {
        if let Some(process) = &mut self.machines[to].process
            && process.timer == Some(at)
        {
            process.timer = None;
        }
        self.part(to, |part, moment| part.on_time(moment));
    }

    pub(super) fn act(&mut self, of: usize, act: Act) {
        match act {
            Act::Call(to, request) => self.call(of, &to, &request),
            Act::Answer(ticket, reply) => self.answer(of, ticket, &reply),
            Act::Deliver(entries) => self.deliver(of, &entries),
            Act::Tell(told) => {
                let (within, life) = (self.random.time(MS * 2), self.machines[of].life);
                self.plan(within, Happening::Told { to: of, life, told });
            }
            Act::Safe(number) => self.settle(of, number, true),
            Act::Late(number) => self.settle(of, number, false),
        }
    }

    pub(super) fn call(&mut self, from: usize, to: &Name, request: &Request) {
        self.count += 1;
        let (number, life) = (self.count, self.machines[from].life);
        let sent = Sent::of(request).expect("a call of ordering");
        let Some(process) = &mut self.machines[from].process else {
            return;
        };
        process.calls.insert(number, (to.clone(), sent));
        let within = CALL + self.random.time(MS * 50);
        self.plan(
            within,
            Happening::Reply {
                to: from,
                life,
                number,
                bytes: None,
            },
        );
        let Some(to) = self.place(to) else { return };
        if self.is_lost(from, to) {
            return;
        }
        let (delay, bytes) = (self.delay(), encode_request(request));
        self.plan(
            delay,
            Happening::Call {
                from,
                to,
                number,
                bytes,
            },
        );
    }

    pub(super) fn called(&mut self, from: usize, to: usize, number: u64, bytes: &[u8]) {
        let request = decode_request(bytes).expect("as it was written");
        let request = self.falsify(to, request);
        self.count += 1;
        let ticket = self.count;
        let life = self.machines[from].life;
        if let Some(process) = &mut self.machines[to].process {
            process.askers.insert(ticket, (from, life, number));
        }
        let reply = self.part(to, |part, moment| part.on_request(request, ticket, moment));
        if let Some(Some(reply)) = reply {
            // Who froze inside answers when it goes on.
            match (&mut self.machines[to], reply) {
                (machine, reply) if machine.is_frozen => {
                    let process = machine.process.as_mut().expect("it was called");
                    process.undone.push(Act::Answer(ticket, reply));
                }
                (_, reply) => self.answer(to, ticket, &reply),
            }
        }
    }

    pub(super) fn answer(&mut self, of: usize, ticket: u64, reply: &Reply) {
        let Some(process) = &mut self.machines[of].process else {
            return;
        };
        let Some((to, life, number)) = process.askers.remove(&ticket) else {
            return;
        };
        if self.is_lost(of, to) {
            return;
        }
        let (delay, bytes) = (self.delay(), Some(encode_reply(reply)));
        self.plan(
            delay,
            Happening::Reply {
                to,
                life,
                number,
                bytes,
            },
        );
    }

    pub(super) fn replied(&mut self, to: usize, number: u64, bytes: Option<Vec<u8>>) {
        let Some(process) = &mut self.machines[to].process else {
            return;
        };
        let Some((from, sent)) = process.calls.remove(&number) else {
            return;
        };
        let reply = bytes.map(|bytes| decode_reply(&bytes).expect("as it was written"));
        let reply = match (self.flaw, reply) {
            (Flaw::NoCopies, Some(Reply::Taken(_, is_whole))) => Some(Reply::Taken(Mid::MAX, is_whole)),
            (_, reply) => reply,
        };
        self.part(to, |part, moment| part.on_reply(&from, sent, reply, moment));
    }

    pub(super) fn falsify(&mut self, to: usize, request: Request) -> Request {
        let report = self.machines[to]
            .process
            .as_ref()
            .map(|process| process.part.log().report());
        let report = report.unwrap_or_default();
        match (self.flaw, request) {
            (Flaw::NoReign, Request::Append(mut append)) => {
                append.reign = report
                    .reign
                    .map_or(append.reign.clone(), |reign| reign.max(append.reign));
                Request::Append(append)
            }
            (Flaw::NoShortening, Request::Append(mut append)) if report.reign.as_ref() != Some(&append.reign) => {
                append.former = report.whole;
                append.base = append.base.max(report.position);
                Request::Append(append)
            }
            (Flaw::NoOrigin, Request::Publish(mut batch)) => {
                for (origin, _) in &mut batch {
                    origin.process = self.random.below(u64::MAX);
                }
                Request::Publish(batch)
            }
            (_, request) => request,
        }
    }

    // Publishers

    pub(super) fn publish(&mut self, at: usize) {
        let pause = MS * 10 + self.random.time(MS * 40);
        self.plan(pause, Happening::Publish { at });
        if !self.machines[at].runs() || self.is_quiet {
            return;
        }
        self.count += 1;
        let (user, said) = (self.random.below(ADDRESSES), self.count);
        let expiry = if self.random.is_one_of(6) { 0 } else { 3600 };
        let publication = Arc::new(Publication {
            receivers: vec![Address::User(user)],
            sender: Sender::Backend,
            body: Body::new(said.to_string()).expect("JSON"),
            expiry,
            extras: None,
        });
        let until = self.moment(at).now + PATIENCE;
        let numbers = self
            .part(at, |part, moment| part.publish(vec![publication], until, moment))
            .flatten();
        let process = self.machines[at].process.as_mut().expect("it runs");
        if let Some((number, _)) = numbers {
            if expiry > 0 {
                self.receivers.insert((process.number, number), (said, user));
            }
            process.publishes.insert(number);
            self.note_if_settled(at);
        }
    }

    /// It may have been acknowledged before its number was known.
    pub(super) fn note_if_settled(&mut self, at: usize) {
        let Some(process) = &self.machines[at].process else {
            return;
        };
        if let Some(safe) = process.safe {
            self.settle(at, safe, true);
        }
    }

    pub(super) fn settle(&mut self, of: usize, upto: u64, is_safe: bool) {
        let Some(process) = &mut self.machines[of].process else {
            return;
        };
        if is_safe {
            process.safe = process.safe.max(Some(upto));
        }
        let later = process.publishes.split_off(&(upto + 1));
        for number in std::mem::replace(&mut process.publishes, later) {
            let publish = self.receivers.get(&(process.number, number));
            if let (true, Some((said, user))) = (is_safe, publish) {
                self.acknowledged.insert(*said, *user);
            }
        }
    }

    pub(super) fn deliver(&mut self, of: usize, entries: &[Arc<Entry>]) {
        for entry in entries {
            let said = said(entry);
            let known = *self.known.entry(entry.mid()).or_insert(said);
            if known != said {
                self.fault(format!("{} is {known} and {said}", entry.mid()));
            }
        }
        let mut faults = Vec::new();
        for client in self.clients.iter_mut().filter(|client| client.hub == Some(of)) {
            for entry in entries {
                faults.extend(client.offer(entry));
            }
        }
        faults.into_iter().for_each(|fault| self.fault(fault));
    }
}

/// A message's body names the publish.
pub(super) fn said(entry: &Entry) -> u64 {
    entry.message.body.as_str().parse().expect("a number")
}
