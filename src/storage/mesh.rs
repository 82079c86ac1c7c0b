//! The storage's ways between nodes: Raft's messages, the doors' requests and commands, all over the mesh.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::call::{self, Query};
use super::checkpoints::Sending;
use super::client::Way;
use super::group::Group;
use super::leader::Leader;
use super::network::{Transport, Unreached};
use super::request::{self, Answer, Request, Response};
use super::types::{Checkpoint, NodeId, Peer};
use super::wire::Envelope;
use crate::base::{BoxFuture, Pieces, Scope};
use crate::net::mesh::{
    Addresses, ByteStream, CallError, Caller, Class, Fault, Handler, Identity, Limits, Mesh, Name, TcpDial, Tls,
};

/// Services of the storage's port. Never reused for something else.
pub const RAFT: u16 = 1;
pub const REQUESTS: u16 = 2;
pub const COMMANDS: u16 = 3;
pub const SCRUB: u16 = 4;

/// A request that carries more than this goes over the connection for bulk, so that Raft's heartbeats need not wait behind it.
const HEAVY: usize = 64 << 10;

/// How long a forwarded request may take; its session repeats it.
const FORWARD: Duration = Duration::from_secs(5);

/// Bodies are appends (1 MiB of entries or a single one) and reads and writes (1 MiB), each with its head.
pub const LIMITS: Limits = Limits {
    body: 2 << 20,
    queued: 16 << 20,
    outstanding: 4096,
    concurrent: 4096,
    received: 64 << 20,
};

/// Where nodes are met, as the membership last said.
#[derive(Clone, Default)]
pub struct Directory(Arc<Mutex<HashMap<Name, SocketAddr>>>);

impl Directory {
    /// The node's name if it can be reached.
    pub fn learn(&self, name: &str, address: &str) -> Result<Name, Unreached> {
        let unusable = |what: &str| Unreached::Refused(format!("{what:?} is no address of a node on the mesh"));
        let name: Name = name.parse().map_err(|_| unusable(name))?;
        let address: SocketAddr = address.parse().map_err(|_| unusable(address))?;
        let mut known = self.0.lock().expect("no holder of this lock panics");
        known.insert(name.clone(), address);
        Ok(name)
    }

    fn addresses(&self) -> Addresses {
        let known = self.0.clone();
        Arc::new(move |name| {
            let known = known.lock().expect("no holder of this lock panics");
            known.get(name).copied()
        })
    }
}

/// Calls to other nodes' storage. Clones share the connections.
#[derive(Clone)]
pub struct Links {
    mesh: Mesh,
    directory: Directory,
    sending: Sending,
}

impl Links {
    pub fn new(tls: Arc<Tls>, sending: Sending, scope: &Scope) -> Self {
        let directory = Directory::default();
        let addresses = directory.addresses();
        let dial = Arc::new(TcpDial { tls, addresses });
        Links {
            mesh: Mesh::new(dial, LIMITS, scope),
            directory,
            sending,
        }
    }

    /// A byte stream to a service of another node's storage.
    pub async fn open(&self, peer: &Peer, authority: &str, within: Duration) -> Result<ByteStream, Unreached> {
        let name = self.directory.learn(&peer.name, &peer.address)?;
        let opened = self.mesh.peer(&name).open(authority, within).await;
        opened.map_err(|error| Unreached::Refused(error.to_string()))
    }

    pub async fn call(
        &self,
        peer: &Peer,
        (class, service): (Class, u16),
        body: impl Into<Pieces>,
        deadline: Duration,
    ) -> Result<Bytes, Unreached> {
        let name = self.directory.learn(&peer.name, &peer.address)?;
        let called = self.mesh.peer(&name).call(class, service, body, deadline).await;
        called.map_err(|error| unreached(&error))
    }
}

fn unreached(error: &CallError) -> Unreached {
    match error.may_have_happened() {
        true => Unreached::Lost(error.to_string()),
        false => Unreached::Refused(error.to_string()),
    }
}

impl Transport for Links {
    fn call<'a>(
        &'a self,
        _node: NodeId,
        peer: &'a Peer,
        request: Pieces,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Bytes, Unreached>> {
        Box::pin(Links::call(self, peer, (Class::Calls, RAFT), request, deadline))
    }

    fn send_checkpoint<'a>(
        &'a self,
        _node: NodeId,
        peer: &'a Peer,
        header: Bytes,
        _checkpoint: &'a Checkpoint,
    ) -> BoxFuture<'a, Result<Bytes, Unreached>> {
        Box::pin(self.sending.send(self, peer, header))
    }
}

/// Answers Raft's messages. A node speaks for its own replica only.
pub struct RaftHandler(pub Group);

impl Handler for RaftHandler {
    fn call<'a>(&'a self, peer: &'a Identity, body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            let (envelope, _) = Envelope::open(body.clone()).map_err(|bad| Fault::Failed(bad.to_string()))?;
            let members = self.0.peers();
            // A replica that has just been made knows no member yet.
            let is_foreign = members
                .get(&envelope.from)
                .is_some_and(|member| member.name != peer.node.as_str());
            match is_foreign {
                true => Err(Fault::Failed(format!(
                    "node {} is not replica {}",
                    peer.node, envelope.from
                ))),
                false => Ok(self.0.serve(body).await),
            }
        })
    }
}

