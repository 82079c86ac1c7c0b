//! openraft's calls to other replicas over a `Transport`, and what they tell about who was reached when.

use std::error::Error;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::error::{Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::storage::Snapshot;
use thiserror::Error as ThisError;

use super::guard::FRESH;
use super::held::Held;
use super::lease::Contacts;
use super::log::LogReader;
use super::pace::{Pace, Say};
use super::types::{Checkpoint, NodeId, Peer, StoreId, Types, Vote};
use super::wire::{self, Bad, Envelope, Kind};
use crate::base::{BoxFuture, Pieces};

/// Delay between attempts to reach a peer that refuses: short, for a restarted process is back at once.
const BACKOFF: Duration = Duration::from_millis(100);

/// Time since boot; tests give their own.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

#[derive(Clone, Debug, ThisError, PartialEq, Eq)]
pub enum Unreached {
    /// Nobody listens there: try again soon.
    #[error("refused: {0}")]
    Refused(String),
    /// The connection broke or the deadline passed; the request may have arrived.
    #[error("lost: {0}")]
    Lost(String),
}

/// Brings bytes to `Group::serve` of another replica and its answer back.
pub trait Transport: Send + Sync + 'static {
    /// Gives up after `deadline`. A cancelled call must not leave half a message on a connection that is used again.
    fn call<'a>(
        &'a self,
        node: NodeId,
        peer: &'a Peer,
        request: Pieces,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Bytes, Unreached>>;
    /// Brings a checkpoint's files and `header` to `Group::incoming` and `Group::install` there, and the answer back.
    fn send_checkpoint<'a>(
        &'a self,
        node: NodeId,
        peer: &'a Peer,
        header: Bytes,
        checkpoint: &'a Checkpoint,
    ) -> BoxFuture<'a, Result<Bytes, Unreached>>;
}

/// There are no other replicas.
pub struct Alone;

impl Transport for Alone {
    fn call<'a>(
        &'a self,
        node: NodeId,
        _peer: &'a Peer,
        _request: Pieces,
        _deadline: Duration,
    ) -> BoxFuture<'a, Result<Bytes, Unreached>> {
        let why = format!("no way to replica {node}: cluster.address is not set");
        Box::pin(std::future::ready(Err(Unreached::Refused(why))))
    }

    fn send_checkpoint<'a>(
        &'a self,
        node: NodeId,
        peer: &'a Peer,
        header: Bytes,
        _checkpoint: &'a Checkpoint,
    ) -> BoxFuture<'a, Result<Bytes, Unreached>> {
        self.call(node, peer, header.into(), Duration::ZERO)
    }
}

/// Makes the clients that openraft asks for; they share the transport's connections.
#[derive(Clone)]
pub struct Network {
    pub me: NodeId,
    pub store: StoreId,
    pub transport: Arc<dyn Transport>,
    pub contacts: Arc<Mutex<Contacts>>,
    pub held: Arc<Mutex<Held>>,
    /// This replica's.
    pub log: LogReader,
    pub clock: Clock,
}

impl Network {
    pub fn envelope(&self, kind: Kind, peer: &Peer) -> Envelope {
        Envelope {
            kind,
            from: self.me,
            from_store: self.store,
            to_store: peer.store,
        }
    }

    /// Calls a peer; the outer error is the way there, the inner one the peer's refusal.
    pub async fn call(
        &self,
        kind: Kind,
        node: NodeId,
        peer: &Peer,
        body: &[u8],
        deadline: Duration,
    ) -> Result<Result<Bytes, Bad>, Unreached> {
        let request = self.envelope(kind, peer).seal(body);
        self.send(node, peer, request.into(), deadline).await
    }

    async fn send(
        &self,
        node: NodeId,
        peer: &Peer,
        request: Pieces,
        deadline: Duration,
    ) -> Result<Result<Bytes, Bad>, Unreached> {
        let answer = self.transport.call(node, peer, request, deadline).await;
        answer.map(wire::answer)
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, node: &Peer) -> Client {
        Client {
            network: self.clone(),
            target,
            peer: node.clone(),
            pace: Pace::default(),
        }
    }
}

/// The way to one peer.
pub struct Client {
    network: Network,
    target: NodeId,
    peer: Peer,
    pace: Pace,
}

type CallError = RPCError<NodeId, Peer, RaftError<NodeId>>;

fn lost(error: &(impl Error + 'static)) -> CallError {
    NetworkError::new(error).into()
}

fn unreached(error: Unreached) -> CallError {
    match error {
        Unreached::Refused(_) => Unreachable::new(&error).into(),
        Unreached::Lost(_) => lost(&error),
    }
}

/// The last entry that the peer has on its disk, as it says.
fn matched(rpc: &AppendEntriesRequest<Types>, response: &AppendEntriesResponse<NodeId>) -> Option<u64> {
    let last = match response {
        AppendEntriesResponse::Success => rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id),
        AppendEntriesResponse::PartialSuccess(last) => *last,
        _ => None,
    };
    last.map(|id| id.index)
}

