//! What an owner does with commands on items that a server keeps (`backend`): the same as in `owner`, but that each takes a while.
//!
//! While one is executed no change of table is carried out (`Backend::pass`), so that the streams in which its state is noted are those of
//! the table under which it began, and nothing is still on its way to the server once this node has said that it has stopped. The key is
//! held until the state is noted: whoever reads it sees what its reply must wait for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};

use super::Router;
use super::memory::{Answer, is_to_be_kept};
use super::order::OnKey;
use super::owner::{Done, Waits, forget, too_large};
use super::stream::QUEUE_HIGH;
use crate::cache::backend::{Backend, Changed, Name};
use crate::cache::class::Class;
use crate::cache::command::{Command, Mode, Reply};
use crate::cache::council::{Route, Shard};
use crate::cache::peer::reply::encoded;
use crate::cache::peer::{Epoch, Space};
use crate::cache::store::{State, Store};

/// A command that was not executed at once, and its place among those that came with it.
#[derive(Debug)]
pub struct Far {
    pub place: usize,
    pub space: Space,
    pub on_key: OnKey,
}

/// When answers are given up, and in how many bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub deadline: Instant,
    pub enough: usize,
}

/// What a command was sent under. It is not begun when nobody waits for it any more: its client has been told that nobody answers, and
/// may have asked for something else since.
struct Under {
    epoch: Option<Epoch>,
    asker: Weak<()>,
}

/// The encoded reply, and what it waits for.
type Acted = (Vec<u8>, Waits);

impl Router {
    /// The server that keeps the items of a space.
    pub fn backend(&self, space: Space) -> Option<&Arc<Backend>> {
        match space {
            Space::Portal => self.backend.as_ref(),
            Space::Composite => None,
        }
    }

    /// Nothing that this node would keep items in is lost.
    pub(super) fn keeps_items(&self, space: Space) -> bool {
        self.backend(space).is_none_or(|backend| backend.is_up())
    }

    /// Executes commands that were sent under that table, those on one shard in their order; none after one that is not for here, or not now.
    /// Their replies may not be told yet.
    pub(super) async fn act_far(
        self: &Arc<Self>,
        far: Vec<Far>,
        epoch: Option<Epoch>,
        bounds: Bounds,
    ) -> Vec<(usize, Done)> {
        let mut shards: BTreeMap<Shard, Vec<Far>> = BTreeMap::new();
        for one in far {
            shards.entry(one.on_key.shard).or_default().push(one);
        }
        let held = &AtomicUsize::new(0);
        let groups = shards.into_values().map(|group| async move {
            let mut answered = Vec::new();
            for Far { place, space, on_key } in group {
                let Some(backend) = self.backend(space) else { break };
                let is_read = on_key.command().is_read();
                let asker = Arc::new(());
                let under = Under {
                    epoch,
                    asker: Arc::downgrade(&asker),
                };
                let acting = self.clone().act_apart(backend.clone(), space, on_key, under);
                let acted = timeout_at(bounds.deadline, acting).await;
                drop(asker);
                let Ok(Some(done)) = acted else { break };
                let before = held.fetch_add(done.reply.len(), Ordering::Relaxed);
                // It is asked again; what was changed must be told, for it will not happen twice.
                if is_read && before >= bounds.enough {
                    break;
                }
                answered.push((place, done));
            }
            answered
        });
        join_all(groups).await.into_iter().flatten().collect()
    }

    /// In a task of its own: who asked may go away at any time, and a change must be noted once it has happened.
    async fn act_apart(
        self: Arc<Self>,
        backend: Arc<Backend>,
        space: Space,
        on_key: OnKey,
        under: Under,
    ) -> Option<Done> {
        let router = self.clone();
        let acting = async move {
            let (reply, waits) = router.act_on(&backend, space, &on_key, &under).await?;
            Some(Done {
                reply,
                shard: on_key.shard,
                epoch: under.epoch,
                waits,
            })
        };
        self.scope.spawn(acting).await.ok().flatten().flatten()
    }

