//! Brings items to nodes that shall have copies and do not have them yet: replicas after a change of table, and nodes that came back
//! empty. The items go into the same stream as changes do, read under the same lock, so that an old state never follows a new one.
//! With them goes what was answered about them a moment ago: a client may ask again, and by then it may be that node that is asked.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tracing::{debug, info};

use super::Router;
use super::holding::{Holding, Member, Shards};
use super::memory::Known;
use super::stream::{About, Stream};
use crate::cache::backend::{Backend, Lost, Name};
use crate::cache::council::{self, Stage, Told};
use crate::cache::peer::message::{Change, Note};
use crate::cache::peer::{Epoch, Space};
use crate::cache::store::{Cursor, State};

/// While so much waits in a stream, no more is read for it: changes of clients come behind it.
const PACE: usize = 512 << 10;
const LOOK: Duration = Duration::from_millis(5);
/// Items of a server that are asked for together.
const AT_ONCE: usize = 64;
/// Before a server that did not tell them is asked again.
const AGAIN: Duration = Duration::from_millis(50);

/// What nodes have of this one's shards: each item of them, and every change since.
#[derive(Debug, Default)]
pub struct Filled {
    nodes: Vec<(Member, Shards)>,
    /// What the council was told, and under which table.
    told: Vec<(Member, Epoch)>,
}

impl Filled {
    /// Over a change of table a node still has what this one owned before and owns now, and that it kept and keeps.
    pub fn follow(&mut self, before: Option<&Holding>, next: &Holding) {
        let had = std::mem::take(&mut self.nodes);
        let Some(before) = before else { return };
        for (member, shards) in had {
            let was = before.targets.iter().find(|target| target.member == member);
            let is = next.targets.iter().find(|target| target.member == member);
            if let (Some(was), Some(is)) = (was, is) {
                self.nodes.push((member, shards.and(&was.shards).and(&is.shards)));
            }
        }
    }

    pub fn forget(&mut self) {
        *self = Filled::default();
    }

    fn of(&self, member: &Member) -> Shards {
        let found = self.nodes.iter().find(|(known, _)| known == member);
        found.map(|(_, shards)| *shards).unwrap_or_default()
    }

    fn add(&mut self, member: &Member, shards: &Shards) {
        let had = self.of(member);
        self.nodes.retain(|(known, _)| known != member);
        let all = Shards {
            sync: had.sync.iter().chain(shards.sync.iter()).collect(),
            bulk: had.bulk.iter().chain(shards.bulk.iter()).collect(),
        };
        self.nodes.push((member.clone(), all));
    }
}

/// A stream and what its receiver lacks.
struct Lack {
    stream: Arc<Stream>,
    shards: Shards,
}

pub async fn run(router: Arc<Router>) {
    let mut changed = router.changed.subscribe();
    while !router.scope.is_draining() {
        changed.mark_unchanged();
        let (epoch, lacks) = router.lacks();
        if let Some(epoch) = epoch {
            if !lacks.is_empty() && !router.fill(epoch, &lacks).await {
                // Another table came in between, or a node does not take what it lacks.
                continue;
            }
            router.tell_filled(epoch).await;
        }
        tokio::select! {
            _ = changed.changed() => {}
            () = router.scope.draining() => return,
        }
    }
}

impl Router {
    fn lacks(&self) -> (Option<Epoch>, Vec<Lack>) {
        let view = self.gate.read().expect("nothing panics under this lock");
        let Some(holding) = &view.holding else {
            return (None, Vec::new());
        };
        let filled = self.filled();
        let lacks = view.targets.iter().map(|(stream, shards)| Lack {
            stream: stream.clone(),
            shards: shards.minus(&filled.of(&stream.target)),
        });
        let lacks = lacks.filter(|lack| !lack.shards.is_empty()).collect();
        (Some(holding.placement.epoch()), lacks)
    }

    /// Whether all of it was kept under this table.
    async fn fill(&self, epoch: Epoch, lacks: &[Lack]) -> bool {
        for space in Space::ALL {
            if !self.fill_answers(space, epoch, lacks).await {
                return false;
            }
            if let Some(backend) = self.backend(space) {
                if !self.fill_far(backend, space, epoch, lacks).await {
                    return false;
                }
                continue;
            }
            let mut cursor = Some(Cursor::default());
            while let Some(at) = cursor {
                if !self
                    .wait_until(epoch, || lacks.iter().all(|lack| lack.stream.bytes() < PACE))
                    .await
                {
                    return false;
                }
                cursor = self.fill_step(space, at, lacks);
            }
        }
        let ends: Vec<Option<u64>> = lacks.iter().map(|lack| lack.stream.last()).collect();
        for (lack, end) in lacks.iter().zip(ends) {
            let Some(end) = end else { continue };
            let mut changed = self.changed.subscribe();
            loop {
                tokio::select! {
                    () = lack.stream.kept(end) => break,
                    _ = changed.changed() => {}
                    () = self.scope.draining() => return false,
                }
                if self.epoch() != Some(epoch) {
                    return false;
                }
            }
        }
        let view = self.gate.read().expect("nothing panics under this lock");
        let is_same = view.holding.as_ref().map(|holding| holding.placement.epoch()) == Some(epoch);
        if is_same {
            let mut filled = self.filled();
            for lack in lacks {
                filled.add(&lack.stream.target, &lack.shards);
                debug!(node = %lack.stream.target.name, shards = lack.shards.sync.len(), "has its copies");
            }
        }
        is_same
    }

