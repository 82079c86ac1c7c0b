//! What an owner does with a command: executes it once, notes the state for the nodes that keep copies, and says what the reply
//! waits for.

use std::cell::OnceCell;
use std::sync::{Arc, RwLockReadGuard};

use tokio::time::{Instant, timeout_at};

use super::Router;
use super::change::View;
use super::memory::{Answer, is_to_be_kept};
use super::stream::{About, QUEUE_HIGH, Stream};
use crate::base::clock;
use crate::cache::class::Class;
use crate::cache::command::{Command, Delete, Mode, Reply};
use crate::cache::council::{Route, Shard, State as CouncilState};
use crate::cache::peer::message::{Asked, Change, Note};
use crate::cache::peer::reply::{encoded, encoded_hit};
use crate::cache::peer::{Epoch, RequestId, Space};
use crate::cache::store::{Record, State, Store};

/// A look at this node's part, which does not change while it is held. Never across an await.
pub struct Entered<'a> {
    router: &'a Router,
    pub(super) view: RwLockReadGuard<'a, View>,
    state: Arc<CouncilState>,
    is_leased: bool,
    now: OnceCell<u64>,
}

/// Executed, but perhaps not to be told yet.
#[derive(Debug)]
pub struct Done {
    /// Encoded.
    pub reply: Vec<u8>,
    pub(super) shard: Shard,
    /// Of the table by which this node was the owner then.
    pub(super) epoch: Option<Epoch>,
    pub(super) waits: Waits,
}

/// Places in streams that must be kept first.
pub type Waits = Vec<(Arc<Stream>, u64)>;

impl Done {
    /// It waits for no copy.
    pub fn is_confirmed(&self) -> bool {
        self.waits.is_empty()
    }
}

impl Router {
    pub fn enter(&self) -> Entered<'_> {
        let view = self.gate.read().expect("nothing panics under this lock");
        Entered {
            router: self,
            view,
            // Inside the gate: after the council's `Stop` nothing older is seen.
            state: self.standing.state(),
            is_leased: self.standing.is_leased(clock::boot()),
            now: OnceCell::new(),
        }
    }

    /// The lease holds now: what was read since a look that said so was the newest.
    pub fn is_leased(&self) -> bool {
        self.standing.is_leased(clock::boot())
    }

    /// Waits until the copies are confirmed; then whether the reply may be told. If not, the command must be asked again: under another
    /// table this node may be the owner once more, and have been left out and emptied in between.
    pub async fn settle(&self, done: &Done, deadline: Instant) -> bool {
        let mut changed = self.changed.subscribe();
        for (stream, number) in &done.waits {
            loop {
                changed.mark_unchanged();
                if !self.enter().stands_by(done) {
                    return false;
                }
                let kept = async {
                    tokio::select! {
                        () = stream.kept(*number) => true,
                        _ = changed.changed() => false,
                    }
                };
                match timeout_at(deadline, kept).await {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(_) => return false,
                }
            }
        }
        // A stream that was closed has confirmed nothing: only an owner knows that it needed not.
        self.enter().stands_by(done)
    }
}

