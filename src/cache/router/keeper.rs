//! The side that keeps copies: takes each stream in its order, from the owner of the shard alone, and only what is new in it.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::Router;
use super::holding::Shards;
use super::memory::Answer;
use crate::cache::backend::{Backend, Puts};
use crate::cache::peer::message::{self, Change, Note, Receipt};
use crate::cache::peer::{Damaged, Epoch, Space};
use crate::net::mesh::Name;

/// How long a piece waits for this node's own table to change.
const PATIENCE: Duration = Duration::from_millis(50);
const LOOK: Duration = Duration::from_millis(2);

/// Where the streams of other nodes stand.
#[derive(Debug, Default)]
pub struct Keeper {
    streams: HashMap<Name, Place>,
    /// What came since the last table: it may be of shards that the next one does not give to this node.
    taken: Shards,
}

/// The next place of a stream under an epoch. A sender has one piece under way at a time and begins each epoch with the first that was
/// not kept: so the first piece of an epoch tells where the stream stands, and late doubles are known by their numbers or their epoch.
#[derive(Clone, Copy, Debug)]
struct Place {
    epoch: Epoch,
    next: u64,
}

impl Keeper {
    pub fn take_shards(&mut self) -> Shards {
        std::mem::take(&mut self.taken)
    }

    pub fn forget(&mut self) {
        *self = Keeper::default();
    }
}

impl Router {
    pub(super) fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a piece of a stream.
    pub async fn keep(self: &Arc<Self>, sender: &Name, piece: Bytes) -> Result<Receipt, Damaged> {
        let deadline = Instant::now() + PATIENCE;
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let receipt = match &self.backend {
                None => self.take(sender, &piece, &mut Puts::default())?,
                Some(backend) => {
                    let taking = self.clone().take_far(backend.clone(), sender.clone(), piece.clone());
                    // In a task of its own: what was taken must be put in its place, though who sent it may be gone.
                    let taken = self.scope.spawn(taking).await.ok().flatten();
                    taken.unwrap_or(Ok(Receipt::OtherEpoch))?
                }
            };
            match receipt {
                Receipt::OtherEpoch if Instant::now() < deadline => {
                    let _ = timeout_at(deadline.min(Instant::now() + LOOK), changed.changed()).await;
                }
                receipt => return Ok(receipt),
            }
        }
    }

    /// The same where a server keeps the items: it has them when this returns.
    async fn take_far(self: Arc<Self>, backend: Arc<Backend>, sender: Name, piece: Bytes) -> Result<Receipt, Damaged> {
        let _intake = backend.intake().await;
        let _pass = backend.pass().await;
        // After a loss nothing is kept until all that was taken before is forgotten.
        if !backend.is_up() {
            return Ok(Receipt::OtherEpoch);
        }
        let mut puts = Puts::default();
        let receipt = self.take(&sender, &piece, &mut puts)?;
        let kept = backend.put(puts).await;
        Ok(kept.map_or(Receipt::OtherEpoch, |()| receipt))
    }

    /// What a server must keep is added to `puts`.
    fn take(&self, sender: &Name, piece: &[u8], puts: &mut Puts) -> Result<Receipt, Damaged> {
        let (epoch, mut from) = message::open(piece)?;
        let mut number = from.number()?;
        let mut keeper = self.keeper();
        let view = self.gate.read().expect("nothing panics under this lock");
        let state = self.standing.state();
        let known = [state.placement(), state.next()].into_iter().flatten();
        let is_known = known.into_iter().any(|placement| placement.epoch() == epoch);
        if !is_known || view.is_dropping {
            return Ok(Receipt::OtherEpoch);
        }
        let place = match keeper.streams.get(sender) {
            Some(place) if place.epoch > epoch => return Ok(Receipt::OtherEpoch),
            Some(place) if place.epoch == epoch => *place,
            _ => Place { epoch, next: number },
        };
        let mut next = place.next;
        let mut is_refused = false;
        while !from.is_empty() && number <= next {
            let note = message::note(&mut from)?;
            if number == next {
                if let Some(note) = note
                    && !self.apply(&mut keeper, (sender, epoch), note, puts)
                {
                    is_refused = true;
                    break;
                }
                next += 1;
            }
            number += 1;
        }
        keeper.streams.insert(sender.clone(), Place { epoch, next });
        match is_refused && next == place.next {
            true => Ok(Receipt::OtherEpoch),
            false => Ok(Receipt::Kept(next)),
        }
    }

    /// `false`: the sender does not own that shard, as far as this node knows.
    fn apply(&self, keeper: &mut Keeper, (sender, epoch): (&Name, Epoch), note: Note, puts: &mut Puts) -> bool {
        let now = self.clock.moment().now;
        let standing = self.standing.state();
        match note.change {
            Change::State(state) => {
                let shard = self.rules.shard(state.key());
                if !standing.takes_copy(shard, sender, epoch) {
                    return false;
                }
                keeper.taken.insert(shard, self.class(note.space, state.key()));
                if let Some((id, reply)) = &note.request {
                    let answer = Answer {
                        space: note.space,
                        key: state.key(),
                        reply,
                    };
                    self.memory.lock(*id).keep(*id, answer, self.elapsed());
                }
                match self.backend(note.space) {
                    Some(backend) => backend.gather(state, puts),
                    None => self.store(note.space).put(state, now),
                }
            }
            Change::Flush => self.forget_copies(note.space, sender),
        }
        true
    }

    /// The sender has flushed: its copies here go too.
    fn forget_copies(&self, space: Space, sender: &Name) {
        let state = self.standing.state();
        if let Some(placement) = state.next().or(state.placement()) {
            let owned = placement.owned(sender);
            match self.backend(space) {
                Some(backend) => backend.void(|shard, _| owned.has(shard)),
                None => drop(self.store(space).retain(|key| !owned.has(self.rules.shard(key)))),
            }
        }
    }
}
