//! The meeting place of one node: who listens where, what was said lately, who is online.
//!
//! One lock over all of it. Under it a message is delivered, which means that it enters the history and is laid into the queues; and under
//! it a client subscribes and is handed what it missed. So it gets each message once, and ids grow in every queue. What is delivered and
//! when is said by this hub's `order::Part`; what that wants of other nodes waits here for `order::wire`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::broadcast::Receiver;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout, timeout_at};

use super::channel::{Address, Id};
use super::entry::Entry;
use super::history::History;
use super::message::{Body, Publication, Sender};
use super::metrics::Metrics;
use super::mid::Mid;
use super::order::{self, Act, Log, Moment, Part, cursor};
use super::presence::Presence;
use super::queue::{Ended, Queue};
use super::roster::{Moved, Roster};
use super::tap::{Tap, Told};
use crate::base::{Scope, clock};
use crate::cluster::council::Standing;
use crate::net::mesh::Name;

/// Connections of one private channel with a public id, or of one user: the oldest goes when another comes.
pub const PER_CHANNEL: usize = 100;
/// Users whose coming and going one connection may follow.
const FOLLOWED: usize = 1000;
/// Messages of the history that are looked at in a second.
const SWEEP: usize = 20_000;
/// How long a publisher waits for another node to order. PHP gives up after five seconds at the latest.
const PATIENCE: Duration = Duration::from_secs(3);

/// A subscriber's number; younger ones are higher.
type Number = u64;

pub struct Hub {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
    /// `None`: there are no other nodes.
    standing: Option<Standing>,
    /// Something waits for other nodes, for the council, or for another time than before.
    pub(super) wanted: Notify,
    /// All that came before is here.
    whole: watch::Sender<bool>,
}

pub(super) struct State {
    pub part: Part,
    presence: Presence,
    roster: Roster,
    /// By age. Lock order: this state, then a queue.
    subscribers: HashMap<Address, BTreeMap<Number, Arc<Queue>>>,
    /// Those who came with an id that this hub, being behind, cannot judge.
    open: Vec<Open>,
    next: Number,
    /// By the last of their publishes: the first one, and whom to tell.
    publishers: BTreeMap<u64, (u64, oneshot::Sender<()>)>,
    /// Own publishes up to this one are safe.
    safe: u64,
    /// Bounded by what is under way: a call to each node, and what these ask.
    outgoing: Vec<Act>,
    /// Deliveries since they were last counted.
    reached: usize,
    tap: Tap,
}

struct Open {
    after: Mid,
    addresses: Vec<Address>,
    queue: Weak<Queue>,
}

/// No node orders messages just now, or too many wait. They may come all the same.
#[derive(Debug, Error)]
#[error("no node orders messages just now")]
pub struct Unavailable;

/// What a client wants to hear.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub addresses: Vec<Address>,
    /// The last message that it has; `None`: nothing of the past.
    pub after: Option<Mid>,
    /// Those of the addresses by which others see that it is online.
    pub own: Vec<Address>,
    /// There may be `PER_CHANNEL` of its like: the oldest goes.
    pub is_bounded: bool,
}

/// A client that listens, until it is dropped.
pub struct Subscription {
    hub: Arc<Hub>,
    number: Number,
    wanted: Wanted,
    followed: Vec<u64>,
    queue: Arc<Queue>,
    /// It was told nothing up to this, unless it asked.
    pub since: Mid,
}

impl Hub {
    /// Of a node without others. `budget`: bytes for the history.
    pub fn new(budget: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        let part = Part::alone(Log::new(History::new(budget)), clock::unix());
        Self::with_part(part, 0, None, metrics)
    }

    /// Of a node among others. `process`: random.
    pub fn among(own: Name, process: u64, standing: Standing, (budget, metrics): (usize, Arc<Metrics>)) -> Arc<Self> {
        let part = Part::new(own, process, Log::new(History::new(budget)));
        Self::with_part(part, process, Some(standing), metrics)
    }

    fn with_part(part: Part, process: u64, standing: Option<Standing>, metrics: Arc<Metrics>) -> Arc<Self> {
        let state = State {
            part,
            presence: Presence::default(),
            roster: Roster::new(process),
            subscribers: HashMap::new(),
            open: Vec::new(),
            next: 0,
            publishers: BTreeMap::new(),
            safe: 0,
            outgoing: Vec::new(),
            reached: 0,
            tap: Tap::default(),
        };
        Arc::new(Hub {
            state: Mutex::new(state),
            metrics,
            standing,
            wanted: Notify::new(),
            whole: watch::Sender::new(false),
        })
    }

