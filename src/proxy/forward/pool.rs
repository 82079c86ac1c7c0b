//! Connections to one upstream: the newest idle one is used first; number, idleness and age are bounded.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use super::body::Upload;
use super::motor::Motor;
use crate::base::Scope;
use crate::net::name::Names;
use crate::net::tls::Connector;
use crate::proxy::error::{Error, Kind};
use crate::proxy::silence::Silence;

/// Most idle connections; a further one is closed. Busy ones are bounded by the clients'.
const MAX_IDLE: usize = 64;

/// Idle connections are closed after this time, before firewalls between forget them.
const IDLE: Duration = Duration::from_secs(30);

/// No connection is used longer, so that a name that moved is noticed.
const LIFETIME: Duration = Duration::from_secs(300);

/// How often overdue connections are looked for, while there are idle ones.
const SWEEP: Duration = Duration::from_secs(5);

/// Longest attempt to connect to one address.
const CONNECT: Duration = Duration::from_secs(3);

/// How long the addresses of a name are believed.
const ADDRESSES: Duration = Duration::from_secs(10);

pub struct Pool {
    place: Place,
    idle: Arc<Mutex<Idle>>,
    scope: Scope,
}

/// Where the upstream listens.
enum Place {
    Host(Box<Host>),
    /// A module of this node.
    Socket(PathBuf),
}

struct Host {
    host: String,
    port: u16,
    tls: Option<Connector>,
    /// `None` when the host is an address.
    names: Option<Names>,
    addresses: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
}

#[derive(Default)]
struct Idle {
    /// Oldest first.
    connections: Vec<(Instant, Connection)>,
    is_swept: bool,
}

/// An open connection. Dropping it closes it once its request is over.
pub struct Connection {
    pub sender: SendRequest<Upload>,
    pub motor: Motor,
    pub silence: Silence,
    opened: Instant,
}

impl Pool {
    /// `tls`: how it is met, where it is not plain.
    pub fn new(host: &str, port: u16, tls: Option<Connector>, scope: Scope) -> anyhow::Result<Pool> {
        let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let names = (!is_address).then(Names::system).transpose();
        let host = Host {
            host: host.to_string(),
            port,
            tls,
            names: names.context("read the system's resolver configuration")?,
            addresses: Mutex::default(),
        };
        Ok(Self::at(Place::Host(Box::new(host)), scope))
    }

    /// To a unix socket.
    pub fn local(path: &Path, scope: Scope) -> Pool {
        Self::at(Place::Socket(path.to_path_buf()), scope)
    }

    fn at(place: Place, scope: Scope) -> Pool {
        Pool {
            place,
            idle: Arc::default(),
            scope,
        }
    }

    /// The newest idle connection that still stands.
    pub async fn idle(&self) -> Option<Connection> {
        loop {
            let (_, mut connection) = lock(&self.idle).connections.pop()?;
            if connection.opened.elapsed() < LIFETIME && connection.is_ready().await {
                return Some(connection);
            }
        }
    }

    /// `patience`: how long the upstream may be silent, now and later.
    pub async fn connect(&self, patience: Duration) -> Result<Connection, Error> {
        let unavailable = |error: io::Error| Error::with(Kind::Unavailable, "cannot connect to the upstream", error);
        let silence = patience;
        let patience = patience.min(CONNECT);
        match &self.place {
            Place::Host(host) => {
                let stream = host.open(patience).await.map_err(unavailable)?;
                let Some(tls) = &host.tls else {
                    return self.begin(stream, silence).await;
                };
                let name = host.host.trim_matches(['[', ']']);
                let secure = timeout(patience, tls.connect(name, stream)).await;
                let secure = secure.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                self.begin(secure.map_err(unavailable)?, silence).await
            }
            Place::Socket(path) => {
                let stream = timeout(patience, UnixStream::connect(path)).await;
                let stream = stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                self.begin(stream.map_err(unavailable)?, silence).await
            }
        }
    }

    async fn begin<S>(&self, stream: S, silence: Duration) -> Result<Connection, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| super::upstream::broken(&error))?;
        Ok(Connection {
            sender,
            motor: Motor::new(connection),
            silence: Silence::new(silence),
            opened: Instant::now(),
        })
    }

    /// Takes a connection back, whose request and answer are over.
    pub fn give(&self, connection: Connection) {
        if connection.sender.is_closed() || self.scope.is_draining() {
            return;
        }
        let mut idle = lock(&self.idle);
        if idle.connections.len() >= MAX_IDLE {
            return;
        }
        idle.connections.push((Instant::now(), connection));
        if !idle.is_swept {
            idle.is_swept = true;
            self.scope.spawn(sweep(self.idle.clone(), self.scope.clone()));
        }
    }
}

impl Connection {
    /// Its last answer is read, so it is ready as soon as it was moved once more, or it is closed.
    async fn is_ready(&mut self) -> bool {
        self.motor.turn();
        let (motor, sender) = (&mut self.motor, &mut self.sender);
        poll_fn(|cx| motor.drive(cx, |cx| sender.poll_ready(cx)).map(|ready| ready.is_ok())).await
    }

    fn is_closed(&mut self) -> bool {
        self.motor.turn();
        self.sender.is_closed()
    }
}

impl Host {
    async fn open(&self, patience: Duration) -> io::Result<TcpStream> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.addresses().await? {
            match timeout(patience, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => failed = error,
                Err(_) => failed = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(failed)
    }

    /// What the name stands for. Old addresses serve when the name server does not.
    async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let Some(names) = &self.names else {
            let address = self
                .host
                .trim_matches(['[', ']'])
                .parse::<IpAddr>()
                .map_err(io::Error::other)?;
            return Ok(vec![SocketAddr::new(address, self.port)]);
        };
        let known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((since, addresses)) = &known
            && since.elapsed() < ADDRESSES
        {
            return Ok(addresses.clone());
        }
        match (names.resolve(&self.host, self.port).await, known) {
            (Ok(addresses), _) => {
                let mut kept = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
                *kept = Some((Instant::now(), addresses.clone()));
                Ok(addresses)
            }
            (Err(_), Some((_, addresses))) => Ok(addresses),
            (Err(error), None) => Err(error),
        }
    }
}

/// Closes overdue connections, and those that the upstream has closed, until none is idle; all when draining, so that their tasks end.
async fn sweep(idle: Arc<Mutex<Idle>>, scope: Scope) {
    loop {
        tokio::select! {
            () = scope.draining() => return lock(&idle).connections.clear(),
            () = tokio::time::sleep(SWEEP) => {}
        }
        let mut idle = lock(&idle);
        idle.connections.retain_mut(|(since, connection)| {
            since.elapsed() < IDLE && connection.opened.elapsed() < LIFETIME && !connection.is_closed()
        });
        if idle.connections.is_empty() {
            idle.is_swept = false;
            return;
        }
    }
}

/// A panic elsewhere leaves the list whole: nothing is called while it is half changed.
fn lock(idle: &Mutex<Idle>) -> std::sync::MutexGuard<'_, Idle> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}
