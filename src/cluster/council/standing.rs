//! `Standing`: what this node may serve at this moment, as the data path asks it for every command.
//!
//! The council's thread writes it, all others read. Reading costs two atomic loads while nothing changes.
//!
//! A serving node looks twice. It looks *inside* the lock under which it changes the data, so that after `Event::Stop` one pass over these
//! locks is enough to know that nothing of an older table is applied any more. And it looks at the lease *after* it has read, just before it
//! answers: what it read was the newest value if the lease still held then. A process may be frozen between any two lines.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::placement::Placement;
use super::shard::{Shard, ShardSet};
use super::table::{Epoch, Node};
use crate::net::mesh::Name;

/// Where a command belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// This node serves it. Look again before answering.
    Own,
    /// Ask that node; it decides for itself whether it serves it.
    Other(&'a Node),
    /// Nobody is known to serve it now: wait for the next change, within the command's deadline.
    Wait,
    /// No majority is in reach, and has not been for a while. What only saves work is served from the node's own store,
    /// which is empty of such keys when this begins and is emptied of them when it ends; sessions and locks are refused.
    Alone,
}

/// A node's part in the cluster's cache, as of one moment. Immutable.
#[derive(Clone, Debug)]
pub struct State {
    own: Name,
    /// Of its data.
    incarnation: u64,
    /// The newest table that is in force, as far as this node knows.
    placement: Option<Arc<Placement>>,
    /// The table that is being prepared.
    next: Option<Arc<Placement>>,
    /// What this node owns in every table that may be in force: it serves these while it has a lease.
    serves: ShardSet,
    is_alone: bool,
}

impl State {
    pub fn new(own: Name, incarnation: u64) -> Self {
        State {
            own,
            incarnation,
            placement: None,
            next: None,
            serves: ShardSet::EMPTY,
            is_alone: false,
        }
    }

    #[must_use]
    pub fn with_tables(mut self, placement: Option<Arc<Placement>>, next: Option<Arc<Placement>>) -> Self {
        (self.placement, self.next) = (placement, next);
        self
    }

    #[must_use]
    pub fn serving(mut self, serves: ShardSet) -> Self {
        self.serves = serves;
        self
    }

    #[must_use]
    pub fn alone(mut self, is_alone: bool) -> Self {
        self.is_alone = is_alone;
        self
    }

    pub fn own(&self) -> &Name {
        &self.own
    }

    /// The table in force; `None` until one is known.
    pub fn placement(&self) -> Option<&Arc<Placement>> {
        self.placement.as_ref()
    }

    pub fn next(&self) -> Option<&Arc<Placement>> {
        self.next.as_ref()
    }

    /// Whether this node serves the shard while it has a lease.
    pub fn serves(&self, shard: Shard) -> bool {
        self.serves.has(shard)
    }

    /// Shards that it serves while it has a lease.
    pub fn served(&self) -> ShardSet {
        self.serves
    }

    pub fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// Whether readers would see no difference.
    pub fn is_same(&self, other: &State) -> bool {
        let epoch = |placement: &Option<Arc<Placement>>| placement.as_ref().map(|placement| placement.epoch());
        epoch(&self.placement) == epoch(&other.placement)
            && epoch(&self.next) == epoch(&other.next)
            && (self.incarnation, self.serves, self.is_alone) == (other.incarnation, other.serves, other.is_alone)
    }

