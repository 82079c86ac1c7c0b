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
use crate::net::mesh::{Fault, Handler, Identity, Limits};

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
            let done = entered.act(asked);
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

impl Handler for AskHandler {
    fn call<'a>(&'a self, _peer: &'a Identity, body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            let Acted {
                mut answers,
                far,
                epoch,
            } = self.act(&body).map_err(failed)?;
            let deadline = Instant::now() + PATIENCE;
            let bounds = Bounds {
                deadline,
                enough: ANSWER_MAX,
            };
            for (place, done) in self.0.act_far(far, Some(epoch), bounds).await {
                if let Some(answer) = answers.get_mut(place) {
                    *answer = Some(done);
                }
            }
            let settled = answers.iter().map(|done| async move {
                match done {
                    Some(done) => self.0.settle(done, deadline).await,
                    None => false,
                }
            });
            let settled = join_all(settled).await;
            let told = answers.iter().flatten().map(|done| done.reply.len() + 1);
            let mut out = Vec::with_capacity(told.sum());
            for (done, may_tell) in answers.iter().zip(settled) {
                let reply = done.as_ref().filter(|_| may_tell).map(|done| &*done.reply);
                message::put_answer(reply, &mut out);
            }
            Ok(out.into())
        })
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
            match (&control, self.0.epoch() == Some(epoch)) {
                (Control::Flush { .. }, false) => Err(Fault::Failed("a flush of another table".into())),
                _ => Ok(self.0.control(&control).into()),
            }
        })
    }
}
