//! A relay: programs of this machine reach a service of another node as if it were here. Each connection becomes a byte stream over
//! the mesh to the node that holds the service now (`Relay`), which connects it to its own (`Offer`). What is inside is not read.
//!
//! - While nobody holds the service, or its holder cannot be reached, a connection waits for `PATIENCE`; then it gets the service's
//!   own words for it and is closed. So a short switch is a delay, and no error.
//! - A session belongs to one holding: both ends cut it as soon as they learn that another node holds the service, or the same one
//!   anew. Nobody goes on to speak with a holder that was deposed.
//! - Where several nodes hold it, as those that can be read from, a session goes to the first one that can be reached, and stays there
//!   while that one is among them.
//! - An end of one direction is passed on and the other direction goes on; a slow reader slows its writer down.
//! - Draining ends no session: they may finish until their scope is killed.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, info};

use super::local::Local;
use super::mesh::{
    Addresses, Body, ByteStream, Identity, Limits, Mesh, Name, Server, Services, Streams, TcpDial, Tls, Tunnel, empty,
};
use super::serve::serve;
use super::tally::{Names, Open, Tally};
use crate::base::{BoxFuture, Health, Scope, Status};

/// How long a connection waits for a holder that can be reached. A move of a role takes less, PHP waits longer.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that wait. Further ones are turned away at once: what waits is PHP processes, and there are not many more of them.
const WAITING: usize = 512;
/// Open connections; as many as a connection of the mesh has streams. Further ones wait in the kernel's queue.
const SESSIONS: usize = 4096;
/// How long one of several holders is waited for.
const ONE_OF_SEVERAL: Duration = Duration::from_secs(1);
/// Before the holder is asked again.
const AGAIN: Duration = Duration::from_millis(100);
/// How often the way to the holder is tried, and how long that may take: a busy node is no silent one, whose connections break sooner.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(4));
/// Kept per session and direction: questions are small, answers are not.
const BUFFERS: (usize, usize) = (8 << 10, 16 << 10);
/// What a client that is turned away may still send, and how long. Closing on unread bytes would be a reset, which overtakes our words.
const LAST_WORDS: (u64, Duration) = (64 << 10, Duration::from_secs(1));

/// A node's time with a service: `epoch` grows with every change of hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub node: Name,
    pub epoch: u64,
}

/// Who holds the service now, best first.
pub type Holder = watch::Receiver<Vec<Holding>>;

/// Why a connection was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many wait already.
    Full,
    /// No node holds the service.
    Nobody,
    /// Its holder does not answer, or does not take it.
    Unreachable,
}

/// How a service is told from others, here and in metrics, and what a client understands when it is turned away.
#[derive(Clone, Copy)]
pub struct Words {
    /// The only thing that a node of the cluster can reach through its port.
    pub authority: &'static str,
    pub refusal: fn(Refusal) -> Vec<u8>,
    pub metrics: Names,
}

/// Where the service is met when this very node holds it.
pub type Here = Arc<dyn Fn() -> BoxFuture<'static, io::Result<Local>> + Send + Sync>;

/// The side of the programs.
pub struct Relay {
    mesh: Mesh,
    /// This node, and the service here.
    here: Option<(Name, Here)>,
    holder: Holder,
    words: Words,
    waiting: Semaphore,
    seen: Mutex<Seen>,
    tally: Tally,
}

/// What the last look at the holder said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    NotYet,
    Nobody,
    Reached(Name),
    Silent(Name, String),
}

impl Relay {
    pub fn new(tls: Arc<Tls>, addresses: Addresses, holder: Holder, words: Words, scope: &Scope) -> Arc<Self> {
        Self::with_here(tls, addresses, holder, words, None, scope)
    }

    /// On a node that may hold the service itself, which is then met without the mesh.
    pub fn with_here(
        tls: Arc<Tls>,
        addresses: Addresses,
        holder: Holder,
        words: Words,
        here: Option<Here>,
        scope: &Scope,
    ) -> Arc<Self> {
        let own = tls.identity().node;
        Arc::new(Relay {
            here: here.map(|here| (own, here)),
            mesh: Mesh::new(Arc::new(TcpDial { tls, addresses }), Limits::default(), scope),
            holder,
            words,
            waiting: Semaphore::new(WAITING),
            seen: Mutex::new(Seen::NotYet),
            tally: Tally::default(),
        })
    }