    /// This hub orders for all.
    pub fn orders(&self) -> bool {
        self.lock().part.leads()
    }

    /// It has all that was acknowledged.
    pub fn is_current(&self) -> bool {
        self.with(|state, moment| state.part.is_current(moment.is_leased))
    }

    pub fn has_others(&self) -> bool {
        self.standing.is_some()
    }

    /// The one way in. Returns when all of it is in the memory of every hub that the council counts in, and so of two nodes unless one is
    /// alone. After an error it may still come.
    pub async fn enter(&self, publications: Vec<Publication>) -> Result<(), Unavailable> {
        if publications.is_empty() {
            return Ok(());
        }
        let publications = publications.into_iter().map(Arc::new).collect();
        let until = Instant::now() + PATIENCE;
        let waiting = self.with(|state, moment| {
            let (first, last) = state.part.publish(publications, until, moment)?;
            state.settle(moment);
            if state.safe >= last {
                return Some(None);
            }
            let (tell, told) = oneshot::channel();
            state.publishers.insert(last, (first, tell));
            Some(Some(told))
        });
        match waiting {
            None => Err(Unavailable),
            Some(None) => Ok(()),
            // An error of either kind: its time was up.
            Some(Some(told)) => match timeout_at(until, told).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(Unavailable),
            },
        }
    }

    /// Whatever happens to the part happens in here.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State, Moment) -> T) -> T {
        let mut state = self.lock();
        // The lease is looked at after what brought us here had happened.
        let moment = self.moment();
        let woken_at = state.part.wake_at();
        let done = act(&mut state, moment);
        state.settle(moment);
        let reached = std::mem::take(&mut state.reached);
        // Who sleeps until the time that was wanted before must hear of another one.
        let is_wanted = !state.outgoing.is_empty() || state.part.wake_at() != woken_at;
        let is_whole = state.part.log().is_whole();
        drop(state);
        if is_whole && !*self.whole.borrow() {
            self.whole.send_replace(true);
        }
        if reached > 0 {
            self.metrics.delivered(reached);
        }
        if is_wanted {
            self.wanted.notify_one();
        }
        done
    }

    /// Waits until it has for the first time what the other hubs have, at most that long. Cancel safe.
    pub async fn caught_up(&self, most: Duration) {
        let mut whole = self.whole.subscribe();
        // Behind or not, it is open then.
        let _ = timeout(most, whole.wait_for(|is_whole| *is_whole)).await;
    }

    /// What waits for other nodes and the council.
    pub(super) fn outgoing(&self) -> Vec<Act> {
        std::mem::take(&mut self.lock().outgoing)
    }

    fn moment(&self) -> Moment {
        let standing = self.standing.as_ref();
        Moment {
            now: Instant::now(),
            unix: clock::unix(),
            is_leased: standing.is_none_or(|standing| standing.is_leased(clock::boot())),
        }
    }

    /// Replay and subscription are one step: what is published meanwhile comes before or after it, not between.
    pub fn subscribe(self: &Arc<Self>, wanted: Wanted) -> Subscription {
        let queue = Arc::new(Queue::default());
        let (number, since) = self.with(|state, moment| state.subscribe(&wanted, &queue, moment));
        Subscription {
            hub: self.clone(),
            number,
            wanted,
            followed: Vec::new(),
            queue,
            since,
        }
    }

    /// Which of these are online, in the same order.
    pub fn online(&self, addresses: &[Address]) -> Vec<bool> {
        let (state, now) = (self.lock(), Instant::now());
        let online = addresses.iter().map(|address| state.presence.is_online(*address, now));
        online.collect()
    }

    /// How long ago each user was seen; those are left out that were not for a day.
    pub fn last_seen(&self, users: &[u64]) -> BTreeMap<u64, Duration> {
        let (state, now) = (self.lock(), Instant::now());
        let seen = |user: &u64| Some((*user, state.presence.ago(Address::User(*user), now)?));
        users.iter().filter_map(seen).collect()
    }

    /// Forgets what has expired and tells of those who have gone, once a second, until the scope drains.
    pub async fn keep_house(self: Arc<Self>, scope: Scope) {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = scope.draining() => return,
                _ = second.tick() => self.with(State::sweep),
            }
        }
    }

    pub fn numbers(&self) -> Numbers {
        let state = self.lock();
        let history = state.part.log().history();
        Numbers {
            channels: state.subscribers.len(),
            kept: history.messages(),
            bytes: history.bytes(),
        }
    }

    /// Every address that somebody listens to here, and by how many connections.
    pub fn listened(&self) -> Vec<(Address, usize)> {
        let state = self.lock();
        let all = state.subscribers.iter();
        all.map(|(address, queues)| (*address, queues.len())).collect()
    }

    /// Every message from now on.
    pub fn follow(&self) -> Receiver<Arc<Told>> {
        self.lock().tap.follow()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }
}

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    pub channels: usize,
    /// Messages in the history.
    pub kept: usize,
    pub bytes: usize,
}

