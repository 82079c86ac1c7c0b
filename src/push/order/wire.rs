//! Carries out what this hub's part wants: calls to other hubs and answers to theirs over the mesh, words to the council, and time.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, sleep_until};
use tracing::debug;

use super::message::{LONGEST, Reply, Request, decode_reply, decode_request, encode_reply, encode_request};
use super::part::{Act, Sent, Ticket, shard};
use crate::base::{BoxFuture, Scope};
use crate::cluster::council::{Epoch, Event, Route, Standing, Teller};
use crate::cluster::{Snapshot, Snapshots};
use crate::net::mesh::{Class, Fault, Handler, Identity, Limits, Mesh, Name};
use crate::push::hub::Hub;

/// Service of the push server's port on the mesh, beside the council's. Never reused for something else.
pub const HUB: u16 = 2;
/// Of a connection: to each hub a few calls are under way.
pub const LIMITS: Limits = Limits {
    body: LONGEST,
    queued: 16 << 20,
    outstanding: 256,
    concurrent: 256,
    received: 32 << 20,
};
/// For a call. A hub that takes longer is asked again.
const CALL: Duration = Duration::from_secs(1);

/// How often others are told who has come and gone here.
const PRESENCE: Duration = Duration::from_millis(250);

/// What a hub needs of its node.
pub struct Parts {
    pub hub: Arc<Hub>,
    pub standing: Standing,
    pub events: mpsc::Receiver<Event>,
    pub teller: Teller,
    pub snapshots: Snapshots,
    pub mesh: Mesh,
}

struct Wire {
    hub: Arc<Hub>,
    standing: Standing,
    mesh: Mesh,
    scope: Scope,
    tickets: Mutex<Tickets>,
}

#[derive(Default)]
struct Tickets {
    last: Ticket,
    waiting: HashMap<Ticket, oneshot::Sender<Reply>>,
}

/// Runs until the scope ends. Returns the handler of `HUB`.
pub fn start(parts: Parts, scope: &Scope) -> Arc<dyn Handler> {
    let Parts {
        hub,
        standing,
        events,
        teller,
        snapshots,
        mesh,
    } = parts;
    let wire = Arc::new(Wire {
        hub,
        standing,
        mesh,
        scope: scope.clone(),
        tickets: Mutex::default(),
    });
    scope.spawn(wire.clone().run(events, teller, snapshots));
    scope.spawn(wire.clone().tell_presence());
    wire
}

/// What comes next.
enum Next {
    Standing,
    Event(Event),
    Members,
    Wanted,
    Time,
}

