//! This node's session with the leader: the doors' calls, brought to whichever replica leads and repeated until their outcome is known.
//!
//! A change keeps its number over a fail-over, so it happens once. It is driven also when its caller has given up; the same
//! request again joins it. If the session itself was lost (this node was cut off for longer than the leader waits),
//! it is begun anew and open calls are numbered again. One of them that may have happened and would not bear a repetition fails
//! with `Error::Io` then: nobody knows any more.
//!
//! What a leader promised is kept and answered from here (`promise`, `listener`). When no leader has answered anything for 2 s, a
//! door that heeds gets what this node knows by itself, at once until one answers again: queries go on without a quorum.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::call::{Caller, Error, Inode, Mutation, Query, Reply};
use super::door::{Calls, RequestKey};
use super::listener::Listener;
use super::network::Unreached;
use super::operation::{self, Place};
use super::promise::{Heed, Kept};
use super::request::{Answer, Request, Response};
use super::session::{Number, Outcome, Session};
use super::types::NodeId;
use crate::base::backoff::Backoff;
use crate::base::{BoxFuture, Scope, clock};

/// How long a caller waits before it may look after something else; the call goes on, and the repetition joins it.
const PATIENCE: Duration = Duration::from_secs(2);
/// One try. A leader needs up to 2 s to go on without a silent follower; a try is given up sooner when another node leads.
const TRY: Duration = Duration::from_secs(5);
/// Pauses before the next try; a new leader ends them.
const RETRY_FIRST: Duration = Duration::from_millis(10);
pub(super) const RETRY_CAP: Duration = Duration::from_millis(250);
/// How often the leader hears that the session lives.
const RENEW: Duration = Duration::from_secs(1);
/// When no leader was heard for so long, one may be about to end the session: it does after 30 s, and may have heard the last of it some
/// seconds before the answer came. Tests have less patience.
const CUT_OFF: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 20 });
/// The number of the first call of a session that holds nothing.
const FIRST: u64 = 1;

/// The way to the replicas.
pub trait Way: Send + Sync + 'static {
    /// Who leads, as far as this node knows; changes are seen.
    fn leader(&self) -> watch::Receiver<Option<NodeId>>;
    /// What `Leader::recall` says, where this node leads.
    fn recall(&self, _caller: &Caller, _query: &Query) -> Option<Answer> {
        None
    }
    /// Whether `node` is another one: then what it promises is worth keeping here.
    fn is_remote(&self, _node: NodeId) -> bool {
        false
    }
    /// What this node's own replica says, which may be behind; `None`: there is none, or it cannot say.
    fn stale<'a>(&'a self, _caller: &'a Caller, _query: &'a Query) -> BoxFuture<'a, Option<Answer>> {
        Box::pin(std::future::ready(None))
    }
    /// Brings a request to `Leader::answer` of a replica. Gives up after `deadline`.
    fn ask<'a>(
        &'a self,
        node: NodeId,
        request: Request,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Response, Unreached>>;
}

/// How the next session is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// Not yet: who owns it is not known.
    Held,
    /// Holding nothing: what the one before held was another owner's, who is gone. Then it is begun once more, as `Goes` says.
    LetsGo,
    Goes,
}

/// Clones are the same session.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    way: Arc<dyn Way>,
    place: Place,
    /// The session's owner outlives this process, and what it holds goes on.
    adopts: bool,
    stand: watch::Sender<Stand>,
    /// Whom to tell of recalls. With it the session listens to a leader on its own node too, and keeps answers that way only.
    heed: Option<Arc<dyn Heed>>,
    calls: Mutex<Session>,
    kept: Arc<Mutex<Kept>>,
    begun: watch::Sender<Option<operation::Session>>,
    scope: Scope,
    verifier: u64,
}

impl Client {
    /// Begins a session at `place` in the background; calls wait for it. With `adopts`, locks and opens of the session
    /// before at this place go on.
    pub fn start(way: Arc<dyn Way>, place: Place, adopts: bool, scope: &Scope) -> Self {
        let client = Client::begin(way, place, (adopts, None), scope);
        client.go(false);
        client
    }

    /// As `start`, for a door whose clients keep what it answers and outlive it: `heed` has them forget what is recalled.
    /// `recall` answers only what the leader promised to say when it is true no longer. Queries that no leader answers
    /// are answered as this node knows it; `lease` says no then, and before all that is forgotten. It begins when it is told to `go`.
    pub fn start_door(way: Arc<dyn Way>, place: Place, scope: &Scope, heed: Arc<dyn Heed>) -> Self {
        Client::begin(way, place, (true, Some(heed)), scope)
    }

