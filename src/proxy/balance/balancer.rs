//! `Balancer`: sends a request to the best target, and once more to another one where that is safe.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::debug;

use super::affinity;
use super::budget::Budget;
use super::choose::{self, Candidate, Tier};
use super::hop::Load;
use super::loan::Loan;
use super::peer;
use super::retry::{self, Asked};
use super::roster::roster;
use super::table::Table;
use super::target::{Flight, Target, Way};
use crate::base::Scope;
use crate::base::error::chain;
use crate::cluster::Snapshots;
use crate::config::Affinity;
use crate::net::mesh::{Name, Peer, Tls};
use crate::proxy::error::{Error, Kind};
use crate::proxy::exchange::{self, Body, Exchange};
use crate::proxy::fastcgi::{Php, Script};
use crate::proxy::id::mix;
use crate::proxy::metrics::Metrics;
use crate::proxy::setup::Setup;

pub struct Balancer {
    table: Table,
    budget: Budget,
    metrics: Arc<Metrics>,
    /// A sequence of numbers without visible order.
    chances: AtomicU64,
}

/// How often this node's own PHP is looked at after a failure.
const PROBE: Duration = Duration::from_secs(1);

/// What this node's own PHP would run.
pub struct Local<'a> {
    pub php: &'a Php,
    pub script: Script,
}

/// How requests of this front are sent.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub affinity: Affinity,
    /// Longest silence of PHP.
    pub silence: Duration,
}

impl Balancer {
    /// `tls`: how other fronts are met, if there are any. `capacity`: requests that this node's PHP works on at a time.
    pub fn new(tls: Option<Arc<Tls>>, capacity: usize, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        let seed = getrandom::u64().map_err(|error| anyhow::anyhow!("read random bytes: {error}"))?;
        Ok(Balancer {
            table: Table::new(tls, capacity, metrics.clone()),
            budget: Budget::new(),
            metrics,
            chances: AtomicU64::new(seed),
        })
    }

    /// Takes up each snapshot until the scope drains: from then on the targets stay as they are.
    pub async fn follow(self: Arc<Self>, mut snapshots: Snapshots, scope: Scope) {
        loop {
            let newest = roster(&snapshots.borrow_and_update().clone());
            self.table.follow(&newest);
            tokio::select! {
                () = scope.draining() => return,
                changed = snapshots.changed() => if changed.is_err() { return },
            }
        }
    }

    pub fn set_capacity(&self, capacity: usize) {
        self.table.set_capacity(capacity);
    }

    /// Whether a node may send us requests.
    pub fn knows(&self, node: &Name) -> bool {
        self.table.knows(node)
    }

    /// Name of this node, as the others know it; `None`: nobody said it yet.
    pub fn own(&self) -> Option<Arc<str>> {
        self.table.own()
    }

    /// The fronts of all other nodes of the cluster.
    pub fn peers(&self) -> Vec<Peer> {
        let targets = self.table.targets();
        let peers = targets.iter().filter_map(|target| match &target.way {
            Way::Peer(peer) => Some(peer.clone()),
            Way::Local => None,
        });
        peers.collect()
    }

    pub fn load(&self) -> Load {
        self.table.local().load()
    }