impl Client {
    /// Follows what the peer's disk holds, `last` as of its answer. One that was set back is told so, and gets nothing more.
    async fn judge(
        &self,
        rpc: &AppendEntriesRequest<Types>,
        (response, last): (&AppendEntriesResponse<NodeId>, Option<u64>),
        deadline: Duration,
    ) -> Result<(), CallError> {
        let before = rpc.prev_log_id.map(|id| id.index);
        let is_set_back = {
            let mut held = self.network.held.lock().expect("no holder of this lock panics");
            held.has(self.peer.store, last, rpc.leader_commit.map(|id| id.index));
            let is_conflict = matches!(response, AppendEntriesResponse::Conflict);
            is_conflict && before.is_some_and(|index| held.lacks(self.peer.store, index))
        };
        if !is_set_back {
            return Ok(());
        }
        let name = &self.peer.name;
        tracing::error!(
            node = name,
            "its disk lacks what it had on it: an older image was restored; it is not taken for the replica that it was"
        );
        self.call(Kind::SetBack, &[], deadline).await?;
        Err(Unreachable::new(&Bad::Refused(format!("{name} was set back"))).into())
    }

    async fn call(&self, kind: Kind, body: &[u8], deadline: Duration) -> Result<Bytes, CallError> {
        let request = self.network.envelope(kind, &self.peer).seal(body);
        self.send(request.into(), deadline).await
    }

    async fn send(&self, request: Pieces, deadline: Duration) -> Result<Bytes, CallError> {
        let answer = self.network.send(self.target, &self.peer, request, deadline).await;
        // A peer that refuses (another store, a failed log) will refuse again: back off.
        answer.map_err(unreached)?.map_err(|bad| Unreachable::new(&bad).into())
    }

    async fn send_checkpoint(
        &self,
        vote: Vote,
        snapshot: Snapshot<Types>,
    ) -> Result<SnapshotResponse<NodeId>, io::Error> {
        let header = wire::to_json(&(vote, &snapshot.meta));
        let header = self.network.envelope(Kind::Checkpoint, &self.peer).seal(&header);
        let transport = &self.network.transport;
        let answer = transport
            .send_checkpoint(self.target, &self.peer, header, &snapshot.snapshot)
            .await;
        let body = wire::answer(answer.map_err(io::Error::other)?).map_err(io::Error::other)?;
        wire::from_json(&body).map_err(io::Error::other)
    }
}

impl RaftNetwork<Types> for Client {
    async fn append_entries(
        &mut self,
        mut rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, CallError> {
        let deadline = option.hard_ttl();
        let now = (self.network.clock)();
        match self.pace.say(&rpc, now) {
            Say::Committed(last) => rpc.leader_commit = last,
            Say::Nothing => return Ok(AppendEntriesResponse::Success),
        }
        let silence = {
            let mut contacts = self.network.contacts.lock().expect("no holder of this lock panics");
            contacts.silence(rpc.vote, self.target, now)
        };
        // A link that works one way only: appends that no answer comes back from would keep a follower from electing
        // another leader. So one that is silent must answer a question before it is sent more.
        if silence > FRESH {
            self.call(Kind::Standing, &[], deadline).await?;
        }
        let sent = (self.network.clock)();
        let request = self.network.envelope(Kind::Append, &self.peer).seal_append(&rpc);
        let body = self.send(request, deadline).await?;
        let response: AppendEntriesResponse<NodeId> = wire::from_json(&body).map_err(|bad| lost(&bad))?;
        if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
            let mut contacts = self.network.contacts.lock().expect("no holder of this lock panics");
            contacts.record(rpc.vote, self.target, sent);
        }
        self.pace.answered(&rpc, &response, sent);
        let last = matched(&rpc, &response);
        self.judge(&rpc, (&response, last), deadline).await?;
        // A copy more makes an entry committed: this node's own must be one of them by then.
        if let Some(last) = last {
            self.network.log.synced(last).await.map_err(|error| lost(&error))?;
        }
        Ok(response)
    }

    async fn vote(&mut self, rpc: VoteRequest<NodeId>, option: RPCOption) -> Result<VoteResponse<NodeId>, CallError> {
        let body = self.call(Kind::Vote, &wire::to_json(&rpc), option.hard_ttl()).await?;
        wire::from_json(&body).map_err(|bad| lost(&bad))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<Types, Fatal<NodeId>>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_checkpoint(vote, snapshot) => {
                // Whatever went wrong, it is not tried again at once.
                sent.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))
            }
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