    fn begin(way: Arc<dyn Way>, place: Place, (adopts, heed): (bool, Option<Arc<dyn Heed>>), scope: &Scope) -> Self {
        let client = Client(Arc::new(Inner {
            way,
            place,
            adopts,
            stand: watch::Sender::new(Stand::Held),
            heed,
            calls: Mutex::default(),
            kept: Arc::default(),
            begun: watch::Sender::new(None),
            scope: scope.clone(),
            verifier: random(),
        }));
        client.0.kept().answered(clock::boot());
        let inner = client.0.clone();
        scope.spawn(async move { inner.keep().await });
        let inner = client.0.clone();
        scope.spawn(async move { inner.watch().await });
        let (inner, begun) = (&client.0, client.0.begun.subscribe());
        let (way, heed) = (inner.way.clone(), inner.heed.clone());
        let listener = Listener::new(way, inner.kept.clone(), heed, begun, scope.clone());
        scope.spawn(listener.run());
        client
    }

    /// The session's owner is another one from here on: calls wait until it is to `go` for that one.
    pub fn hold(&self) {
        self.0.stand.send_replace(Stand::Held);
        // After: a session that is being begun is not taken any more.
        self.0.begun.send_replace(None);
    }

    /// The session is begun. With `lets_go` what the one before held ends, and `Heed` hears of that before any call is made.
    pub fn go(&self, lets_go: bool) {
        let stand = if lets_go { Stand::LetsGo } else { Stand::Goes };
        self.0.stand.send_replace(stand);
    }

    /// Whether what is kept is in force now: then what `recall` answers may be kept by others too, until `Heed` hears of it.
    pub fn lease(&self) -> bool {
        self.0.kept().is_lent(clock::boot())
    }

    /// Ends the session, so that what it holds is free at once. Waits at most `PATIENCE`.
    pub async fn end(&self) {
        let session = *self.0.begun.borrow();
        if let Some(session) = session {
            let _ = tokio::time::timeout(PATIENCE, self.0.reach(&Request::End { session })).await;
        }
    }
}

/// What one try to have a request answered came to.
// Nearly all are answered: a box would cost an allocation each.
#[allow(clippy::large_enum_variant)]
enum Tried {
    /// With the epoch of the promise, if it may be kept.
    Answered(Answer, Option<u64>),
    /// Nothing was done there; that one may lead.
    Undone(Option<NodeId>),
    /// It may have been done.
    Unknown,
}

/// How a request came to its response.
struct Reached {
    answer: Answer,
    /// An earlier try may have done it.
    is_repeated: bool,
    /// It may be kept, under the lease of this epoch.
    promised: Option<u64>,
}

