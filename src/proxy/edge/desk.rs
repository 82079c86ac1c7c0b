//! The desk of the cache: answers for this node, and asks the fronts of all others the same, at once and for a second.
//!
//! A purge reaches who answers. A node that does not is named: it may go on serving what it keeps, unless it starts anew.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tracing::warn;

use super::question::{Answer, Question, Said};
use crate::base::BoxFuture;
use crate::base::error::chain;
use crate::net::mesh::{CallError, Class, Fault, Handler, Identity, Peer, Why};
use crate::proxy::service::Front;

/// The service of the proxy's port of the mesh: a line with a `Question`, and JSON with what is `Said`.
pub const CDN: u16 = 1;

/// People wait for it.
const PATIENCE: Duration = Duration::from_secs(1);

pub struct Desk {
    pub front: Arc<Front>,
    /// Of this node, where nobody said how the others call it.
    name: String,
}

impl Desk {
    pub fn new(front: Arc<Front>, name: &str) -> Self {
        Desk {
            front,
            name: name.into(),
        }
    }

    /// This node's answer, then those of the others by name.
    pub async fn ask_all(&self, question: &Question) -> Vec<Answer> {
        let balancer = &self.front.balancer;
        let name = balancer.own().map_or_else(|| self.name.clone(), |own| own.to_string());
        let own = Answer {
            node: name,
            said: self.say(question),
        };
        let peers = balancer.peers();
        let mut others = join_all(peers.iter().map(|peer| ask(peer, question))).await;
        others.sort_by(|one, other| one.node.cmp(&other.node));
        std::iter::once(own).chain(others).collect()
    }

    fn say(&self, question: &Question) -> Said {
        let setup = self.front.setup();
        let removed = |removed| Said::Removed { removed };
        match (question, &setup.edge) {
            (Question::Status, edge) => Said::Kept {
                is_on: edge.is_some(),
                counts: edge.as_ref().map(|edge| edge.counts()),
            },
            (_, None) => removed(0),
            (Question::Prefix(prefix), Some(edge)) => removed(edge.purge_prefix(prefix)),
            (Question::Tag(tag), Some(edge)) => removed(edge.purge_tag(tag)),
            (Question::All, Some(edge)) => removed(edge.purge_prefix("")),
        }
    }
}

impl Handler for Desk {
    fn call<'a>(&'a self, peer: &'a Identity, body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            if !self.front.balancer.knows(&peer.node) {
                warn!(node = %peer.node, "a node that is not in the cluster asks for the cache");
                return Err(Fault::Failed("not in the cluster".into()));
            }
            let line = std::str::from_utf8(&body).unwrap_or_default();
            let Ok(question) = line.parse() else {
                return Err(Fault::Failed("there is no such question".into()));
            };
            Ok(serde_json::to_vec(&self.say(&question)).expect("plain data").into())
        })
    }
}

async fn ask(peer: &Peer, question: &Question) -> Answer {
    let asked = peer.call(Class::Calls, CDN, question.to_string(), PATIENCE).await;
    let failed = |error: String| Said::Failed { error };
    let said = match asked {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|_| failed("its answer cannot be read".into())),
        Err(CallError::NotSent(Why::Deadline) | CallError::Unknown(Why::Deadline)) => {
            failed(format!("no answer within {PATIENCE:?}"))
        }
        Err(error) => failed(chain(&error)),
    };
    Answer {
        node: peer.node().to_string(),
        said,
    }
}