    /// Where a command of this shard belongs. `is_leased`: this node's lease holds.
    pub fn route(&self, shard: Shard, is_leased: bool) -> Route<'_> {
        if self.is_alone {
            return Route::Alone;
        }
        if self.serves.has(shard) && is_leased {
            return Route::Own;
        }
        let owner = self.placement.as_ref().and_then(|placement| placement.owner(shard));
        let heir = self.next.as_ref().map(|next| next.owner(shard));
        match owner {
            Some(owner) if owner.name != self.own && heir.is_none_or(|heir| heir == Some(owner)) => Route::Other(owner),
            _ => Route::Wait,
        }
    }

    /// Whether this node, as the replica of the shard, takes a state that `owner` sends under `epoch`. It no longer does once it has
    /// prepared a table in which that node does not own the shard or this one does not keep its copy; nor after it was left out of a
    /// table and has emptied itself, though older tables name it.
    pub fn takes_copy(&self, shard: Shard, owner: &Name, epoch: Epoch) -> bool {
        let Some(newest) = self.next.as_ref().or(self.placement.as_ref()) else {
            return false;
        };
        let known = [&self.placement, &self.next].into_iter().flatten();
        let is_known = known.into_iter().any(|placement| placement.epoch() == epoch);
        let is = |node: Option<&Node>, name: &Name| node.is_some_and(|node| node.name == *name);
        let is_kept =
            is(newest.replica(shard), &self.own) || newest.fillers(shard).any(|filler| filler.name == self.own);
        is_known && is(newest.owner(shard), owner) && is_kept && newest.table().holds(&self.own, self.incarnation)
    }
}

/// Handle for many readers; one writer has `StandingWriter`.
#[derive(Clone)]
pub struct Standing {
    /// When the lease ends: nanoseconds of `base::clock::boot`.
    lease: Arc<AtomicU64>,
    states: watch::Receiver<Arc<State>>,
}

/// The council's side.
pub struct StandingWriter {
    lease: Arc<AtomicU64>,
    states: watch::Sender<Arc<State>>,
}

impl StandingWriter {
    /// Serves nothing until told otherwise.
    pub fn new(own: Name) -> Self {
        StandingWriter {
            lease: Arc::default(),
            states: watch::Sender::new(Arc::new(State::new(own, 0))),
        }
    }

    pub fn subscribe(&self) -> Standing {
        Standing {
            lease: self.lease.clone(),
            states: self.states.subscribe(),
        }
    }

    /// Readers that look later than this returns see it.
    pub fn put(&self, state: Arc<State>) {
        self.states.send_replace(state);
    }

    /// A lease never ends earlier than it did before, but for `Duration::ZERO`.
    pub fn put_lease(&self, until: Duration) {
        let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        self.lease.store(until, Ordering::SeqCst);
    }
}

impl Standing {
    /// Whether the lease holds at this time (`base::clock::boot`).
    pub fn is_leased(&self, now: Duration) -> bool {
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX) < self.lease.load(Ordering::SeqCst)
    }

    pub fn state(&self) -> Arc<State> {
        self.states.borrow().clone()
    }

    /// A reader of one task or connection.
    pub fn reader(&self) -> Reader {
        Reader {
            known: self.states.borrow().clone(),
            standing: self.clone(),
        }
    }
}

/// Remembers the newest state, so that looking costs no lock while it does not change.
pub struct Reader {
    standing: Standing,
    known: Arc<State>,
}

impl Reader {
    /// The state now.
    pub fn look(&mut self) -> &Arc<State> {
        // An error says that the writer is gone: what it said last holds until the lease ends.
        if self.standing.states.has_changed().unwrap_or(false) {
            self.known = self.standing.states.borrow_and_update().clone();
        }
        &self.known
    }