    async fn act_on(&self, backend: &Backend, space: Space, on_key: &OnKey, under: &Under) -> Option<Acted> {
        let _pass = backend.pass().await;
        let (shard, class) = (on_key.shard, self.class(space, on_key.key()));
        let name = Name::of(on_key.key());
        let is_ours = || {
            let entered = self.enter();
            let is_timely = entered.epoch() == under.epoch && under.asker.strong_count() > 0;
            // What is remembered of a lost server is about to be forgotten.
            (is_timely && backend.is_up() && entered.serves(shard)).then_some(entered)
        };
        if let Command::Get(get) = on_key.command()
            && on_key.command().is_read()
        {
            let _shared = backend.share(&name).await;
            is_ours().map(drop)?;
            if let Some(reply) = backend.read(get).await.ok()? {
                return Some((encoded(&reply), self.enter().barrier(shard, class)));
            }
        }
        let _held = backend.hold(&name).await;
        {
            let entered = is_ours()?;
            if entered
                .view
                .streams(shard, class)
                .any(|stream| stream.bytes() >= QUEUE_HIGH)
            {
                return None;
            }
            let memory = self.memory.lock(on_key.id);
            if let Some(found) = memory.find(on_key.id) {
                let told = found.told(&self.rules, &on_key.command());
                return Some((told, entered.barrier(shard, class)));
            }
        }
        let (reply, changed) = change(backend, self.store(space), on_key.command()).await?;
        Some(self.note(backend, space, on_key, &reply, changed))
    }

    /// Notes what came of a command, whatever has become of this node's part meanwhile: it has happened.
    fn note(&self, backend: &Backend, space: Space, on_key: &OnKey, reply: &Reply, changed: Option<Changed>) -> Acted {
        let (id, shard, class) = (on_key.id, on_key.shard, self.class(space, on_key.key()));
        let entered = self.enter();
        let told = encoded(reply);
        let command = on_key.command();
        let is_add = matches!(&command, Command::Set(set) if set.terms.mode == Mode::Add);
        // Who polls a lock changes nothing: no state, but what he saw must be confirmed.
        let is_poll = is_add && matches!(reply, Reply::NotStored);
        let mut waits = Vec::new();
        let is_kept = id != 0
            && changed
                .as_ref()
                .is_none_or(|changed| is_to_be_kept(reply, &changed.state));
        if let Some(changed) = changed.filter(|_| !is_poll) {
            let state = match backend.is_current(&changed) {
                true => changed.state,
                // All was flushed meanwhile, and this with it.
                false => State::Absent(on_key.key().into()),
            };
            waits = entered.spread((shard, class), space, is_kept.then_some((id, &*told)), &state);
        }
        if waits.is_empty() {
            waits = entered.barrier(shard, class);
        }
        if is_kept {
            let answer = Answer {
                space,
                key: on_key.key(),
                reply: &told,
            };
            self.memory.lock(id).keep(id, answer, self.elapsed());
        }
        (told, waits)
    }

    /// Serves keys alone, without a majority; sessions and locks are not served so.
    pub(super) async fn alone_far(&self, backend: &Backend, space: Space, on_key: &OnKey) -> Option<Reply> {
        let _pass = backend.pass().await;
        let _held = backend.hold(&Name::of(on_key.key())).await;
        match self.enter().route(on_key.shard) {
            Route::Alone => {}
            _ => return None,
        }
        if self.class(space, on_key.key()) == Class::Sync {
            return Some(on_key.give_up(&self.rules));
        }
        let done = change(backend, self.store(space), on_key.command()).await;
        Some(done.map_or_else(|| on_key.give_up(&self.rules), |(reply, _)| reply))
    }
}

/// The reply, and what was changed. `None`: nobody knows.
async fn change(backend: &Backend, store: &Store, command: Command<'_>) -> Option<(Reply, Option<Changed>)> {
    match too_large(store, &command) {
        None => {
            let changed = backend.change(command).await.ok()?;
            Some((changed.reply.clone(), Some(changed)))
        }
        Some((_, false)) => Some((Reply::TooLarge, None)),
        // A client that failed to replace an item must not find the old one.
        Some((record, true)) => {
            let changed = backend.change(forget(record.key())).await.ok()?;
            Some((Reply::TooLarge, Some(changed)))
        }
    }
}