    /// Takes connections until the scope drains, and keeps a warm way to the holder.
    pub fn listen(self: &Arc<Self>, listener: StdListener, scope: &Scope) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let relay = self.clone();
        let permits = Arc::new(Semaphore::new(SESSIONS));
        scope.spawn(serve(listener, permits, scope.clone(), move |stream, _| {
            let relay = relay.clone();
            // Replies leave as they come: waiting for more only delays them.
            let _ = stream.set_nodelay(true);
            async move { relay.carry(stream).await }
        }));
        let (relay, watched) = (self.clone(), scope.clone());
        scope.spawn(async move {
            tokio::select! {
                () = watched.draining() => {}
                () = relay.watch() => {}
            }
        });
        Ok(())
    }

    /// For the module's own status: where the service is.
    pub fn status(&self) -> Status {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let degraded = |detail| Status {
            health: Health::Degraded,
            detail,
        };
        let sessions = self.sessions();
        match seen {
            Seen::NotYet => Status::starting(),
            Seen::Nobody => degraded("no node has it now".to_string()),
            Seen::Reached(node) => Status::good(format!("on {node}, {}", counted(sessions))),
            Seen::Silent(node, why) => degraded(format!("on {node}, which does not answer: {why}")),
        }
    }

    /// The module's numbers.
    pub fn metrics(&self) -> String {
        self.tally.encode(self.words.metrics)
    }

    /// Connections that have reached the holder and are open.
    pub fn sessions(&self) -> usize {
        self.tally.open.load(Ordering::Relaxed)
    }

    /// Connections turned away since the start.
    pub fn refused(&self) -> u64 {
        self.tally.refused.get()
    }

    /// Carries one connection until it ends.
    pub async fn carry<S: AsyncRead + AsyncWrite + Unpin>(&self, mut client: S) {
        let begun = Instant::now();
        let (stream, holding) = match self.reach().await {
            Ok(reached) => reached,
            Err(refusal) => {
                self.tally.refused.inc();
                debug!(authority = self.words.authority, ?refusal, "turned a connection away");
                return turn_away(client, &(self.words.refusal)(refusal)).await;
            }
        };
        self.tally.reached(begun.elapsed());
        let _open = Open::new(&self.tally.open);
        tokio::select! {
            biased;
            () = deposed(self.holder.clone(), &holding) => {
                self.tally.cut.inc();
                debug!(node = %holding.node, "cut a session: its holder is another one now");
            }
            () = async {
                match stream {
                    Way::Mesh(stream) => copy(&mut client, stream).await,
                    Way::Here(mut stream) => pass(&mut client, &mut stream).await,
                }
            } => {}
        }
    }

    /// A stream to the holder.
    async fn reach(&self) -> Result<(Way, Holding), Refusal> {
        let _place = self.waiting.try_acquire().map_err(|_| Refusal::Full)?;
        let deadline = Instant::now() + PATIENCE;
        let mut holder = self.holder.clone();
        let mut failed = 0;
        loop {
            let found = timeout_at(deadline, holder.wait_for(|now| !now.is_empty())).await;
            let found = found
                .ok()
                .and_then(Result::ok)
                .map(|now| now.clone())
                .unwrap_or_default();
            let holding = found.iter().cycle().nth(failed).cloned().ok_or(Refusal::Nobody)?;
            let end = match found.len() > 1 {
                true => deadline.min(Instant::now() + ONE_OF_SEVERAL),
                false => deadline,
            };
            let opened = tokio::select! {
                biased;
                () = deposed(holder.clone(), &holding) => continue,
                opened = self.open(&holding.node, end) => opened,
            };
            match opened {
                Ok(stream) => return Ok((stream, holding)),
                Err(error) => debug!(node = %holding.node, %error, "cannot reach the holder"),
            }
            if Instant::now() + AGAIN >= deadline {
                return Err(Refusal::Unreachable);
            }
            failed = (failed + 1) % found.len();
            if failed > 0 {
                continue;
            }
            // Another holder is tried at once.
            let _ = timeout(AGAIN, deposed(holder.clone(), &holding)).await;
        }
    }

    async fn open(&self, node: &Name, deadline: Instant) -> Result<Way, String> {
        if let Some((own, here)) = &self.here
            && own == node
        {
            let opened = timeout_at(deadline, here()).await;
            let opened = opened.unwrap_or_else(|elapsed| Err(elapsed.into()));
            return opened.map(Way::Here).map_err(|error| error.to_string());
        }
        let peer = self.mesh.peer(node);
        let opened = peer.open(self.words.authority, deadline - Instant::now()).await;
        opened.map(Way::Mesh).map_err(|error| error.to_string())
    }

    /// Looks each second whether the holder can be reached, so that it is known, and so that the first connection after a pause
    /// finds the way made.
    async fn watch(&self) {
        let mut holder = self.holder.clone();
        loop {
            let holding = holder.borrow_and_update().first().cloned();
            let seen = match holding {
                None => Seen::Nobody,
                Some(Holding { node, .. }) => match self.look(&node).await {
                    Ok(()) => Seen::Reached(node),
                    Err(why) => Seen::Silent(node, why),
                },
            };
            let former = std::mem::replace(
                &mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner),
                seen.clone(),
            );
            if std::mem::discriminant(&former) != std::mem::discriminant(&seen) {
                info!(authority = self.words.authority, ?seen, "the way to the holder changed");
            }
            tokio::select! {
                changed = holder.changed() => if changed.is_err() { return },
                () = sleep(LOOK.0) => {}
            }
        }
    }

    async fn look(&self, node: &Name) -> Result<(), String> {
        if self.here.as_ref().is_some_and(|(own, _)| own == node) {
            return Ok(());
        }
        let uri = format!("http://{}/", self.words.authority);
        let request = Request::get(uri).body(empty()).expect("the words name a host");
        let answered = self.mesh.peer(node).request(request, LOOK.1).await;
        match answered {
            Ok(response) if response.status() == StatusCode::NO_CONTENT => Ok(()),
            Ok(response) => Err(format!("it answers {}", response.status())),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Connects a stream of another node to the service here: what to do with it until it ends.
pub type Connect = Arc<dyn Fn() -> BoxFuture<'static, io::Result<Tunnel>> + Send + Sync>;

/// On a node that does not have the service.
pub fn nowhere() -> Connect {
    Arc::new(|| Box::pin(std::future::ready(Err(io::ErrorKind::NotFound.into()))))
}

/// The side of the service: lets other nodes in while this node holds it.
pub struct Offer {
    own: Name,
    holder: Holder,
    words: Words,
    connect: Connect,
    tally: Tally,
}

/// Several services behind one port.
struct Offers(Vec<Arc<Offer>>);

impl Offer {
    /// `own`: this node.
    pub fn new(own: Name, holder: Holder, words: Words, connect: Connect) -> Arc<Self> {
        Arc::new(Offer {
            own,
            holder,
            words,
            connect,
            tally: Tally::default(),
        })
    }

    /// Answers other nodes until the scope drains.
    pub fn listen(self: &Arc<Self>, listener: StdListener, tls: Arc<Tls>, scope: &Scope) -> io::Result<()> {
        Self::listen_all(vec![self.clone()], listener, tls, scope)
    }

    /// The same for several services, which are told apart by their authorities.
    pub fn listen_all(offers: Vec<Arc<Self>>, listener: StdListener, tls: Arc<Tls>, scope: &Scope) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let server = Arc::new(Server {
            tls,
            services: Services::default(),
            streams: Some(Arc::new(Offers(offers))),
            limits: Limits::default(),
        });
        scope.spawn(server.serve(listener, scope.clone()));
        Ok(())
    }

    /// For the module's own status: who comes here.
    pub fn status(&self) -> Status {
        Status::good(match self.own() {
            Some(_) => format!("of other nodes: {}", counted(self.sessions())),
            None => "other nodes are not let in: this one does not hold the role".to_string(),
        })
    }

    /// The module's numbers.
    pub fn metrics(&self) -> String {
        self.tally.encode(self.words.metrics)
    }

    /// Open sessions of other nodes.
    pub fn sessions(&self) -> usize {
        self.tally.open.load(Ordering::Relaxed)
    }

    /// This node's time with the service; `None`: it is not ours.
    fn own(&self) -> Option<Holding> {
        let holder = self.holder.borrow();
        holder.iter().find(|holding| holding.node == self.own).cloned()
    }

    async fn admit(&self, authority: &str) -> Result<Tunnel, StatusCode> {
        if authority != self.words.authority {
            return Err(StatusCode::NOT_FOUND);
        }
        // The other node's view is older or newer than ours; it asks again.
        let holding = self.own().ok_or(StatusCode::MISDIRECTED_REQUEST)?;
        if self.sessions() >= SESSIONS {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        let connected = timeout(PATIENCE, (self.connect)()).await;
        let tunnel = connected
            .unwrap_or_else(|elapsed| Err(elapsed.into()))
            .map_err(|error| {
                debug!(authority, %error, "the service here does not take a connection");
                StatusCode::BAD_GATEWAY
            })?;
        let (holder, tally) = (self.holder.clone(), self.tally.clone());
        tally.begun.inc();
        Ok(Box::new(move |stream| {
            Box::pin(async move {
                let _open = Open::new(&tally.open);
                tokio::select! {
                    biased;
                    () = deposed(holder, &holding) => {
                        tally.cut.inc();
                        debug!("cut a session: this node holds the service no more");
                    }
                    () = tunnel(stream) => {}
                }
            })
        }))
    }
}

impl Streams for Offers {
    fn request<'a>(&'a self, peer: &'a Identity, request: Request<Incoming>) -> BoxFuture<'a, Response<Body>> {
        let host = request.uri().host().unwrap_or_default();
        let asked = self.0.iter().find(|offer| offer.words.authority == host);
        // A node of an older version asks for the first one under a name of its own.
        match asked.or_else(|| self.0.first()) {
            Some(offer) => offer.request(peer, request),
            None => Box::pin(std::future::ready(not_found())),
        }
    }

    fn open<'a>(&'a self, peer: &'a Identity, authority: &'a str) -> BoxFuture<'a, Result<Tunnel, StatusCode>> {
        match self.0.iter().find(|offer| offer.words.authority == authority) {
            Some(offer) => offer.open(peer, authority),
            None => Box::pin(std::future::ready(Err(StatusCode::NOT_FOUND))),
        }
    }
}