    pub fn route(&mut self, shard: Shard, now: Duration) -> Route<'_> {
        let is_leased = self.standing.is_leased(now);
        self.look().route(shard, is_leased)
    }

    /// Whether this node may answer for the shard now. For the look before an answer.
    pub fn serves(&mut self, shard: Shard, now: Duration) -> bool {
        self.standing.is_leased(now) && self.look().serves(shard)
    }

    /// Waits for a state that `look` has not shown yet. Cancel safe. A new lease alone is no change: who waits for one tries again soon.
    pub async fn changed(&mut self) -> &Arc<State> {
        match self.standing.states.changed().await {
            Ok(()) => self.look_anew(),
            // The council is gone, and the module with it.
            Err(_) => std::future::pending().await,
        }
    }

    fn look_anew(&mut self) -> &Arc<State> {
        self.known = self.standing.states.borrow_and_update().clone();
        &self.known
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::fixture::{name, table};
    use super::*;

    fn placed(number: u64, nodes: &[&str]) -> Arc<Placement> {
        Arc::new(Placement::new(Arc::new(table(number, nodes))))
    }

    fn owned_by(placement: &Placement, node: &str) -> Shard {
        let owned = placement.owned(&name(node)).iter().next();
        owned.expect("every node owns some")
    }

    #[test]
    fn a_command_goes_to_its_owner_and_waits_while_the_shard_moves() {
        let (old, new) = (placed(1, &["n1", "n2", "+n3"]), placed(2, &["n1", "n2", "n3"]));
        let own = old.owned(&name("n1"));
        let state = State::new(name("n1"), 1)
            .with_tables(Some(old.clone()), None)
            .serving(own);
        let (mine, other) = (owned_by(&old, "n1"), owned_by(&old, "n2"));
        assert_eq!(state.route(mine, true), Route::Own);
        assert_eq!(state.route(mine, false), Route::Wait);
        assert!(matches!(state.route(other, false), Route::Other(node) if node.name == name("n2")));
        let moving = old.owned(&name("n2")).minus(&new.owned(&name("n2")));
        let moving = moving.iter().next().expect("some move");
        let preparing = state
            .clone()
            .with_tables(Some(old), Some(new.clone()))
            .serving(own.and(&new.owned(&name("n1"))));
        assert_eq!(preparing.route(moving, true), Route::Wait);
        assert_eq!(preparing.alone(true).route(moving, true), Route::Alone);
        assert_eq!(State::new(name("n1"), 1).route(mine, true), Route::Wait);
    }

    #[test]
    fn a_copy_is_taken_from_the_owner_of_every_table_that_may_be_in_force() {
        let (old, new) = (placed(1, &["n1", "n2", "n3"]), placed(2, &["n1", "n3"]));
        let shard = old
            .owned(&name("n1"))
            .iter()
            .find(|shard| old.replica(*shard).unwrap().name == name("n3"));
        let shard = shard.expect("some");
        let state = State::new(name("n3"), 1).with_tables(Some(old.clone()), None);
        assert!(state.takes_copy(shard, &name("n1"), old.epoch()));
        assert!(
            !state.takes_copy(shard, &name("n2"), old.epoch()) && !state.takes_copy(shard, &name("n1"), new.epoch())
        );
        // It keeps the copy in the next one too, but what n2 owned is its own there.
        let heir = old
            .owned(&name("n2"))
            .iter()
            .find(|shard| old.replica(*shard).unwrap().name == name("n3"));
        let heir = heir.expect("some");
        assert!(state.takes_copy(heir, &name("n2"), old.epoch()));
        let preparing = state.with_tables(Some(old.clone()), Some(new.clone()));
        assert!(preparing.takes_copy(shard, &name("n1"), old.epoch()));
        assert!(preparing.takes_copy(shard, &name("n1"), new.epoch()));
        assert!(!preparing.takes_copy(heir, &name("n2"), old.epoch()));
        let emptied = State::new(name("n3"), 2).with_tables(Some(old.clone()), None);
        assert!(!emptied.takes_copy(shard, &name("n1"), old.epoch()));
    }

    #[tokio::test]
    async fn readers_see_what_was_put_and_wait_for_more() {
        let writer = StandingWriter::new(name("n1"));
        let standing = writer.subscribe();
        let mut reader = standing.reader();
        let shard = Shard::of(b"key");
        let second = Duration::from_secs(1);
        assert_eq!(reader.route(shard, second), Route::Wait);
        let placement = placed(1, &["n1"]);
        writer.put(Arc::new(
            State::new(name("n1"), 1)
                .with_tables(Some(placement), None)
                .serving(ShardSet::ALL),
        ));
        assert!(!reader.serves(shard, second));
        writer.put_lease(second);
        assert!(!reader.serves(shard, second) && reader.serves(shard, second / 2));
        let waiting = async { reader.changed().await.is_alone() };
        let put = async { writer.put(Arc::new(State::new(name("n1"), 1).alone(true))) };
        assert!(tokio::join!(waiting, put).0);
        drop(writer);
        assert_eq!(reader.route(shard, second), Route::Alone);
    }
}