impl Inner {
    fn calls(&self) -> MutexGuard<'_, Session> {
        self.calls.lock().expect("no holder of this lock panics")
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no holder of this lock panics")
    }

    /// Begins the session, and again when it was lost; renews it in between.
    async fn keep(&self) {
        let mut begun = self.begun.subscribe();
        while !self.scope.is_draining() {
            let known = *self.begun.borrow();
            let Some(session) = known else {
                self.begin().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep(RENEW) => {}
                Ok(_) = begun.wait_for(Option::is_none) => continue,
                () = self.scope.draining() => return,
            }
            let renewed = tokio::time::timeout(TRY, self.reach(&Request::Renew { session })).await;
            if let Ok(Some(reached)) = renewed
                && reached.answer == Err(Error::NoSession)
            {
                self.lost(session);
            }
        }
    }

    /// Tells when this node is cut off.
    async fn watch(&self) {
        let Some(heed) = &self.heed else { return };
        let mut is_told = false;
        loop {
            tokio::select! {
                () = tokio::time::sleep(RENEW) => {}
                () = self.scope.draining() => return,
            }
            let is_cut_off = self.silence() >= CUT_OFF;
            if is_cut_off && !is_told {
                heed.lost();
            }
            is_told = is_cut_off;
        }
    }

    async fn begin(&self) {
        let mut stand = self.stand.subscribe();
        let stand = tokio::select! {
            Ok(stand) = stand.wait_for(|stand| *stand != Stand::Held) => *stand,
            () = self.scope.draining() => return,
        };
        let lets_go = stand == Stand::LetsGo;
        let session = operation::Session(random() >> 1);
        let request = Request::Begin {
            session,
            place: self.place.clone(),
            adopts: self.adopts && !lets_go,
        };
        let Some(reached) = self.reach(&request).await else {
            return;
        };
        match reached.answer {
            Ok(Reply::Begun { .. }) if lets_go => {
                self.heed.iter().for_each(|heed| heed.let_go());
                self.stand.send_if_modified(|stand| {
                    let is_done = *stand == Stand::LetsGo;
                    if is_done {
                        *stand = Stand::Goes;
                    }
                    is_done
                });
            }
            Ok(Reply::Begun { next }) => {
                self.heed.iter().for_each(|heed| heed.begun(next == FIRST));
                self.calls().begin(session, next);
                self.begun.send_if_modified(|begun| {
                    let is_taken = *self.stand.borrow() == Stand::Goes;
                    if is_taken {
                        *begun = Some(session);
                    }
                    is_taken
                });
            }
            other => {
                tracing::warn!(?other, place = self.place.0, "the session could not be begun");
                tokio::time::sleep(RETRY_CAP).await;
            }
        }
    }

    fn lost(&self, session: operation::Session) {
        let is_lost = self.begun.send_if_modified(|begun| {
            let is_this = *begun == Some(session);
            if is_this {
                tracing::warn!(
                    place = self.place.0,
                    "the leader ended this node's session; it is begun anew"
                );
                *begun = None;
            }
            is_this
        });
        if is_lost {
            self.heed.iter().for_each(|heed| heed.lost());
        }
    }

    /// Asks whoever leads until there is an answer; `None`: the storage stopped before.
    async fn reach(&self, request: &Request) -> Option<Reached> {
        let mut leader = self.way.leader();
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        let (mut is_repeated, mut hint) = (false, None);
        while !self.scope.is_draining() {
            let known = *leader.borrow_and_update();
            if let Some(node) = hint.take().or(known) {
                let asked = tokio::select! {
                    // What is answered at once needs no look at the rest.
                    biased;
                    asked = self.way.ask(node, request.clone(), TRY) => asked,
                    // Somebody else leads: this one may never answer.
                    () = other_than(&mut leader, node) => Err(Unreached::Lost("another node leads".into())),
                    () = self.scope.draining() => return None,
                };
                let tried = self.heed(asked);
                if matches!(tried, Tried::Answered(..)) {
                    self.kept().answered(clock::boot());
                }
                match tried {
                    Tried::Answered(answer, promised) => {
                        return Some(Reached {
                            answer,
                            is_repeated,
                            promised,
                        });
                    }
                    Tried::Undone(leader) => hint = leader.filter(|leader| *leader != node),
                    Tried::Unknown => is_repeated = true,
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.delay()) => {}
                Ok(()) = leader.changed() => {}
                () = self.scope.draining() => {}
            }
        }
        None
    }

    /// What a try has brought; recalls that came with it are heeded.
    fn heed(&self, asked: Result<Response, Unreached>) -> Tried {
        match asked {
            Ok(Response::Answer(Err(Error::Unavailable))) => Tried::Undone(None),
            Ok(Response::Answer(answer)) => Tried::Answered(answer, None),
            Ok(Response::Promised { answer, epoch }) => Tried::Answered(answer, Some(epoch)),
            Ok(Response::Changed { answer, recalls }) => {
                self.kept().recall(&recalls);
                Tried::Answered(answer, None)
            }
            Ok(Response::NotLeader { leader }) => Tried::Undone(leader),
            Ok(Response::Listened { .. }) | Err(Unreached::Refused(_)) => Tried::Undone(None),
            Ok(Response::Unknown) | Err(Unreached::Lost(_)) => Tried::Unknown,
        }
    }

    /// The session's id, once it has begun.
    async fn session(&self) -> Option<operation::Session> {
        let mut begun = self.begun.subscribe();
        let begun = tokio::select! {
            begun = begun.wait_for(Option::is_some) => begun.ok().and_then(|begun| *begun),
            () = self.scope.draining() => None,
        };
        begun
    }

    /// Asks whoever leads, and keeps the answer if it may be kept.
    async fn ask(&self, caller: &Caller, query: &Query) -> Answer {
        let session = self.session().await.ok_or(Error::Unavailable)?;
        let ticket = self.kept().ticket();
        let request = Request::Query {
            session,
            caller: caller.clone(),
            query: query.clone(),
        };
        let reached = self.reach(&request).await.ok_or(Error::Unavailable)?;
        if let Some(epoch) = reached.promised {
            let mut kept = self.kept();
            kept.keep((caller, query), &reached.answer, epoch, ticket);
        }
        reached.answer
    }

    /// For how long no leader has answered anything.
    fn silence(&self) -> Duration {
        self.kept().silence(clock::boot())
    }

    /// What this node knows without a leader. It is not kept: nobody says when it is true no longer.
    async fn alone(&self, caller: &Caller, query: &Query) -> Option<Answer> {
        match self.way.stale(caller, query).await {
            Some(answer) => Some(answer),
            None => self.kept().find_stale(caller, query),
        }
    }

    /// A number for a call; waits while the session begins or the window is full.
    async fn number(&self) -> Option<Number> {
        loop {
            self.session().await?;
            if let Some(number) = self.calls().number() {
                return Some(number);
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY_FIRST) => {}
                () = self.scope.draining() => return None,
            }
        }
    }

    /// Repeats a change until its outcome is known; `None`: the storage stopped before.
    async fn drive(&self, caller: Caller, key: RequestKey, mutation: Mutation) -> Option<Answer> {
        let mut may_have_happened = false;
        loop {
            let number = self.number().await?;
            let request = Request::Mutate {
                session: number.session,
                sequence: number.sequence,
                acknowledged: number.acknowledged,
                key: Some(key),
                caller: caller.clone(),
                mutation: mutation.clone(),
            };
            let reached = self.reach(&request).await?;
            may_have_happened |= reached.is_repeated;
            self.calls().settle(number);
            match reached.answer {
                Err(Error::NoSession) => {
                    self.lost(number.session);
                    if may_have_happened && !bears_repetition(&mutation) {
                        return Some(Err(Error::Io));
                    }
                }
                answer => return Some(answer),
            }
        }
    }

    /// Starts a new call, or joins the one that the request has.
    fn call(self: &Arc<Self>, caller: &Caller, key: RequestKey, mutation: Mutation) -> Result<Outcome, Error> {
        let mut calls = self.calls();
        if let Some(outcome) = calls.find(key) {
            return Ok(outcome);
        }
        let opened = calls.open(key).ok_or(Error::Unavailable)?;
        drop(calls);
        let (inner, caller) = (self.clone(), caller.clone());
        self.scope.spawn(async move {
            if let Some(answer) = inner.drive(caller, key, mutation).await {
                opened.sender.send_replace(Some(answer));
                inner.calls().end(key, opened.call, clock::boot());
            }
        });
        Ok(opened.outcome)
    }
}

