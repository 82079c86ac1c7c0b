//! `Part`: one hub's part in the order of messages, without I/O and without a clock: it is given what happens and the time, and says what
//! must be done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::lead::Lead;
use super::log::{Append, Log, Reign};
use super::message::{Reply, Request};
use super::muster::{Muster, Scene, Step};
use super::outbox::Outbox;
use crate::cluster::council::{Event, Filled, Placement, Route, Shard, Stage, State, Told};
use crate::net::mesh::Name;
use crate::push::entry::{Entry, Origin};
use crate::push::message::Publication;
use crate::push::mid::{Mid, Mids};

/// After a call that failed, and where nobody is known to order.
const RETRY: Duration = Duration::from_millis(20);
/// Where only the lease is missing, which comes with the council's next round.
const SOON: Duration = Duration::from_millis(5);
/// Bytes of one portion that is fetched.
pub(super) const PORTION: usize = 1 << 20;
/// Bytes that may wait to be delivered. More: publishers are told to come again.
const TAIL: usize = 32 << 20;

/// Who owns this shard orders the messages.
pub fn shard() -> Shard {
    Shard::of(b"order")
}

/// When something happens.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: Instant,
    /// Since 1970. Eras begin with it; nothing depends on its being right.
    pub unix: Duration,
    /// This node's lease holds. Looked at after what happened had happened.
    pub is_leased: bool,
}

/// A call of another hub that is answered later.
pub type Ticket = u64;

/// What must be done, in this order.
#[derive(Debug)]
pub enum Act {
    Call(Name, Request),
    Answer(Ticket, Reply),
    /// To subscribers.
    Deliver(Vec<Arc<Entry>>),
    /// To the council.
    Tell(Told),
    /// Own publishes up to this number are safe.
    Safe(u64),
    /// Nobody waits any more for own publishes up to this number.
    Late(u64),
}

/// A call, as it is remembered until it is answered. Of each hub one at a time is under way.
#[derive(Clone, Debug)]
pub enum Sent {
    Report,
    Fetch,
    Append(Reign, Mid),
    Publish,
}

impl Sent {
    pub fn of(request: &Request) -> Option<Self> {
        match request {
            Request::Report => Some(Sent::Report),
            Request::Fetch(_) => Some(Sent::Fetch),
            Request::Append(append) => Some(Sent::Append(append.reign.clone(), append.commit)),
            Request::Publish(_) => Some(Sent::Publish),
            Request::Presence(_) => None,
        }
    }
}

enum Role {
    Follow,
    Muster(Muster, Option<Name>),
    Lead(Box<Lead>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    Own,
    Hub(Ticket),
}

pub struct Part {
    own: Name,
    log: Log,
    outbox: Outbox,
    /// `None`: there is no council, for there are no others.
    state: Option<Arc<State>>,
    members: BTreeSet<Name>,
    role: Role,
    under_way: BTreeSet<Name>,
    /// Hubs that are not called before then.
    paused: BTreeMap<Name, Instant>,
    publish_at: Option<Instant>,
    wake_at: Option<Instant>,
    tickets: Vec<(Mid, Asker)>,
    acts: Vec<Act>,
}

impl Part {
    /// `process`: random. Orders nothing until the council says so.
    pub fn new(own: Name, process: u64, log: Log) -> Self {
        Part {
            state: Some(Arc::new(State::new(own.clone(), 0))),
            own,
            log,
            outbox: Outbox::new(process),
            members: BTreeSet::new(),
            role: Role::Follow,
            under_way: BTreeSet::new(),
            paused: BTreeMap::new(),
            publish_at: None,
            wake_at: None,
            tickets: Vec::new(),
            acts: Vec::new(),
        }
    }

