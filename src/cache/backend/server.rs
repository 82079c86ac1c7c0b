//! The server as this node sees it: up, with connections, or lost; looked at once a second.
//!
//! It is up from when it has said its version and emptied itself until a connection breaks or one answer does not come: that is a session.
//! What it held then counts no more: another process may be there by now, and nobody knows what became of the last requests. They may
//! even be carried out when the next session has begun, by a server that was stopped for a while. So each session has names of its own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use memcache_async::ascii::Protocol;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, info, warn};

use super::link::Link;
use super::name::{Name, Tag};
use super::stamp::Stamps;
use super::wire::{Answer, Expected, Kind};
use crate::base::Scope;

/// As many as memcached has threads: a large value does not hold up the others.
const LINKS: usize = 4;
/// A server that has not answered within this is lost. Another node is found within 300 ms more, and all that within `DEADLINE`.
pub const PATIENCE: Duration = Duration::from_millis(400);
const WATCH: Duration = Duration::from_secs(1);
/// The first with all that `wire` says.
const OLDEST: [u32; 3] = [1, 6, 18];

/// The server does not answer, so that nobody knows what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Grows whenever the server comes back empty.
    pub session: u64,
    pub is_up: bool,
}

/// Numbers of the server that clients are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    pub items: u64,
    pub bytes: u64,
    pub budget: u64,
    pub evictions: u64,
    pub uptime: u64,
}

struct Session {
    number: u64,
    open: Option<Open>,
    numbers: Numbers,
}

struct Open {
    links: Arc<[Link]>,
    /// Draining it ends the connections, and with them what is under way.
    tasks: Scope,
}

/// The connections of one session. All requests that make one change take the same way.
pub struct Way<'a> {
    server: &'a Server,
    session: u64,
    pub tag: Tag,
    links: Arc<[Link]>,
}

pub struct Server {
    pub address: SocketAddr,
    pub stamps: Stamps,
    session: Mutex<Session>,
    seen: watch::Sender<Seen>,
    opaque: AtomicU32,
    patience: Duration,
    /// From which the sessions' tags are counted.
    first_tag: u32,
    /// The other nodes must know that what was here is gone, before anything is served again.
    must_tell: AtomicBool,
    is_untold: AtomicBool,
    /// Of the connections: they end when this is gone, not when the module drains.
    tasks: Scope,
}

impl Server {
    /// `random`: so that names and stamps are none of another process that used the server.
    pub fn new(address: SocketAddr, patience: Duration, random: u64) -> Self {
        Server {
            address,
            stamps: Stamps::new(random),
            session: Mutex::new(Session {
                number: 0,
                open: None,
                numbers: Numbers::default(),
            }),
            seen: watch::Sender::new(Seen::default()),
            opaque: AtomicU32::new(0),
            patience,
            first_tag: (random >> 32) as u32,
            must_tell: AtomicBool::new(false),
            is_untold: AtomicBool::new(false),
            tasks: Scope::new(),
        }
    }

    /// From now on a loss must be told to other nodes; `told` says that it was.
    pub fn must_tell(&self) {
        self.must_tell.store(true, Ordering::SeqCst);
    }

    pub fn told(&self) {
        self.is_untold.store(false, Ordering::SeqCst);
    }

    pub fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    /// Items can be kept in it.
    pub fn is_up(&self) -> bool {
        self.seen.borrow().is_up && !self.is_untold.load(Ordering::SeqCst)
    }

    pub fn numbers(&self) -> Numbers {
        self.session().numbers
    }

