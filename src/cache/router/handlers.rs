//! What other nodes' caches are answered: the mesh's side of `owner`, `keeper` and `fan`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::Router;
use super::far::{Bounds, Far};
use super::order::OnKey;
use super::owner::Done;
use crate::base::BoxFuture;
use crate::cache::council::ShardSet;
use crate::cache::peer::message::{self, Control};
use crate::cache::peer::{ASK, CONTROL, COPY, Damaged, Epoch};
use crate::net::mesh::{Begun, Fault, Handler, Identity, Limits};

/// Bodies hold one item of the largest size and what fits before it; calls are as many as clients wait for.
pub const LIMITS: Limits = Limits {
    body: 2 << 20,
    queued: 16 << 20,
    outstanding: 8192,
    concurrent: 8192,
    received: 64 << 20,
};
/// Largest item that travels: with what may stand before it in a message it stays below the body's limit.
pub const ITEM_MAX: usize = 1600 << 10;
/// Bytes of replies in one message; one more may be added.
const ANSWER_MAX: usize = 256 << 10;
/// An asking node gives up before.
const PATIENCE: Duration = Duration::from_secs(1);

/// For `mesh::Services`.
pub fn services(router: &Arc<Router>) -> Vec<(u16, Arc<dyn Handler>)> {
    vec![
        (ASK, Arc::new(AskHandler(router.clone()))),
        (COPY, Arc::new(CopyHandler(router.clone()))),
        (CONTROL, Arc::new(ControlHandler(router.clone()))),
    ]
}

fn failed(error: Damaged) -> Fault {
    Fault::Failed(error.to_string())
}

struct AskHandler(Arc<Router>);

impl AskHandler {
    /// Executes the commands in their order. Not across an await: an asking node that is gone leaves nothing half done.
    fn act(&self, body: &[u8]) -> Result<Acted, Damaged> {
        let (epoch, mut from) = message::open(body)?;
        let entered = self.0.enter();
        // What was sent under another table may have been asked again since, and answered: a message can lie in a broken line for
        // seconds.
        let is_timely = entered.epoch() == Some(epoch);
        let (mut answers, mut stopped, mut size) = (Vec::new(), ShardSet::EMPTY, 0);
        let mut far = Vec::new();
        while !from.is_empty() {
            let asked = message::asked(&mut from)?;
            let key = asked.command.key().unwrap_or_default();
            let shard = self.0.rules().shard(key);
            if !is_timely || stopped.has(shard) || size >= ANSWER_MAX {
                stopped.insert(shard);
                answers.push(None);
                continue;
            }
            if self.0.backend(asked.space).is_some() {
                let (place, space) = (answers.len(), asked.space);
                let on_key = OnKey::new(asked.id, shard, &asked.command, Bytes::copy_from_slice);
                far.extend(on_key.map(|on_key| Far { place, space, on_key }));
                answers.push(None);
                continue;
            }
            let done = entered.act(shard, asked);
            match &done {
                Some(done) => size += done.reply.len(),
                None => stopped.insert(shard),
            }
            answers.push(done);
        }
        Ok(Acted { answers, far, epoch })
    }
}

/// What was executed, and what must be asked of a server.
struct Acted {
    answers: Vec<Option<Done>>,
    far: Vec<Far>,
    epoch: Epoch,
}

impl Acted {
    /// The message, if nothing of it must be waited for.
    fn told_now(&self, router: &Router) -> Option<Bytes> {
        if !self.far.is_empty() {
            return None;
        }
        let entered = router.enter();
        let may_tell = |done: &Done| done.is_confirmed() && entered.stands_by(done);
        let is_whole = self.answers.iter().flatten().all(may_tell);
        is_whole.then(|| told(self.answers.iter().map(Option::as_ref)))
    }

    async fn told(mut self, router: &Arc<Router>) -> Bytes {
        let deadline = Instant::now() + PATIENCE;
        let bounds = Bounds {
            deadline,
            enough: ANSWER_MAX,
        };
        for (place, done) in router.act_far(self.far, Some(self.epoch), bounds).await {
            if let Some(answer) = self.answers.get_mut(place) {
                *answer = Some(done);
            }
        }
        let settled = self.answers.iter().map(|done| async move {
            match done {
                Some(done) => router.settle(done, deadline).await,
                None => false,
            }
        });
        let settled = join_all(settled).await;
        let answers = self.answers.iter().zip(settled);
        told(answers.map(|(done, may_tell)| done.as_ref().filter(|_| may_tell)))
    }
}

/// `None`: not here, not now.
fn told<'a>(answers: impl Iterator<Item = Option<&'a Done>> + Clone) -> Bytes {
    let room = answers.clone().flatten().map(|done| done.reply.len() + 1);
    let mut out = Vec::with_capacity(room.sum());
    for done in answers {
        message::put_answer(done.map(|done| &done.reply[..]), &mut out);
    }
    out.into()
}

impl Handler for AskHandler {
    fn call<'a>(&'a self, _peer: &'a Identity, body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            let acted = self.act(&body).map_err(failed)?;
            Ok(acted.told(&self.0).await)
        })
    }

    fn begin(&self, _peer: &Identity, body: Bytes) -> Begun {
        let acted = match self.act(&body) {
            Ok(acted) => acted,
            Err(error) => return Begun::Answered(Err(failed(error))),
        };
        if let Some(told) = acted.told_now(&self.0) {
            return Begun::Answered(Ok(told));
        }
        let router = self.0.clone();
        Begun::Waits(Box::pin(async move { Ok(acted.told(&router).await) }))
    }
}

struct CopyHandler(Arc<Router>);

impl Handler for CopyHandler {
    fn call<'a>(&'a self, peer: &'a Identity, body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            let receipt = self.0.keep(&peer.node, body).await.map_err(failed)?;
            Ok(receipt.encode().into())
        })
    }
}

struct ControlHandler(Arc<Router>);

impl Handler for ControlHandler {
    fn call<'a>(&'a self, _peer: &'a Identity, body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            let (epoch, mut from) = message::open(&body).map_err(failed)?;
            let control = Control::decode(&mut from).map_err(failed)?;
            let (space, after) = match control {
                Control::Stats { space } => return Ok(self.0.stats(space).into()),
                Control::Flush { space, after } => (space, after),
            };
            if self.0.epoch() != Some(epoch) {
                return Err(Fault::Failed("a flush of another table".into()));
            }
            match self.0.flush_copied(space, after, Instant::now() + PATIENCE).await {
                true => Ok(Bytes::new()),
                false => Err(Fault::Failed("copies may be left".into())),
            }
        })
    }
}