impl State {
    fn subscribe(&mut self, wanted: &Wanted, queue: &Arc<Queue>, moment: Moment) -> (Number, Mid) {
        let number = self.next;
        self.next += 1;
        let is_current = self.part.is_current(moment.is_leased);
        let start = cursor::start(self.part.log(), wanted.after, is_current);
        if let Some(after) = start.replay {
            self.replay(&wanted.addresses, after, queue, moment.now);
        }
        queue.begin(start.floor);
        if start.is_open {
            self.open.push(Open {
                after: start.floor,
                addresses: wanted.addresses.clone(),
                queue: Arc::downgrade(queue),
            });
        }
        for address in &wanted.addresses {
            let of_address = self.subscribers.entry(*address).or_default();
            of_address.insert(number, queue.clone());
        }
        for address in &wanted.own {
            if wanted.is_bounded {
                self.crowd_out(*address);
            }
            self.roster.come(*address);
            self.come(*address, moment);
        }
        (number, start.floor)
    }

    fn come(&mut self, address: Address, moment: Moment) {
        if self.presence.come(address, moment.now) {
            self.tell_of(address, true, moment);
        }
    }

    /// What another hub must be told of who is here, if it knows that version.
    pub fn tell_presence(&self, known: Option<u64>) -> Option<order::Presence> {
        self.roster.tell(known)
    }

    /// What another hub tells of who is there. The version that is known now.
    pub fn hear_presence(&mut self, from: &Name, told: order::Presence, moment: Moment) -> Option<u64> {
        let (moved, known) = self.roster.hear(from, told);
        self.shift(moved, moment);
        known
    }

    /// Forgets who was at hubs that are not among these.
    pub fn keep_presence(&mut self, hubs: &[Name], moment: Moment) {
        let moved = self.roster.keep(|name| hubs.contains(name));
        self.shift(moved, moment);
    }

    fn shift(&mut self, moved: Moved, moment: Moment) {
        moved.came.into_iter().for_each(|address| self.come(address, moment));
        for address in moved.gone {
            self.presence.leave(address, moment.now);
        }
    }

    fn replay(&self, addresses: &[Address], after: Mid, queue: &Queue, now: Instant) {
        let missed = self.part.log().history().since(addresses, after, now);
        for message in &missed {
            queue.offer(message);
        }
    }

    /// Carries out what the part wants, but for what waits for others.
    pub fn settle(&mut self, moment: Moment) {
        for act in self.part.acts() {
            match act {
                Act::Deliver(entries) => entries.iter().for_each(|entry| self.deliver(entry)),
                Act::Safe(upto) => {
                    self.safe = upto;
                    let later = self.publishers.split_off(&(upto + 1));
                    for (_, (_, told)) in std::mem::replace(&mut self.publishers, later) {
                        // Who has gone does not hear it.
                        let _ = told.send(());
                    }
                }
                // Whoever waits for one of them hears that it is not known.
                Act::Late(upto) => self.publishers.retain(|_, (first, _)| *first > upto),
                act => self.outgoing.push(act),
            }
        }
        if !self.open.is_empty() && self.part.is_current(moment.is_leased) {
            self.judge(moment.now);
        }
    }