impl Streams for Offer {
    /// Whether this node holds the service.
    fn request<'a>(&'a self, _peer: &'a Identity, _request: Request<Incoming>) -> BoxFuture<'a, Response<Body>> {
        let mut response = Response::new(empty());
        *response.status_mut() = match self.own() {
            Some(_) => StatusCode::NO_CONTENT,
            None => StatusCode::MISDIRECTED_REQUEST,
        };
        Box::pin(std::future::ready(response))
    }

    fn open<'a>(&'a self, _peer: &'a Identity, authority: &'a str) -> BoxFuture<'a, Result<Tunnel, StatusCode>> {
        Box::pin(self.admit(authority))
    }
}

/// How a session goes.
enum Way {
    Mesh(ByteStream),
    Here(Local),
}

/// Both directions until both have ended, or until one breaks.
pub async fn copy<S: AsyncRead + AsyncWrite + Unpin>(local: &mut S, mut stream: ByteStream) {
    pass(local, &mut stream).await;
}

async fn pass<S: AsyncRead + AsyncWrite + Unpin, T: AsyncRead + AsyncWrite + Unpin>(local: &mut S, stream: &mut T) {
    let (up, down) = BUFFERS;
    if let Err(error) = copy_bidirectional_with_sizes(local, stream, up, down).await {
        debug!(%error, "a session broke");
    }
}

fn not_found() -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// Resolves when somebody else holds the service, or the same node anew. Cancel safe.
async fn deposed(mut holder: Holder, holding: &Holding) {
    if holder.wait_for(|now| !now.contains(holding)).await.is_err() {
        // Without a sender this process is ending: what is under way comes to its end before it, or is cut then.
        std::future::pending().await
    }
}

fn counted(sessions: usize) -> String {
    format!("{sessions} {}", if sessions == 1 { "session" } else { "sessions" })
}

async fn turn_away<S: AsyncRead + AsyncWrite + Unpin>(mut client: S, words: &[u8]) {
    let (most, patience) = LAST_WORDS;
    let farewell = async {
        client.write_all(words).await?;
        client.shutdown().await?;
        tokio::io::copy(&mut client.take(most), &mut tokio::io::sink()).await
    };
    let _ = timeout(patience, farewell).await;
}
