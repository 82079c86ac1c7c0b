//! The meeting place of one node: who listens where, what was said lately, who is online.
//!
//! One lock over all of it. Under it a message gets its id, enters the history and is laid into the queues; and under it a client
//! subscribes and is handed what it missed. So it gets each message once, and ids grow in every queue.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::time::{Instant, MissedTickBehavior};

use super::channel::{Address, Id};
use super::history::History;
use super::message::{Body, Message, Publication, Sender};
use super::metrics::Metrics;
use super::mid::{Mid, Mids};
use super::presence::Presence;
use super::queue::{Ended, Queue};
use super::tap::{Tap, Told};
use crate::base::{Scope, clock};

/// Connections of one private channel with a public id, or of one user: the oldest goes when another comes.
pub const PER_CHANNEL: usize = 100;
/// Users whose coming and going one connection may follow.
const FOLLOWED: usize = 1000;
/// Messages of the history that are looked at in a second.
const SWEEP: usize = 20_000;

/// A subscriber's number; younger ones are higher.
type Number = u64;

pub struct Hub {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

struct State {
    mids: Mids,
    history: History,
    presence: Presence,
    /// By age. Lock order: this state, then a queue.
    subscribers: HashMap<Address, BTreeMap<Number, Arc<Queue>>>,
    /// Users, and who wants to be told when they come and go.
    followers: HashMap<u64, BTreeMap<Number, Arc<Queue>>>,
    next: Number,
    tap: Tap,
}

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
    /// The newest id that had been given out when it subscribed.
    pub since: Mid,
}

impl Hub {
    /// `budget`: bytes for the history.
    pub fn new(budget: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        let state = State {
            mids: Mids::new(clock::unix()),
            history: History::new(budget),
            presence: Presence::default(),
            subscribers: HashMap::new(),
            followers: HashMap::new(),
            next: 0,
            tap: Tap::default(),
        };
        Arc::new(Hub {
            state: Mutex::new(state),
            metrics,
        })
    }

    /// The one way in. Returns when all of it is safe, which today means: in the memory of this node.
    pub async fn enter(&self, publications: Vec<Publication>) {
        let mut state = self.lock();
        let mut reached = 0;
        for publication in publications {
            reached += state.deliver(publication);
        }
        drop(state);
        self.metrics.delivered(reached);
    }

    /// Replay and subscription are one step: what is published meanwhile comes before or after it, not between.
    pub fn subscribe(self: &Arc<Self>, wanted: Wanted) -> Subscription {
        let queue = Arc::new(Queue::default());
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        let since = state.mids.last();
        let now = Instant::now();
        let missed = match wanted.after {
            // An id from the future is that of a predecessor whose clock was ahead: all that is here came later.
            Some(after) if after > since => state.history.since(&wanted.addresses, Mid::default(), now),
            Some(after) => state.history.since(&wanted.addresses, after, now),
            None => Vec::new(),
        };
        for message in &missed {
            queue.offer(message);
        }
        for address in &wanted.addresses {
            state
                .subscribers
                .entry(*address)
                .or_default()
                .insert(number, queue.clone());
        }
        for address in &wanted.own {
            if wanted.is_bounded {
                state.crowd_out(*address);
            }
            if state.presence.come(*address, now) {
                state.tell_of(*address, true);
            }
        }
        drop(state);
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
                _ = second.tick() => self.lock().sweep(),
            }
        }
    }

    pub fn numbers(&self) -> Numbers {
        let state = self.lock();
        Numbers {
            channels: state.subscribers.len(),
            kept: state.history.messages(),
            bytes: state.history.bytes(),
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
    /// Returns how many it reached.
    fn deliver(&mut self, publication: Publication) -> usize {
        let message = Arc::new(Message::new(self.mids.take(), clock::unix(), &publication));
        let queues = publication.receivers.iter();
        let queues = queues
            .filter_map(|address| self.subscribers.get(address))
            .flat_map(BTreeMap::values);
        let reached = queues.filter(|queue| queue.offer(&message)).count();
        self.tap.tell(&message, &publication.receivers, reached);
        let kept_for = publication.kept_for();
        if !kept_for.is_zero() {
            let until = Instant::now() + kept_for;
            self.history.keep(message, publication.receivers, until);
        }
        reached
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

    /// Tells those who follow a user that it came or went.
    fn tell_of(&mut self, address: Address, is_online: bool) {
        let Address::User(user) = address else { return };
        let Some(followers) = self.followers.get(&user) else {
            return;
        };
        let publication = Publication {
            receivers: Vec::new(),
            sender: Sender::Backend,
            body: status_change(user, is_online),
            expiry: 0,
            extras: None,
        };
        let message = Arc::new(Message::new(self.mids.take(), clock::unix(), &publication));
        for queue in followers.values() {
            queue.offer(&message);
        }
    }

    fn sweep(&mut self) {
        let now = Instant::now();
        self.history.sweep(now, SWEEP);
        for address in self.presence.sweep(now) {
            self.tell_of(address, false);
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
        let followers = state.followers.entry(user).or_default();
        followers.insert(self.number, self.queue.clone());
        true
    }

    pub fn unfollow(&mut self, user: u64) {
        self.followed.retain(|followed| *followed != user);
        take_out(&mut self.hub.lock().followers, &user, self.number);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let (mut state, now) = (self.hub.lock(), Instant::now());
        for address in &self.wanted.addresses {
            take_out(&mut state.subscribers, address, self.number);
        }
        for address in &self.wanted.own {
            state.presence.leave(*address, now);
        }
        for user in &self.followed {
            take_out(&mut state.followers, user, self.number);
        }
    }
}

fn take_out<K: std::hash::Hash + Eq>(queues: &mut HashMap<K, BTreeMap<Number, Arc<Queue>>>, key: &K, number: Number) {
    if let Some(of_key) = queues.get_mut(key) {
        of_key.remove(&number);
        if of_key.is_empty() {
            queues.remove(key);
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