    /// Of a node without others. `since`: time since 1970.
    pub fn alone(log: Log, since: Duration) -> Self {
        let own: Name = "alone".parse().expect("a name");
        let mut part = Part::new(own, 0, log);
        let mids = Mids::new(since);
        part.log.start(mids.last());
        (part.state, part.role) = (None, Role::Lead(Box::new(Lead::alone(mids, &part.own, &mut part.log))));
        part
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    pub fn leads(&self) -> bool {
        matches!(self.role, Role::Lead(_))
    }

    /// All that was acknowledged anywhere is here, or will be before anything newer is acknowledged.
    pub fn is_current(&self, is_leased: bool) -> bool {
        let Some(state) = &self.state else { return true };
        let is_serving = |placement: &Arc<Placement>| {
            let node = placement.table().node(&self.own);
            node.is_some_and(|node| node.stage == Stage::Serving)
        };
        is_leased && self.log.is_whole() && state.placement().is_some_and(is_serving)
    }

    /// When it wants to be called again, if nothing happens before.
    pub fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    /// What must be done now.
    pub fn acts(&mut self) -> Vec<Act> {
        std::mem::take(&mut self.acts)
    }

    pub fn on_time(&mut self, moment: Moment) {
        self.step(moment);
    }

    /// Members by the registry.
    pub fn on_members(&mut self, members: BTreeSet<Name>) {
        self.members = members;
        self.members.remove(&self.own);
    }

    /// Another standing. Comes before the events that follow from it.
    pub fn on_state(&mut self, state: Arc<State>, moment: Moment) {
        self.state = Some(state);
        self.step(moment);
    }

    pub fn on_event(&mut self, event: &Event, moment: Moment) {
        match event {
            Event::Stop(next) => {
                if !self.is_owned(next) {
                    self.resign(moment.now);
                }
                self.acts.push(Act::Tell(Told::Stopped(next.epoch())));
            }
            Event::Commit(placement) if !self.is_owned(placement) => {
                // Who does not order has nothing that others lack.
                let nodes = placement.table().nodes.iter();
                let filling = nodes.filter(|node| node.stage == Stage::Filling);
                let filled = filling.map(|node| Filled {
                    node: node.name.clone(),
                    incarnation: node.incarnation,
                    epoch: placement.epoch(),
                });
                self.acts.extend(filled.map(|filled| Act::Tell(Told::Filled(filled))));
            }
            Event::Empty { incarnation } => {
                // What it has delivered stays: the orderer gives it what comes after.
                self.resign(moment.now);
                self.acts.push(Act::Tell(Told::Emptied {
                    incarnation: *incarnation,
                }));
            }
            Event::Commit(_) | Event::Alone | Event::Rejoined => {}
        }
        self.step(moment);
    }

    /// A publisher of this node, who waits until then. The numbers of the first and the last; `None`: too much waits, and some of them
    /// may be among it.
    pub fn publish(
        &mut self,
        publications: Vec<Arc<Publication>>,
        until: Instant,
        moment: Moment,
    ) -> Option<(u64, u64)> {
        let numbers: Option<Vec<u64>> = publications
            .into_iter()
            .map(|publication| self.outbox.put(publication, until))
            .collect();
        self.step(moment);
        let numbers = numbers?;
        Some((*numbers.first()?, *numbers.last()?))
    }

    /// What another hub asks. `None`: it will be answered by its ticket.
    pub fn on_request(&mut self, request: Request, ticket: Ticket, moment: Moment) -> Option<Reply> {
        match request {
            Request::Report => Some(Reply::Report(self.log.report())),
            Request::Fetch(after) => {
                let whole = self.log.report().whole;
                let portion = self.log.portion(after, PORTION, moment.now);
                Some(Reply::Portion(portion, whole, self.log.settled().clone()))
            }
            Request::Append(append) => Some(self.take(append, moment)),
            Request::Publish(batch) => {
                let Some(target) = self.order(&batch, moment) else {
                    return Some(Reply::NotNow);
                };
                self.tickets.push((target, Asker::Hub(ticket)));
                self.step(moment);
                None
            }
            Request::Presence(_) => Some(Reply::NotNow),
        }
    }

    /// What a call came to; `None`: it failed, or may have.
    pub fn on_reply(&mut self, from: &Name, sent: Sent, reply: Option<Reply>, moment: Moment) {
        if let Sent::Publish = sent {
            return self.published(matches!(reply, Some(Reply::Done)), moment);
        }
        self.under_way.remove(from);
        match (sent, reply, &mut self.role) {
            (Sent::Report, Some(Reply::Report(report)), Role::Muster(muster, _)) => muster.hear(from, report),
            (Sent::Fetch, Some(Reply::Portion(portion, whole, origins)), Role::Muster(muster, source)) => {
                let end = portion.upto.max(muster.position(from));
                match muster.whole(from) == whole.as_ref() {
                    true => {
                        self.log.lay(portion);
                        if self.log.position() >= end {
                            self.log.adopt(whole, &origins);
                        }
                    }
                    // It is another log by now.
                    false => {
                        muster.forget(from);
                        *source = None;
                    }
                }
            }
            (Sent::Append(reign, told), Some(Reply::Taken(position, is_whole)), Role::Lead(lead)) => {
                if lead.reign == reign {
                    lead.hear(from, (position, is_whole), told);
                }
            }
            (Sent::Append(reign, _), Some(Reply::Refused(newer)), Role::Lead(lead)) => {
                if lead.reign == reign {
                    // Begin again, above it.
                    self.resign(moment.now);
                    self.role = Role::Muster(Muster::new(Some(newer), moment.now), None);
                }
            }
            (_, Some(_), _) => {}
            (sent, None, role) => {
                if let (Sent::Fetch, Role::Muster(muster, _)) = (sent, role) {
                    muster.forget(from);
                }
                self.paused.insert(from.clone(), moment.now + RETRY);
            }
        }
        self.step(moment);
    }

    fn published(&mut self, is_safe: bool, moment: Moment) {
        match is_safe {
            true => self.acts.extend(self.outbox.done().map(Act::Safe)),
            false => {
                self.outbox.again();
                self.publish_at = Some(moment.now + RETRY);
            }
        }
        self.step(moment);
    }

    fn is_owned(&self, placement: &Placement) -> bool {
        let owner = placement.owner(shard());
        owner.is_some_and(|owner| owner.name == self.own)
    }

    fn take(&mut self, append: Append, moment: Moment) -> Reply {
        if let Role::Lead(lead) = &self.role
            && append.reign > lead.reign
        {
            self.resign(moment.now);
        }
        match self.log.take(append, moment.now) {
            Err(newer) => Reply::Refused(newer),
            Ok(delivered) => {
                if !delivered.is_empty() {
                    self.acts.push(Act::Deliver(delivered));
                }
                self.step(moment);
                Reply::Taken(self.log.position(), self.log.is_whole())
            }
        }
    }

    /// The id with which the last of them is safe.
    fn order(&mut self, batch: &[(Origin, Arc<Publication>)], moment: Moment) -> Option<Mid> {
        let Role::Lead(lead) = &mut self.role else { return None };
        if self.log.waiting() > TAIL {
            return None;
        }
        let mids = batch
            .iter()
            .map(|(origin, publication)| lead.order(&mut self.log, publication, *origin, moment.unix));
        mids.max()
    }

    /// Orders no more. What is not safe by now, others decide about.
    fn resign(&mut self, now: Instant) {
        self.role = Role::Follow;
        for (_, asker) in std::mem::take(&mut self.tickets) {
            match asker {
                Asker::Hub(ticket) => self.acts.push(Act::Answer(ticket, Reply::NotNow)),
                Asker::Own => {
                    self.outbox.again();
                    self.publish_at = Some(now + RETRY);
                }
            }
        }
    }

    /// Goes on as far as possible.
    fn step(&mut self, moment: Moment) {
        self.wake_at = None;
        self.paused.retain(|_, end| *end > moment.now);
        self.publish_at = self.publish_at.filter(|at| *at > moment.now);
        self.acts.extend(self.outbox.expire(moment.now).map(Act::Late));
        self.take_role(moment);
        self.gather(moment);
        self.send_out(moment);
        while self.lead(moment) {
            self.send_out(moment);
        }
        let pauses = self.paused.values().copied().min();
        let times = [self.wake_at, pauses, self.publish_at];
        self.wake_at = times.into_iter().flatten().min();
    }

    fn take_role(&mut self, moment: Moment) {
        let serves = self.state.as_ref().is_none_or(|state| state.serves(shard()));
        match (serves, &self.role) {
            (true, Role::Follow) => self.role = Role::Muster(Muster::new(None, moment.now), None),
            (false, Role::Muster(..) | Role::Lead(_)) => self.resign(moment.now),
            _ => {}
        }
    }

    /// Nodes that serve by the tables that may be in force.
    fn serving(&self) -> BTreeSet<Name> {
        let placements = self.state.iter().flat_map(|state| [state.placement(), state.next()]);
        let nodes = placements.flatten().flat_map(|placement| &placement.table().nodes);
        let serving = nodes.filter(|node| node.stage == Stage::Serving && node.name != self.own);
        serving.map(|node| node.name.clone()).collect()
    }

    fn gather(&mut self, moment: Moment) {
        if !matches!(self.role, Role::Muster(..)) {
            return;
        }
        let (others, chain) = (self.serving(), self.chain());
        let is_new = self.log.chain() != chain;
        let report = self.log.report();
        let Role::Muster(muster, source) = &mut self.role else {
            return;
        };
        let none = BTreeSet::new();
        let step = muster.step(&Scene {
            own: &report,
            others: &others,
            hoped: if is_new { &self.members } else { &none },
            now: moment.now,
            unix: moment.unix,
        });
        match step {
            Step::Ask(names) => {
                self.wake_at = Some(muster.end()).filter(|end| *end > moment.now);
                names.into_iter().for_each(|name| self.call(name, Request::Report));
            }
            Step::Fetch(from) => {
                if source.as_ref() != Some(&from) {
                    if muster.whole(&from) != report.whole.as_ref() {
                        self.log.shorten(self.log.delivered());
                    }
                    *source = Some(from.clone());
                }
                self.call(from, Request::Fetch(self.log.position()));
            }
            Step::Begin(era) => {
                let reign = Reign {
                    era,
                    by: self.own.clone(),
                };
                let lead = Lead::new(reign, chain.unwrap_or_default(), &mut self.log, moment.unix);
                self.role = Role::Lead(Box::new(lead));
            }
        }
    }

    fn chain(&self) -> Option<crate::cluster::council::Epoch> {
        let placement = self.state.as_ref().and_then(|state| state.placement());
        placement.map(|placement| placement.table().chain)
    }

    fn call(&mut self, to: Name, request: Request) {
        if !self.paused.contains_key(&to) && self.under_way.insert(to.clone()) {
            self.acts.push(Act::Call(to, request));
        }
    }

    /// Whether own publishes that waited for others can be ordered now.
    fn lead(&mut self, moment: Moment) -> bool {
        let Role::Lead(lead) = &mut self.role else { return false };
        let placement = self.state.as_ref().and_then(|state| state.placement());
        if let (Some(state), Some(placement)) = (&self.state, placement) {
            lead.seat(&self.own, placement, state.next().map(Arc::as_ref));
            let filled = lead.fill(placement, &self.log);
            self.acts
                .extend(filled.into_iter().map(|filled| Act::Tell(Told::Filled(filled))));
        }
        let common = lead.common(&self.log);
        if common > self.log.delivered() {
            match moment.is_leased || self.state.is_none() {
                true if self.commit(common, moment) => return true,
                true => {}
                false => self.wake_at = Some(moment.now + SOON),
            }
        }
        self.tell_all(moment);
        false
    }

    /// Whether own publishes are safe by it and others wait.
    fn commit(&mut self, common: Mid, moment: Moment) -> bool {
        let delivered = self.log.deliver(common, moment.now);
        if !delivered.is_empty() {
            self.acts.push(Act::Deliver(delivered));
        }
        let (safe, waiting) = std::mem::take(&mut self.tickets)
            .into_iter()
            .partition(|(target, _)| *target <= common);
        self.tickets = waiting;
        let (safe, mut is_next): (Vec<(Mid, Asker)>, bool) = (safe, false);
        for (_, asker) in safe {
            match asker {
                Asker::Hub(ticket) => self.acts.push(Act::Answer(ticket, Reply::Done)),
                Asker::Own => {
                    self.acts.extend(self.outbox.done().map(Act::Safe));
                    is_next |= !self.outbox.is_empty();
                }
            }
        }
        is_next
    }

    fn tell_all(&mut self, moment: Moment) {
        let Role::Lead(lead) = &self.role else { return };
        let is_free = |name: &&Name| !self.under_way.contains(*name) && !self.paused.contains_key(*name);
        let free = lead.peers().filter(is_free);
        let told = free.filter_map(|name| Some((name.clone(), lead.next(name, &self.log, moment.now)?)));
        let told: Vec<(Name, Append)> = told.collect();
        for (name, append) in told {
            self.call(name, Request::Append(append));
        }
    }

    /// What own publishers want goes to who orders.
    fn send_out(&mut self, moment: Moment) {
        if self.outbox.is_empty() || self.outbox.is_under_way() || self.publish_at.is_some() {
            return;
        }
        let to = match &self.state {
            None => None,
            Some(state) => match state.route(shard(), moment.is_leased) {
                Route::Own => None,
                Route::Other(node) => Some(node.name.clone()),
                Route::Wait | Route::Alone => {
                    self.publish_at = Some(moment.now + RETRY);
                    return;
                }
            },
        };
        let batch = self.outbox.batch();
        match to {
            Some(to) => self.acts.push(Act::Call(to, Request::Publish(batch))),
            None => match self.order(&batch, moment) {
                Some(target) => self.tickets.push((target, Asker::Own)),
                None => {
                    self.outbox.again();
                    self.publish_at = Some(moment.now + RETRY);
                }
            },
        }
    }
}
