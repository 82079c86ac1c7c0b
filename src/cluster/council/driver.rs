//! Runs a `Council`: on a thread of its own, so that a busy data path delays no ping, with the mesh for messages, the agent's snapshots for
//! voters and the clock that goes on while a machine sleeps.
//!
//! Other nodes' messages come in through `Handler`, on whichever runtime serves the mesh's port; it only puts them into a box.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use super::message::{LONGEST, Message, decode, encode};
use super::standing::{Standing, StandingWriter};
use super::{Act, Council, Event, Timing, Told, View};
use crate::base::{BoxFuture, Scope, clock};
use crate::cluster::{self, Role, Snapshot, Snapshots};
use crate::net::mesh::{Begun, Class, Dial, Fault, Handler, Identity, Limits, Mesh, Name};

/// Service of a module's port on the mesh. Never reused for something else.
pub const COUNCIL: u16 = 1;

/// Of the calls that the council makes. What is not delivered within a lease is of no use: a node that is silent has a few under way.
const LIMITS: Limits = Limits {
    body: LONGEST,
    queued: 1 << 20,
    outstanding: 256,
    concurrent: 256,
    received: 4 << 20,
};
/// Messages that wait for the thread. Full: the sender is told Busy and sends a newer one soon.
const INBOX: usize = 1024;
/// Events that wait for the data path, which has a handful for each change of table. Full: it does nothing any more, and the module ends.
const EVENTS: usize = 64;

/// What a council is made of.
pub struct Parts {
    pub own: Name,
    /// Otherwise it only votes.
    pub keeps_data: bool,
    pub timing: Timing,
    pub snapshots: Snapshots,
    /// To the same port of other nodes.
    pub dial: Arc<dyn Dial>,
}

/// What the rest of the module has of it.
pub struct Seat {
    pub standing: Standing,
    /// Must be taken and done, one after the other.
    pub events: mpsc::Receiver<Event>,
    pub teller: Teller,
    /// For service `COUNCIL`.
    pub handler: Arc<dyn Handler>,
    /// Resolves when the thread has ended: with the scope, or because it cannot go on.
    pub over: oneshot::Receiver<anyhow::Result<()>>,
}

/// Says what was done. Clones say it to the same council.
#[derive(Clone)]
pub struct Teller(mpsc::Sender<Told>);

impl Teller {
    /// Waits while the council is behind. Cancel safe.
    pub async fn tell(&self, told: Told) {
        // An error says that it has ended.
        let _ = self.0.send(told).await;
    }
}

/// Starts the thread. When `scope` drains, the node leaves the table, so that others take over at once; the thread ends when it has,
/// or after three leases.
pub fn start(parts: Parts, scope: &Scope) -> anyhow::Result<Seat> {
    let (messages, inbox) = mpsc::channel(INBOX);
    let (outbox, events) = mpsc::channel(EVENTS);
    let (teller, told) = mpsc::channel(EVENTS);
    let (ended, over) = oneshot::channel();
    let writer = StandingWriter::new(parts.own.clone());
    let standing = writer.subscribe();
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("random bytes: {error}"))?;
    let incarnation = u64::from(u32::from_le_bytes(random)) << 32;
    let scope = scope.clone();
    let run = move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("a runtime for the council");
        let result = runtime.and_then(|runtime| {
            let times = (parts.timing, clock::boot());
            let driver = Driver {
                council: Council::new(parts.own, incarnation, parts.keeps_data, times),
                timing: parts.timing,
                // Its connections outlive the wish to stop until the node has left.
                mesh: Mesh::new(parts.dial, LIMITS, &Scope::new()),
                tasks: Scope::new(),
                writer,
                outbox,
                leaving: None,
            };
            runtime.block_on(driver.run(scope, (inbox, told), parts.snapshots))
        });
        // Whoever started it may be gone.
        let _ = ended.send(result);
    };
    std::thread::Builder::new()
        .name("council".into())
        .spawn(run)
        .context("the council's thread")?;
    Ok(Seat {
        standing,
        events,
        teller: Teller(teller),
        handler: Arc::new(Letters(messages)),
        over,
    })
}

/// Members and voters by a snapshot. All vote, also those that keep no data; of two only one, that which has the cache's seat. `None`: it may be
/// out of date.
fn view(snapshot: &Snapshot) -> Option<View> {
    let members = snapshot
        .nodes
        .iter()
        .filter(|node| node.standing != cluster::Standing::Joining);
    let mut members: Vec<Name> = members.filter_map(|node| node.name.parse().ok()).collect();
    members.sort();
    // Nobody joins a cluster of one without it.
    let is_alone = matches!(members.as_slice(), [name] if name.as_str() == snapshot.own);
    let is_current = !snapshot.is_stale || is_alone;
    let is_known = snapshot.revision > 0 && is_current && !members.is_empty();
    let holder = snapshot.holder(Role::Cache).map(|node| node.name.as_str());
    let holder = members.iter().find(|name| Some(name.as_str()) == holder);
    let voters = match (members.as_slice(), holder) {
        ([_, _], Some(holder)) => vec![holder.clone()],
        _ => members.clone(),
    };
    is_known.then_some(View {
        version: snapshot.revision,
        members,
        voters,
    })
}

/// Takes other nodes' messages.
struct Letters(mpsc::Sender<(Name, Message)>);

impl Letters {
    fn take(&self, peer: &Identity, body: &[u8]) -> Result<Bytes, Fault> {
        let message = decode(body).map_err(|bad| Fault::Failed(bad.to_string()))?;
        let put = self.0.try_send((peer.node.clone(), message));
        put.map_err(|_| Fault::Busy).map(|()| Bytes::new())
    }
}