    fn deliver(&mut self, entry: &Arc<Entry>) {
        let queues = entry.receivers.iter();
        let queues = queues
            .filter_map(|address| self.subscribers.get(address))
            .flat_map(BTreeMap::values);
        let reached = queues.filter(|queue| queue.offer(&entry.message)).count();
        self.tap.tell(&entry.message, &entry.receivers, reached);
        self.reached += reached;
    }

    /// The hub has caught up: whoever has an id that it does not know has it from hubs that are all gone.
    fn judge(&mut self, now: Instant) {
        let (position, delivered) = (self.part.log().position(), self.part.log().delivered());
        for open in std::mem::take(&mut self.open) {
            if let Some(queue) = open.queue.upgrade().filter(|_| open.after > position) {
                queue.begin(Mid::default());
                self.replay(&open.addresses, Mid::default(), &queue, now);
                queue.begin(delivered);
            }
        }
    }

    fn crowd_out(&mut self, address: Address) {
        let Some(queues) = self.subscribers.get_mut(&address) else {
            return;
        };
        while queues.len() > PER_CHANNEL {
            if let Some((_, oldest)) = queues.pop_first() {
                oldest.end(Ended::Crowded);
            }
        }
    }

    /// Tells those who follow a user that it came or went. All hubs see it; the one that orders says it.
    fn tell_of(&mut self, address: Address, is_online: bool, moment: Moment) {
        let Address::User(user) = address else { return };
        if !self.part.leads() {
            return;
        }
        let publication = Publication {
            receivers: vec![Address::Followers(user)],
            sender: Sender::Backend,
            body: status_change(user, is_online),
            expiry: 0,
            extras: None,
        };
        // Where too much waits this is what can be spared.
        let _ = self
            .part
            .publish(vec![Arc::new(publication)], moment.now + PATIENCE, moment);
    }

    fn sweep(&mut self, moment: Moment) {
        self.part.log_mut().history_mut().sweep(moment.now, SWEEP);
        for address in self.presence.sweep(moment.now) {
            self.tell_of(address, false, moment);
        }
    }
}

impl Subscription {
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The user on whose behalf it listens; generation 5.
    pub fn user(&self) -> Option<u64> {
        self.wanted.own.iter().find_map(|address| match address {
            Address::User(user) => Some(*user),
            _ => None,
        })
    }

    pub fn addresses(&self) -> &[Address] {
        &self.wanted.addresses
    }

    /// Wants to be told when a user comes and goes. Returns whether it will be.
    pub fn follow(&mut self, user: u64) -> bool {
        if self.followed.contains(&user) {
            return true;
        }
        if self.followed.len() == FOLLOWED {
            return false;
        }
        self.followed.push(user);
        let mut state = self.hub.lock();
        let followers = state.subscribers.entry(Address::Followers(user)).or_default();
        followers.insert(self.number, self.queue.clone());
        true
    }

    pub fn unfollow(&mut self, user: u64) {
        self.followed.retain(|followed| *followed != user);
        take_out(&mut self.hub.lock().subscribers, &Address::Followers(user), self.number);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let (mut state, now) = (self.hub.lock(), Instant::now());
        for address in &self.wanted.addresses {
            take_out(&mut state.subscribers, address, self.number);
        }
        for address in &self.wanted.own {
            state.roster.leave(*address);
            state.presence.leave(*address, now);
        }
        for user in &self.followed {
            take_out(&mut state.subscribers, &Address::Followers(*user), self.number);
        }
    }
}

fn take_out(queues: &mut HashMap<Address, BTreeMap<Number, Arc<Queue>>>, address: &Address, number: Number) {
    if let Some(of_address) = queues.get_mut(address) {
        of_address.remove(&number);
        if of_address.is_empty() {
            queues.remove(address);
        }
    }
}

fn status_change(user: u64, is_online: bool) -> Body {
    let now = clock::unix().as_secs();
    let text = format!(
        "{{\"module_id\":\"online\",\"command\":\"userStatusChange\",\"params\":{{\"user_id\":{user},\"online\":{is_online}}},\
         \"extra\":{{\"server_time_unix\":{now}}}}}"
    );
    Body::new(text).expect("it is JSON whatever the numbers are")
}

/// The addresses of private channels among them.
pub fn private(addresses: &[Address]) -> impl Iterator<Item = Id> {
    addresses.iter().filter_map(|address| match address {
        Address::Private(id) => Some(*id),
        _ => None,
    })
}