/// Resolves when another node than `node` is known to lead.
pub(super) async fn other_than(leader: &mut watch::Receiver<Option<NodeId>>, node: NodeId) {
    if leader
        .wait_for(|leader| leader.is_some_and(|leader| leader != node))
        .await
        .is_err()
    {
        std::future::pending().await
    }
}

/// Whether doing it twice is the same as once, for its own caller, who waits in between.
fn bears_repetition(mutation: &Mutation) -> bool {
    match mutation {
        Mutation::Write { .. } | Mutation::Unlock { .. } => true,
        Mutation::Set { guard, .. } => guard.is_none(),
        _ => false,
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    u64::from_be_bytes(bytes)
}

impl Calls for Client {
    fn recall(&self, caller: &Caller, query: &Query) -> Option<Result<Reply, Error>> {
        let inner = &self.0;
        let own = match inner.heed {
            // Of what this node knows as leader nobody would hear when it is true no longer.
            Some(_) => None,
            None => inner.way.recall(caller, query),
        };
        own.or_else(|| inner.kept().find(caller, query, clock::boot()))
    }

    fn query<'a>(&'a self, caller: &'a Caller, query: Query) -> BoxFuture<'a, Result<Reply, Error>> {
        let inner = &self.0;
        Box::pin(async move {
            let deadline = Instant::now() + PATIENCE;
            let asked = inner.ask(caller, &query);
            tokio::pin!(asked);
            if inner.heed.is_some() {
                // As long as a leader is heard of, its answer is worth waiting for.
                let left = PATIENCE.saturating_sub(inner.silence());
                if !left.is_zero()
                    && let Ok(answer) = tokio::time::timeout(left, &mut asked).await
                {
                    return answer;
                }
                if inner.silence() >= PATIENCE
                    && let Some(answer) = inner.alone(caller, &query).await
                {
                    return answer;
                }
            }
            let answer = tokio::time::timeout_at(deadline, asked).await;
            answer.unwrap_or(Err(Error::Unavailable))
        })
    }

    fn mutate<'a>(
        &'a self,
        caller: &'a Caller,
        key: RequestKey,
        mutation: Mutation,
    ) -> BoxFuture<'a, Result<Reply, Error>> {
        let inner = &self.0;
        Box::pin(async move {
            let mut outcome = inner.call(caller, key, mutation)?;
            let known = tokio::time::timeout(PATIENCE, outcome.wait_for(Option::is_some)).await;
            match known {
                Ok(Ok(answer)) => {
                    inner.calls().fetched(key);
                    answer.clone().unwrap_or(Err(Error::Unavailable))
                }
                _ => Err(Error::Unavailable),
            }
        })
    }

    fn commit(&self, _inode: Inode) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn verifier(&self) -> u64 {
        self.0.verifier
    }
}