impl Handler for Letters {
    fn call<'a>(&'a self, peer: &'a Identity, body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(std::future::ready(self.take(peer, &body)))
    }

    fn begin(&self, peer: &Identity, body: Bytes) -> Begun {
        Begun::Answered(self.take(peer, &body))
    }
}

struct Driver {
    council: Council,
    timing: Timing,
    mesh: Mesh,
    tasks: Scope,
    writer: StandingWriter,
    outbox: mpsc::Sender<Event>,
    /// The node wants to stop; at that time it does in any case.
    leaving: Option<Duration>,
}

type Boxes = (mpsc::Receiver<(Name, Message)>, mpsc::Receiver<Told>);

impl Driver {
    async fn run(mut self, scope: Scope, boxes: Boxes, mut snapshots: Snapshots) -> anyhow::Result<()> {
        let (mut inbox, mut told) = boxes;
        let first = view(&snapshots.borrow_and_update());
        if let Some(view) = first {
            self.see(view)?;
        }
        while !self.has_left() {
            let until = self.council.next_tick().saturating_sub(clock::boot());
            let acts = tokio::select! {
                Some((from, message)) = inbox.recv() => self.council.on_message(&from, message, clock::boot()),
                Some(told) = told.recv() => self.council.on_told(told, clock::boot()),
                Ok(()) = snapshots.changed() => {
                    let newer = view(&snapshots.borrow_and_update());
                    newer.map_or_else(Vec::new, |view| self.council.on_view(view, clock::boot()))
                }
                () = scope.draining(), if self.leaving.is_none() => {
                    let now = clock::boot();
                    self.leaving = Some(now + self.timing.lease * 3);
                    self.council.leave(now)
                }
                () = tokio::time::sleep(until) => self.council.on_tick(clock::boot()),
            };
            self.perform(acts)?;
        }
        // What was said last is on its way; nobody waits for it.
        self.tasks.stop(self.timing.ping).await;
        info!("the council has ended");
        Ok(())
    }

    fn see(&mut self, view: View) -> anyhow::Result<()> {
        let acts = self.council.on_view(view, clock::boot());
        self.perform(acts)
    }

    fn has_left(&self) -> bool {
        self.leaving
            .is_some_and(|end| self.council.is_out() || clock::boot() >= end)
    }

    fn perform(&mut self, acts: Vec<Act>) -> anyhow::Result<()> {
        for act in acts {
            match act {
                Act::Put(state) => {
                    let epoch = state.placement().map(|placement| placement.epoch().to_string());
                    debug!(
                        epoch,
                        shards = state.served().len(),
                        is_alone = state.is_alone(),
                        "standing"
                    );
                    self.writer.put(state);
                }
                Act::Lease(until) => self.writer.put_lease(until),
                Act::Tell(event) => self.tell(event)?,
                Act::Send(to, message) => self.send(&to, &message),
            }
        }
        Ok(())
    }

    fn tell(&mut self, event: Event) -> anyhow::Result<()> {
        match &event {
            Event::Commit(placement) => {
                let nodes = placement.table().nodes.len();
                info!(epoch = %placement.epoch(), nodes, "a table is in force");
            }
            Event::Empty { .. } if self.leaving.is_some() => {}
            Event::Empty { .. } => warn!("this node was left out, and comes back"),
            Event::Alone => warn!("no majority of nodes is in reach"),
            Event::Rejoined => info!("a majority of nodes is in reach again"),
            Event::Stop(_) => {}
        }
        self.outbox
            .try_send(event)
            .context("the data path does not take the council's events")
    }

    /// Each message goes by itself: one that is lost or late is followed by a newer one.
    fn send(&self, to: &Name, message: &Message) {
        let (peer, within) = (self.mesh.peer(to), self.timing.lease);
        let body = Bytes::from(encode(message));
        self.tasks.spawn(async move {
            // The next one will show whether the node is there.
            let _ = peer.call(Class::Calls, COUNCIL, body, within).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Fit, Member};

    fn member(name: &str, standing: cluster::Standing) -> Member {
        Member {
            name: name.into(),
            address: None,
            standing,
            is_live: false,
            fit: Fit::NONE,
        }
    }

    #[test]
    fn all_vote_or_one_of_two_and_a_snapshot_that_may_be_old_names_nobody() {
        use cluster::Standing::{Draining, Joining, Member};
        let mut snapshot = Snapshot {
            revision: 7,
            nodes: vec![member("n2", Member), member("n1", Draining), member("n3", Joining)],
            ..Snapshot::default()
        };
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<Name>>();
        let seen = |snapshot: &Snapshot| view(snapshot).map(|view| (view.version, view.members, view.voters));
        let pair = names(&["n1", "n2"]);
        assert_eq!(seen(&snapshot), Some((7, pair.clone(), pair.clone())));
        let seat = |holder: &str| cluster::Seat {
            role: Role::Cache,
            seat: String::new(),
            holder: Some(holder.into()),
            epoch: 1,
        };
        snapshot.seats = vec![seat("n3")];
        assert_eq!(seen(&snapshot), Some((7, pair.clone(), pair.clone())));
        snapshot.seats = vec![seat("n2")];
        assert_eq!(seen(&snapshot), Some((7, pair, names(&["n2"]))));
        snapshot.nodes[2].standing = Member;
        let three = names(&["n1", "n2", "n3"]);
        assert_eq!(seen(&snapshot), Some((7, three.clone(), three)));
        snapshot.is_stale = true;
        assert_eq!(seen(&snapshot), None);
        snapshot.nodes.truncate(1);
        assert_eq!(seen(&snapshot), None);
        snapshot.own = "n2".into();
        assert_eq!(seen(&snapshot), Some((7, names(&["n2"]), names(&["n2"]))));
        assert_eq!(view(&Snapshot::default()), None);
    }
}
