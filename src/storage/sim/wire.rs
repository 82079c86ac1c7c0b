//! The simulated network: calls between nodes take a while, arrive in any order, and are lost where a link is cut.
//! A call to a node that is down is refused; one to a node that is paused waits at its door.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::machine::{Done, Submission, View};
use crate::base::{BoxFuture, Pieces};
use crate::storage::Refused;
use crate::storage::faulty_disk::Random;
use crate::storage::network::{Transport, Unreached};
use crate::storage::types::{Checkpoint, NodeId, Peer};

/// Requests at the door of one node. More calls than the whole group has open at once; what does not fit is refused.
const DOOR: usize = 4096;

/// Longest way of a message on a good and on a slow link, in microseconds.
const USUAL: u64 = 3_000;
const SLOW: u64 = 120_000;
/// How long a checkpoint may take on its way.
const CHECKPOINT: Duration = Duration::from_secs(2);

pub enum Request {
    Peer(Bytes),
    Install(Bytes, Checkpoint),
    Submit(Submission),
    Read,
}

pub enum Answer {
    Peer(Bytes),
    Submitted(Result<Done, Refused>),
    /// `None`: it may not answer reads now.
    Read(Option<View>),
}

type Reply = oneshot::Sender<Result<Answer, Unreached>>;

/// A request that has arrived.
pub struct Call {
    pub from: NodeId,
    pub request: Request,
    pub reply: Reply,
}

enum Parcel {
    Request(Call),
    Answer(Reply, Result<Answer, Unreached>),
}

struct State {
    now: Duration,
    seed: u64,
    /// From and to, and until when.
    cut: BTreeMap<(NodeId, NodeId), Duration>,
    slow: BTreeMap<(NodeId, NodeId), Duration>,
    /// By time of arrival, sender and receiver with each.
    under_way: BTreeMap<(Duration, u64), (NodeId, NodeId, Parcel)>,
    number: u64,
    /// How many messages have gone each way.
    sent: BTreeMap<(NodeId, NodeId), u64>,
    doors: BTreeMap<NodeId, mpsc::Sender<Call>>,
    /// Lost, but whoever waits does not learn it.
    lost: Vec<Parcel>,
}

/// Clones are the same network.
#[derive(Clone)]
pub struct Wire(Arc<Mutex<State>>);

impl Wire {
    pub fn new(seed: u64) -> Self {
        Wire(Arc::new(Mutex::new(State {
            now: Duration::ZERO,
            seed,
            cut: BTreeMap::new(),
            slow: BTreeMap::new(),
            under_way: BTreeMap::new(),
            number: 0,
            sent: BTreeMap::new(),
            doors: BTreeMap::new(),
            lost: Vec::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Where requests to `node` arrive from now on.
    pub fn open_door(&self, node: NodeId) -> mpsc::Receiver<Call> {
        let (door, calls) = mpsc::channel(DOOR);
        self.state().doors.insert(node, door);
        calls
    }

    pub fn close_door(&self, node: NodeId) {
        self.state().doors.remove(&node);
    }

    /// Loses all that goes from one to the other, for a while.
    pub fn cut(&self, from: NodeId, to: NodeId, for_: Duration) {
        let mut state = self.state();
        let until = state.now + for_;
        state.cut.insert((from, to), until);
    }

    pub fn slow(&self, from: NodeId, to: NodeId, for_: Duration) {
        let mut state = self.state();
        let until = state.now + for_;
        state.slow.insert((from, to), until);
    }

    pub fn heal(&self) {
        let mut state = self.state();
        state.cut.clear();
        state.slow.clear();
    }

    /// Brings what is due at `now`.
    pub fn deliver(&self, now: Duration) {
        let mut state = self.state();
        state.now = now;
        while let Some(next) = state.under_way.first_entry().filter(|next| next.key().0 <= now) {
            let (from, to, parcel) = next.remove();
            match parcel {
                parcel if state.cut.get(&(from, to)).is_some_and(|until| now < *until) => state.lost.push(parcel),
                Parcel::Answer(reply, answer) => drop(reply.send(answer)),
                Parcel::Request(call) => state.arrive(to, call),
            }
        }
    }

    pub fn answer(&self, node: NodeId, to: NodeId, reply: Reply, answer: Answer) {
        self.state().send(node, to, Parcel::Answer(reply, Ok(answer)));
    }

    /// Calls `to`; waits as long as the answer takes, which may be for ever.
    pub async fn call(&self, from: NodeId, to: NodeId, request: Request) -> Result<Answer, Unreached> {
        let (reply, answer) = oneshot::channel();
        let call = Call { from, request, reply };
        self.state().send(from, to, Parcel::Request(call));
        answer
            .await
            .unwrap_or_else(|_| Err(Unreached::Lost("the other side is gone".into())))
    }
}

impl State {
    fn send(&mut self, from: NodeId, to: NodeId, parcel: Parcel) {
        let is_slow = self.slow.get(&(from, to)).is_some_and(|until| self.now < *until);
        let longest = if is_slow { SLOW } else { USUAL };
        // From the link's own numbers: two messages that leave together in another order must not change all that follows.
        let count = self.sent.entry((from, to)).or_default();
        *count += 1;
        let mut random = Random::new(self.seed ^ (from << 48) ^ (to << 32) ^ *count);
        random.below(2);
        let way = Duration::from_micros(100 + random.below(longest));
        self.number += 1;
        let key = (self.now + way, self.number);
        self.under_way.insert(key, (from, to, parcel));
    }

    fn arrive(&mut self, to: NodeId, call: Call) {
        let refused = match self.doors.get(&to) {
            Some(door) => match door.try_send(call) {
                Ok(()) => return,
                Err(TrySendError::Full(call) | TrySendError::Closed(call)) => call,
            },
            None => call,
        };
        let error = Err(Unreached::Refused("nobody listens".into()));
        self.send(to, refused.from, Parcel::Answer(refused.reply, error));
    }
}

/// The network as one replica sees it.
pub struct Line {
    pub wire: Wire,
    pub me: NodeId,
}

impl Line {
    async fn ask(&self, node: NodeId, request: Request) -> Result<Bytes, Unreached> {
        match self.wire.call(self.me, node, request).await? {
            Answer::Peer(bytes) => Ok(bytes),
            Answer::Submitted(_) | Answer::Read(_) => Err(Unreached::Lost("another answer".into())),
        }
    }
}

impl Transport for Line {
    fn call<'a>(
        &'a self,
        node: NodeId,
        _peer: &'a Peer,
        request: Pieces,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Bytes, Unreached>> {
        Box::pin(async move {
            let answer = tokio::time::timeout(deadline, self.ask(node, Request::Peer(request.join()))).await;
            answer.unwrap_or_else(|_| Err(Unreached::Lost("no answer".into())))
        })
    }

    fn send_checkpoint<'a>(
        &'a self,
        node: NodeId,
        _peer: &'a Peer,
        header: Bytes,
        checkpoint: &'a Checkpoint,
    ) -> BoxFuture<'a, Result<Bytes, Unreached>> {
        Box::pin(async move {
            let answer = self.ask(node, Request::Install(header, checkpoint.clone()));
            let answer = tokio::time::timeout(CHECKPOINT, answer).await;
            answer.unwrap_or_else(|_| Err(Unreached::Lost("no answer".into())))
        })
    }
}