    /// The way to it now.
    pub fn way(&self) -> Result<Way<'_>, Lost> {
        let session = self.session();
        let open = session.open.as_ref().filter(|_| self.is_up()).ok_or(Lost)?;
        Ok(Way {
            server: self,
            session: session.number,
            tag: self.tag(session.number),
            links: open.links.clone(),
        })
    }

    fn tag(&self, session: u64) -> Tag {
        // As many sessions as that last a century.
        Tag(self.first_tag.wrapping_add(session as u32).to_be_bytes())
    }

    /// Removes everything, whosoever it is. Nobody may change anything meanwhile.
    pub async fn empty(&self) -> Result<(), Lost> {
        let flush = |_: &str, _| b"flush_all\r\n".to_vec();
        self.way()?.ask(&Name::of(b""), Kind::Flush, flush).await.map(drop)
    }

    /// What was kept in that session counts no more.
    fn lose(&self, number: u64) {
        let mut session = self.session();
        if session.number != number {
            return;
        }
        let Some(open) = session.open.take() else { return };
        // Who waits for another answer need not wait until it is late, too.
        open.tasks.drain();
        session.numbers = Numbers::default();
        if self.must_tell.load(Ordering::SeqCst) {
            self.is_untold.store(true, Ordering::SeqCst);
        }
        self.seen.send_replace(Seen {
            session: number,
            is_up: false,
        });
        warn!(server = %self.address, "memcached does not answer: what it held counts no more");
    }

    /// Connects and empties it.
    async fn open(self: &Arc<Self>) -> anyhow::Result<Protocol<TcpStream>> {
        let mut client = Protocol::new(TcpStream::connect(self.address).await?);
        let version = client.version().await?;
        let is_new = parsed(&version).is_some_and(|version| version >= OLDEST);
        ensure!(is_new, "memcached {version} is older than 1.6.18");
        client.flush().await.context("flush_all")?;
        let connected = try_join_all([(); LINKS].map(|()| TcpStream::connect(self.address))).await?;
        let mut session = self.session();
        session.number += 1;
        let number = session.number;
        let tasks = self.tasks.child();
        let links = connected.into_iter().map(|stream| {
            let (link, running) = Link::new(stream, self.patience);
            let (server, address, over) = (Arc::downgrade(self), self.address, tasks.clone());
            tasks.spawn(async move {
                let ended = tokio::select! {
                    ended = running.run() => ended,
                    () = over.draining() => return,
                };
                debug!(server = %address, ?ended, "a connection to memcached has ended");
                if let Some(server) = server.upgrade() {
                    server.lose(number);
                }
            });
            link
        });
        let links = links.collect();
        session.open = Some(Open {
            links,
            tasks: tasks.clone(),
        });
        self.seen.send_replace(Seen {
            session: number,
            is_up: true,
        });
        info!(server = %self.address, version, "memcached is empty and in use");
        Ok(client)
    }

    async fn count(&self) {
        let stats = |_: &str, _| b"stats\r\n".to_vec();
        let Ok(way) = self.way() else { return };
        let Ok(Answer::Stats(rows)) = way.ask(&Name::of(b""), Kind::Stats, stats).await else {
            return;
        };
        let number = |name: &str| {
            let row = rows.iter().find(|(row, _)| row == name);
            row.and_then(|(_, value)| value.parse().ok()).unwrap_or_default()
        };
        self.session().numbers = Numbers {
            items: number("curr_items"),
            bytes: number("bytes"),
            budget: number("limit_maxbytes"),
            evictions: number("evictions"),
            uptime: number("uptime"),
        };
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Way<'_> {
    /// `request`: of the name as it is spelled, and of a number that comes with the answer.
    pub async fn ask(
        &self,
        name: &Name,
        kind: Kind,
        request: impl FnOnce(&str, u32) -> Vec<u8>,
    ) -> Result<Answer, Lost> {
        let opaque = self.server.opaque.fetch_add(1, Ordering::Relaxed);
        let bytes = request(&name.spelled(self.tag), opaque);
        let link = &self.links[name.stripe() % self.links.len()];
        let answer = link.call(bytes, Expected { kind, opaque }).await;
        answer.ok_or_else(|| {
            self.server.lose(self.session);
            Lost
        })
    }
}

/// Looks at the server until the scope drains.
pub async fn watch(server: Arc<Server>, scope: Scope) {
    let mut pace = interval(WATCH);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut probe = None;
    loop {
        tokio::select! {
            () = scope.draining() => return,
            _ = pace.tick() => {}
        }
        let number = server.session().number;
        let is_up = server.session().open.is_some();
        match probe.as_mut().filter(|_| is_up) {
            None => match timeout(server.patience, server.open()).await {
                Ok(Ok(client)) => probe = Some(client),
                Ok(Err(error)) => debug!(server = %server.address, %error, "no memcached"),
                Err(_) => debug!(server = %server.address, "memcached does not answer"),
            },
            Some(client) => match timeout(server.patience, client.version()).await {
                Ok(Ok(_)) => server.count().await,
                Ok(Err(_)) | Err(_) => server.lose(number),
            },
        }
    }
}

/// `1.6.18`, and what may follow.
fn parsed(version: &str) -> Option<[u32; 3]> {
    let digits = |part: &str| part.bytes().take_while(u8::is_ascii_digit).count();
    let mut parts = version.split('.').map(|part| part.get(..digits(part))?.parse().ok());
    Some([parts.next()??, parts.next()??, parts.next()??])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (version, is_new) in [
            ("1.6.18", true),
            ("1.6.45", true),
            ("1.10.0-rc1", true),
            ("1.6.18-bitrix-node", true),
            ("1.6.9", false),
            ("1.5.22", false),
            ("dev", false),
        ] {
            assert_eq!(
                parsed(version).is_some_and(|parsed| parsed >= OLDEST),
                is_new,
                "{version}"
            );
        }
    }
}
