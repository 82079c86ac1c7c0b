//! The servers together: a key's commands go to one of them, in their order; two connections each, watched once a second.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use memcache_async::ascii::Protocol;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::health::{Health, Heard};
use super::link::{Link, PATIENCE};
use super::{place, wire};
use crate::base::Scope;
use crate::cache::command::{Command, Reply};
use crate::cache::store::Moment;

/// Of each server: a large value on one does not hold up the other.
const LINKS: usize = 2;
const WATCH: Duration = Duration::from_millis(500);
const LOST: &str = "SERVER_ERROR the external memcached does not answer";

/// Where items are kept instead of the embedded store.
pub struct External {
    servers: Vec<Arc<Server>>,
}

struct Server {
    /// As configured; keys are placed by it.
    name: String,
    address: SocketAddr,
    links: [Link; LINKS],
    health: Mutex<Health>,
}

impl External {
    /// Tasks of the connections and of the watch are tasks of `scope`.
    pub fn new(servers: impl IntoIterator<Item = SocketAddr>, scope: &Scope) -> Self {
        let servers = servers.into_iter().map(|address| {
            let server = Arc::new(Server {
                name: address.to_string(),
                address,
                links: std::array::from_fn(|_| Link::new(address, scope)),
                health: Mutex::new(Health::FIRST),
            });
            scope.spawn(watch(server.clone(), scope.clone()));
            server
        });
        External {
            servers: servers.collect(),
        }
    }

    /// Executes a command on one key, or a flush on all servers. A read that fails is a miss. One that changes something and fails is
    /// an error; its server is emptied before it is asked again, so that no client finds what it could not replace.
    pub async fn execute(&self, command: Command<'_>, moment: Moment) -> Reply {
        let mut bytes = Vec::new();
        let Some(expected) = wire::encode(&command, moment, &mut bytes) else {
            return Reply::Unknown;
        };
        let key = match &command {
            Command::Get(get) => get.key,
            Command::Touch { key, .. } => key,
            Command::Set(set) => set.record.key(),
            Command::Delete(delete) => delete.key,
            Command::Arithmetic(sum) => sum.key,
            _ => return self.flush(command, moment).await,
        };
        let servers = self.servers.iter().map(|server| (server.name.as_str(), server.is_up()));
        let Some(server) = place::choose(key, servers).and_then(|number| self.servers.get(number)) else {
            return lost(&command);
        };
        match server.link(key).call(bytes, expected).await {
            Some(reply) => reply,
            None => {
                server.hear(Heard::Lost);
                lost(&command)
            }
        }
    }

    /// Whether any server is up.
    pub fn is_up(&self) -> bool {
        self.servers.iter().any(|server| server.is_up())
    }

    /// A server that is down is emptied anyway before it is asked again.
    async fn flush(&self, command: Command<'_>, moment: Moment) -> Reply {
        let mut is_done = true;
        for server in self.servers.iter().filter(|server| server.is_up()) {
            let mut bytes = Vec::new();
            let Some(expected) = wire::encode(&command, moment, &mut bytes) else {
                return Reply::Unknown;
            };
            match server.link(b"").call(bytes, expected).await {
                Some(Reply::Done) => {}
                Some(_) => is_done = false,
                None => server.hear(Heard::Lost),
            }
        }
        if is_done { Reply::Done } else { Reply::Refused(LOST) }
    }
}

fn lost(command: &Command<'_>) -> Reply {
    match command {
        Command::Get(get) if get.vivify.is_none() => Reply::Miss,
        _ => Reply::Refused(LOST),
    }
}

impl Server {
    /// All commands on one key take one way, or they would overtake each other.
    fn link(&self, key: &[u8]) -> &Link {
        let sum = key
            .iter()
            .fold(0usize, |sum, byte| sum.wrapping_add(usize::from(*byte)));
        &self.links[sum % LINKS]
    }

    fn is_up(&self) -> bool {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).is_up()
    }

    fn hear(&self, heard: Heard) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *health;
        *health = before.after(heard);
        match (before.is_up(), health.is_up()) {
            (true, false) => warn!(server = self.name, "external memcached is lost"),
            (false, true) => info!(server = self.name, "external memcached is back and empty"),
            _ => {}
        }
    }

    /// Asks for the version; of a server that was lost, also that it empties itself.
    async fn look(&self) -> io::Result<Heard> {
        let stream = TcpStream::connect(self.address).await?;
        let mut client = Protocol::new(stream);
        client.version().await?;
        if self.is_up() {
            return Ok(Heard::Version);
        }
        client.flush().await?;
        Ok(Heard::Emptied)
    }
}

async fn watch(server: Arc<Server>, scope: Scope) {
    let mut pace = interval(WATCH);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = scope.draining() => return,
            _ = pace.tick() => {}
        }
        let heard = match timeout(PATIENCE, server.look()).await {
            Ok(Ok(heard)) => heard,
            Ok(Err(_)) | Err(_) => Heard::Silence,
        };
        server.hear(heard);
    }
}