impl Wire {
    /// In its order: what the council says before what follows from it.
    async fn run(self: Arc<Self>, mut events: mpsc::Receiver<Event>, teller: Teller, mut snapshots: Snapshots) {
        let mut reader = self.standing.reader();
        snapshots.mark_changed();
        loop {
            let wake_at = self.hub.with(|state, _| state.part.wake_at());
            let time = async {
                match wake_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let next = tokio::select! {
                () = self.scope.draining() => return,
                _ = reader.changed() => Next::Standing,
                Some(event) = events.recv() => Next::Event(event),
                Ok(()) = snapshots.changed() => Next::Members,
                () = self.hub.wanted.notified() => Next::Wanted,
                () = time => Next::Time,
            };
            if matches!(next, Next::Standing | Next::Members) {
                let members = members(&snapshots.borrow_and_update());
                self.hub.with(|state, _| state.part.on_members(members));
            }
            self.hub.with(|state, moment| match next {
                Next::Standing => state.part.on_state(self.standing.state(), moment),
                Next::Event(event) => {
                    state.part.on_state(self.standing.state(), moment);
                    state.part.on_event(&event, moment);
                }
                Next::Members | Next::Wanted => {}
                Next::Time => state.part.on_time(moment),
            });
            for act in self.hub.outgoing() {
                self.perform(act, &teller).await;
            }
        }
    }

    async fn perform(self: &Arc<Self>, act: Act, teller: &Teller) {
        match act {
            Act::Call(to, request) => {
                let wire = self.clone();
                self.scope.spawn(async move { wire.call(to, request).await });
            }
            Act::Answer(ticket, reply) => {
                let asker = self.tickets().waiting.remove(&ticket);
                if let Some(asker) = asker {
                    // Who has gone does not hear it.
                    let _ = asker.send(reply);
                }
            }
            Act::Tell(told) => teller.tell(told).await,
            Act::Deliver(_) | Act::Safe(_) | Act::Late(_) => {}
        }
    }

    fn tickets(&self) -> std::sync::MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call(&self, to: Name, request: Request) {
        let Some(sent) = Sent::of(&request) else { return };
        let reply = match sent {
            // Where another one orders by now there is nothing to wait for.
            Sent::Publish => tokio::select! {
                reply = self.ask(&to, &request) => reply,
                () = self.is_deposed(&to) => None,
            },
            _ => self.ask(&to, &request).await,
        };
        self.hub
            .with(|state, moment| state.part.on_reply(&to, sent, reply, moment));
    }

    /// `None`: it failed, or may have.
    pub async fn ask(&self, to: &Name, request: &Request) -> Option<Reply> {
        let class = match request {
            Request::Append(_) | Request::Fetch(_) => Class::Bulk,
            _ => Class::Calls,
        };
        let body = Bytes::from(encode_request(request));
        let reply = self.mesh.peer(to).call(class, HUB, body, CALL).await;
        let reply = reply.inspect_err(|error| debug!(hub = %to, %error, "a call to another hub"));
        let reply = decode_reply(&reply.ok()?);
        reply
            .inspect_err(|error| debug!(hub = %to, %error, "an answer of another hub"))
            .ok()
    }

    async fn is_deposed(&self, hub: &Name) {
        let mut reader = self.standing.reader();
        while matches!(reader.look().route(shard(), false), Route::Other(node) if node.name == *hub) {
            reader.changed().await;
        }
    }

    /// To each hub of the table, and anew when that has changed: who is in it may have started anew.
    async fn tell_presence(self: Arc<Self>) {
        let mut round = tokio::time::interval(PRESENCE);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known: (Option<Epoch>, HashMap<Name, Option<u64>>) = (None, HashMap::new());
        loop {
            tokio::select! {
                () = self.scope.draining() => return,
                _ = round.tick() => {}
            }
            let state = self.standing.state();
            let Some(placement) = state.placement() else { continue };
            let nodes = placement.table().nodes.iter().map(|node| node.name.clone());
            let others: Vec<Name> = nodes.filter(|name| name != state.own()).collect();
            if known.0 != Some(placement.epoch()) {
                self.hub.with(|state, moment| state.keep_presence(&others, moment));
                known = (Some(placement.epoch()), HashMap::new());
            }
            let wire = &self;
            let tellings = others.iter().map(|to| {
                let version = known.1.get(to).copied().flatten();
                let told = wire.hub.with(|state, _| state.tell_presence(version));
                async move {
                    let answer = wire.ask(to, &Request::Presence(told?)).await;
                    Some((to.clone(), answer))
                }
            });
            for (to, answer) in join_all(tellings).await.into_iter().flatten() {
                if let Some(Reply::Present(version)) = answer {
                    known.1.insert(to, version);
                }
            }
        }
    }

    async fn answer(&self, from: &Name, request: Request) -> Result<Reply, Fault> {
        if let Request::Presence(told) = request {
            let known = self.hub.with(|state, moment| state.hear_presence(from, told, moment));
            return Ok(Reply::Present(known));
        }
        let (tell, told) = oneshot::channel();
        let ticket = {
            let mut tickets = self.tickets();
            tickets.last += 1;
            let ticket = tickets.last;
            tickets.waiting.insert(ticket, tell);
            ticket
        };
        let reply = self
            .hub
            .with(|state, moment| state.part.on_request(request, ticket, moment));
        match reply {
            Some(reply) => {
                self.tickets().waiting.remove(&ticket);
                Ok(reply)
            }
            None => told.await.map_err(|_| Fault::Busy),
        }
    }
}

fn members(snapshot: &Snapshot) -> BTreeSet<Name> {
    let names = snapshot.nodes.iter().map(|node| node.name.parse());
    names.filter_map(Result::ok).collect()
}

impl Handler for Wire {
    fn call<'a>(&'a self, peer: &'a Identity, body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            let request = decode_request(&body).map_err(|bad| Fault::Failed(bad.to_string()))?;
            let reply = self.answer(&peer.node, request).await?;
            Ok(encode_reply(&reply).into())
        })
    }
}