/// Answers the sessions of other nodes' doors.
pub struct RequestHandler(pub Leader);

impl Handler for RequestHandler {
    fn call<'a>(&'a self, _peer: &'a Identity, body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            let request: Request = request::decode(&body).map_err(|bad| Fault::Failed(bad.to_string()))?;
            Ok(request::encode(&self.0.answer(request).await))
        })
    }
}

/// The way of this node's doors to whoever leads.
pub struct ToLeader {
    group: Group,
    /// The replica here; `None` on a witness.
    own: Option<Leader>,
    links: Option<Links>,
    leader: watch::Receiver<Option<NodeId>>,
}

impl ToLeader {
    pub fn new(group: Group, own: Option<Leader>, links: Option<Links>, scope: &Scope) -> Self {
        let sender = watch::Sender::new(group.leader());
        let leader = sender.subscribe();
        scope.spawn(follow(group.clone(), sender, scope.clone()));
        ToLeader {
            group,
            own,
            links,
            leader,
        }
    }
}

/// Passes the requests of this machine's own programs on to whoever leads: they know no other replica.
pub struct ForwardHandler(pub Arc<ToLeader>);

impl Handler for ForwardHandler {
    fn call<'a>(&'a self, _peer: &'a Identity, body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            let request: Request = request::decode(&body).map_err(|bad| Fault::Failed(bad.to_string()))?;
            let leader = *self.0.leader.borrow();
            let response = match leader {
                None => Response::NotLeader { leader: None },
                Some(node) => match self.0.ask(node, request, FORWARD).await {
                    Ok(response) => response,
                    Err(Unreached::Refused(_)) => Response::NotLeader { leader: None },
                    Err(Unreached::Lost(_)) => Response::Unknown,
                },
            };
            Ok(request::encode(&response))
        })
    }
}

/// The way of a program on this machine: over the storage's unix socket, which knows who leads.
pub struct ToSocket {
    caller: Caller,
    /// Always the socket itself.
    leader: watch::Sender<Option<NodeId>>,
}

impl ToSocket {
    pub fn new(caller: Caller) -> Self {
        ToSocket {
            caller,
            leader: watch::Sender::new(Some(0)),
        }
    }
}

impl Way for ToSocket {
    fn leader(&self) -> watch::Receiver<Option<NodeId>> {
        self.leader.subscribe()
    }

    fn ask<'a>(
        &'a self,
        _node: NodeId,
        request: Request,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Response, Unreached>> {
        Box::pin(async move {
            let deadline = tokio::time::Instant::now() + deadline;
            let called = self.caller.call(REQUESTS, request::encode(&request), deadline).await;
            let answer = called.map_err(|error| unreached(&error))?;
            request::decode(&answer).map_err(|bad| Unreached::Lost(bad.to_string()))
        })
    }
}

/// Carries what the group says of its leader over to the doors.
async fn follow(group: Group, sender: watch::Sender<Option<NodeId>>, scope: Scope) {
    let mut metrics = group.raft().server_metrics();
    loop {
        let leader = metrics.borrow_and_update().current_leader;
        sender.send_if_modified(|known| std::mem::replace(known, leader) != leader);
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { return },
            () = scope.draining() => return,
        }
    }
}

impl Way for ToLeader {
    fn leader(&self) -> watch::Receiver<Option<NodeId>> {
        self.leader.clone()
    }

    fn recall(&self, caller: &call::Caller, query: &Query) -> Option<Answer> {
        self.own.as_ref()?.recall(caller, query)
    }

    fn is_remote(&self, node: NodeId) -> bool {
        node != self.group.me()
    }

    fn stale<'a>(&'a self, caller: &'a call::Caller, query: &'a Query) -> BoxFuture<'a, Option<Answer>> {
        Box::pin(async move { self.own.as_ref()?.stale(caller, query).await })
    }

    fn ask<'a>(
        &'a self,
        node: NodeId,
        request: Request,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Response, Unreached>> {
        Box::pin(async move {
            if node == self.group.me() {
                let own = self.own.as_ref();
                let own = own.ok_or_else(|| Unreached::Refused("a witness holds no files".into()))?;
                return Ok(own.answer(request).await);
            }
            let member = self.group.peers().remove(&node);
            let (Some(member), Some(links)) = (member, &self.links) else {
                return Err(Unreached::Refused(format!("no way to replica {node}")));
            };
            let class = match request.weight() > HEAVY {
                true => Class::Bulk,
                false => Class::Calls,
            };
            let answer = links
                .call(&member, (class, REQUESTS), request::encode(&request), deadline)
                .await?;
            request::decode(&answer).map_err(|bad| Unreached::Lost(bad.to_string()))
        })
    }
}