impl Entered<'_> {
    /// This node answers for the shard now.
    pub fn serves(&self, shard: Shard) -> bool {
        self.is_leased && self.state.serves(shard) && self.view.is_as(&self.state)
    }

    /// Nothing has happened since that may have undone it.
    pub fn stands_by(&self, done: &Done) -> bool {
        self.serves(done.shard) && self.epoch() == done.epoch
    }

    /// Of the table that is in force here.
    pub fn epoch(&self) -> Option<Epoch> {
        self.state.placement().map(|placement| placement.epoch())
    }

    pub fn shard(&self, key: &[u8]) -> Shard {
        self.router.rules.shard(key)
    }

    /// Where a command of the shard belongs.
    pub fn route(&self, shard: Shard) -> Route<'_> {
        match self.state.route(shard, self.is_leased) {
            Route::Own if !self.view.is_as(&self.state) => Route::Wait,
            route => route,
        }
    }

    /// The table in force gives the shard to nobody, and no other is being prepared.
    pub fn has_nobody(&self, shard: Shard) -> bool {
        let placement = self.state.placement();
        placement.is_some_and(|placement| placement.owner(shard).is_none()) && self.state.next().is_none()
    }

    /// This node is in the table, under its lease.
    pub fn has_table(&self) -> bool {
        self.is_leased && !self.state.is_alone() && self.state.placement().is_some()
    }

    pub fn is_alone(&self) -> bool {
        self.state.is_alone()
    }

    /// Another node must hear of a change.
    pub fn has_copies(&self, shard: Shard, class: Class) -> bool {
        self.view.streams(shard, class).next().is_some()
    }

    /// What was read in this shard may be told, as far as copies go. Look after reading.
    pub fn is_confirmed(&self, shard: Shard) -> bool {
        self.router.outstanding.has_none(shard)
    }

    /// For the store: all of one look happens at one time.
    fn now(&self) -> u64 {
        *self.now.get_or_init(|| self.router.clock.moment().now)
    }

    /// Executes a command on a key of that shard. `None`: not here, or not now.
    pub fn act(&self, shard: Shard, asked: Asked<'_>) -> Option<Done> {
        if !self.serves(shard) {
            return None;
        }
        if asked.command.is_read() {
            return self.read(shard, asked);
        }
        let class = self.router.class(asked.space, asked.command.key()?);
        let is_full = |stream: &Arc<Stream>| stream.bytes() >= QUEUE_HIGH;
        if self.view.streams(shard, class).any(is_full) {
            return None;
        }
        self.write(shard, class, asked)
    }

    fn read(&self, shard: Shard, asked: Asked<'_>) -> Option<Done> {
        let Asked {
            space,
            command: Command::Get(get),
            ..
        } = asked
        else {
            return None;
        };
        let store = self.router.store(space);
        let reply = match get.is_plain() {
            true => store.look(get.key, self.now(), |hit| {
                hit.map_or_else(|| encoded(&Reply::Miss), |hit| encoded_hit(&hit))
            }),
            false => encoded(&store.execute(Command::Get(get), self.now())?),
        };
        let waits = match self.is_confirmed(shard) {
            true => Vec::new(),
            false => self.barrier(shard, self.router.class(space, get.key)),
        };
        Some(Done {
            reply,
            shard,
            epoch: self.epoch(),
            waits,
        })
    }

    /// All that was noted for this shard so far, and more.
    pub(super) fn barrier(&self, shard: Shard, class: Class) -> Waits {
        if self.is_confirmed(shard) {
            return Vec::new();
        }
        let streams = self.view.streams(shard, class);
        streams
            .filter_map(|stream| Some((stream.clone(), stream.last()?)))
            .collect()
    }

    /// Puts a state into the streams of all nodes that keep a copy, with the request that made it and its reply.
    pub(super) fn spread(
        &self,
        (shard, class): (Shard, Class),
        space: Space,
        request: Option<(RequestId, &[u8])>,
        state: &State,
    ) -> Waits {
        let streams = self.view.streams(shard, class).map(|stream| {
            let note = Note {
                space,
                request: request.map(|(id, told)| (id, told.into())),
                change: Change::State(state.clone()),
            };
            (stream.clone(), stream.push(About::Change(shard, class), note))
        });
        streams.collect()
    }

    fn write(&self, shard: Shard, class: Class, asked: Asked<'_>) -> Option<Done> {
        let Asked { id, space, command } = asked;
        let now = self.now();
        let mut memory = self.router.memory.lock(id);
        if let Some(found) = memory.find(id) {
            return Some(Done {
                reply: found.told(&self.router.rules, &command),
                shard,
                epoch: self.epoch(),
                waits: self.barrier(shard, class),
            });
        }
        let is_add = matches!(&command, Command::Set(set) if set.terms.mode == Mode::Add);
        let store = self.router.store(space);
        let too_large = too_large(store, &command);
        let (mut waits, mut told) = (Vec::new(), Vec::new());
        let elapsed = self.router.elapsed();
        let mut remember = |key: &[u8], reply: &[u8], is_kept: bool| {
            if is_kept {
                memory.keep(id, Answer { space, key, reply }, elapsed);
            }
        };
        let note = |reply: &Reply, state: State| {
            let reply = if too_large.is_some() { &Reply::TooLarge } else { reply };
            told = encoded(reply);
            let is_kept = id != 0 && is_to_be_kept(reply, &state);
            remember(state.key(), &told, is_kept);
            // Who polls a lock changes nothing: no state, but what he saw must be confirmed.
            if is_add && matches!(reply, Reply::NotStored) {
                return;
            }
            waits = self.spread((shard, class), space, is_kept.then_some((id, &*told)), &state);
        };
        match &too_large {
            None => store.execute_noting(command, now, note)?,
            Some((record, false)) => {
                told = encoded(&Reply::TooLarge);
                remember(record.key(), &told, id != 0);
                Reply::TooLarge
            }
            // A client that failed to replace an item must not find the old one.
            Some((record, true)) => store.execute_noting(forget(record.key()), now, note)?,
        };
        if waits.is_empty() {
            waits = self.barrier(shard, class);
        }
        Some(Done {
            reply: told,
            shard,
            epoch: self.epoch(),
            waits,
        })
    }

    /// Serves a key alone, without a majority. `None`: sessions and locks are not served so.
    pub fn alone(&self, space: Space, command: Command<'_>) -> Option<Reply> {
        match self.router.class(space, command.key()?) {
            Class::Bulk => self.router.store(space).execute(command, self.now()),
            Class::Sync => None,
        }
    }
}

/// The record of a command that would store more than an item may have, and whether what was there before must go.
pub fn too_large(store: &Store, command: &Command<'_>) -> Option<(Record, bool)> {
    match command {
        Command::Set(set) if !store.fits(set.record.key().len(), set.record.value().len()) => {
            let forget = set.terms.mode == Mode::Set && set.terms.compare.is_none();
            Some((set.record.clone(), forget))
        }
        _ => None,
    }
}

pub fn forget(key: &[u8]) -> Command<'_> {
    Command::Delete(Delete {
        key,
        compare: None,
        new_cas: None,
        invalidate: None,
        keep_item: false,
    })
}