    /// Looks after this node's own PHP until the scope drains: whether one that failed takes connections again.
    pub async fn probe(self: Arc<Self>, php: impl Fn() -> Arc<Setup> + Send, scope: Scope) {
        let local = self.table.local();
        let mut beat = interval(PROBE);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = scope.draining() => return,
                _ = beat.tick() => {}
            }
            if !local.is_suspect() {
                continue;
            }
            if let Err(error) = php().php.probe().await {
                local.failed(&error);
            }
        }
    }

    /// How many targets there are, and how many of them get nothing because they failed, are silent or unfit.
    pub fn counts(&self) -> (usize, usize) {
        let (targets, now) = (self.table.targets(), Instant::now());
        let is_out = |target: &&Arc<Target>| target.candidate(now).tier == Tier::Doubtful;
        (targets.len(), targets.iter().filter(is_out).count())
    }

    /// Whether the portal's files are said to be missing here while another node could serve: then everything goes there.
    pub fn is_elsewhere(&self) -> bool {
        if self.table.local().is_said_fit() {
            return false;
        }
        let now = Instant::now();
        let is_served = |target: &Arc<Target>| !target.is_local() && target.candidate(now).tier != Tier::Doubtful;
        self.table.targets().iter().any(is_served)
    }

    /// Sends a request where it is best served. `local`: what this node would run, if it has the files.
    /// Resolves with the head of the answer; the body streams. Notes in the exchange what answered.
    pub async fn call(
        &self,
        exchange: &mut Exchange,
        local: Option<&Local<'_>>,
        manner: Manner,
        body: Body,
    ) -> Result<Response<Body>, Error> {
        self.budget.earn();
        let targets = self.table.targets();
        let has_local = local.is_some();
        // What the mesh cannot carry is served here.
        let is_bound = has_local && (exchange.is_hop || !peer::carries(exchange));
        let first = match is_bound {
            true => Some(self.table.local()),
            false => self.pick(&targets, exchange, has_local, manner.affinity),
        };
        let first = first.ok_or_else(|| Error::new(Kind::Unavailable, "no node can serve this"))?;
        let mut loan = Loan::new(body);
        let error = match self.attempt(first, exchange, local, manner, loan.lend()).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let asked = Asked {
            is_idempotent: exchange.request.method.is_idempotent(),
            body: loan.recall(),
            elapsed: exchange.started.elapsed(),
        };
        if is_bound || !retry::may_repeat(&error, asked) {
            return Err(error);
        }
        let Some(second) = self.pick_another(&targets, first, has_local) else {
            return Err(error);
        };
        let is_paid = self.budget.spend();
        self.metrics.repeated(is_paid);
        if !is_paid {
            return Err(error);
        }
        let (id, cause) = (exchange.id.as_str(), chain(&error));
        debug!(id, cause, from = %first.name, to = %second.name, "a request is sent again");
        self.attempt(second, exchange, local, manner, loan.lend()).await
    }

    fn pick<'a>(
        &self,
        targets: &'a [Arc<Target>],
        exchange: &Exchange,
        has_local: bool,
        affinity: Affinity,
    ) -> Option<&'a Arc<Target>> {
        // The usual portal has one node.
        if let ([only], true) = (targets, has_local) {
            return Some(only);
        }
        let (able, candidates) = able(targets, |target| has_local || !target.is_local());
        let session = match affinity {
            Affinity::None => None,
            Affinity::Session => affinity::session(&exchange.request.headers).zip(self.table.own()),
        };
        let place = match session {
            Some((session, own)) => home(session, &own, &able, &candidates),
            None => choose::choose(&candidates, self.chance()),
        };
        able.get(place?).copied()
    }

    /// For a second attempt: only one of which something is to be hoped.
    fn pick_another<'a>(
        &self,
        targets: &'a [Arc<Target>],
        first: &Arc<Target>,
        has_local: bool,
    ) -> Option<&'a Arc<Target>> {
        let is_able = |target: &Target| (has_local || !target.is_local()) && target.name != first.name;
        let (able, candidates) = able(targets, is_able);
        let place = choose::choose(&candidates, self.chance())?;
        let is_hopeful = candidates.get(place)?.tier < Tier::Doubtful;
        able.get(place).copied().filter(|_| is_hopeful)
    }

    async fn attempt(
        &self,
        target: &Arc<Target>,
        exchange: &mut Exchange,
        local: Option<&Local<'_>>,
        manner: Manner,
        body: Body,
    ) -> Result<Response<Body>, Error> {
        let flight = target.enter();
        let answer = match (&target.way, local) {
            (Way::Peer(peer), _) => {
                exchange.target = exchange::Target::Peer;
                peer::call(peer, target, exchange, body, manner.silence).await
            }
            (Way::Local, Some(local)) => {
                exchange.target = exchange::Target::Php;
                local.php.call(exchange, &local.script, body).await
            }
            (Way::Local, None) => Err(Error::new(Kind::Internal, "a local target without files")),
        };
        match answer {
            Ok(answer) => {
                target.succeeded();
                Ok(answer.map(|body| Answer { body, flight }.boxed_unsync()))
            }
            Err(error) => {
                target.failed(&error);
                Err(error)
            }
        }
    }

    fn chance(&self) -> u64 {
        mix(self.chances.fetch_add(1, Ordering::Relaxed))
    }
}

fn able(targets: &[Arc<Target>], is_able: impl Fn(&Target) -> bool) -> (Vec<&Arc<Target>>, Vec<Candidate>) {
    let now = Instant::now();
    let able: Vec<_> = targets.iter().filter(|target| is_able(target)).collect();
    let candidates = able.iter().map(|target| target.candidate(now)).collect();
    (able, candidates)
}

/// The place of a session's target among the best. `own`: what others call the local one.
fn home(session: &str, own: &str, able: &[&Arc<Target>], candidates: &[Candidate]) -> Option<usize> {
    let tier = choose::best_tier(candidates)?;
    let best: Vec<usize> = (0..)
        .zip(candidates)
        .filter(|(_, one)| one.tier == tier)
        .map(|(place, _)| place)
        .collect();
    let targets = best.iter().filter_map(|place| able.get(*place));
    let names = targets.map(|target| if target.is_local() { own } else { target.name.as_str() });
    best.get(affinity::place(session, names)?).copied()
}

/// An answer's body: until its end the request counts as under way, and a failure as the target's.
struct Answer {
    body: Body,
    flight: Flight,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let me = self.get_mut();
        let frame = ready!(Pin::new(&mut me.body).poll_frame(cx));
        if let Some(Err(error)) = &frame {
            me.flight.target().failed(error);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
