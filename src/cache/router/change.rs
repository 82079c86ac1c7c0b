//! `View`: what the council's last table means here, and how one view follows another.

use std::sync::Arc;

use tracing::{debug, info};

use super::Router;
use super::holding::{Holding, Shards, passed_on};
use super::owner::Waits;
use super::send;
use super::stream::Stream;
use crate::cache::class::Class;
use crate::cache::command::Command;
use crate::cache::council::{Event, Placement, Shard, State, Told};
use crate::cache::peer::Space;

#[derive(Default)]
pub struct View {
    pub holding: Option<Holding>,
    /// To nodes that keep copies, and of which shards they do.
    pub targets: Vec<(Arc<Stream>, Shards)>,
    /// What shall not be here is still being removed: no copies are taken meanwhile.
    pub is_dropping: bool,
}

impl View {
    /// The view is of the table that is in force.
    pub fn is_as(&self, state: &State) -> bool {
        let mine = self.holding.as_ref().map(|holding| holding.placement.epoch());
        mine.is_some() && mine == state.placement().map(|placement| placement.epoch())
    }

    pub fn streams(&self, shard: Shard, class: Class) -> impl Iterator<Item = &Arc<Stream>> {
        let targets = self.targets.iter();
        targets.filter_map(move |(stream, shards)| shards.has(shard, class).then_some(stream))
    }
}

/// For the log.
fn kind(event: &Event) -> &'static str {
    match event {
        Event::Stop(_) => "stop",
        Event::Commit(_) => "commit",
        Event::Empty { .. } => "empty",
        Event::Alone => "alone",
        Event::Rejoined => "rejoined",
    }
}

impl Router {
    /// Does what the council wants done, and says what it wants to hear. Blocks for as long as dropping items takes.
    pub fn carry_out(self: &Arc<Self>, event: Event) -> Option<Told> {
        debug!(event = kind(&event), "the council says");
        // What is under way to a server is over first.
        let _still = self.backend.as_ref().map(|backend| backend.stand_still());
        let told = match event {
            Event::Stop(next) => {
                self.stop();
                Some(Told::Stopped(next.epoch()))
            }
            Event::Commit(placement) => {
                self.commit(placement);
                None
            }
            Event::Empty { incarnation } => {
                self.empty();
                Some(Told::Emptied { incarnation })
            }
            Event::Alone | Event::Rejoined => {
                self.forget_bulk();
                None
            }
        };
        self.bump();
        told
    }

    /// Shards move. Who looked at an older standing is out when this returns; who waits for copies of a shard that goes is told by
    /// `changed` to look whether it is served still. What waits in the streams stays: the table may not come to be.
    fn stop(&self) {
        drop(self.gate.write().expect("nothing panics under this lock"));
    }

    fn commit(self: &Arc<Self>, placement: Arc<Placement>) {
        let next = Holding::new(placement, &self.own);
        let taken = self.keeper().take_shards();
        let is_dropping = {
            let mut view = self.gate.write().expect("nothing panics under this lock");
            let before = view.holding.as_ref().map_or(taken, |holding| Shards {
                sync: holding.kept.sync.iter().chain(taken.sync.iter()).collect(),
                bulk: holding.kept.bulk.iter().chain(taken.bulk.iter()).collect(),
            });
            self.filled().follow(view.holding.as_ref(), &next);
            if let Some(before) = &view.holding {
                let passed_on = passed_on(&before.placement, &next.placement, &self.own);
                self.memory.doubt(|key| passed_on.has(self.rules.shard(key)));
            }
            view.targets = self.targets(&view, &next);
            view.is_dropping = !before.minus(&next.kept).is_empty();
            view.holding = Some(next.clone());
            view.is_dropping
        };
        if is_dropping {
            self.drop_all_but(&next.kept);
            self.gate.write().expect("nothing panics under this lock").is_dropping = false;
        }
        info!(epoch = %next.placement.epoch(), owned = next.owned.len(), copies = next.targets.len(), "a new table of caches");
    }

    /// Streams of the next view: those to nodes that keep on keeping copies go on, the others are closed.
    fn targets(self: &Arc<Self>, view: &View, next: &Holding) -> Vec<(Arc<Stream>, Shards)> {
        for (stream, _) in &view.targets {
            if next.targets.iter().all(|target| target.member != stream.target) {
                stream.close();
            }
        }
        let made = next.targets.iter().map(|target| {
            let known = view.targets.iter().find(|(stream, _)| stream.target == target.member);
            let stream = match known {
                Some((stream, _)) => {
                    stream.retain(|shard, class| target.shards.has(shard, class));
                    stream.clone()
                }
                None => {
                    let stream = Arc::new(Stream::new(target.member.clone(), self.outstanding.clone()));
                    self.scope.spawn(send::run(self.clone(), stream.clone()));
                    stream
                }
            };
            (stream, target.shards)
        });
        made.collect()
    }

    fn drop_all_but(&self, kept: &Shards) {
        for space in Space::ALL {
            if let Some(backend) = self.backend(space) {
                backend.void(|shard, class| !kept.has(shard, class));
                continue;
            }
            let removed = self
                .store(space)
                .retain(|key| kept.has(self.rules.shard(key), self.class(space, key)));
            debug!(?space, removed, "items of other nodes are removed");
        }
    }

    /// All data are void.
    fn empty(&self) {
        let mut keeper = self.keeper();
        let mut view = self.gate.write().expect("nothing panics under this lock");
        keeper.forget();
        for (stream, _) in &view.targets {
            stream.close();
        }
        *view = View::default();
        self.filled().forget();
        self.memory.clear();
        for store in &self.stores {
            store.empty();
        }
        if let Some(backend) = &self.backend {
            backend.void(|_, _| true);
            backend.told();
        }
        info!("this node was left out: its cache begins empty");
    }

    /// What was written without a majority, and what others may have changed since, is not to be found any more.
    fn forget_bulk(&self) {
        let view = self.gate.write().expect("nothing panics under this lock");
        for space in Space::ALL {
            match self.backend(space) {
                Some(backend) => backend.void(|_, class| class == Class::Bulk),
                None => drop(self.store(space).retain(|key| self.class(space, key) == Class::Sync)),
            }
        }
        drop(view);
    }

    /// Removes everything of a space here, now or after some milliseconds; what must be kept before it is gone from copies, too.
    ///
    /// Copies of what another node owns go when its stream says so: those that it sends after that are of younger items.
    pub fn flush(&self, space: Space, after: Option<u64>) -> Waits {
        let view = self.gate.write().expect("nothing panics under this lock");
        let now = self.clock.moment().now;
        let has_table = !self.standing.state().is_alone();
        let holding = view.holding.as_ref().filter(|_| has_table && after.is_none());
        let owned = holding.map(|holding| holding.owned);
        let is_own = |shard: Shard| owned.is_none_or(|owned| owned.has(shard));
        match (self.backend(space), owned) {
            (Some(backend), _) => backend.flush(after, is_own),
            (None, None) => drop(self.store(space).execute(Command::Flush { after }, now)),
            (None, Some(_)) => self.store(space).flush_where(|key| is_own(self.rules.shard(key))),
        }
        if after.is_some() {
            return Vec::new();
        }
        let targets = view.targets.iter();
        targets
            .map(|(stream, _)| (stream.clone(), stream.push_flush(space)))
            .collect()
    }
}