    fn fill_step(&self, space: Space, at: Cursor, lacks: &[Lack]) -> Option<Cursor> {
        let now = self.clock.moment().now;
        self.store(space)
            .walk(at, now, |state| self.show(lacks, space, &state, None))
    }

    /// Puts a state into the streams to whoever lacks it. Call it under the lock of the key.
    fn show(&self, lacks: &[Lack], space: Space, state: &State, known: Option<&Known>) {
        let (shard, class) = (self.rules.shard(state.key()), self.class(space, state.key()));
        for lack in lacks.iter().filter(|lack| lack.shards.has(shard, class)) {
            let note = Note {
                space,
                request: known.map(|known| (known.id, known.reply.clone())),
                change: Change::State(state.clone()),
            };
            lack.stream.push(About::Fill(shard, class), note);
        }
    }

    /// What was answered before this table; what is answered from now on comes with its change. `false`: another table came first.
    async fn fill_answers(&self, space: Space, epoch: Epoch, lacks: &[Lack]) -> bool {
        let is_lacking = |key: &[u8]| {
            let (shard, class) = (self.rules.shard(key), self.class(space, key));
            lacks.iter().any(|lack| lack.shards.has(shard, class))
        };
        let is_paced = || lacks.iter().all(|lack| lack.stream.bytes() < PACE);
        let known = self.memory.known(space, self.elapsed(), is_lacking);
        for some in known.chunks(AT_ONCE) {
            if !self.wait_until(epoch, is_paced).await {
                return false;
            }
            let Some(backend) = self.backend(space) else {
                let now = self.clock.moment().now;
                for known in some {
                    let show = |state: State| self.show(lacks, space, &state, Some(known));
                    self.store(space).show(&known.key, now, show);
                }
                continue;
            };
            let shown = some.iter().map(|known| async {
                let name = Name::of(&known.key);
                let _shared = backend.share(&name).await;
                let state = backend.look(&name).await?;
                let state = state.unwrap_or_else(|| State::Absent(known.key.clone()));
                self.show(lacks, space, &state, Some(known));
                Ok(())
            });
            if !self.are_shown(backend, epoch, shown).await {
                return false;
            }
        }
        true
    }

    /// Does it under that table. `false`: another one came first, or the server does not tell.
    async fn are_shown(
        &self,
        backend: &Backend,
        epoch: Epoch,
        shown: impl Iterator<Item = impl Future<Output = Result<(), Lost>>>,
    ) -> bool {
        // No other table comes while these are noted.
        let _pass = backend.pass().await;
        if !self.is_under(epoch) {
            return false;
        }
        let shown: Result<Vec<()>, Lost> = join_all(shown).await.into_iter().collect();
        if shown.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
        shown.is_ok()
    }

    /// The same of items that a server keeps. `false`: another table came first, or the server does not tell.
    async fn fill_far(&self, backend: &Backend, space: Space, epoch: Epoch, lacks: &[Lack]) -> bool {
        let is_lacking = |key: &[u8]| {
            let (shard, class) = (self.rules.shard(key), self.class(space, key));
            lacks.iter().any(|lack| lack.shards.has(shard, class))
        };
        let Ok(names) = backend.names(is_lacking).await else {
            tokio::time::sleep(AGAIN).await;
            return false;
        };
        for some in names.chunks(AT_ONCE) {
            let is_paced = || lacks.iter().all(|lack| lack.stream.bytes() < PACE);
            if !self.wait_until(epoch, is_paced).await {
                return false;
            }
            let shown = some.iter().map(|name| async {
                let _shared = backend.share(name).await;
                if let Some(state) = backend.look(name).await? {
                    self.show(lacks, space, &state, None);
                }
                Ok(())
            });
            if !self.are_shown(backend, epoch, shown).await {
                return false;
            }
        }
        true
    }

    /// `false`: another table came first.
    async fn wait_until(&self, epoch: Epoch, is_so: impl Fn() -> bool) -> bool {
        loop {
            if !self.is_under(epoch) || self.scope.is_draining() {
                return false;
            }
            if is_so() {
                return true;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The view is of that table.
    fn is_under(&self, epoch: Epoch) -> bool {
        let view = self.gate.read().expect("nothing panics under this lock");
        view.holding.as_ref().map(|holding| holding.placement.epoch()) == Some(epoch)
    }

    /// Tells the council once a table of each node that waits for it.
    async fn tell_filled(&self, epoch: Epoch) {
        let mut news = Vec::new();
        {
            let view = self.gate.read().expect("nothing panics under this lock");
            let Some(holding) = view
                .holding
                .as_ref()
                .filter(|holding| holding.placement.epoch() == epoch)
            else {
                return;
            };
            let nodes = holding.placement.table().nodes.iter();
            let filling = nodes.filter(|node| node.stage == Stage::Filling && node.name != self.own);
            let mut filled = self.filled();
            for node in filling {
                let member = Member {
                    name: node.name.clone(),
                    incarnation: node.incarnation,
                };
                let target = holding.targets.iter().find(|target| target.member == member);
                let lacks = target.is_some_and(|target| !target.shards.minus(&filled.of(&member)).is_empty());
                if !lacks && !filled.told.contains(&(member.clone(), epoch)) {
                    filled.told.retain(|(_, told)| *told == epoch);
                    filled.told.push((member.clone(), epoch));
                    news.push(member);
                }
            }
        }
        for member in news {
            info!(node = %member.name, "has all that it shall have of this node's cache");
            let told = Told::Filled(council::Filled {
                node: member.name,
                incarnation: member.incarnation,
                epoch,
            });
            // The council is gone only when the module ends.
            let _ = self.told.send(told).await;
        }
    }
}
